"""The workers of one invocation: each capture has its task, and no task outlasts the invocation."""

import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from queue import Empty, SimpleQueue

from agent_log_capture.domain.capture import Capture, Reason
from agent_log_capture.domain.events.parser import ParsedRecord
from agent_log_capture.domain.responses import Failure, NotTriedError

# The longest that a call may take. Connecting and reading have limits of their own; this one is for what they do not
# see, such as a name that is not resolved.
CALL_SECONDS = 25
# What is kept free at the end for telling and keeping: no call starts that would need it.
SAVING_SECONDS = 60
# The longest that one call to SQS, SNS or the table of the jobs takes, with all its tries: nothing is sent with less
# time left.
SENDING_SECONDS = 25
_ROUND_SECONDS = 0.5  # between two looks for calls that take too long

OUT_OF_TIME = Failure(reason=Reason.OUT_OF_TIME, message="the invocation has no time left for another call")

type RemainingMillis = Callable[[], int]


class TooLittleTimeError(Exception):
    """The function's timeout is too short for a single call: whatever it was invoked with is not begun."""


class AbandonedError(BaseException):
    """Nobody waits for this task any longer, and nothing that it does may show.

    Not an Exception: on its way up, nothing is to take it for a failure of the request, and make that known.
    """


@dataclass(frozen=True, slots=True)
class TimeLeft:
    """How much time an invocation has."""

    remaining_millis: RemainingMillis

    @property
    def seconds(self) -> float:
        """Until Lambda ends the invocation."""
        return self.remaining_millis() / 1000

    def check(self) -> None:
        """TooLittleTimeError when an invocation that starts now could do nothing but put back what it was given."""
        if not self.is_enough_for_a_call:
            raise TooLittleTimeError(
                f"the invocation starts with {self.seconds:.1f} s left, and a call to the API needs "
                f"{CALL_SECONDS + SAVING_SECONDS} s: set the function's Timeout as template.yaml has it"
            )

    @property
    def is_enough_for_a_call(self) -> bool:
        """Whether a call that starts now ends in time, however long it takes."""
        return self.seconds >= CALL_SECONDS + SAVING_SECONDS

    def is_enough_to_send(self) -> bool:
        """Tell whether a batch that is sent now, to the queue or the topic, is sent in time."""
        return self.seconds >= SENDING_SECONDS

    def is_enough_to_count(self) -> bool:
        """Tell whether a call that starts now leaves the time to send what waits after it."""
        return self.seconds >= 2 * SENDING_SECONDS

    @property
    def is_up(self) -> bool:
        """Whether what is left is for telling and keeping."""
        return self.seconds <= SAVING_SECONDS


class Task:
    """One capture's task with a worker."""

    def __init__(self, parsed: ParsedRecord, capture: Capture, time_left: TimeLeft) -> None:
        self.parsed = parsed
        self.capture = capture
        self.began_at: datetime | None = None
        self.time_left = time_left
        self._call_began: float | None = None
        self._is_given_up = False

    def begin(self, now: datetime) -> None:
        """Note when a worker begins with it; NotTriedError when there is no time for a call."""
        self._check()
        if not self.time_left.is_enough_for_a_call:
            raise NotTriedError(OUT_OF_TIME, 0)
        self.began_at = now

    def call[T](self, make: Callable[[], T]) -> T:
        """Return what a call returns; NotTriedError when there is no time for it.

        AbandonedError, before or after it, when nobody waits for what it returns.
        """
        self._check()
        if not self.time_left.is_enough_for_a_call:
            raise NotTriedError(OUT_OF_TIME, 0)
        self._call_began = time.monotonic()
        try:
            return make()
        finally:
            self._call_began = None
            self._check()

    @property
    def is_overdue(self) -> bool:
        """Whether its call takes longer than a call may."""
        began = self._call_began
        return began is not None and time.monotonic() - began > CALL_SECONDS

    def give_up(self) -> None:
        """Wait no longer for it: its worker, whenever it comes back from its call, does nothing further."""
        self._is_given_up = True

    def _check(self) -> None:
        if self._is_given_up:
            raise AbandonedError


def run_tasks[R](
    tasks: Sequence[Task], work_on: Callable[[Task], R], *, workers: int, time_left: TimeLeft
) -> Generator[tuple[Task, Future[R] | None]]:
    """Let so many workers work on `tasks`; yield each task as it ends, None for its future when it was given up.

    A task is given up when its call takes too long, or when the time is up; all are, when the iteration is closed.
    Turns that request a log file of the same agent are taken one after the other: the cool-down then has an answer.
    """
    ended: SimpleQueue[tuple[Task, Future[R]]] = SimpleQueue()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="capture")
    unfinished = dict.fromkeys(tasks)
    next_round = time.monotonic() + _ROUND_SECONDS
    successors = _successors(tasks)
    try:
        for task in _firsts(tasks, successors):
            _submit(pool, work_on, task, ended)
        while unfinished:
            for task, future in _next(ended):
                if task in unfinished:
                    del unfinished[task]
                    _submit(pool, work_on, successors.get(task), ended)
                    yield task, future
            if time.monotonic() >= next_round:
                for task in _hopeless(unfinished, time_left):
                    task.give_up()
                    del unfinished[task]
                    _submit(pool, work_on, successors.get(task), ended)
                    yield task, None
                next_round = time.monotonic() + _ROUND_SECONDS
    finally:
        for task in unfinished:
            task.give_up()
        pool.shutdown(wait=False, cancel_futures=True)


def _successors(tasks: Iterable[Task]) -> Mapping[Task, Task]:
    """Return which task comes after which: one that requests a log file, after the last one for the same agent."""
    last: dict[tuple[str, str], Task] = {}
    successors: dict[Task, Task] = {}
    for task in tasks:
        capture = task.capture
        if capture.polling or capture.force:
            continue  # no cool-down is asked
        agent = (capture.region, capture.agent_id)
        if before := last.get(agent):
            successors[before] = task
        last[agent] = task
    return successors


def _firsts(tasks: Iterable[Task], successors: Mapping[Task, Task]) -> Sequence[Task]:
    later = set(successors.values())
    return [task for task in tasks if task not in later]


def _submit[R](
    pool: ThreadPoolExecutor,
    work_on: Callable[[Task], R],
    task: Task | None,
    ended: SimpleQueue[tuple[Task, Future[R]]],
) -> None:
    if task:
        pool.submit(work_on, task).add_done_callback(lambda future: ended.put((task, future)))


def _next[T](ended: SimpleQueue[T]) -> Iterator[T]:
    """Wait for the next that ends, but not longer than until the next round."""
    with suppress(Empty):
        yield ended.get(timeout=_ROUND_SECONDS)


def _hopeless(unfinished: Iterable[Task], time_left: TimeLeft) -> Sequence[Task]:
    is_time_up = time_left.is_up
    return [task for task in unfinished if is_time_up or task.is_overdue]
