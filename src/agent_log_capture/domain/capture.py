"""A capture (one agent's log file on its way), and a step (the result of one visit to it)."""

import re
from dataclasses import dataclass, field, replace
from datetime import datetime

from agent_log_capture.domain.outcome import Outcome, Reason, Status, Trigger
from agent_log_capture.domain.responses import ApiResponse, Failure, ResponseClass, classify, phrase

# The six regions that the Cloud Backup API runs in.
REGIONS = frozenset({"DFW", "ORD", "IAD", "LON", "SYD", "HKG"})
JOB_NAME_CHARACTERS = 128
_AGENT_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")


@dataclass(frozen=True, slots=True)
class Requesting:
    """The first phase: the log file is to be requested.

    `unconfirmed_since` is the time of an earlier request that may have been served although no response arrived.
    """

    unconfirmed_since: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Polling:
    """The second phase: the log file was requested, and is polled until it is uploaded.

    `log_file_id` is None when the API did not name it. `is_missing`: the last response was 404. After `activated_at`,
    the last of `activations`, the API knows for a while whether the agent is online; `is_presence_known`: it said so.
    """

    log_file_id: str | None
    requested_at: datetime
    is_missing: bool = False
    activated_at: datetime | None = None
    activations: int = 0
    is_presence_known: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """The last phase: the final status is published, and something remains to be done for it.

    What remains today is to record it in its job. A call that a final status needs (such as deleting the log file at
    the API) belongs into this phase too: the status is in the table by then, and a crash cannot change it any more.
    """

    status: Status
    reason: Reason | None = None
    log_file_id: str | None = None


type Phase = Requesting | Polling | Recorded


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """The job that a capture belongs to, and how much its trigger asked for in it.

    `name` is the caller's, None where the trigger itself is the job. `asked` counts captures and, `rejected` among
    them, values that could not be read. `is_open` says that the trigger is in the table already.
    """

    name: str | None
    asked: int
    rejected: int = 0
    is_open: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Capture:
    """One agent that one trigger named, and how far its capture has got.

    `retry_from` starts the retry window: the time of its first attempt, or of the first one after a replay. `replays`
    counts its returns from the dead-letter queue. `job` is None for a capture that no job counts. `record_id` is the
    SQS record that it arrived in, None for any other event.
    """

    agent_id: str
    region: str
    trigger: Trigger
    asked_at: datetime
    retry_from: datetime
    attempts: int = 0
    replays: int = 0
    force: bool = False
    job: Job | None = None
    phase: Phase = Requesting()
    record_id: str | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        if not is_agent_id(self.agent_id):
            raise ValueError("agent_id is not an agent ID")
        if self.region not in REGIONS:
            raise ValueError("region is not one of the six")

    @property
    def key(self) -> tuple[str, str, str, str, int]:
        """What makes it the same capture when it is delivered twice."""
        return self.trigger.type, self.trigger.id, self.region, self.agent_id, self.replays

    @property
    def job_id(self) -> str:
        """The job's name, or its trigger's ID."""
        return (self.job and self.job.name) or self.trigger.id

    @property
    def is_recorded(self) -> bool:
        """Whether its final status is published, and something remains to be done for it."""
        return isinstance(self.phase, Recorded)

    @property
    def unconfirmed_since(self) -> datetime | None:
        """Since when a request for it may have been served without a response."""
        return self.phase.unconfirmed_since if isinstance(self.phase, Requesting) else None

    def attempted(self) -> "Capture":
        """Return it with one more attempt."""
        return replace(self, attempts=self.attempts + 1)

    def requesting(self, unconfirmed_since: datetime | None) -> "Capture":
        """Return it as one whose request may have been served since then; the earlier of two times counts."""
        times = [moment for moment in (self.unconfirmed_since, unconfirmed_since) if moment]
        return replace(self, phase=Requesting(min(times, default=None)))

    def outcome(self, status: Status, *, at: datetime, project_id: str | None) -> Outcome:
        """Return an outcome of it, without a log file and a reason."""
        return Outcome(
            status=status,
            trigger=self.trigger,
            asked_at=self.asked_at,
            at=at,
            agent_id=self.agent_id,
            project_id=project_id,
            region=self.region,
            attempts=self.attempts,
            replays=self.replays,
            job=self.job.name if self.job else None,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What is to be saved after one visit to a capture.

    With `is_dead_letter`, the capture is sent to the dead-letter queue first. `outcome` is published; when that
    fails, `capture` is requeued. Without `next`, or with one in phase `Recorded`, the outcome is final, and is
    recorded in the job before `next` is requeued with a delay. `failure` says why a capture without an outcome is
    requeued; `is_tried` is False when it is requeued as it is. With `needs_activation` its region's agents are
    activated first.
    """

    capture: Capture
    outcome: Outcome | None = None
    next: Capture | None = None
    delay_seconds: int = 0
    failure: Failure | None = None
    is_tried: bool = True
    is_dead_letter: bool = False
    needs_activation: bool = False

    @property
    def recorded(self) -> Capture | None:
        """The capture as its job is to record it; None while it has no final status."""
        if self.next:
            return self.next if self.next.is_recorded and self.outcome else None
        if self.capture.is_recorded or self.outcome is None:
            return self.capture
        outcome = self.outcome
        log_file_id = outcome.log_file.id if outcome.log_file else None
        phase = Recorded(status=outcome.status, reason=outcome.reason, log_file_id=log_file_id)
        return replace(self.capture, phase=phase, retry_from=outcome.at)


def not_tried(capture: Capture, failure: Failure, delay_seconds: int) -> Step:
    """Return the step of a capture that is requeued as it is."""
    return Step(capture=capture, next=capture, delay_seconds=delay_seconds, failure=failure, is_tried=False)


def rejected(capture: Capture, response: ApiResponse, *, at: datetime, project_id: str | None) -> Step:
    """Return the step of a request that the API refuses, with the API's own message."""
    reason, message = Reason.REFUSED, response.message or phrase(response.http_status)
    if classify(response.http_status) is ResponseClass.REDIRECTED:
        reason = Reason.REDIRECTED
        message = "a redirect is not followed: the token must not be sent to another host"
    outcome = capture.outcome(Status.REJECTED, at=at, project_id=project_id)
    outcome = replace(outcome, reason=reason, message=message, http_status=response.http_status)
    return Step(capture=capture, outcome=outcome)


def is_agent_id(value: str) -> bool:
    """Return whether `value` is 1 to 128 characters of `A-Z a-z 0-9 _ -`."""
    return _AGENT_ID.fullmatch(value) is not None
