from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from agent_log_capture.domain.capture import Capture, Job, Polling, Requesting, is_agent_id
from agent_log_capture.domain.outcome import Trigger, TriggerType

NOW = datetime(2026, 11, 23, 3, 12, 40, tzinfo=UTC)
CAPTURE = Capture(
    agent_id="an-agent",
    region="DFW",
    trigger=Trigger(TriggerType.ALARM, "arn@time", "an alarm"),
    asked_at=NOW - timedelta(hours=3),
    retry_from=NOW - timedelta(hours=2),
    attempts=4,
    replays=1,
    force=True,
    job=Job(name="night shift", asked=5, rejected=1, is_open=True),
)


@pytest.mark.parametrize(
    ("job", "job_id"),
    [(None, "arn@time"), (replace(CAPTURE.job, name=None), "arn@time"), (CAPTURE.job, "night shift")],
)
def test_a_job_has_the_name_that_the_caller_gave_it_or_its_triggers_id(job, job_id):
    assert replace(CAPTURE, job=job).job_id == job_id


@pytest.mark.parametrize(
    "change",
    [
        {"agent_id": "another"},
        {"region": "ORD"},
        {"trigger": Trigger(TriggerType.ALARM, "arn@later")},
        {"trigger": Trigger(TriggerType.SQS, "arn@time")},
        {"replays": 2},
    ],
)
def test_two_captures_differ_by_agent_region_trigger_and_replay(change):
    assert replace(CAPTURE, **change).key != CAPTURE.key


def test_a_capture_in_another_phase_is_the_same_capture():
    assert (
        replace(CAPTURE, attempts=9, force=False, phase=Polling(log_file_id="a-log-file", requested_at=NOW)).key
        == CAPTURE.key
    )


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("a", True),
        ("A-z_0" * 25, True),
        ("", False),
        ("x" * 129, False),
        ("a\n", False),
        ("ä", False),
        ("a.b", False),
    ],
)
def test_an_agent_id_is_1_to_128_letters_digits_underscores_and_hyphens(value, expected):
    assert is_agent_id(value) is expected


@pytest.mark.parametrize(
    ("before", "since", "kept"),
    [
        (None, None, None),
        (None, NOW, NOW),
        (NOW - timedelta(hours=1), None, NOW - timedelta(hours=1)),
        (NOW - timedelta(hours=1), NOW, NOW - timedelta(hours=1)),
        (NOW, NOW - timedelta(hours=1), NOW - timedelta(hours=1)),
    ],
)
def test_a_request_may_have_been_served_since_the_earlier_of_two_times(before, since, kept):
    capture = replace(CAPTURE, phase=Requesting(before))
    assert capture.requesting(since).unconfirmed_since == kept
