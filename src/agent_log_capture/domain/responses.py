"""What a response of the Cloud Backup API, or a call without one, means."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from enum import StrEnum
from http import HTTPStatus

from agent_log_capture.domain.outcome import LogFile, Reason

# The API's clock and this function's differ by less.
CLOCK_SKEW = timedelta(seconds=10)
RESPONSE_CLASSES = ("2xx", "3xx", "4xx", "5xx")
NO_RESPONSE = "none"


class ResponseClass(StrEnum):
    """What a status code means."""

    ACCEPTED = "accepted"
    REDIRECTED = "redirected"
    REFUSED = "refused"
    TOKEN_REFUSED = "token_refused"  # noqa: S105 (the name of a class)
    CONFLICT = "conflict"
    RETRYABLE = "retryable"


_BY_STATUS: Mapping[int, ResponseClass] = {
    HTTPStatus.UNAUTHORIZED: ResponseClass.TOKEN_REFUSED,
    HTTPStatus.CONFLICT: ResponseClass.CONFLICT,
    HTTPStatus.NOT_IMPLEMENTED: ResponseClass.REFUSED,
    HTTPStatus.REQUEST_TIMEOUT: ResponseClass.RETRYABLE,
    HTTPStatus.CONTENT_TOO_LARGE: ResponseClass.RETRYABLE,  # this vendor's "overLimit"
    HTTPStatus.TOO_EARLY: ResponseClass.RETRYABLE,
    HTTPStatus.TOO_MANY_REQUESTS: ResponseClass.RETRYABLE,
}
_BY_HUNDREDS = {2: ResponseClass.ACCEPTED, 3: ResponseClass.REDIRECTED, 4: ResponseClass.REFUSED}


def classify(http_status: int) -> ResponseClass:
    """Return what `http_status` means; a code that HTTP does not define is retryable."""
    by_hundreds = _BY_HUNDREDS.get(http_status // 100, ResponseClass.RETRYABLE)
    return _BY_STATUS.get(http_status, by_hundreds)


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


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiResponse:
    """A response of the Cloud Backup API; what it lacks of `message`, `log_file` and `is_online` is None."""

    http_status: int
    message: str | None = None
    log_file: LogFile | None = None
    retry_after_seconds: float = 0
    is_online: bool | None = None

    @property
    def failure(self) -> Failure:
        """The failure that a retryable response, or a conflict without a pending log file, is."""
        is_conflict = classify(self.http_status) is ResponseClass.CONFLICT
        return Failure(
            reason=Reason.CONFLICT if is_conflict else Reason.TEMPORARY,
            message=self.message or phrase(self.http_status),
            http_status=self.http_status,
            retry_after_seconds=self.retry_after_seconds,
        )


def is_dated_since(log_file: LogFile, moment: datetime) -> bool:
    """Return whether a log file was made at `moment` or later, as far as the two clocks agree."""
    try:
        made_at = datetime.fromisoformat(log_file.date or "")
    except ValueError:
        return False
    return made_at.replace(tzinfo=made_at.tzinfo or UTC) >= moment - CLOCK_SKEW


def retry_after_seconds(header: str | None, now: datetime) -> float:
    """Read a `Retry-After` header, in seconds or as a date; 0 when it is missing, past or invalid."""
    text = (header or "").strip()
    if text.isascii() and text.isdigit():
        return float(text)
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return 0.0
    # A date in "-0000" has no zone, and means UTC.
    return max(0.0, (moment.replace(tzinfo=moment.tzinfo or UTC) - now).total_seconds())


def phrase(http_status: int) -> str:
    """Return HTTP's own phrase for a status code."""
    try:
        return HTTPStatus(http_status).phrase
    except ValueError:
        return f"HTTP status {http_status}"
