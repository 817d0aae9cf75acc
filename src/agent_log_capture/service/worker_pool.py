"""The threads of one invocation, and the deadlines that they keep."""

import time
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from itertools import chain
from queue import Empty, SimpleQueue

from agent_log_capture.domain.capture import Capture
from agent_log_capture.domain.outcome import Reason
from agent_log_capture.domain.responses import Failure, NotTriedError

# The longest that a call may take. Connecting and reading have limits of their own; this one is for what they do not
# bound, such as name resolution, or a server that sends a byte now and then.
CALL_SECONDS = 25
# What is kept free at the end for publishing and requeuing: no call starts that would need it.
SAVING_SECONDS = 60
# The longest that one call to SQS, SNS or DynamoDB takes, with all its tries: nothing is sent with less time left.
SENDING_SECONDS = 25
_CHECK_SECONDS = 0.5  # how often calls that take too long are looked for

OUT_OF_TIME = Failure(reason=Reason.OUT_OF_TIME, message="the invocation has no time left for another call")

type RemainingMillis = Callable[[], int]


class TooLittleTimeError(Exception):
    """The function's timeout is too short for a single call: nothing of the event is processed."""


class AbandonedError(BaseException):
    """The task was abandoned, so nothing that it does may have an effect.

    Not an Exception: nothing on its way up may take it for a failure of the request.
    """


@dataclass(frozen=True, slots=True)
class TimeLeft:
    """How much time an invocation has until Lambda ends it."""

    remaining_millis: RemainingMillis

    def is_enough(self, seconds: float) -> bool:
        """Return whether so much is left."""
        return self.remaining_millis() >= 1000 * seconds

    def is_enough_for_a_call(self) -> bool:
        """Return whether a call that starts now ends in time, however long it takes."""
        return self.is_enough(CALL_SECONDS + SAVING_SECONDS)

    def check(self) -> None:
        """Raise TooLittleTimeError when an invocation that starts now could only requeue what it was given."""
        if not self.is_enough_for_a_call():
            raise TooLittleTimeError(
                f"the invocation starts with {self.remaining_millis() / 1000:.1f} s left, and a call to the API "
                f"needs {CALL_SECONDS + SAVING_SECONDS} s: set the function's Timeout as template.yaml has it"
            )


@dataclass(slots=True)
class Task:
    """One capture on its way through a worker, which began with it at `began_at`."""

    capture: Capture
    time_left: TimeLeft
    began_at: datetime | None = None
    _call_began: float | None = None
    _is_abandoned: bool = False

    def call[T](self, make: Callable[[], T]) -> T:
        """Return what a call returns; NotTriedError when there is no time for it.

        AbandonedError, before or after it, when the task was abandoned.
        """
        if self._is_abandoned:
            raise AbandonedError
        if not self.time_left.is_enough_for_a_call():
            raise NotTriedError(OUT_OF_TIME, 0)
        self._call_began = time.monotonic()
        try:
            return make()
        finally:
            self._call_began = None
            if self._is_abandoned:
                raise AbandonedError

    @property
    def is_overdue(self) -> bool:
        """Whether its call takes longer than a call may."""
        began = self._call_began  # a worker may clear it at any time
        return began is not None and time.monotonic() - began > CALL_SECONDS

    def abandon(self) -> None:
        """Wait no longer for it: once its worker returns from its call, it does nothing further."""
        self._is_abandoned = True


def run_tasks[R](
    batches: Iterable[Sequence[Capture]], process: Callable[[Task], R], *, workers: int, time_left: TimeLeft
) -> Generator[tuple[Task, Future[R] | None]]:
    """Let `workers` threads process captures; yield each task when it ends, with None when it was abandoned.

    The workers begin with the first batch while the caller prepares the next. A task is abandoned when its call takes
    too long, or when the time is up; all are, when the iteration is closed.
    """
    ended: SimpleQueue[Future[R]] = SimpleQueue()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="capture")
    unfinished: dict[Future[R], Task] = {}
    try:
        for capture in chain.from_iterable(batches):
            task = Task(capture, time_left)
            future = pool.submit(process, task)
            unfinished[future] = task
            future.add_done_callback(ended.put)
        next_check = time.monotonic() + _CHECK_SECONDS
        while unfinished:
            with suppress(Empty):
                future = ended.get(timeout=_CHECK_SECONDS)
                if future in unfinished:
                    yield unfinished.pop(future), future
            if time.monotonic() >= next_check:
                is_time_up = time_left.remaining_millis() <= 1000 * SAVING_SECONDS
                for future, task in list(unfinished.items()):
                    if is_time_up or task.is_overdue:
                        task.abandon()
                        del unfinished[future]
                        yield task, None
                next_check = time.monotonic() + _CHECK_SECONDS
    finally:
        for task in unfinished.values():
            task.abandon()
        pool.shutdown(wait=False, cancel_futures=True)
