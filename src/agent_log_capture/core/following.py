"""What a look at a log file means: it is there, it is gone, or it is looked for again."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from http import HTTPStatus
from math import ceil

from agent_log_capture.core.capture import Capture, Following, LogFile, Reason, Status, readable
from agent_log_capture.core.decision import (
    FIRST_SPACING_SECONDS,
    MAX_DELAY_SECONDS,
    Accepted,
    Answer,
    Deferred,
    Told,
    Trouble,
    Verdict,
    busy,
    doubled_spacing_seconds,
    judge,
    outcome,
    rejected,
)

_JITTER = 0.1
_NOT_UPLOADED = Trouble(reason=Reason.NOT_UPLOADED, message="the log file is not uploaded yet")


@dataclass(frozen=True, slots=True, kw_only=True)
class FollowPolicy:
    """For how long, and how far apart, a log file is looked for; `random` returns a number from 0 to 1.

    The deadline counts from the request that the API accepted; 0 seconds: log files are not followed. Past it, looks
    that fail are made again for `grace_seconds`: the log file may have come in time.
    """

    deadline_seconds: int
    grace_seconds: int
    random: Callable[[], float]

    def first_look(self, capture: Capture, accepted: Accepted) -> Deferred | None:
        """Return how a requested log file waits for its first look; None when it is not followed."""
        if self.deadline_seconds == 0:
            return None
        log_file = accepted.answer.log_file or LogFile()
        following = Following(log_file_id=log_file.id, requested_at=accepted.requested_at)
        watched = replace(capture, following=following, unconfirmed_since=None)
        return Deferred(watched, min(self.spacing_seconds(looks=0), self.deadline_seconds), _NOT_UPLOADED)

    def spacing_seconds(self, looks: int) -> int:
        """Return the time to the next look after so many: 30 s, doubled each time, 900 s at most, with jitter."""
        jittered = doubled_spacing_seconds(looks) * (1 + _JITTER * (2 * self.random() - 1))
        return round(min(MAX_DELAY_SECONDS, max(FIRST_SPACING_SECONDS, jittered)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """One look at the log file of a capture, and what comes of it."""

    policy: FollowPolicy
    capture: Capture
    following: Following
    at: datetime
    project_id: str | None

    @property
    def deadline(self) -> datetime:
        """The moment of the last look."""
        return self.following.requested_at + timedelta(seconds=self.policy.deadline_seconds)

    def is_agent_in_question(self, answer: Answer) -> bool:
        """Tell whether it matters that the agent may be offline: at the first look, of a file that nobody took up."""
        return bool(answer.log_file and answer.log_file.state == "requested" and not self.following.is_seen)

    def answered(self, answer: Answer, *, is_offline: bool) -> Told | Deferred:
        """Decide what the API's answer means; `is_offline` tells that the agent is known not to be there."""
        match judge(answer.http_status):
            case Verdict.ACCEPTED:
                return self._found(answer, is_offline=is_offline)
            case Verdict.REFUSED if answer.http_status == HTTPStatus.NOT_FOUND:
                return self._told(Status.EXPIRED, answer, Reason.GONE, "the log file is gone")
            case Verdict.REFUSED | Verdict.REDIRECTED:
                refused = rejected(self.capture, answer, now=self.at, project_id=self.project_id)
                return Told(refused, self.capture)
        return self.failed(busy(answer))

    def failed(self, trouble: Trouble) -> Told | Deferred:
        """Decide what a look without a usable answer means: another one, until the deadline."""
        answer = Answer(http_status=trouble.http_status or 0)
        is_late = self.at >= self.deadline
        until = self.deadline + timedelta(seconds=self.policy.grace_seconds) if is_late else self.deadline
        return self._again(self.following, trouble, answer, until)

    def _found(self, answer: Answer, *, is_offline: bool) -> Told | Deferred:
        log_file = answer.log_file or LogFile()
        if log_file.state == "completed":
            return self._told(Status.CAPTURED, answer)
        seen = replace(self.following, is_seen=True, log_file_id=self.following.log_file_id or log_file.id)
        again = self._again(seen, _NOT_UPLOADED, answer, self.deadline)
        if is_offline and isinstance(again, Deferred):
            message = f"the agent is offline; its log file is watched until {readable(self.deadline)}"
            return replace(self._told(Status.WAITING, answer, Reason.AGENT_OFFLINE, message), then=again)
        return again

    def _again(self, following: Following, trouble: Trouble, answer: Answer, until: datetime) -> Told | Deferred:
        seconds_left = ceil((until - self.at).total_seconds())
        if seconds_left <= 0:
            return self._told(Status.EXPIRED, answer, Reason.NOT_UPLOADED, self._too_late(trouble, answer))
        spacing = max(self.policy.spacing_seconds(following.looks + 1), trouble.retry_after_seconds)
        watched = replace(self.capture, following=replace(following, looks=following.looks + 1))
        return Deferred(watched, round(min(spacing, seconds_left, MAX_DELAY_SECONDS)), trouble)

    def _too_late(self, trouble: Trouble, answer: Answer) -> str:
        last_look = f"the last look failed: {trouble.message}"
        if trouble is _NOT_UPLOADED:
            state = answer.log_file and answer.log_file.state
            last_look = f"at the last look its state was {state or 'not known'}"
        return f"not uploaded within {self.policy.deadline_seconds / 3600:g} h; {last_look}"

    def _told(self, status: Status, answer: Answer, reason: Reason | None = None, message: str | None = None) -> Told:
        log_file = answer.log_file or LogFile()
        told = replace(
            outcome(self.capture, status, now=self.at, project_id=self.project_id),
            log_file=replace(log_file, id=log_file.id or self.following.log_file_id),
            reason=reason,
            message=message,
            http_status=answer.http_status or None,
        )
        return Told(told, self.capture)
