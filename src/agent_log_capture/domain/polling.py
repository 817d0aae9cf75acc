"""What a poll of a log file means: it is uploaded, it is gone, or it is polled again."""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from http import HTTPStatus
from math import ceil

from agent_log_capture.domain.capture import Capture, Polling, Step, rejected
from agent_log_capture.domain.outcome import LogFile, Reason, Status, readable
from agent_log_capture.domain.responses import ApiResponse, Failure, ResponseClass, classify
from agent_log_capture.domain.retry import MAX_DELAY_SECONDS

FIRST_POLL_SECONDS = 30  # an idle agent polls for work about every 30 s
MIN_SPACING_SECONDS = 10
# After an activation an agent sends heartbeats for about a minute, from its next poll for work on, and each counts
# for 75 s ("Modes" in the API's reference): outside this time, the API may call a healthy agent offline.
PRESENCE_IS_KNOWN_AFTER = timedelta(seconds=75)
PRESENCE_IS_KNOWN_UNTIL = timedelta(seconds=130)
MAX_ACTIVATIONS = 3
_NOT_UPLOADED = Failure(reason=Reason.NOT_UPLOADED, message="the log file is not uploaded yet")


@dataclass(frozen=True, slots=True, kw_only=True)
class PollPolicy:
    """For how long a log file is polled.

    The deadline counts from the request that the API accepted; with 0 seconds log files are not polled. After it,
    polls that fail are repeated for `grace_seconds`: the log file may have been uploaded in time.
    """

    deadline_seconds: int
    grace_seconds: int

    def requested(
        self, capture: Capture, response: ApiResponse, *, requested_at: datetime, at: datetime, project_id: str | None
    ) -> Step:
        """Return the step of a request that the API has accepted: report it, then poll."""
        outcome = capture.outcome(Status.REQUESTED, at=at, project_id=project_id)
        outcome = replace(outcome, log_file=response.log_file, http_status=response.http_status)
        again = capture.requesting(requested_at)
        if self.deadline_seconds == 0:
            return Step(capture=again, outcome=outcome)
        log_file_id = response.log_file.id if response.log_file else None
        phase = Polling(log_file_id=log_file_id, requested_at=requested_at)
        delay = min(FIRST_POLL_SECONDS, self.deadline_seconds)
        return Step(capture=again, outcome=outcome, next=replace(capture, phase=phase), delay_seconds=delay)


@dataclass(frozen=True, slots=True, kw_only=True)
class Poll:
    """One poll of a capture's log file, and the step that it results in."""

    policy: PollPolicy
    capture: Capture
    phase: Polling
    at: datetime
    project_id: str | None

    @property
    def deadline(self) -> datetime:
        """The time of the last poll."""
        return self.phase.requested_at + timedelta(seconds=self.policy.deadline_seconds)

    def needs_status(self, response: ApiResponse) -> bool:
        """Return whether to ask for the agent's status: no upload has begun, and the API knows the status."""
        since = self.at - (self.phase.activated_at or self.at)
        is_known = PRESENCE_IS_KNOWN_AFTER <= since <= PRESENCE_IS_KNOWN_UNTIL
        return is_known and _has_not_begun(response) and not self.phase.is_presence_known

    def answered(self, response: ApiResponse, *, is_online: bool | None = None) -> Step:
        """Return what a response results in; `is_online` is the agent's status, None where it is not known."""
        match classify(response.http_status):
            case ResponseClass.ACCEPTED:
                return self._found(response, is_online=is_online)
            case ResponseClass.REFUSED if response.http_status == HTTPStatus.NOT_FOUND:
                return self._missing(response)
            case ResponseClass.REFUSED | ResponseClass.REDIRECTED:
                return rejected(self.capture, response, at=self.at, project_id=self.project_id)
        return self.failed(response.failure)

    def failed(self, failure: Failure) -> Step:
        """Return what a poll without a usable response results in: another poll, until the deadline."""
        is_late = self.at >= self.deadline
        until = self.deadline + timedelta(seconds=self.policy.grace_seconds) if is_late else self.deadline
        return self._again(self.phase, failure, ApiResponse(http_status=failure.http_status or 0), until)

    def _found(self, response: ApiResponse, *, is_online: bool | None) -> Step:
        log_file = response.log_file or LogFile()
        if log_file.state == "completed":
            return self._ended(Status.CAPTURED, response)
        phase = replace(
            self.phase,
            log_file_id=self.phase.log_file_id or log_file.id,
            is_missing=False,
            is_presence_known=self.phase.is_presence_known or is_online is not None,
        )
        again = self._again(phase, _NOT_UPLOADED, response, self.deadline)
        if again.outcome:
            return again
        if is_online is False:
            message = f"the agent is offline; its log file is polled until {readable(self.deadline)}"
            waiting = self._ended(Status.WAITING, response, Reason.AGENT_OFFLINE, message)
            return replace(waiting, next=again.next, delay_seconds=again.delay_seconds)
        # No poll can learn the status from an earlier activation any more.
        is_over = phase.activated_at is None or self.at - phase.activated_at > PRESENCE_IS_KNOWN_UNTIL
        is_due = is_over and not phase.is_presence_known and phase.activations < MAX_ACTIVATIONS
        return replace(again, needs_activation=is_due and _has_not_begun(response))

    def _missing(self, response: ApiResponse) -> Step:
        """Return what a 404 results in: the log file is gone only when it is repeated."""
        if self.phase.is_missing or self.at >= self.deadline:
            return self._ended(Status.EXPIRED, response, Reason.GONE, "the log file is gone")
        failure = Failure(reason=Reason.GONE, message="the log file was not found", http_status=response.http_status)
        return self._again(replace(self.phase, is_missing=True), failure, response, self.deadline)

    def _again(self, phase: Polling, failure: Failure, response: ApiResponse, until: datetime) -> Step:
        """Poll again after a third of the time since the request, from 10 s to 900 s; expired when it is too late."""
        seconds_left = ceil((until - self.at).total_seconds())
        if seconds_left <= 0:
            last_poll = f"the last poll failed: {failure.message}"
            if failure is _NOT_UPLOADED:
                state = response.log_file and response.log_file.state
                last_poll = f"at the last poll its state was {state or 'not known'}"
            message = f"not uploaded within {self.policy.deadline_seconds / 3600:g} h; {last_poll}"
            return self._ended(Status.EXPIRED, response, Reason.NOT_UPLOADED, message)
        spacing = max(MIN_SPACING_SECONDS, (self.at - phase.requested_at).total_seconds() / 3)
        delay = min(max(spacing, failure.retry_after_seconds), seconds_left, MAX_DELAY_SECONDS)
        waiting = replace(self.capture, phase=phase)
        return Step(capture=self.capture, next=waiting, delay_seconds=round(delay), failure=failure)

    def _ended(
        self, status: Status, response: ApiResponse, reason: Reason | None = None, message: str | None = None
    ) -> Step:
        log_file = response.log_file or LogFile()
        log_file = replace(log_file, id=log_file.id or self.phase.log_file_id)
        outcome = self.capture.outcome(status, at=self.at, project_id=self.project_id)
        outcome = replace(outcome, log_file=log_file, http_status=response.http_status or None)
        return Step(capture=self.capture, outcome=replace(outcome, reason=reason, message=message))


def _has_not_begun(response: ApiResponse) -> bool:
    return response.log_file is not None and response.log_file.state == "requested"
