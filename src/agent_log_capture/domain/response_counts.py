"""How the API has responded to the calls of one invocation."""

from collections import Counter
from threading import Lock

RESPONSE_CLASSES = ("2xx", "3xx", "4xx", "5xx")
NO_RESPONSE = "none"


class ResponseCounts:
    """Counts responses by the first digit of their status; workers share it."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._counts: Counter[str] = Counter()

    def add(self, http_status: int | None) -> None:
        """Count a response, or a call without one (None); a status of no class counts as no response."""
        name = f"{(http_status or 0) // 100}xx"
        with self._lock:
            self._counts[name if name in RESPONSE_CLASSES else NO_RESPONSE] += 1

    def counts(self) -> Counter[str]:
        """Return the number of calls by class, `none` included, so far."""
        with self._lock:
            return self._counts.copy()
