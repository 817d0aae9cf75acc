"""When an invocation stops calling the API: what fails for everybody would fail for the next agent, too."""

from collections.abc import Callable
from threading import Lock

from agent_log_capture.core.decision import MAX_DELAY_SECONDS, NotTriedError, Trouble

MIN_DELAY_SECONDS = 60


class Brake:
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
    def trouble(self) -> Trouble | None:
        """Why no further calls are made; None while they are."""
        return self._error.trouble if self._error else None

    def check(self) -> None:
        """NotTriedError once no further calls are to be made."""
        if self._error:
            raise self._error.with_traceback(None)

    def failed(self, trouble: Trouble) -> None:
        """Note that a call has failed for a time."""
        with self._lock:
            self._failures_in_a_row += 1
            is_too_many = self._failures_in_a_row > self._workers
        if is_too_many:
            self.pull(trouble)

    def answered(self) -> None:
        """Note that the API has answered a call for good, whatever the answer."""
        with self._lock:
            self._failures_in_a_row = 0

    def pull(self, trouble: Trouble) -> None:
        """Let no further calls be made, because of the first trouble that was reason enough."""
        with self._lock:
            if self._error is None:
                delay = max(MIN_DELAY_SECONDS * (1 + self._random()), trouble.retry_after_seconds)
                self._error = NotTriedError(trouble, round(min(delay, MAX_DELAY_SECONDS)))
