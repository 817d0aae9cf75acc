"""The workers of one invocation: each capture has its turn, and no turn outlasts the invocation."""

import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from queue import Empty, SimpleQueue

from agent_log_capture.core.capture import Capture, Reason
from agent_log_capture.core.decision import NotTriedError, Trouble
from agent_log_capture.core.intake import Arrival

# The longest that a call may take. Connecting and reading have limits of their own; this one is for what they do not
# see, such as a name that is not resolved.
CALL_SECONDS = 25
# What is kept free at the end for telling and keeping: no call starts that would need it.
SAVING_SECONDS = 60
# The longest that one call to SQS, SNS or the table of the jobs takes, with all its tries: nothing is sent with less
# time left.
SENDING_SECONDS = 25
_ROUND_SECONDS = 0.5  # between two looks for calls that take too long

OUT_OF_TIME = Trouble(reason=Reason.OUT_OF_TIME, message="the invocation has no time left for another call")

type RemainingMillis = Callable[[], int]


class TooLittleTimeError(Exception):
    """The function's timeout is too short for a single call: whatever it was invoked with is not begun."""


class TurnOverError(BaseException):
    """Nobody waits for this turn any longer, and nothing that it does may show.

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


class Turn:
    """One capture's turn with a worker."""

    def __init__(self, arrival: Arrival, capture: Capture, time_left: TimeLeft) -> None:
        self.arrival = arrival
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

        TurnOverError, before or after it, when nobody waits for what it returns.
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
            raise TurnOverError


def take_turns[R](
    turns: Sequence[Turn], work_on: Callable[[Turn], R], *, workers: int, time_left: TimeLeft
) -> Generator[tuple[Turn, Future[R] | None]]:
    """Let so many workers work on `turns`; yield each turn as it ends, None for its future when it was given up.

    A turn is given up when its call takes too long, or when the time is up; all are, when the iteration is closed.
    Turns that request a log file of the same agent are taken one after the other: the cool-down then has an answer.
    """
    ended: SimpleQueue[tuple[Turn, Future[R]]] = SimpleQueue()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="capture")
    unfinished = dict.fromkeys(turns)
    next_round = time.monotonic() + _ROUND_SECONDS
    successors = _successors(turns)
    try:
        for turn in _firsts(turns, successors):
            _submit(pool, work_on, turn, ended)
        while unfinished:
            for turn, future in _next(ended):
                if turn in unfinished:
                    del unfinished[turn]
                    _submit(pool, work_on, successors.get(turn), ended)
                    yield turn, future
            if time.monotonic() >= next_round:
                for turn in _hopeless(unfinished, time_left):
                    turn.give_up()
                    del unfinished[turn]
                    _submit(pool, work_on, successors.get(turn), ended)
                    yield turn, None
                next_round = time.monotonic() + _ROUND_SECONDS
    finally:
        for turn in unfinished:
            turn.give_up()
        pool.shutdown(wait=False, cancel_futures=True)


def _successors(turns: Iterable[Turn]) -> Mapping[Turn, Turn]:
    """Return which turn comes after which: one that requests a log file, after the last one for the same agent."""
    last: dict[tuple[str, str], Turn] = {}
    successors: dict[Turn, Turn] = {}
    for turn in turns:
        capture = turn.capture
        if capture.following or capture.force:
            continue  # no cool-down is asked
        agent = (capture.region, capture.agent_id)
        if before := last.get(agent):
            successors[before] = turn
        last[agent] = turn
    return successors


def _firsts(turns: Iterable[Turn], successors: Mapping[Turn, Turn]) -> Sequence[Turn]:
    later = set(successors.values())
    return [turn for turn in turns if turn not in later]


def _submit[R](
    pool: ThreadPoolExecutor,
    work_on: Callable[[Turn], R],
    turn: Turn | None,
    ended: SimpleQueue[tuple[Turn, Future[R]]],
) -> None:
    if turn:
        pool.submit(work_on, turn).add_done_callback(lambda future: ended.put((turn, future)))


def _next[T](ended: SimpleQueue[T]) -> Iterator[T]:
    """Wait for the next that ends, but not longer than until the next round."""
    with suppress(Empty):
        yield ended.get(timeout=_ROUND_SECONDS)


def _hopeless(unfinished: Iterable[Turn], time_left: TimeLeft) -> Sequence[Turn]:
    is_time_up = time_left.is_up
    return [turn for turn in unfinished if is_time_up or turn.is_overdue]
