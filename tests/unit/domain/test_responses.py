import json
import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_log_capture.domain.capture import Capture
from agent_log_capture.domain.claim import duplicate
from agent_log_capture.domain.failure import Failure, RetryableError
from agent_log_capture.domain.outcome import LogFile, Outcome, Reason, Status
from agent_log_capture.domain.responses import (
    Accepted,
    ApiResponse,
    Deferred,
    GivenUp,
    ResponseClass,
    busy,
    classify,
    is_dated_since,
    is_pending,
    requested,
    retry_after_seconds,
)
from agent_log_capture.domain.retry import RetryPolicy
from agent_log_capture.domain.step import rejected
from agent_log_capture.domain.trigger import Trigger, TriggerType

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
LOG_FILE = LogFile(id="a-log-file", state="requested")
ACCEPTED = Accepted(
    trigger=CAPTURE.trigger,
    replays=2,
    requested_at=NOW - timedelta(seconds=30),
    answer=ApiResponse(http_status=202, log_file=LOG_FILE),
)
TROUBLE = Failure(reason=Reason.TEMPORARY, message="Service Unavailable", http_status=503)


def defer(capture=CAPTURE, failure=TROUBLE, *, window_seconds=DAY, random=1.0):
    policy = RetryPolicy(window_seconds=window_seconds, random=lambda: random)
    return policy.defer(capture, failure, now=NOW, project_id="110011")


# ------------------------------------------------------------------ what a status code means


@pytest.mark.parametrize(
    ("first", "last", "verdict"),
    [
        (100, 199, ResponseClass.RETRYABLE),
        (200, 299, ResponseClass.ACCEPTED),
        (300, 399, ResponseClass.REDIRECTED),
        (400, 400, ResponseClass.REFUSED),
        (401, 401, ResponseClass.TOKEN_REFUSED),
        (402, 407, ResponseClass.REFUSED),
        (408, 408, ResponseClass.RETRYABLE),
        (409, 409, ResponseClass.CONFLICT),
        (410, 412, ResponseClass.REFUSED),
        (413, 413, ResponseClass.RETRYABLE),
        (414, 424, ResponseClass.REFUSED),
        (425, 425, ResponseClass.RETRYABLE),
        (426, 428, ResponseClass.REFUSED),
        (429, 429, ResponseClass.RETRYABLE),
        (430, 499, ResponseClass.REFUSED),
        (500, 500, ResponseClass.RETRYABLE),
        (501, 501, ResponseClass.REFUSED),
        (502, 599, ResponseClass.RETRYABLE),
        (600, 999, ResponseClass.RETRYABLE),
    ],
)
def test_every_status_code_has_a_meaning(first, last, verdict):
    assert {classify(code) for code in range(first, last + 1)} == {verdict}


def test_an_accepted_request_is_told_with_its_log_file():
    assert requested(CAPTURE, ACCEPTED, now=NOW, project_id="110011") == Outcome(
        status=Status.REQUESTED,
        trigger=CAPTURE.trigger,
        asked_at=CAPTURE.asked_at,
        at=NOW,
        agent_id="an-agent",
        project_id="110011",
        region="DFW",
        log_file=LOG_FILE,
        http_status=202,
        attempts=1,
        replays=2,
    )


def test_an_accepted_request_whose_answer_tells_nothing_is_accepted_all_the_same():
    accepted = replace(ACCEPTED, answer=ApiResponse(http_status=204))
    outcome = requested(CAPTURE, accepted, now=NOW, project_id=None)
    assert (outcome.status, outcome.log_file, outcome.http_status) == (Status.REQUESTED, None, 204)


@pytest.mark.parametrize("log_file", [LOG_FILE, LogFile(), None])
@pytest.mark.parametrize("name", ["an alarm", None])
def test_an_accepted_request_is_the_same_after_it_was_remembered(log_file, name):
    accepted = replace(
        ACCEPTED,
        trigger=Trigger(TriggerType.ALARM, "arn@time", name),
        answer=ApiResponse(http_status=202, log_file=log_file),
    )
    assert Accepted.from_json(json.loads(json.dumps(accepted.to_json()))) == accepted


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, True),
        ({"attempts": 7, "asked_at": NOW}, True),
        ({"trigger": Trigger(TriggerType.MANUAL, "another-request")}, False),
        ({"trigger": Trigger(TriggerType.SQS, "a-request")}, False),
        ({"replays": 3}, False),
    ],
)
def test_a_request_is_by_the_capture_that_it_was_made_for_however_often_that_comes(change, expected):
    assert ACCEPTED.is_by(replace(CAPTURE, **change)) is expected


