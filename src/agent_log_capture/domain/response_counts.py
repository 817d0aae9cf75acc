"""How the API has answered the calls of one invocation, counted by class."""

from collections import Counter
from threading import Lock

RESPONSE_CLASSES = ("2xx", "3xx", "4xx", "5xx")
NO_RESPONSE = "none"


class ResponseCounts:
    """Counts answers by the first digit of their status; workers share it."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._counts: Counter[str] = Counter()

    def add(self, http_status: int | None) -> None:
        """Count an answer, or a call without one (None); a status of no class is as good as none."""
        name = f"{(http_status or 0) // 100}xx"
        with self._lock:
            self._counts[name if name in RESPONSE_CLASSES else NO_RESPONSE] += 1

    def counts(self) -> Counter[str]:
        """Return how many calls there were of each class, and without an answer, so far."""
        with self._lock:
            return self._counts.copy()
