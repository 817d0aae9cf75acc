"""What an answer of the Cloud Backup API means for a capture."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from enum import StrEnum
from http import HTTPStatus
from typing import Any, Self

from agent_log_capture.domain.capture import Capture, LogFile, Outcome, Reason, Status, Trigger, readable, timestamp

MAX_DELAY_SECONDS = 900  # the longest that SQS delays a message
MIN_DELAY_SECONDS = 5
FIRST_SPACING_SECONDS = 30  # an idle agent polls for work about every 30 s
CLOCK_SKEW = timedelta(seconds=10)
_DOUBLINGS = 5  # 30 s doubled five times is past 900 s

_TRY_AGAIN_LATER = frozenset(
    {
        HTTPStatus.REQUEST_TIMEOUT,
        HTTPStatus.CONTENT_TOO_LARGE,  # this vendor says "overLimit" with it
        HTTPStatus.TOO_EARLY,
        HTTPStatus.TOO_MANY_REQUESTS,
    }
)


class ResponseClass(StrEnum):
    """What a status code means."""

    ACCEPTED = "accepted"
    REDIRECTED = "redirected"
    REFUSED = "refused"
    TOKEN_REFUSED = "token_refused"  # noqa: S105 (the name of a verdict)
    CONFLICT = "conflict"
    RETRYABLE = "retryable"


def classify(http_status: int) -> ResponseClass:
    """Return what `http_status` means; a code that HTTP does not know is temporary."""
    match http_status:
        case HTTPStatus.UNAUTHORIZED:
            return ResponseClass.TOKEN_REFUSED
        case HTTPStatus.CONFLICT:
            return ResponseClass.CONFLICT
        case HTTPStatus.NOT_IMPLEMENTED:
            return ResponseClass.REFUSED
        case code if code in _TRY_AGAIN_LATER:
            return ResponseClass.RETRYABLE
    by_class = {2: ResponseClass.ACCEPTED, 3: ResponseClass.REDIRECTED, 4: ResponseClass.REFUSED}
    return by_class.get(http_status // 100, ResponseClass.RETRYABLE)


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiResponse:
    """What the Cloud Backup API answered.

    `message` is its own error message, `log_file` the log file that it speaks of; both None where there is none.
    """

    http_status: int
    message: str | None = None
    log_file: LogFile | None = None
    retry_after_seconds: float = 0
    is_online: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why a capture has to wait; `unconfirmed_since` is set when the request may have been served."""

    reason: Reason
    message: str
    http_status: int | None = None
    retry_after_seconds: float = 0
    unconfirmed_since: datetime | None = None


class RetryableError(Exception):
    """What was tried may work the next time: nothing is to be said but that the capture waits."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


class NotTriedError(Exception):
    """A capture is not tried in this invocation, for a reason that is not its own: it goes back as it came."""

    def __init__(self, failure: Failure, delay_seconds: int) -> None:
        super().__init__(failure.message)
        self.failure = failure
        self.delay_seconds = delay_seconds


@dataclass(frozen=True, slots=True)
class NotTried:
    """A capture that goes back into the queue as it came."""

    capture: Capture
    delay_seconds: int
    failure: Failure


@dataclass(frozen=True, slots=True)
class Deferred:
    """A capture that goes back into the queue; with `needs_activation`, its agent is activated first."""

    capture: Capture
    delay_seconds: int
    failure: Failure
    needs_activation: bool = False


@dataclass(frozen=True, slots=True)
class GivenUp:
    """A capture whose retry window has passed: told as `failed`, and kept in the dead-letter queue."""

    capture: Capture
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Told:
    """An outcome to be told.

    `again` is the capture that comes to it once more, when it cannot be told now; `then` is how its log file is
    watched further, None when it is an ending.
    """

    outcome: Outcome
    again: Capture
    then: Deferred | None = None


def doubled_spacing_seconds(times: int) -> int:
    """Return 30 s, doubled so many times, and 900 s at most."""
    return min(MAX_DELAY_SECONDS, FIRST_SPACING_SECONDS << min(times, _DOUBLINGS))


type Result = Told | Deferred | GivenUp | NotTried


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How long, and how far apart, a capture is tried; `random` returns a number from 0 to 1."""

    window_seconds: int
    random: Callable[[], float]

    def defer(self, tried: Capture, failure: Failure, *, now: datetime, project_id: str | None) -> Deferred | GivenUp:
        """Decide what becomes of a capture that was tried, which its `attempts` count, and has to wait."""
        waiting = replace(tried, unconfirmed_since=tried.unconfirmed_since or failure.unconfirmed_since)
        if now - tried.retry_from >= timedelta(seconds=self.window_seconds):
            failed = outcome(tried, Status.FAILED, now=now, project_id=project_id)
            told = replace(failed, reason=failure.reason, message=failure.message, http_status=failure.http_status)
            return GivenUp(waiting, told)
        return Deferred(waiting, self._delay_seconds(tried.attempts, failure.retry_after_seconds), failure)

    def _delay_seconds(self, attempts: int, retry_after_seconds: float) -> int:
        """Return a delay with full jitter, no shorter than the API asked for, and at most 900 s."""
        longest = doubled_spacing_seconds(max(attempts - 1, 0))
        delay = max(MIN_DELAY_SECONDS, self.random() * longest, retry_after_seconds)
        return round(min(MAX_DELAY_SECONDS, delay))


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """A request that the API has accepted: on whose behalf, when, and with which answer."""

    trigger: Trigger
    replays: int
    requested_at: datetime
    answer: ApiResponse

    def is_by(self, capture: Capture) -> bool:
        """Tell whether it was made for this capture, in this delivery or an earlier one."""
        return (self.trigger, self.replays) == (capture.trigger, capture.replays)

    def to_json(self) -> dict[str, Any]:
        """Return the form in which it is remembered."""
        return {
            "trigger": self.trigger.to_json(),
            "replays": self.replays,
            "requested_at": timestamp(self.requested_at),
            "http_status": self.answer.http_status,
            "logfile": self.answer.log_file and self.answer.log_file.to_json(),
        }

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Self:
        """Read what `to_json` wrote."""
        log_file = fields["logfile"] and LogFile.from_json(fields["logfile"])
        return cls(
            trigger=Trigger.from_json(fields["trigger"]),
            replays=int(fields["replays"]),
            requested_at=datetime.fromisoformat(fields["requested_at"]),
            answer=ApiResponse(http_status=int(fields["http_status"]), log_file=log_file),
        )


