"""Why a capture is requeued."""

from dataclasses import dataclass
from datetime import datetime

from agent_log_capture.domain.outcome import Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A failure that may not last; `unconfirmed_since` is set when the request may have been served."""

    reason: Reason
    message: str
    http_status: int | None = None
    retry_after_seconds: float = 0
    unconfirmed_since: datetime | None = None


class RetryableError(Exception):
    """A call failed, and may succeed later."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


class NotTriedError(Exception):
    """A capture is not tried in this invocation, for a reason that is not its own: it is requeued as it is."""

    def __init__(self, failure: Failure, delay_seconds: int) -> None:
        super().__init__(failure.message)
        self.failure = failure
        self.delay_seconds = delay_seconds
