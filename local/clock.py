"""The time of the embedded cloud."""

import threading
import time
from datetime import UTC, datetime


class Clock:
    """A clock that runs `factor` times as fast as real time, and can be advanced.

    The queues, the fake API and the function share it.
    """

    def __init__(self, factor: float = 1.0) -> None:
        self.factor = factor
        self._started_at = time.time()
        self._advanced_seconds = 0.0
        self._lock = threading.Lock()

    def time(self) -> float:
        """Return the seconds since 1970."""
        elapsed_seconds = (time.time() - self._started_at) * self.factor
        return self._started_at + elapsed_seconds + self._advanced_seconds

    def now(self) -> datetime:
        """Return the moment, in UTC."""
        return datetime.fromtimestamp(self.time(), UTC)

    def advance(self, seconds: float) -> None:
        """Advance the clock by `seconds`."""
        with self._lock:
            self._advanced_seconds += seconds
