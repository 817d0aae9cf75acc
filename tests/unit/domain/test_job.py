import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_log_capture.domain.job import OPEN, Remembered, asking_again, counting, keep_seconds
from agent_log_capture.domain.outcome import FINAL_STATUSES, Status

CAPTURED, EXPIRED, FAILED = Status.CAPTURED, Status.EXPIRED, Status.FAILED


@pytest.mark.parametrize(
    ("status", "replays", "remembered", "changes"),
    [
        (CAPTURED, 0, None, {"captured": 1, "open": -1}),
        (CAPTURED, 0, Remembered(CAPTURED, 0), None),
        (EXPIRED, 0, Remembered(CAPTURED, 0), None),
        (FAILED, 0, Remembered(FAILED, 0), None),
        (CAPTURED, 1, Remembered(None, 1), {"captured": 1, "open": -1}),
        (CAPTURED, 2, Remembered(None, 1), {"captured": 1, "open": -1}),
        (FAILED, 0, Remembered(None, 1), None),
        (CAPTURED, 1, Remembered(FAILED, 0), {"failed": -1, "captured": 1}),
        (FAILED, 1, Remembered(FAILED, 0), None),
        (CAPTURED, 0, Remembered(FAILED, 0), None),
        (CAPTURED, 1, Remembered(EXPIRED, 0), None),
    ],
)
def test_what_an_ending_means_for_what_is_remembered(status, replays, remembered, changes):
    assert counting(status, replays, remembered) == changes


@pytest.mark.parametrize(
    ("replays", "remembered", "changes"),
    [
        (1, None, {}),
        (1, Remembered(FAILED, 0), {"failed": -1, "open": 1}),
        (3, Remembered(FAILED, 1), {"failed": -1, "open": 1}),
        (1, Remembered(FAILED, 1), None),
        (1, Remembered(None, 1), None),
        (1, Remembered(CAPTURED, 0), None),
    ],
)
def test_what_a_replay_means_for_what_is_remembered(replays, remembered, changes):
    assert asking_again(replays, remembered) == changes


EVENTS = st.tuples(st.integers(0, 3), st.none() | st.sampled_from(FINAL_STATUSES), st.integers(0, 3))


@given(asked=st.integers(1, 4), rejected=st.integers(0, 3), events=st.lists(EVENTS))
def test_in_whatever_order_things_come_what_is_counted_adds_up_to_what_was_asked(asked, rejected, events):
    counts = {OPEN: asked, "rejected": rejected}
    remembered = {}
    for number, status, replays in events:
        agent = number % asked
        known = remembered.get(agent)
        changes = counting(status, replays, known) if status else asking_again(replays, known)
        if changes is not None:
            remembered[agent] = Remembered(status, replays)
            for name, change in changes.items():
                counts[name] = counts.get(name, 0) + change
        assert min(counts.values()) >= 0
        assert sum(counts.values()) == asked + rejected
    ended = sum(each.status is not None for each in remembered.values())
    assert counts[OPEN] == asked - ended


def test_a_job_is_remembered_for_as_long_as_a_capture_of_it_may_come():
    assert keep_seconds(retry_window_seconds=60, deadline_seconds=7) == 180 + 7 + 14 * 86_400
