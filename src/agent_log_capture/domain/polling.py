"""What a look at a log file means: it is there, it is gone, or it is looked for again."""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from http import HTTPStatus
from math import ceil

from agent_log_capture.domain.capture import Capture, LogFile, Polling, Reason, Status, readable
from agent_log_capture.domain.responses import (
    FIRST_SPACING_SECONDS,
    MAX_DELAY_SECONDS,
    Accepted,
    ApiResponse,
    Deferred,
    Failure,
    ResponseClass,
    Told,
    busy,
    classify,
    outcome,
    rejected,
)

MIN_SPACING_SECONDS = 10
# After an activation an agent sends heartbeats for about a minute, from its next poll for work on, and each counts
# for 75 s ("Modes" in the API's reference): before and after this time, the API may call a healthy agent offline.
PRESENCE_IS_KNOWN_AFTER = timedelta(seconds=75)
PRESENCE_IS_KNOWN_UNTIL = timedelta(seconds=130)
MAX_ACTIVATIONS = 3
_NOT_UPLOADED = Failure(reason=Reason.NOT_UPLOADED, message="the log file is not uploaded yet")


@dataclass(frozen=True, slots=True, kw_only=True)
class PollPolicy:
    """For how long, and how far apart, a log file is polled for.

    The deadline counts from the request that the API accepted; 0 seconds: log files are not followed. Past it, looks
    that fail are made again for `grace_seconds`: the log file may have come in time.
    """

    deadline_seconds: int
    grace_seconds: int

    def first_poll(self, capture: Capture, accepted: Accepted) -> Deferred | None:
        """Return how a requested log file waits for its first look; None when it is not followed."""
        if self.deadline_seconds == 0:
            return None
        log_file = accepted.answer.log_file or LogFile()
        polling = Polling(log_file_id=log_file.id, requested_at=accepted.requested_at)
        watched = replace(capture, polling=polling, unconfirmed_since=None)
        return Deferred(watched, min(FIRST_SPACING_SECONDS, self.deadline_seconds), _NOT_UPLOADED)

    @staticmethod
    def spacing_seconds(since_request: timedelta) -> float:
        """Return the time to the next poll: a third of the time since the request, from 10 s to 900 s."""
        return min(MAX_DELAY_SECONDS, max(MIN_SPACING_SECONDS, since_request.total_seconds() / 3))


@dataclass(frozen=True, slots=True, kw_only=True)
class Poll:
    """One look at the log file of a capture, and what comes of it."""

    policy: PollPolicy
    capture: Capture
    polling: Polling
    at: datetime
    project_id: str | None

    @property
    def deadline(self) -> datetime:
        """The moment of the last look."""
        return self.polling.requested_at + timedelta(seconds=self.policy.deadline_seconds)

    def is_status_wanted(self, answer: ApiResponse) -> bool:
        """Tell whether to ask for the agent's status: its upload has not begun, and the API knows the status now."""
        since = self._since_activation
        is_known = since is not None and PRESENCE_IS_KNOWN_AFTER <= since <= PRESENCE_IS_KNOWN_UNTIL
        return is_known and _is_not_begun(answer) and not self.polling.is_presence_known

    def answered(self, answer: ApiResponse, *, is_online: bool | None = None) -> Told | Deferred:
        """Decide what the API's answer means; `is_online` is the agent's status, None where it is not known."""
        match classify(answer.http_status):
            case ResponseClass.ACCEPTED:
                return self._found(answer, is_online)
            case ResponseClass.REFUSED if answer.http_status == HTTPStatus.NOT_FOUND:
                return self._missing(answer)
            case ResponseClass.REFUSED | ResponseClass.REDIRECTED:
                refused = rejected(self.capture, answer, now=self.at, project_id=self.project_id)
                return Told(refused, self.capture)
        return self.failed(busy(answer))

    def failed(self, failure: Failure) -> Told | Deferred:
        """Decide what a look without a usable answer means: another one, until the deadline."""
        answer = ApiResponse(http_status=failure.http_status or 0)
        is_late = self.at >= self.deadline
        until = self.deadline + timedelta(seconds=self.policy.grace_seconds) if is_late else self.deadline
        return self._again(self.polling, failure, answer, until)

    def _found(self, answer: ApiResponse, is_online: bool | None) -> Told | Deferred:  # noqa: FBT001 (a status, no switch)
        log_file = answer.log_file or LogFile()
        if log_file.state == "completed":
            return self._told(Status.CAPTURED, answer)
        seen = replace(
            self.polling,
            log_file_id=self.polling.log_file_id or log_file.id,
            is_missing=False,
            is_presence_known=self.polling.is_presence_known or is_online is not None,
        )
        again = self._again(seen, _NOT_UPLOADED, answer, self.deadline)
        if isinstance(again, Told):
            return again
        if is_online is False:
            message = f"the agent is offline; its log file is watched until {readable(self.deadline)}"
            return replace(self._told(Status.WAITING, answer, Reason.AGENT_OFFLINE, message), then=again)
        return replace(again, needs_activation=_is_not_begun(answer) and self._is_activation_due(seen))

    def _missing(self, answer: ApiResponse) -> Told | Deferred:
        """Decide what a 404 means: only one that is repeated is believed."""
        if self.polling.is_missing or self.at >= self.deadline:
            return self._told(Status.EXPIRED, answer, Reason.GONE, "the log file is gone")
        failure = Failure(reason=Reason.GONE, message="the log file was not found", http_status=answer.http_status)
        return self._again(replace(self.polling, is_missing=True), failure, answer, self.deadline)

    @property
    def _since_activation(self) -> timedelta | None:
        return None if self.polling.activated_at is None else self.at - self.polling.activated_at

    def _is_activation_due(self, polling: Polling) -> bool:
        """Tell whether to activate the agent: no poll can learn its status from an earlier activation."""
        since = self._since_activation
        is_over = since is None or since > PRESENCE_IS_KNOWN_UNTIL
        return is_over and not polling.is_presence_known and polling.activations < MAX_ACTIVATIONS

    def _again(self, polling: Polling, failure: Failure, answer: ApiResponse, until: datetime) -> Told | Deferred:
        seconds_left = ceil((until - self.at).total_seconds())
        if seconds_left <= 0:
            return self._told(Status.EXPIRED, answer, Reason.NOT_UPLOADED, self._too_late(failure, answer))
        spacing = self.policy.spacing_seconds(self.at - polling.requested_at)
        delay = min(max(spacing, failure.retry_after_seconds), seconds_left, MAX_DELAY_SECONDS)
        return Deferred(replace(self.capture, polling=polling), round(delay), failure)

    def _too_late(self, failure: Failure, answer: ApiResponse) -> str:
        last_look = f"the last look failed: {failure.message}"
        if failure is _NOT_UPLOADED:
            state = answer.log_file and answer.log_file.state
            last_look = f"at the last look its state was {state or 'not known'}"
        return f"not uploaded within {self.policy.deadline_seconds / 3600:g} h; {last_look}"

    def _told(
        self, status: Status, answer: ApiResponse, reason: Reason | None = None, message: str | None = None
    ) -> Told:
        log_file = answer.log_file or LogFile()
        told = replace(
            outcome(self.capture, status, now=self.at, project_id=self.project_id),
            log_file=replace(log_file, id=log_file.id or self.polling.log_file_id),
            reason=reason,
            message=message,
            http_status=answer.http_status or None,
        )
        return Told(told, self.capture)


def _is_not_begun(answer: ApiResponse) -> bool:
    return answer.log_file is not None and answer.log_file.state == "requested"
