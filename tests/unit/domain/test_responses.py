import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_log_capture.domain.outcome import LogFile, Reason
from agent_log_capture.domain.responses import (
    ApiResponse,
    Failure,
    ResponseClass,
    RetryableError,
    classify,
    is_dated_since,
    retry_after_seconds,
)

NOW = datetime(2026, 11, 23, 3, 12, 40, tzinfo=UTC)
FAILURE = Failure(reason=Reason.TEMPORARY, message="Service Unavailable", http_status=503)


@pytest.mark.parametrize(
    ("first", "last", "expected"),
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
def test_every_status_code_has_a_meaning(first, last, expected):
    assert {classify(code) for code in range(first, last + 1)} == {expected}


@pytest.mark.parametrize(
    ("response", "reason", "message"),
    [
        (ApiResponse(http_status=503, message="try later"), Reason.TEMPORARY, "try later"),
        (ApiResponse(http_status=409), Reason.CONFLICT, "Conflict"),
        (ApiResponse(http_status=599), Reason.TEMPORARY, "HTTP status 599"),
    ],
)
def test_a_retryable_response_is_a_failure_with_the_message_of_the_api(response, reason, message):
    asked_to_wait = replace(response, retry_after_seconds=60)
    assert asked_to_wait.failure == Failure(
        reason=reason, message=message, http_status=response.http_status, retry_after_seconds=60
    )


def test_a_retryable_error_carries_its_failure():
    error = RetryableError(FAILURE)
    assert (str(error), error.failure) == ("Service Unavailable", FAILURE)


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
