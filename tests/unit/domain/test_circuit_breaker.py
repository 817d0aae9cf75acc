from concurrent.futures import ThreadPoolExecutor

import pytest

from agent_log_capture.domain.circuit_breaker import CircuitBreaker
from agent_log_capture.domain.outcome import Reason
from agent_log_capture.domain.responses import Failure, NotTriedError

BUSY = Failure(reason=Reason.TEMPORARY, message="busy", http_status=503)
REFUSED = Failure(reason=Reason.TOKEN_REFUSED, message="refused")
WORKERS = 4


@pytest.fixture
def breaker():
    return CircuitBreaker(WORKERS, lambda: 0.5)


def fail(breaker, times, failure=BUSY):
    for _ in range(times):
        breaker.called(failure.http_status, failure)


def error_of(breaker):
    with pytest.raises(NotTriedError) as caught:
        breaker.check()
    return caught.value


@pytest.mark.parametrize(
    ("status", "name"),
    [
        *((200, "2xx"), (202, "2xx"), (304, "3xx"), (401, "4xx"), (429, "4xx"), (500, "5xx"), (599, "5xx")),
        *((None, "none"), (100, "none"), (600, "none"), (0, "none")),
    ],
)
@pytest.mark.parametrize("failure", [None, BUSY])
def test_a_call_counts_for_the_class_of_its_status(breaker, status, name, failure):
    breaker.called(status, failure)
    assert breaker.responses == {name: 1}


def test_calls_of_many_threads_are_all_counted(breaker):
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(breaker.called, [200, None] * 500))
    assert breaker.responses == {"2xx": 500, "none": 500}


def test_as_many_failures_in_a_row_as_workers_do_not_open_it(breaker):
    fail(breaker, WORKERS)
    breaker.check()
    assert breaker.failure is None


def test_one_more_does(breaker):
    fail(breaker, WORKERS + 1)
    assert (error_of(breaker).failure, breaker.failure) == (BUSY, BUSY)


def test_another_response_ends_the_row(breaker):
    for _ in range(10):
        fail(breaker, WORKERS)
        breaker.called(202)
    breaker.check()


def test_the_first_failure_that_opens_it_counts_and_nothing_closes_it(breaker):
    breaker.open(REFUSED)
    fail(breaker, WORKERS + 1)
    breaker.called(202)
    assert breaker.failure == REFUSED


@pytest.mark.parametrize(
    ("random", "retry_after", "delay"),
    [(0.0, 0, 60), (0.5, 0, 90), (1.0, 0, 120), (0.5, 60, 90), (0.5, 600, 600), (0.5, 86_400, 900)],
)
def test_a_capture_that_is_not_tried_waits_a_minute_or_two_or_as_long_as_the_api_says(random, retry_after, delay):
    breaker = CircuitBreaker(WORKERS, lambda: random)
    breaker.open(Failure(reason=Reason.TEMPORARY, message="busy", retry_after_seconds=retry_after))
    assert error_of(breaker).delay_seconds == delay


def test_all_captures_that_are_not_tried_wait_equally_long():
    delays = iter([0.1, 0.9])
    breaker = CircuitBreaker(WORKERS, lambda: next(delays))
    fail(breaker, 3 * WORKERS)
    assert error_of(breaker).delay_seconds == error_of(breaker).delay_seconds == 66


def test_failures_of_many_threads_are_all_counted():
    breaker = CircuitBreaker(999, lambda: 0.5)
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda failure: fail(breaker, 1, failure), [BUSY] * 999))
    breaker.check()
    fail(breaker, 1)
    assert breaker.failure == BUSY
