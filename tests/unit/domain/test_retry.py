from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_log_capture.domain.capture import Capture, Requesting, Step
from agent_log_capture.domain.outcome import Reason, Status, Trigger, TriggerType
from agent_log_capture.domain.responses import Failure
from agent_log_capture.domain.retry import RetryPolicy

NOW = datetime(2026, 11, 23, 3, 12, 40, tzinfo=UTC)
DAY = 86_400
CAPTURE = Capture(
    agent_id="an-agent",
    region="DFW",
    trigger=Trigger(TriggerType.MANUAL, "a-request"),
    asked_at=NOW - timedelta(minutes=2),
    retry_from=NOW - timedelta(minutes=1),
    attempts=1,
    replays=2,
)
FAILURE = Failure(reason=Reason.TEMPORARY, message="Service Unavailable", http_status=503)


def retry(capture=CAPTURE, failure=FAILURE, *, window_seconds=DAY, random=1.0):
    policy = RetryPolicy(window_seconds=window_seconds, random=lambda: random)
    return policy.retry(capture, failure, now=NOW, project_id="110011")


@pytest.mark.parametrize(
    ("attempts", "longest"),
    [(0, 30), (1, 30), (2, 60), (3, 120), (4, 240), (5, 480), (6, 900), (7, 900), (1_000_000, 900)],
)
def test_a_delay_is_random_up_to_twice_the_longest_of_the_attempt_before(attempts, longest):
    tried = replace(CAPTURE, attempts=attempts)
    assert retry(tried, random=0.0).delay_seconds == 5
    assert retry(tried, random=0.5).delay_seconds == longest / 2
    assert retry(tried, random=1.0).delay_seconds == longest


@pytest.mark.parametrize(("asked", "given_seconds"), [(0, 30), (29, 30), (31, 31), (900, 900), (1e9, 900)])
def test_retry_after_is_honoured_up_to_the_longest_delay_of_the_queue(asked, given_seconds):
    assert retry(failure=replace(FAILURE, retry_after_seconds=asked)).delay_seconds == given_seconds


@given(attempts=st.integers(0, 1_000_000), random=st.floats(0, 1), asked=st.floats(min_value=0, allow_nan=False))
def test_no_delay_is_shorter_than_5_or_longer_than_900_seconds(attempts, random, asked):
    failure = replace(FAILURE, retry_after_seconds=asked)
    assert 5 <= retry(replace(CAPTURE, attempts=attempts), failure, random=random).delay_seconds <= 900


def test_a_requeued_capture_is_otherwise_unchanged():
    assert retry() == Step(capture=CAPTURE, next=CAPTURE, delay_seconds=30, failure=FAILURE)


@pytest.mark.parametrize(
    ("before", "now", "kept"),
    [
        (None, None, None),
        (None, NOW, NOW),
        (NOW - timedelta(hours=1), None, NOW - timedelta(hours=1)),
        (NOW - timedelta(hours=1), NOW, NOW - timedelta(hours=1)),
    ],
)
@pytest.mark.parametrize("window_seconds", [DAY, 0])
def test_the_first_request_without_a_response_counts(before, now, kept, window_seconds):
    tried = replace(CAPTURE, phase=Requesting(before))
    result = retry(tried, replace(FAILURE, unconfirmed_since=now), window_seconds=window_seconds)
    assert result.capture.unconfirmed_since == kept


@pytest.mark.parametrize(
    ("tried_for", "is_dead_letter"),
    [(timedelta(), False), (timedelta(seconds=59), False), (timedelta(minutes=1), True)],
)
def test_a_capture_is_a_dead_letter_once_its_retry_window_is_over(tried_for, is_dead_letter):
    step = retry(replace(CAPTURE, retry_from=NOW - tried_for), window_seconds=60)
    assert (step.is_dead_letter, step.next is None, step.recorded is None) == (
        is_dead_letter,
        is_dead_letter,
        not is_dead_letter,
    )


def test_a_dead_letter_fails_for_the_reason_of_its_last_failure():
    outcome = retry(window_seconds=0).outcome
    assert (outcome.status, outcome.reason, outcome.message) == (
        Status.FAILED,
        Reason.TEMPORARY,
        "Service Unavailable",
    )
    assert (outcome.http_status, outcome.agent_id, outcome.project_id) == (503, "an-agent", "110011")
    assert (outcome.attempts, outcome.replays) == (1, 2)
