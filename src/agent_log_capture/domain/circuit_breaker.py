"""When an invocation stops calling the API: what fails for every agent would fail for the next one, too."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Lock

from agent_log_capture.domain.responses import NO_RESPONSE, RESPONSE_CLASSES, Failure, NotTriedError
from agent_log_capture.domain.retry import MAX_DELAY_SECONDS

MIN_DELAY_SECONDS = 60


@dataclass(slots=True)
class CircuitBreaker:
    """Opens for the rest of an invocation when there is no token, or retryable failures do not end.

    They do not end when more of them follow each other than there are `workers`. A capture that is not tried waits
    60 to 120 s, or as long as the API asked for; `random` returns a number from 0 to 1. `responses` counts calls.
    """

    workers: int
    random: Callable[[], float]
    responses: Counter[str] = field(default_factory=Counter, init=False)
    _lock: Lock = field(default_factory=Lock, init=False)
    _failures_in_a_row: int = field(default=0, init=False)
    _error: NotTriedError | None = field(default=None, init=False)

    @property
    def failure(self) -> Failure | None:
        """Why it is open; None while it is closed."""
        return self._error.failure if self._error else None

    def check(self) -> None:
        """Raise NotTriedError when it is open."""
        if self._error:
            raise self._error.with_traceback(None)

    def called(self, http_status: int | None, failure: Failure | None = None) -> None:
        """Note a call, with its retryable failure; a status of no class counts as no response."""
        name = f"{(http_status or 0) // 100}xx"
        with self._lock:
            self.responses[name if name in RESPONSE_CLASSES else NO_RESPONSE] += 1
            self._failures_in_a_row = self._failures_in_a_row + 1 if failure else 0
            is_too_many = self._failures_in_a_row > self.workers
        if failure and is_too_many:
            self.open(failure)

    def open(self, failure: Failure) -> None:
        """Make no further calls; the first failure that opens it is the one that counts."""
        with self._lock:
            if self._error is None:
                delay = max(MIN_DELAY_SECONDS * (1 + self.random()), failure.retry_after_seconds)
                self._error = NotTriedError(failure, round(min(delay, MAX_DELAY_SECONDS)))
