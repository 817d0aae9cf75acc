from concurrent.futures import ThreadPoolExecutor

import pytest

from agent_log_capture.core.brake import Brake
from agent_log_capture.core.capture import Reason
from agent_log_capture.core.decision import NotTriedError, Trouble

BUSY = Trouble(reason=Reason.TEMPORARY, message="busy", http_status=503)
REFUSED = Trouble(reason=Reason.TOKEN_REFUSED, message="refused")
WORKERS = 4


@pytest.fixture
def brake():
    return Brake(WORKERS, lambda: 0.5)


def fail(brake, times, trouble=BUSY):
    for _ in range(times):
        brake.failed(trouble)


def error_of(brake):
    with pytest.raises(NotTriedError) as caught:
        brake.check()
    return caught.value


def test_as_many_failures_in_a_row_as_workers_do_not_pull_it(brake):
    fail(brake, WORKERS)
    brake.check()
    assert brake.trouble is None


def test_one_more_does(brake):
    fail(brake, WORKERS + 1)
    assert (error_of(brake).trouble, brake.trouble) == (BUSY, BUSY)


def test_an_answer_ends_the_row(brake):
    for _ in range(10):
        fail(brake, WORKERS)
        brake.answered()
    brake.check()


def test_what_has_pulled_it_first_counts_and_nothing_lets_it_go(brake):
    brake.pull(REFUSED)
    fail(brake, WORKERS + 1)
    brake.answered()
    assert brake.trouble == REFUSED


@pytest.mark.parametrize(
    ("random", "retry_after", "delay"),
    [(0.0, 0, 60), (0.5, 0, 90), (1.0, 0, 120), (0.5, 60, 90), (0.5, 600, 600), (0.5, 86_400, 900)],
)
def test_what_is_not_tried_waits_a_minute_or_two_or_as_long_as_the_api_says(random, retry_after, delay):
    brake = Brake(WORKERS, lambda: random)
    brake.pull(Trouble(reason=Reason.TEMPORARY, message="busy", retry_after_seconds=retry_after))
    assert error_of(brake).delay_seconds == delay


def test_everything_that_is_not_tried_waits_equally_long():
    delays = iter([0.1, 0.9])
    brake = Brake(WORKERS, lambda: next(delays))
    fail(brake, 3 * WORKERS)
    assert error_of(brake).delay_seconds == error_of(brake).delay_seconds == 66


def test_failures_of_many_threads_are_all_counted():
    brake = Brake(999, lambda: 0.5)
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(brake.failed, [BUSY] * 999))
    brake.check()
    brake.failed(BUSY)
    assert brake.trouble == BUSY
