"""How an invocation lives and dies: anything that a dead one still does has no effect."""

import gc
import math
import sys
import threading
import types
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from unittest.mock import patch

from aws_lambda_powertools.utilities import parameters

from agent_log_capture import bootstrap
from agent_log_capture.handlers import capture
from agent_log_capture.service.processor import Processor

HUNG_AFTER_SECONDS = 60
_PACKAGE = "agent_log_capture"
_TOOL = 4


class KilledError(BaseException):
    """The process of this thread is gone."""


class FunctionError(Exception):
    """What Lambda reports who has invoked a function that was killed."""


@dataclass(eq=False)
class Invocation:
    """One invocation and, once it is over, its result."""

    number: int
    function: str
    event: object
    request_id: str
    lines_left: float = math.inf
    calls_left: float = math.inf
    is_dead: bool = False
    is_over: bool = False
    is_hung: bool = False
    why_dead: str | None = None
    answer: object = None
    error: BaseException | None = None
    report: object = None
    acted_after_end: list[str] = field(default_factory=list)

    def __post_init__(self):
        self.ended = threading.Event()
        self._lock = threading.Lock()

    def kill(self, why):
        """End it here and now; return whether it was still alive."""
        with self._lock:
            if not self.is_over and not self.is_dead:
                self.is_dead, self.why_dead = True, why
            self.ended.set()
            return self.is_dead

    def finish(self, *, answer=None, error=None):
        """Take the handler's result, unless the invocation was killed before."""
        with self._lock:
            if not self.is_dead:
                self.is_over, self.answer, self.error = True, answer, error
            self.ended.set()

    def check(self):
        """KilledError in the threads of a dead invocation."""
        if self.is_dead:
            raise KilledError

    def begin_call(self, what):
        """Note that a call begins on a wire."""
        self.check()
        if self.is_over:
            self.acted_after_end.append(what)

    def end_call(self, what):
        """Note that a call has been served; it may be the last thing that the invocation did."""
        self.check()
        self.calls_left -= 1
        if self.calls_left == 0:
            self.kill(f"after {what}")
        self.check()

    def run_line(self, code, line):
        """Note that a line begins; it may be the one at which the invocation is killed."""
        self.check()
        self.lines_left -= 1
        if self.lines_left == 0:
            self.kill(f"at {code.co_qualname}:{line}")
            self.check()


def invocation_of_thread():
    """Return the invocation on whose behalf this thread runs; None for what is not the function."""
    return getattr(threading.current_thread(), "invocation", None)


def agent_of_thread():
    """Return the agent that this thread is working on; None where it works for all."""
    return getattr(threading.current_thread(), "agent_id", None)


class Sandbox:
    """Surrounds each invocation. `plan` draws how one ends: after how many lines, calls and seconds."""

    def __init__(self, plan, on_begin):
        self.invocations = []
        self._plan = plan
        self._on_begin = on_begin

    def __call__(self, handler, event, context):
        """Invoke a handler as Lambda does; FunctionError when it is killed."""
        invocation = Invocation(len(self.invocations), context.function_name, event, context.aws_request_id)
        self.invocations.append(invocation)
        self._on_begin(invocation)
        lines, calls, seconds = self._plan(invocation, context.timeout_seconds)
        invocation.lines_left, invocation.calls_left = lines, calls
        context = replace(context, timeout_seconds=seconds)
        thread = threading.Thread(target=self._run, args=(invocation, handler, event, context), daemon=True)
        thread.invocation = invocation
        with monitored(is_on=lines < math.inf):
            thread.start()
            if not invocation.ended.wait(min(seconds, HUNG_AFTER_SECONDS)):
                invocation.is_hung = seconds > HUNG_AFTER_SECONDS
                invocation.kill("by its timeout")
        if invocation.is_dead:
            self._discard_instance()
            raise FunctionError(f"killed {invocation.why_dead}")
        if invocation.error:
            raise invocation.error
        return invocation.answer

    @staticmethod
    def _run(invocation, handler, event, context):
        try:
            answer = handler(event, context)
        except BaseException as error:  # noqa: BLE001 (it is raised again where the invocation is waited for)
            if isinstance(error, KilledError):
                invocation.kill("in another thread")
            invocation.finish(error=error)
        else:
            invocation.finish(answer=answer)

    @staticmethod
    def _discard_instance():
        for built in (bootstrap.capture_function, bootstrap.token_rotation):
            built.cache_clear()
        parameters.clear_caches()


@contextmanager
def instrumented():
    """Let threads know their invocation, reports reach it, and no thread complain that it was killed."""
    start, measure, process = threading.Thread.start, capture._measure, Processor.process  # noqa: SLF001

    def start_as_child(thread):
        if not hasattr(thread, "invocation"):
            thread.invocation = invocation_of_thread()
        start(thread)

    def process_agent(processor, task):
        threading.current_thread().agent_id = task.capture.agent_id
        return process(processor, task)

    def note_report(report, metrics):
        invocation_of_thread().report = report
        measure(report, metrics)

    def excepthook(arguments):
        if arguments.exc_type is not KilledError:
            sys.__excepthook__(arguments.exc_type, arguments.exc_value, arguments.exc_traceback)

    with (
        patch.object(threading.Thread, "start", start_as_child),
        patch.object(capture, "_measure", note_report),
        patch.object(Processor, "process", process_agent),
        patch.object(threading, "excepthook", excepthook),
    ):
        yield


@contextmanager
def monitored(*, is_on):
    """Let each line of the package be seen by the invocation that runs it."""
    if not is_on:
        yield
        return
    monitoring = sys.monitoring
    monitoring.use_tool_id(_TOOL, "faults")
    monitoring.register_callback(_TOOL, monitoring.events.LINE, _on_line)
    for code in _codes():
        monitoring.set_local_events(_TOOL, code, monitoring.events.LINE)
    try:
        yield
    finally:
        for code in _codes():
            monitoring.set_local_events(_TOOL, code, 0)
        monitoring.register_callback(_TOOL, monitoring.events.LINE, None)
        monitoring.free_tool_id(_TOOL)


def _on_line(code, line):
    if invocation := invocation_of_thread():
        invocation.run_line(code, line)


@cache
def _codes():
    functions = [item for item in gc.get_objects() if isinstance(item, types.FunctionType)]
    found = [function.__code__ for function in functions if (function.__module__ or "").startswith(_PACKAGE)]
    codes = {}
    while found:
        code = found.pop()
        codes[id(code)] = code
        found += [item for item in code.co_consts if isinstance(item, types.CodeType) and id(item) not in codes]
    return tuple(codes.values())
