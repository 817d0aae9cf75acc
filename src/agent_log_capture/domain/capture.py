"""A capture (one agent's log file on its way), where it came from, and what became of it."""

import re
import uuid
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, Self
from urllib.parse import parse_qs

from agent_log_capture.domain.printable import printable

# The six regions that the Cloud Backup API runs in.
REGIONS = frozenset({"DFW", "ORD", "IAD", "LON", "SYD", "HKG"})

_AGENT_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")
_OUTCOME_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "https://agent-log-capture/outcome")
# A message of 100 captures stays below the 1 MiB that SQS carries, whatever they consist of.
TRIGGER_ID_CHARACTERS = 512
TRIGGER_NAME_CHARACTERS = 256
JOB_NAME_CHARACTERS = 128
_MOST_TRIES = 1_000_000
# The `rel` of the link that the API signs; its query says in Unix time until when it works.
SIGNED_LINK = "logfile_temp_url"
_OBJECT_LINK = "logfile"
_UNIX_TIME_DIGITS = 11  # up to the year 5138; more is no time
_EARLIEST = datetime(2020, 1, 1, tzinfo=UTC)
# Two instances' clocks differ by less; a retry window that starts later than that would never end.
_CLOCK_SKEW = timedelta(hours=1)
_TRIGGER_KEYS = frozenset({"type", "id", "name"})
_JOB_KEYS = frozenset({"name", "asked", "rejected", "is_open"})
_FOLLOWING_KEYS = frozenset(
    {"logfile_id", "requested_at", "is_missing", "activated_at", "activations", "is_presence_known"}
)
_CAPTURE_KEYS = frozenset(
    {
        *("agent_id", "region", "trigger", "asked_at", "retry_from", "attempts", "replays", "force"),
        *("unconfirmed_since", "polling", "part_of_job", "ended"),
    }
)


class Status(StrEnum):
    """What a notification says has become of a capture; all but `requested` and `waiting` are endings."""

    REQUESTED = "requested"
    WAITING = "waiting"
    CAPTURED = "captured"
    EXPIRED = "expired"
    REJECTED = "rejected"
    FAILED = "failed"
    DUPLICATE = "duplicate"


class Reason(StrEnum):
    """Why a capture came to what it came to, or must wait; a stable word that programs can compare."""

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


class TriggerType(StrEnum):
    """The kind of event that asked for a capture, however it was wrapped on its way here."""

    SQS = "sqs"
    EVENTBRIDGE = "eventbridge"
    ALARM = "alarm"
    SNS = "sns"
    MANUAL = "manual"