@pytest.mark.parametrize(
    ("trigger", "named"),
    [
        (Trigger(TriggerType.ALARM, "arn@time", "an alarm"), "an alarm"),
        (Trigger(TriggerType.SQS, "a-message"), "a-message"),
    ],
)
def test_a_duplicate_is_told_with_the_first_log_file_and_who_it_is_for(trigger, named):
    outcome = duplicate(CAPTURE, replace(ACCEPTED, trigger=trigger), now=NOW, project_id="110011")
    assert (outcome.status, outcome.reason, outcome.log_file) == (Status.DUPLICATE, Reason.COOL_DOWN, LOG_FILE)
    assert outcome.message == f"the agent was asked at 2026-11-23 03:12 UTC already, for {named}"
    assert (outcome.trigger, outcome.agent_id, outcome.http_status) == (CAPTURE.trigger, "an-agent", None)


@pytest.mark.parametrize(
    ("answer", "reason", "message"),
    [
        (ApiResponse(http_status=404, message="Agent not found"), Reason.REFUSED, "Agent not found"),
        (ApiResponse(http_status=403), Reason.REFUSED, "Forbidden"),
        (ApiResponse(http_status=499), Reason.REFUSED, "HTTP status 499"),
        (
            ApiResponse(http_status=302, message="Found"),
            Reason.REDIRECTED,
            "a redirect is not followed: the token must not reach another host",
        ),
    ],
)
def test_a_refusal_is_told_with_the_words_of_the_api(answer, reason, message):
    outcome = rejected(CAPTURE, answer, now=NOW, project_id="110011")
    assert (outcome.status, outcome.http_status) == (Status.REJECTED, answer.http_status)
    assert (outcome.reason, outcome.message) == (reason, message)
    assert (outcome.agent_id, outcome.attempts, outcome.replays) == ("an-agent", 1, 2)


@pytest.mark.parametrize(
    ("answer", "reason", "message"),
    [
        (ApiResponse(http_status=503, message="try later"), Reason.TEMPORARY, "try later"),
        (ApiResponse(http_status=409), Reason.CONFLICT, "Conflict"),
        (ApiResponse(http_status=599), Reason.TEMPORARY, "HTTP status 599"),
    ],
)
def test_a_temporary_answer_is_failure_with_the_words_of_the_api(answer, reason, message):
    asked_to_wait = replace(answer, retry_after_seconds=60)
    assert busy(asked_to_wait) == Failure(
        reason=reason, message=message, http_status=answer.http_status, retry_after_seconds=60
    )


def test_an_error_that_is_temporary_carries_its_failure():
    error = RetryableError(TROUBLE)
    assert (str(error), error.failure) == ("Service Unavailable", TROUBLE)


# ------------------------------------------------------------------ when it is tried again


@pytest.mark.parametrize(
    ("attempts", "longest"),
    [(0, 30), (1, 30), (2, 60), (3, 120), (4, 240), (5, 480), (6, 900), (7, 900), (1_000_000, 900)],
)
def test_a_delay_lies_anywhere_up_to_twice_the_last_one(attempts, longest):
    tried = replace(CAPTURE, attempts=attempts)
    assert defer(tried, random=0.0).delay_seconds == 5
    assert defer(tried, random=0.5).delay_seconds == longest / 2
    assert defer(tried, random=1.0).delay_seconds == longest


@pytest.mark.parametrize(("asked", "given_seconds"), [(0, 30), (29, 30), (31, 31), (900, 900), (1e9, 900)])
def test_the_wait_that_the_api_asks_for_is_honoured_up_to_the_longest_that_the_queue_takes(asked, given_seconds):
    assert defer(failure=replace(TROUBLE, retry_after_seconds=asked)).delay_seconds == given_seconds


