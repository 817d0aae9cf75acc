"""When an invocation stops calling the API: what fails for everybody would fail for the next agent, too."""

from collections.abc import Callable
from threading import Lock

from agent_log_capture.domain.responses import MAX_DELAY_SECONDS, Failure, NotTriedError

MIN_DELAY_SECONDS = 60


class CircuitBreaker:
    """Stops further calls of one invocation, once there is no token or temporary failures do not end.

    They do not end when more of them follow each other than there are `workers`. Workers share it. What is not tried
    for its sake waits 60 to 120 s, or as long as the API asked for; `random` returns a number from 0 to 1.
    """

    def __init__(self, workers: int, random: Callable[[], float]) -> None:
        self._workers = workers
        self._random = random
        self._lock = Lock()
        self._failures_in_a_row = 0
        self._error: NotTriedError | None = None

    @property
    def failure(self) -> Failure | None:
        """Why no further calls are made; None while they are."""
        return self._error.failure if self._error else None

    def check(self) -> None:
        """NotTriedError once no further calls are to be made."""
        if self._error:
            raise self._error.with_traceback(None)

    def failed(self, failure: Failure) -> None:
        """Note that a call has failed for a time."""
        with self._lock:
            self._failures_in_a_row += 1
            is_too_many = self._failures_in_a_row > self._workers
        if is_too_many:
            self.pull(failure)

    def answered(self) -> None:
        """Note that the API has answered a call for good, whatever the answer."""
        with self._lock:
            self._failures_in_a_row = 0

    def pull(self, failure: Failure) -> None:
        """Let no further calls be made, because of the first failure that was reason enough."""
        with self._lock:
            if self._error is None:
                delay = max(MIN_DELAY_SECONDS * (1 + self._random()), failure.retry_after_seconds)
                self._error = NotTriedError(failure, round(min(delay, MAX_DELAY_SECONDS)))
