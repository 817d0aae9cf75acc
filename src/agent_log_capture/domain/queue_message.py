"""The form in which a capture waits in the queue, and in the dead-letter queue."""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
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
from agent_log_capture.domain.outcome import FINAL_STATUSES, Reason, Status, timestamp
from agent_log_capture.domain.printable import printable
from agent_log_capture.domain.trigger import TRIGGER_ID_CHARACTERS, TRIGGER_NAME_CHARACTERS, Trigger, TriggerType

_HIGHEST_COUNT = 1_000_000
_EARLIEST = datetime(2020, 1, 1, tzinfo=UTC)
# The clocks of two instances differ by less; a retry window that starts later would never end.
_CLOCK_SKEW = timedelta(hours=1)
_KEYS = frozenset(
    {
        *("agent_id", "region", "trigger", "asked_at", "retry_from", "attempts", "replays", "force"),
        *("part_of_job", "phase"),
    }
)
_TRIGGER_KEYS = frozenset({"type", "id", "name"})
_JOB_KEYS = frozenset({"name", "asked", "rejected", "is_open"})
_PHASE_KEYS = {
    "requesting": frozenset({"name", "unconfirmed_since"}),
    "polling": frozenset(
        {
            *("name", "logfile_id", "requested_at", "is_missing"),
            *("activated_at", "activations", "is_presence_known"),
        }
    ),
    "recorded": frozenset({"name", "status", "reason", "logfile_id"}),
}


def to_json(capture: Capture) -> dict[str, Any]:
    """Return the form in which a capture waits in the queue; docs/architecture.md shows one."""
    job = capture.job
    return {
        "agent_id": capture.agent_id,
        "region": capture.region,
        "trigger": capture.trigger.to_json(),
        "asked_at": timestamp(capture.asked_at),
        "retry_from": timestamp(capture.retry_from),
        "attempts": capture.attempts,
        "replays": capture.replays,
        "force": capture.force,
        # Not "job": a capture that is damaged is parsed as any event is, and there a job is a name.
        "part_of_job": job
        and {"name": job.name, "asked": job.asked, "rejected": job.rejected, "is_open": job.is_open},
        "phase": _phase_to_json(capture.phase),
    }


def to_dead_letter(capture: Capture) -> dict[str, Any]:
    """Return the form in which a capture is kept in the dead-letter queue.

    Replayed as it is, it keeps its trigger and `asked_at`, and starts a new retry window and attempt count. One that
    is recorded only has to be counted then, which is not a replay.
    """
    replays = capture.replays + (not isinstance(capture.phase, Recorded))
    job = capture.job and replace(capture.job, is_open=False)
    return to_json(replace(capture, attempts=0, replays=replays, job=job)) | {"retry_from": None}


def from_json(value: object, now: datetime) -> Capture:
    """Read what `to_json` or `to_dead_letter` returned; ValueError for anything else.

    A retry window that has not started starts `now`.
    """
    fields = _object(value, "capture", _KEYS)
    job = fields.get("part_of_job")
    return Capture(
        agent_id=_text(fields, "agent_id"),
        region=_text(fields, "region"),
        trigger=_trigger(fields.get("trigger")),
        asked_at=_moment(fields, "asked_at", now) or now,
        retry_from=_moment(fields, "retry_from", now) or now,
        attempts=_count(fields, "attempts"),
        replays=_count(fields, "replays"),
        force=_flag(fields, "force"),
        job=None if job is None else _job(job),
        phase=_phase(fields.get("phase"), now),
    )


def _phase_to_json(phase: Phase) -> dict[str, Any]:
    match phase:
        case Requesting(since):
            return {"name": "requesting", "unconfirmed_since": since and timestamp(since)}
        case Polling():
            return {
                "name": "polling",
                "logfile_id": phase.log_file_id,
                "requested_at": timestamp(phase.requested_at),
                "is_missing": phase.is_missing,
                "activated_at": phase.activated_at and timestamp(phase.activated_at),
                "activations": phase.activations,
                "is_presence_known": phase.is_presence_known,
            }
        case Recorded():
            reason = phase.reason and phase.reason.value
            return {
                "name": "recorded",
                "status": phase.status.value,
                "reason": reason,
                "logfile_id": phase.log_file_id,
            }


def _phase(value: object, now: datetime) -> Phase:
    name = value.get("name") if isinstance(value, dict) else None
    fields = _object(value, "phase", _PHASE_KEYS.get(name, frozenset()) if isinstance(name, str) else frozenset())
    if name == "requesting":
        return Requesting(_moment(fields, "unconfirmed_since", now))
    if name == "polling":
        return Polling(
            log_file_id=_log_file_id(fields),
            requested_at=_moment(fields, "requested_at", now) or now,
            is_missing=_flag(fields, "is_missing"),
            activated_at=_moment(fields, "activated_at", now),
            activations=_count(fields, "activations"),
            is_presence_known=_flag(fields, "is_presence_known"),
        )
    status = Status(_text(fields, "status"))
    if status not in FINAL_STATUSES:
        raise ValueError("status is not final")
    reason = None if fields.get("reason") is None else Reason(_text(fields, "reason"))
    return Recorded(status=status, reason=reason, log_file_id=_log_file_id(fields))


def _trigger(value: object) -> Trigger:
    fields = _object(value, "trigger", _TRIGGER_KEYS)
    name = None if fields.get("name") is None else _text(fields, "name", TRIGGER_NAME_CHARACTERS)
    return Trigger(TriggerType(_text(fields, "type")), _text(fields, "id"), name)


def _job(value: object) -> Job:
    fields = _object(value, "part_of_job", _JOB_KEYS)
    asked, rejected = _count(fields, "asked"), _count(fields, "rejected")
    if rejected >= asked:
        raise ValueError("rejected leaves no capture of those that were asked for")
    name = None if fields.get("name") is None else _text(fields, "name", JOB_NAME_CHARACTERS)
    return Job(name=name, asked=asked, rejected=rejected, is_open=_flag(fields, "is_open"))


def _object(value: object, name: str, keys: AbstractSet[str]) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{name} is not an object")  # noqa: TRY004 (every invalid message is a ValueError)
    # A further key may name other agents, and none of them must be lost.
    if not value.keys() <= keys:
        raise ValueError(f"{name} has further keys")
    return value


def _text(fields: Mapping[str, Any], name: str, limit: int = TRIGGER_ID_CHARACTERS) -> str:
    value = fields.get(name)
    if not isinstance(value, str) or not value or value != printable(value, limit):
        raise ValueError(f"{name} is not a line of 1 to {limit} characters")
    return value


def _log_file_id(fields: Mapping[str, Any]) -> str | None:
    value = fields.get("logfile_id")
    if value is not None and not is_agent_id(_text(fields, "logfile_id")):
        raise ValueError("logfile_id is not the ID of a log file")
    return value


def _count(fields: Mapping[str, Any], name: str) -> int:
    value = fields.get(name)
    if type(value) is not int or not 0 <= value <= _HIGHEST_COUNT:
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
        raise ValueError(f"{name} is before 2020 or in the future")
    return moment