@given(attempts=st.integers(0, 1_000_000), random=st.floats(0, 1), asked=st.floats(min_value=0, allow_nan=False))
def test_no_delay_is_shorter_than_5_or_longer_than_900_seconds(attempts, random, asked):
    failure = replace(TROUBLE, retry_after_seconds=asked)
    assert 5 <= defer(replace(CAPTURE, attempts=attempts), failure, random=random).delay_seconds <= 900


def test_a_deferred_capture_is_otherwise_as_it_was():
    assert defer() == Deferred(CAPTURE, 30, TROUBLE)


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
def test_the_first_request_without_an_answer_is_remembered(before, now, kept, window_seconds):
    tried = replace(CAPTURE, unconfirmed_since=before)
    result = defer(tried, replace(TROUBLE, unconfirmed_since=now), window_seconds=window_seconds)
    assert result.capture.unconfirmed_since == kept


@pytest.mark.parametrize(
    ("tried_for", "result"),
    [(timedelta(), Deferred), (timedelta(seconds=59), Deferred), (timedelta(minutes=1), GivenUp)],
)
def test_a_capture_is_given_up_once_its_retry_window_has_passed(tried_for, result):
    assert isinstance(defer(replace(CAPTURE, retry_from=NOW - tried_for), window_seconds=60), result)


def test_a_capture_that_is_given_up_fails_for_the_reason_of_its_last_failure():
    outcome = defer(window_seconds=0).outcome
    assert (outcome.status, outcome.reason, outcome.message) == (
        Status.FAILED,
        Reason.TEMPORARY,
        "Service Unavailable",
    )
    assert (outcome.http_status, outcome.agent_id, outcome.project_id) == (503, "an-agent", "110011")
    assert (outcome.attempts, outcome.replays) == (1, 2)


# ------------------------------------------------------------------ Retry-After


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("120", 120),
        (" 0 ", 0),
        ("9" * 400, math.inf),
        (format_datetime(NOW + timedelta(minutes=5), usegmt=True), 300),
        ("Mon, 23 Nov 2026 03:13:40 -0000", 60),
        ("Mon, 23 Nov 2026 05:13:40 +0200", 60),
        (format_datetime(NOW - timedelta(minutes=5), usegmt=True), 0),
        (None, 0),
        ("", 0),
        ("soon", 0),
        ("-5", 0),
        ("1.5", 0),
        ("٣", 0),
        ("Mon, 23 Nov 2026 99:99:99 GMT", 0),
        ("Mon, 23 Nov 99999999999999999999 03:13:40 GMT", 0),
        ("Mon, 23 Nov 2026 03:13:40 +99999999999999999999", 0),
    ],
)
def test_retry_after_is_read_as_seconds_or_as_a_date(header, seconds):
    assert retry_after_seconds(header, NOW) == seconds


DATE_PARTS = st.sampled_from(
    ["Mon,", "23", "Nov", "2026", "03:13:40", "99999999999", "-0000", "+", ",", ":", ".", "GMT"]
)


@given(header=st.text() | st.lists(DATE_PARTS).map(" ".join))
def test_no_retry_after_is_an_error(header):
    assert retry_after_seconds(header, NOW) >= 0


# ------------------------------------------------------------------ log files


@pytest.mark.parametrize(
    ("state", "expected"),
    [("requested", True), ("started", True), ("completed", False), ("new", False), (None, False)],
)
def test_a_log_file_is_pending_until_it_is_completed(state, expected):
    assert is_pending(LogFile(state=state)) is expected


@pytest.mark.parametrize(
    ("date", "expected"),
    [
        ("2026-11-23T03:12:40.606703Z", True),
        ("2026-11-23T03:12:30Z", True),
        ("2026-11-23T03:12:29.999Z", False),
        ("2026-11-23T03:12:40", True),
        ("2026-11-23T05:12:29+02:00", False),
        ("2026-11-22", False),
        ("0001-01-01T00:00:00+23:59", False),
        ("9999-12-31T23:59:59-23:59", True),
        ("yesterday", False),
        ("", False),
        (None, False),
    ],
)
def test_a_log_file_is_dated_since_a_moment_as_far_as_two_clocks_agree(date, expected):
    assert is_dated_since(LogFile(date=date), NOW) is expected
