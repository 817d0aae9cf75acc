"""The form in which a capture waits in the queue, and in the dead-letter queue; docs/architecture.md shows one."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from agent_log_capture.domain.capture import (
    JOB_NAME_CHARACTERS,
    Capture,
    Job,
    Phase,
    Polling,
    Recorded,
    Requesting,
    is_agent_id,
)
from agent_log_capture.domain.outcome import (
    FINAL_STATUSES,
    TRIGGER_ID_CHARACTERS,
    TRIGGER_NAME_CHARACTERS,
    Reason,
    Trigger,
    TriggerType,
    timestamp,
)
from agent_log_capture.domain.printable import printable

_HIGHEST_COUNT = 1_000_000
_FINAL = {status.value: status for status in FINAL_STATUSES}
_EARLIEST = datetime(2020, 1, 1, tzinfo=UTC)
# The clocks of two instances differ by less; a retry window that starts later would never end.
_CLOCK_SKEW = timedelta(hours=1)

# Reads a value at a time; ValueError when it is invalid.
type _Read = Callable[[Any, datetime], Any]


def to_json(capture: Capture) -> dict[str, Any]:
    """Return the form in which a capture waits in the queue."""
    phase, apart = capture.phase, {"trigger", "part_of_job", "phase"}
    return {name: _plain(getattr(capture, name)) for name in _CAPTURE if name not in apart} | {
        "trigger": capture.trigger.to_json(),
        # Not "job": a capture that is damaged is parsed as any event is, and there a job is a name.
        "part_of_job": capture.job and {name: getattr(capture.job, name) for name in _JOB},
        "phase": {"name": type(phase).__name__.lower()}
        | {name: _plain(getattr(phase, name)) for name in phase.__slots__},
    }


def to_dead_letter(capture: Capture) -> dict[str, Any]:
    """Return the form for the dead-letter queue: a replay starts a new retry window and attempt count."""
    # One that is recorded only has to be counted, which is not a replay.
    replays = capture.replays + (not isinstance(capture.phase, Recorded))
    job = capture.job and replace(capture.job, is_open=False)
    return to_json(replace(capture, attempts=0, replays=replays, job=job)) | {"retry_from": None}


def from_json(value: object, now: datetime) -> Capture:
    """Read what `to_json` or `to_dead_letter` returned, a missing time as `now`; ValueError for anything else."""
    fields = _object(value, _CAPTURE, now)
    return Capture(job=fields.pop("part_of_job"), **fields)


def _plain(value: object) -> object:
    return timestamp(value) if isinstance(value, datetime) else value


def _object(value: object, readers: Mapping[str, _Read], now: datetime) -> dict[str, Any]:
    """Read the fields of an object; a further key may name other agents, which must not be lost."""
    if not isinstance(value, dict) or not value.keys() <= readers.keys():
        raise ValueError(f"not an object of {', '.join(readers)}")
    fields = {}
    for name, read in readers.items():
        try:
            fields[name] = read(value.get(name), now)
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(f"{name}: {error}") from None
    return fields


def _text(value: object, _: datetime, limit: int = TRIGGER_ID_CHARACTERS) -> str:
    if not isinstance(value, str) or not value or value != printable(value, limit):
        raise ValueError(f"not a line of 1 to {limit} characters")
    return value


def _log_file_id(value: object, now: datetime) -> str:
    if not is_agent_id(_text(value, now)):
        raise ValueError("not the ID of a log file")
    return str(value)


def _count(value: object, _: datetime) -> int:
    if type(value) is not int or not 0 <= value <= _HIGHEST_COUNT:
        raise ValueError("not a count")
    return value


def _flag(value: object, _: datetime) -> bool:
    if type(value) is not bool:
        raise ValueError("not true or false")
    return value


def _moment(value: object, now: datetime) -> datetime:
    moment = datetime.fromisoformat(_text(value, now))
    if moment.utcoffset() != timedelta(0) or not _EARLIEST <= moment <= now + _CLOCK_SKEW:
        raise ValueError("not a time in UTC, or before 2020 or in the future")
    return moment


def _optional(read: _Read) -> _Read:
    return lambda value, now: None if value is None else read(value, now)


def _moment_or_now(value: object, now: datetime) -> datetime:
    return now if value is None else _moment(value, now)


def _job(value: object, now: datetime) -> Job:
    job = Job(**_object(value, _JOB, now))
    if job.rejected >= job.asked:
        raise ValueError("rejected leaves no capture of those that were asked for")
    return job


def _phase(value: object, now: datetime) -> Phase:
    for phase, readers in _PHASES.items():
        if isinstance(value, dict) and value.get("name") == phase.__name__.lower():
            return phase(**_object({name: value[name] for name in value if name != "name"}, readers, now))
    raise ValueError("not a phase")


_TRIGGER: Mapping[str, _Read] = {
    "type": lambda value, now: TriggerType(_text(value, now)),
    "id": _text,
    "name": _optional(lambda value, now: _text(value, now, TRIGGER_NAME_CHARACTERS)),
}
_JOB: Mapping[str, _Read] = {
    "name": _optional(lambda value, now: _text(value, now, JOB_NAME_CHARACTERS)),
    "asked": _count,
    "rejected": _count,
    "is_open": _flag,
}
_PHASES: Mapping[Callable[..., Phase], Mapping[str, _Read]] = {
    Requesting: {"unconfirmed_since": _optional(_moment)},
    Polling: {
        "log_file_id": _optional(_log_file_id),
        "requested_at": _moment_or_now,
        "is_missing": _flag,
        "activated_at": _optional(_moment),
        "activations": _count,
        "is_presence_known": _flag,
    },
    Recorded: {
        "status": lambda value, now: _FINAL[_text(value, now)],
        "reason": _optional(lambda value, now: Reason(_text(value, now))),
        "log_file_id": _optional(_log_file_id),
    },
}
_CAPTURE: Mapping[str, _Read] = {
    "agent_id": _text,
    "region": _text,
    "trigger": lambda value, now: Trigger(**_object(value, _TRIGGER, now)),
    "asked_at": _moment_or_now,
    "retry_from": _moment_or_now,
    "attempts": _count,
    "replays": _count,
    "force": _flag,
    "part_of_job": _optional(_job),
    "phase": _phase,
}
