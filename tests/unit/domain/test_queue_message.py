import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_log_capture.domain.capture import Capture, Job, Polling, Recorded, Requesting
from agent_log_capture.domain.outcome import FINAL_STATUSES, Reason, Status, Trigger, TriggerType
from agent_log_capture.domain.printable import printable
from agent_log_capture.domain.queue_message import from_json, to_dead_letter, to_json

NOW = datetime(2026, 11, 23, 3, 12, 40, tzinfo=UTC)
POLLING = Polling(log_file_id="a-log-file", requested_at=NOW - timedelta(minutes=30), activated_at=NOW, activations=2)
REQUESTING = Requesting(NOW - timedelta(hours=1))
RECORDED = Recorded(status=Status.EXPIRED, reason=Reason.GONE, log_file_id="a-log-file")
CAPTURE = Capture(
    agent_id="an-agent",
    region="DFW",
    trigger=Trigger(TriggerType.ALARM, "arn@time", "an alarm"),
    asked_at=NOW - timedelta(hours=3),
    retry_from=NOW - timedelta(hours=2),
    attempts=4,
    replays=1,
    force=True,
    phase=POLLING,
    job=Job(name="night shift", asked=5, rejected=1, is_open=True),
)
FIELDS = to_json(CAPTURE)
TRIGGER = FIELDS["trigger"]
PHASES = {phase: to_json(replace(CAPTURE, phase=phase))["phase"] for phase in (REQUESTING, POLLING, RECORDED)}
JOB = FIELDS["part_of_job"]
NO_MOMENTS = (
    *(7, "", "soon", "2026-11-23", "2026-11-23T03:12:40", "2026-11-23T03:12:40+01:00", "2026-13-23T03:12:40Z"),
    *("0001-01-01T00:00:00Z", "2019-12-31T23:59:59Z", "2026-11-23T05:12:40Z", "9999-12-31T23:59:59Z"),
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.datetimes().map(datetime.isoformat),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)
MOMENTS = st.datetimes(datetime(2020, 1, 2), datetime(2026, 11, 23), timezones=st.just(UTC)).map(  # noqa: DTZ001
    lambda moment: moment.replace(microsecond=moment.microsecond // 1000 * 1000)
)
IDS, NAMES, JOB_NAMES = (
    st.text(min_size=1, max_size=limit).map(lambda text, limit=limit: printable(text, limit))
    for limit in (512, 256, 128)
)


@given(
    capture=st.builds(
        Capture,
        agent_id=st.from_regex(r"[A-Za-z0-9_-]{1,128}", fullmatch=True),
        region=st.sampled_from(["DFW", "ORD", "IAD", "LON", "SYD", "HKG"]),
        trigger=st.builds(Trigger, st.sampled_from(TriggerType), IDS, st.none() | NAMES),
        asked_at=MOMENTS,
        retry_from=MOMENTS,
        attempts=st.integers(0, 1_000_000),
        replays=st.integers(0, 1_000_000),
        phase=st.builds(Requesting, st.none() | MOMENTS)
        | st.builds(
            Recorded,
            status=st.sampled_from(FINAL_STATUSES),
            reason=st.none() | st.sampled_from(Reason),
            log_file_id=st.none() | st.just("a-log-file"),
        )
        | st.builds(
            Polling,
            log_file_id=st.none() | st.from_regex(r"[A-Za-z0-9_-]{1,128}", fullmatch=True),
            requested_at=MOMENTS,
            is_missing=st.booleans(),
            activated_at=st.none() | MOMENTS,
            activations=st.integers(0, 1_000_000),
            is_presence_known=st.booleans(),
        ),
        job=st.none()
        | st.builds(
            Job,
            name=st.none() | JOB_NAMES,
            asked=st.integers(500, 1_000_000),
            rejected=st.integers(0, 499),
            is_open=st.booleans(),
        ),
    )
)
def test_a_capture_is_the_same_after_it_waited_in_the_queue(capture):
    assert from_json(json.loads(json.dumps(to_json(capture))), NOW) == capture


def test_a_dead_letter_starts_a_new_retry_window_and_keeps_its_trigger():
    replayed = from_json(to_dead_letter(CAPTURE), NOW)
    assert replayed == replace(
        CAPTURE, attempts=0, replays=2, retry_from=NOW, job=replace(CAPTURE.job, is_open=False)
    )
    assert replayed.key != CAPTURE.key


def test_a_dead_letter_that_was_only_not_recorded_is_not_a_replay():
    recorded = replace(CAPTURE, phase=RECORDED)
    replayed = from_json(to_dead_letter(recorded), NOW)
    assert (replayed.phase, replayed.key) == (RECORDED, CAPTURE.key)


@pytest.mark.parametrize("name", ["asked_at", "retry_from"])
def test_a_time_that_is_not_known_yet_is_now(name):
    assert getattr(from_json(FIELDS | {name: None}, NOW), name) == NOW


def test_a_log_file_of_unknown_age_counts_from_now():
    fields = FIELDS | {"phase": PHASES[POLLING] | {"requested_at": None}}
    assert from_json(fields, NOW).phase.requested_at == NOW


@pytest.mark.parametrize(
    "fields",
    [
        None,
        [],
        "capture",
        *(FIELDS | {"agent_id": value} for value in (None, "", "a b", "a\n", "x" * 129, 7, ["a"])),
        *(FIELDS | {"region": value} for value in (None, "dfw", "XYZ", 7)),
        *(FIELDS | {"trigger": value} for value in (None, "alarm", [], {})),
        *(FIELDS | {"trigger": TRIGGER | {"type": value}} for value in (None, "email", 7)),
        *(FIELDS | {"trigger": TRIGGER | {"id": value}} for value in (None, "", "x" * 513, "a\nb", "\ud800", 7)),
        *(
            FIELDS | {"trigger": TRIGGER | {"name": value}}
            for value in ("", "x" * 257, "a\u202eb", "a" + "\u0301" * 5, 7)
        ),
        *(FIELDS | {"trigger": TRIGGER | {"more": None}}, FIELDS | {"more": None}),
        *(FIELDS | {"phase": phase | {"more": None}} for phase in PHASES.values()),
        *(FIELDS | {"phase": value} for value in (None, "polling", [], {}, {"name": "other"}, {"name": []}, 0)),
        *(FIELDS | {"attempts": value} for value in (None, -1, 1_000_001, 1.0, True, "4")),
        *(FIELDS | {"replays": value} for value in (None, -1, 1_000_001, 1.0, False, "1")),
        *(FIELDS | {"force": value} for value in (None, "true", 1)),
        *(FIELDS | {name: value} for name in ("asked_at", "retry_from") for value in NO_MOMENTS),
        *(FIELDS | {"part_of_job": value} for value in ("a job", [], {}, True, 0)),
        FIELDS | {"part_of_job": JOB | {"more": None}},
        *(
            FIELDS | {"part_of_job": JOB | {name: value}}
            for name, values in {
                "name": ("", "x" * 129, "a\nb", 7, ["a"]),
                "asked": (None, 0, 1, -1, 1_000_001, "4"),
                "rejected": (None, 5, -1, "1", True),
                "is_open": (None, "true", 1),
            }.items()
            for value in values
        ),
        *(
            FIELDS | {"phase": PHASES[phase] | {name: value}}
            for phase, name, values in (
                (REQUESTING, "unconfirmed_since", NO_MOMENTS),
                (POLLING, "log_file_id", ("", "a b", "../..", "x" * 129, 7, ["a"])),
                (POLLING, "requested_at", NO_MOMENTS),
                (POLLING, "is_missing", (None, "true", 1)),
                (POLLING, "activated_at", NO_MOMENTS),
                (POLLING, "activations", (None, -1, 1_000_001, 1.0, True, "4")),
                (POLLING, "is_presence_known", (None, "true", 1)),
                (RECORDED, "status", (None, "over", "", "waiting", 7, True)),
                (RECORDED, "reason", ("over", "", 7, True)),
                (RECORDED, "log_file_id", ("", "a b", 7)),
            )
            for value in values
        ),
    ],
)
def test_an_invalid_capture_is_a_value_error(fields):
    with pytest.raises(ValueError, match=r"\w"):
        from_json(fields, NOW)


@given(
    value=VALUES
    | st.builds(lambda name, value: FIELDS | {name: value}, st.sampled_from(sorted(FIELDS)), VALUES)
    | st.builds(
        lambda phase, name, value: FIELDS | {"phase": phase | {name: value}},
        st.sampled_from(list(PHASES.values())),
        st.sampled_from(sorted({name for phase in PHASES.values() for name in phase})),
        VALUES,
    )
    | st.builds(
        lambda name, value: FIELDS | {"part_of_job": JOB | {name: value}}, st.sampled_from(sorted(JOB)), VALUES
    )
)
def test_any_json_is_a_capture_or_a_value_error(value):
    try:
        capture = from_json(value, NOW)
    except ValueError:
        return
    assert from_json(to_json(capture), NOW) == capture
