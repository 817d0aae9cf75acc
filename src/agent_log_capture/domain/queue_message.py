"""The form in which a capture waits in the queue, and in the dead-letter queue; docs/architecture.md shows one."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, cast

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

# Reads a value at a time; ValueError, or another error of `from_json`, if it is invalid.
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
    replays = capture.replays + (not capture.is_recorded)
    job = capture.job and replace(capture.job, is_open=False)
    return to_json(replace(capture, attempts=0, replays=replays, job=job)) | {"retry_from": None}


def from_json(value: object, now: datetime) -> Capture:
    """Read what `to_json` or `to_dead_letter` returned, a missing time as `now`; ValueError for anything else."""
    try:
        fields = _object(value, _CAPTURE, now)
        return Capture(job=fields.pop("part_of_job"), **fields)
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError("not a capture") from error


def _plain(value: object) -> object:
    return timestamp(value) if isinstance(value, datetime) else value


def _object(value: Any, readers: Mapping[str, _Read], now: datetime) -> dict[str, Any]:  # noqa: ANN401
    """Read the fields of an object; a further key may name other agents, which must not be lost."""
    if value.keys() - readers.keys():
        raise ValueError(f"not an object of {', '.join(readers)}")
    return {name: read(value.get(name), now) for name, read in readers.items()}


def _if(is_valid: Callable[[Any], bool]) -> _Read:
    """Return a reader of values that stay as they are."""

    def read(value: object, _: datetime) -> object:
        if not is_valid(value):
            raise ValueError("a value is invalid")
        return value

    return read


def _line(limit: int) -> _Read:
    return _if(lambda value: isinstance(value, str) and value != "" and value == printable(value, limit))


def _optional(read: _Read) -> _Read:
    return lambda value, now: None if value is None else read(value, now)


def _moment(value: Any, now: datetime) -> datetime:  # noqa: ANN401
    moment = now if value is None else datetime.fromisoformat(value)
    if moment.utcoffset() != timedelta(0) or not _EARLIEST <= moment <= now + _CLOCK_SKEW:
        raise ValueError("not a time in UTC, or before 2020 or in the future")
    return moment


def _job(value: object, now: datetime) -> Job:
    job = Job(**_object(value, _JOB, now))
    if job.rejected >= job.asked:
        raise ValueError("rejected leaves no capture of those that were asked for")
    return job


def _phase(value: Any, now: datetime) -> Phase:  # noqa: ANN401
    phase = _PHASES[value["name"]]
    readers = {name: _PHASE_FIELDS[name] for name in phase.__slots__}
    fields = _object({name: value[name] for name in value if name != "name"}, readers, now)
    return cast("Phase", phase(**fields))


_count = _if(lambda value: type(value) is int and 0 <= value <= _HIGHEST_COUNT)
_flag = _if(lambda value: type(value) is bool)
_id = _if(lambda value: isinstance(value, str) and is_agent_id(value))
_TRIGGER: Mapping[str, _Read] = {
    "type": lambda value, _: TriggerType(value),
    "id": _line(TRIGGER_ID_CHARACTERS),
    "name": _optional(_line(TRIGGER_NAME_CHARACTERS)),
}
_JOB: Mapping[str, _Read] = {
    "name": _optional(_line(JOB_NAME_CHARACTERS)),
    "asked": _count,
    "rejected": _count,
    "is_open": _flag,
}
_PHASES: Mapping[str, Any] = {phase.__name__.lower(): phase for phase in (Requesting, Polling, Recorded)}
# Of all phases: a field means the same in each.
_PHASE_FIELDS: Mapping[str, _Read] = {
    "unconfirmed_since": _optional(_moment),
    "log_file_id": _optional(_id),
    "requested_at": _moment,
    "is_missing": _flag,
    "activated_at": _optional(_moment),
    "activations": _count,
    "is_presence_known": _flag,
    "status": lambda value, _: _FINAL[value],
    "reason": _optional(lambda value, _: Reason(value)),
}
_CAPTURE: Mapping[str, _Read] = {
    "agent_id": _id,
    "region": _id,  # and one of the six, which `Capture` checks
    "trigger": lambda value, now: Trigger(**_object(value, _TRIGGER, now)),
    "asked_at": _moment,
    "retry_from": _moment,
    "attempts": _count,
    "replays": _count,
    "force": _flag,
    "part_of_job": _optional(_job),
    "phase": _phase,
}