def requested(capture: Capture, accepted: Accepted, *, now: datetime, project_id: str | None) -> Outcome:
    """Return the outcome of a request that the API has accepted for this capture."""
    told = outcome(capture, Status.REQUESTED, now=now, project_id=project_id)
    return replace(told, log_file=accepted.answer.log_file, http_status=accepted.answer.http_status)


def duplicate(capture: Capture, accepted: Accepted, *, now: datetime, project_id: str | None) -> Outcome:
    """Return the outcome of a capture whose agent was asked a short while ago for somebody else."""
    first = accepted.trigger
    message = f"the agent was asked at {readable(accepted.requested_at)} already, for {first.name or first.id}"
    told = outcome(capture, Status.DUPLICATE, now=now, project_id=project_id)
    return replace(told, log_file=accepted.answer.log_file, reason=Reason.COOL_DOWN, message=message)


def rejected(capture: Capture, answer: ApiResponse, *, now: datetime, project_id: str | None) -> Outcome:
    """Return the outcome of a request that the API refuses, with the API's own message."""
    reason, message = Reason.REFUSED, answer.message or _phrase(answer.http_status)
    if classify(answer.http_status) is ResponseClass.REDIRECTED:
        reason = Reason.REDIRECTED
        message = "a redirect is not followed: the token must not reach another host"
    told = outcome(capture, Status.REJECTED, now=now, project_id=project_id)
    return replace(told, reason=reason, message=message, http_status=answer.http_status)


def is_pending(log_file: LogFile) -> bool:
    """Tell whether an agent has yet to upload a log file."""
    return log_file.state in {"requested", "started"}


def is_dated_since(log_file: LogFile, moment: datetime) -> bool:
    """Tell whether a log file was made at `moment` or later, as far as the API's clock and ours agree."""
    try:
        made_at = datetime.fromisoformat(log_file.date or "")
    except ValueError:
        return False
    return made_at.replace(tzinfo=made_at.tzinfo or UTC) >= moment - CLOCK_SKEW


def busy(answer: ApiResponse) -> Failure:
    """Return the failure that a temporary answer, or a conflict with no log file behind it, stands for."""
    is_conflict = classify(answer.http_status) is ResponseClass.CONFLICT
    return Failure(
        reason=Reason.CONFLICT if is_conflict else Reason.TEMPORARY,
        message=answer.message or _phrase(answer.http_status),
        http_status=answer.http_status,
        retry_after_seconds=answer.retry_after_seconds,
    )


def retry_after_seconds(header: str | None, now: datetime) -> float:
    """Read a `Retry-After` header, in seconds or as a date; 0 when it is missing, past or neither."""
    text = (header or "").strip()
    if text.isascii() and text.isdigit():
        return float(text)
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return 0.0
    # A date in "-0000" comes without a zone, and means UTC.
    return max(0.0, (moment.replace(tzinfo=moment.tzinfo or UTC) - now).total_seconds())


def outcome(capture: Capture, status: Status, *, now: datetime, project_id: str | None) -> Outcome:
    """Return what became of a capture, to be completed with why and with which log file."""
    return Outcome(
        status=status,
        trigger=capture.trigger,
        asked_at=capture.asked_at,
        at=now,
        agent_id=capture.agent_id,
        project_id=project_id,
        region=capture.region,
        attempts=capture.attempts,
        replays=capture.replays,
        job=capture.job.name if capture.job else None,
    )


def _phrase(http_status: int) -> str:
    try:
        return HTTPStatus(http_status).phrase
    except ValueError:
        return f"HTTP status {http_status}"
