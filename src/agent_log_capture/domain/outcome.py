"""What became of a capture, as subscribers read it."""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any
from urllib.parse import parse_qs

# With these limits, a queue message of ten captures always stays below the 1 MiB that SQS carries.
TRIGGER_ID_CHARACTERS = 512
TRIGGER_NAME_CHARACTERS = 256
_OUTCOME_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "https://agent-log-capture/outcome")
# The `rel` of the signed link: anyone who has it can download the log file until the Unix time in its query.
SIGNED_LINK = "logfile_temp_url"
_UNIX_TIME_DIGITS = 11  # up to the year 5138; a longer number is not a time


class TriggerType(StrEnum):
    """The kind of event that asked for a capture, independent of its route."""

    SQS = "sqs"
    EVENTBRIDGE = "eventbridge"
    ALARM = "alarm"
    SNS = "sns"
    MANUAL = "manual"


@dataclass(frozen=True, slots=True)
class Trigger:
    """The event that asked for a capture; `name` is the alarm's.

    `id` is the message ID, the event ID, the alarm's ARN and the time of its state, or the request ID.
    """

    type: TriggerType
    id: str
    name: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return `{"type": "alarm", "id": "…", "name": "…"}`, as notifications and the queue carry it."""
        return {"type": self.type.value, "id": self.id, "name": self.name}


class Status(StrEnum):
    """The status of an outcome."""

    REQUESTED = "requested"
    WAITING = "waiting"
    CAPTURED = "captured"
    EXPIRED = "expired"
    REJECTED = "rejected"
    FAILED = "failed"
    DUPLICATE = "duplicate"


# Every status that can end a capture, in the order in which a job summary lists them. `requested` ends one whose log
# file is not polled for (CAPTURE_DEADLINE_SECONDS 0). Every other list of final statuses derives from this one.
FINAL_STATUSES = (Status.CAPTURED, Status.EXPIRED, Status.REJECTED, Status.FAILED, Status.DUPLICATE, Status.REQUESTED)


class Reason(StrEnum):
    """Why a capture has its status, or is requeued; a stable word that programs can compare."""

    REFUSED = "refused"
    REDIRECTED = "redirected"
    TEMPORARY = "temporary"
    UNCONFIRMED = "unconfirmed"
    NOT_CONNECTED = "not_connected"
    CONFLICT = "conflict"
    TOKEN_REFUSED = "token_refused"  # noqa: S105 (the name of a reason)
    TOKEN_UNAVAILABLE = "token_unavailable"  # noqa: S105 (the name of a reason)
    IN_PROGRESS = "in_progress"
    NOT_COUNTED = "not_counted"
    OUT_OF_TIME = "out_of_time"
    NOT_UPLOADED = "not_uploaded"
    AGENT_OFFLINE = "agent_offline"
    GONE = "gone"
    COOL_DOWN = "cool_down"
    NO_AGENT_ID = "no_agent_id"
    INVALID_AGENT_ID = "invalid_agent_id"
    INVALID_REGION = "invalid_region"
    INVALID_FORCE = "invalid_force"
    INVALID_JOB = "invalid_job"
    INVALID_JSON = "invalid_json"
    TOO_DEEP = "too_deep"
    TOO_LARGE = "too_large"


@dataclass(frozen=True, slots=True, kw_only=True)
class LogFile:
    """A log file as the API describes it; what a response left out is None.

    `state` is `requested`, `started` or `completed`; `location` is the header of the response to the request.
    """

    id: str | None = None
    date: str | None = None
    state: str | None = None
    location: str | None = None
    links: tuple[Mapping[str, str], ...] = ()

    @property
    def is_pending(self) -> bool:
        """Whether the agent has not uploaded it yet."""
        return self.state in {"requested", "started"}

    @property
    def download_expires_at(self) -> datetime | None:
        """When the signed link expires; None when its query does not say so."""
        query = (self.link(SIGNED_LINK) or "").partition("?")[2]
        expires = next(iter(parse_qs(query).get("temp_url_expires", [])), "")
        if not (expires.isascii() and expires.isdigit()) or len(expires) > _UNIX_TIME_DIGITS:
            return None
        return datetime.fromtimestamp(int(expires), UTC)

    def to_json(self) -> dict[str, Any]:
        """Return the form that notifications carry."""
        expires_at = self.download_expires_at and timestamp(self.download_expires_at)
        fields = {name: getattr(self, name) for name in ("id", "date", "state", "location")}
        links = [dict(link) for link in self.links]
        return fields | {"links": links, "download_url": self.link(SIGNED_LINK), "download_expires_at": expires_at}

    def link(self, rel: str) -> str | None:
        """Return the first link of a kind; `logfile` is the address in Cloud Files, which requires a token."""
        return next((link["href"] for link in self.links if link.get("rel") == rel), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one capture or, without an agent, of an event that could not be read."""

    status: Status
    trigger: Trigger
    asked_at: datetime
    at: datetime
    agent_id: str | None = None
    project_id: str | None = None
    region: str | None = None
    log_file: LogFile | None = None
    reason: Reason | None = None
    message: str | None = None
    http_status: int | None = None
    attempts: int = 0
    replays: int = 0
    part: int = 0  # distinguishes the outcomes of one trigger that name no agent
    job: str | None = None  # the name that the caller gave the job; None where the trigger itself is the job

    @property
    def job_id(self) -> str:
        """The job's name, or its trigger's ID."""
        return self.job or self.trigger.id

    @property
    def outcome_id(self) -> str:
        """The same when the same outcome is published twice; different after a replay or for another log file."""
        log_file_id = self.log_file.id if self.log_file else None
        capture = (self.trigger.type.value, self.trigger.id, self.region, self.agent_id, self.replays)
        return str(uuid.uuid5(_OUTCOME_NAMESPACE, repr((*capture, self.status.value, log_file_id, self.part))))


def timestamp(moment: datetime) -> str:
    """Return a UTC time stamp such as `2026-11-23T03:12:40.985Z`."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def readable(moment: datetime) -> str:
    """Return a time as a person reads it, `2026-11-23 03:12 UTC`; seconds are cut off."""
    return f"{moment.astimezone(UTC).replace(tzinfo=None).isoformat(' ', 'minutes')} UTC"