@dataclass(frozen=True, slots=True)
class Trigger:
    """The event that asked for a capture.

    `id` is the message ID, the event ID, the alarm's ARN and the time of its state, or the request ID; `name` is
    the alarm's name, where there is one.
    """

    type: TriggerType
    id: str
    name: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the form that notifications and the queue carry."""
        return {"type": self.type.value, "id": self.id, "name": self.name}

    @classmethod
    def from_json(cls, value: object) -> Self:
        """Read what `to_json` wrote; ValueError for anything else."""
        fields = _object(value, "trigger", _TRIGGER_KEYS)
        name = fields.get("name")
        return cls(
            TriggerType(_text(fields, "type")),
            _text(fields, "id"),
            None if name is None else _text(fields, "name", TRIGGER_NAME_CHARACTERS),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """The job that a capture belongs to, and how much its trigger asked for in it.

    `name` is the caller's, None for the job that the trigger itself is. `asked` counts captures and, `rejected` among
    them, values that could not be read. `is_open` tells that its state is there to be counted in.
    """

    name: str | None
    asked: int
    rejected: int = 0
    is_open: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return the form in which it waits in the queue."""
        return {"name": self.name, "asked": self.asked, "rejected": self.rejected, "is_open": self.is_open}

    @classmethod
    def from_json(cls, value: object) -> Self:
        """Read what `to_json` wrote; ValueError for anything else."""
        fields = _object(value, "part_of_job", _JOB_KEYS)
        asked, rejected = _count(fields, "asked"), _count(fields, "rejected")
        if rejected >= asked:
            raise ValueError("rejected leaves no capture of those that were asked for")
        name = fields.get("name")
        return cls(
            name=None if name is None else _text(fields, "name", JOB_NAME_CHARACTERS),
            asked=asked,
            rejected=rejected,
            is_open=_flag(fields, "is_open"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Polling:
    """A log file that was requested, and what the polls for it have found so far.

    `log_file_id` is None when the API accepted the request without naming it. `is_missing` is set when the last
    answer was 404. `activated_at` is the last of `activations`, after which the API knows for a while whether the
    agent is online; `is_presence_known` is set once it has said so.
    """

    log_file_id: str | None
    requested_at: datetime
    is_missing: bool = False
    activated_at: datetime | None = None
    activations: int = 0
    is_presence_known: bool = False

    def activated(self, at: datetime) -> Self:
        """Return it with one more activation of its agent."""
        return replace(self, activated_at=at, activations=self.activations + 1)

    def to_json(self) -> dict[str, Any]:
        """Return the form in which it waits in the queue."""
        return {
            "logfile_id": self.log_file_id,
            "requested_at": timestamp(self.requested_at),
            "is_missing": self.is_missing,
            "activated_at": self.activated_at and timestamp(self.activated_at),
            "activations": self.activations,
            "is_presence_known": self.is_presence_known,
        }

    @classmethod
    def from_json(cls, value: object, now: datetime) -> Self:
        """Read what `to_json` wrote; ValueError for anything else."""
        fields = _object(value, "polling", _FOLLOWING_KEYS)
        log_file_id = fields.get("logfile_id")
        if log_file_id is not None and not is_agent_id(_text(fields, "logfile_id")):
            raise ValueError("logfile_id is not the ID of a log file")
        return cls(
            log_file_id=log_file_id,
            requested_at=_moment(fields, "requested_at", now) or now,
            is_missing=_flag(fields, "is_missing"),
            activated_at=_moment(fields, "activated_at", now),
            activations=_count(fields, "activations"),
            is_presence_known=_flag(fields, "is_presence_known"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Capture:
    """One agent that was named by one trigger, and how far asking it for its log file has come.

    `retry_from` starts the retry window: the moment of its first try, or of its first try after a replay.
    `unconfirmed_since` is set when the request may have been served although no answer came back: no log file that
    came of it is older. `replays` counts how often it came back from the dead-letter queue. `polling` is set once
    the API has accepted the request. `job` is None for one that has waited since before there were jobs: it counts
    in none. `ended` is set when it has come to an ending, which was told and has yet to be counted in its job.
    """

    agent_id: str
    region: str
    trigger: Trigger
    asked_at: datetime
    retry_from: datetime
    attempts: int = 0
    replays: int = 0
    force: bool = False
    unconfirmed_since: datetime | None = None
    polling: Polling | None = None
    job: Job | None = None
    ended: Status | None = None

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

    def to_json(self) -> dict[str, Any]:
        """Return the form in which it waits in the queue."""
        return {
            "agent_id": self.agent_id,
            "region": self.region,
            "trigger": self.trigger.to_json(),
            "asked_at": timestamp(self.asked_at),
            "retry_from": timestamp(self.retry_from),
            "attempts": self.attempts,
            "replays": self.replays,
            "force": self.force,
            "unconfirmed_since": self.unconfirmed_since and timestamp(self.unconfirmed_since),
            "polling": self.polling and self.polling.to_json(),
            # Not "job": a capture that somebody has damaged is read as any event is, and there that is a name.
            "part_of_job": self.job and self.job.to_json(),
            "ended": self.ended and self.ended.value,
        }

    def to_dead_letter(self) -> dict[str, Any]:
        """Return the form in which it lies in the dead-letter queue.

        Replayed as it is, it keeps its trigger and `asked_at`, and starts a new retry window and attempt count. What
        has ended and could not be counted is only counted then: that is no replay.
        """
        replays = self.replays + (self.ended is None)
        reset = replace(self, attempts=0, replays=replays, job=self.job and replace(self.job, is_open=False))
        return reset.to_json() | {"retry_from": None}

    @classmethod
    def from_json(cls, value: object, now: datetime) -> Self:
        """Read what `to_json` or `to_dead_letter` wrote; ValueError for anything else.

        A retry window that has not been started starts `now`.
        """
        fields = _object(value, "capture", _CAPTURE_KEYS)
        polling, job, ended = (fields.get(name) for name in ("polling", "part_of_job", "ended"))
        return cls(
            agent_id=_text(fields, "agent_id"),
            region=_text(fields, "region"),
            trigger=Trigger.from_json(fields.get("trigger")),
            asked_at=_moment(fields, "asked_at", now) or now,
            retry_from=_moment(fields, "retry_from", now) or now,
            attempts=_count(fields, "attempts"),
            replays=_count(fields, "replays"),
            force=_flag(fields, "force"),
            unconfirmed_since=_moment(fields, "unconfirmed_since", now),
            polling=None if polling is None else Polling.from_json(polling, now),
            job=None if job is None else Job.from_json(job),
            ended=None if ended is None else Status(_text(fields, "ended")),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class LogFile:
    """A log file as the API describes it; what an answer left out is None.

    `date` is the API's own time stamp, `state` one of `requested`, `started` and `completed`; `location` is the
    `Location` header of the answer that accepted the request.
    """

    id: str | None = None
    date: str | None = None
    state: str | None = None
    location: str | None = None
    links: tuple[Mapping[str, str], ...] = ()

    @property
    def download_url(self) -> str | None:
        """The signed link: whoever holds it can download the log file until it expires."""
        return self._link(SIGNED_LINK)

    @property
    def object_url(self) -> str | None:
        """Where the log file lies in Cloud Files, which wants a token."""
        return self._link(_OBJECT_LINK)

    @property
    def download_expires_at(self) -> datetime | None:
        """Until when the signed link works; None when it does not say so in a way that can be read."""
        query = (self.download_url or "").partition("?")[2]
        expires = next(iter(parse_qs(query).get("temp_url_expires", [])), "")
        if not (expires.isascii() and expires.isdigit()) or len(expires) > _UNIX_TIME_DIGITS:
            return None
        return datetime.fromtimestamp(int(expires), UTC)

    def to_json(self) -> dict[str, Any]:
        """Return the form that notifications carry."""
        return {
            "id": self.id,
            "date": self.date,
            "state": self.state,
            "location": self.location,
            "links": [dict(link) for link in self.links],
            "download_url": self.download_url,
            "download_expires_at": self.download_expires_at and timestamp(self.download_expires_at),
        }

    def _link(self, rel: str) -> str | None:
        return next((link["href"] for link in self.links if link.get("rel") == rel), None)

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Self:
        """Read what `to_json` wrote."""
        return cls(
            **{name: fields[name] for name in ("id", "date", "state", "location")}, links=tuple(fields["links"])
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one capture, or of an event in which there was none to read (then without an agent)."""

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
    # Tells apart the outcomes of one trigger that name no agent.
    part: int = 0
    # The caller's name for it; None for the job that the trigger itself is.
    job: str | None = None

    @property
    def job_id(self) -> str:
        """The job's name, or its trigger's ID."""
        return self.job or self.trigger.id

    @property
    def outcome_id(self) -> str:
        """The same whenever the same outcome is told again; another one after a replay or for another log file."""
        log_file_id = self.log_file.id if self.log_file else None
        told = (*self._capture_key, self.status.value, log_file_id, self.part)
        return str(uuid.uuid5(_OUTCOME_NAMESPACE, repr(told)))

    @property
    def _capture_key(self) -> tuple[str, str, str | None, str | None, int]:
        return self.trigger.type.value, self.trigger.id, self.region, self.agent_id, self.replays


def is_agent_id(value: str) -> bool:
    """Tell whether `value` is 1 to 128 characters of `A-Z a-z 0-9 _ -`."""
    return _AGENT_ID.fullmatch(value) is not None


def timestamp(moment: datetime) -> str:
    """Return a UTC time stamp such as `2026-11-23T03:12:40.985Z`."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def readable(moment: datetime) -> str:
    """Return a time as a person reads it, `2026-11-23 03:12 UTC`; what is left of the minute is cut off."""
    return f"{moment.astimezone(UTC).replace(tzinfo=None).isoformat(' ', 'minutes')} UTC"


def _object(value: object, name: str, keys: AbstractSet[str]) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{name} is not an object")  # noqa: TRY004 (all that cannot be read is a ValueError)
    # What says more may name other agents, and none of them must be lost.
    if not value.keys() <= keys:
        raise ValueError(f"{name} says more than it should")
    return value


def _text(fields: Mapping[str, Any], name: str, limit: int = TRIGGER_ID_CHARACTERS) -> str:
    value = fields.get(name)
    if not isinstance(value, str) or not value or value != printable(value, limit):
        raise ValueError(f"{name} is not a line of 1 to {limit} characters")
    return value


def _count(fields: Mapping[str, Any], name: str) -> int:
    value = fields.get(name)
    if type(value) is not int or not 0 <= value <= _MOST_TRIES:
        raise ValueError(f"{name} is not a count")
    return value


def _flag(fields: Mapping[str, Any], name: str) -> bool:
    value = fields.get(name)
    if not isinstance(value, bool):
        raise ValueError(f"{name} is not true or false")  # noqa: TRY004 (as above)
    return value


def _moment(fields: Mapping[str, Any], name: str, now: datetime) -> datetime | None:
    value = fields.get(name)
    if value is None:
        return None
    moment = datetime.fromisoformat(_text(fields, name))
    if moment.utcoffset() != timedelta(0):
        raise ValueError(f"{name} is not in UTC")
    if not _EARLIEST <= moment <= now + _CLOCK_SKEW:
        raise ValueError(f"{name} lies before this function was made, or ahead")
    return moment
