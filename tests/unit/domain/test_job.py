from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_log_capture.domain.capture import Capture, Job, Recorded
from agent_log_capture.domain.job import (
    Fact,
    JobItems,
    JobSummary,
    Report,
    fact_of,
    keep_seconds,
    progress,
    summary,
    trigger_key,
    trigger_part,
)
from agent_log_capture.domain.outcome import FINAL_STATUSES, Reason, Status, Trigger, TriggerType

NOW = datetime(2026, 11, 23, 3, 12, 40, tzinfo=UTC)
TRIGGER = Trigger(TriggerType.SQS, "a-message")
CAPTURED, EXPIRED, FAILED = Status.CAPTURED, Status.EXPIRED, Status.FAILED


def part_of(asked, rejected=0, *, trigger=TRIGGER, name=None, asked_at=NOW):
    capture = Capture(agent_id="a", region="DFW", trigger=trigger, asked_at=asked_at, retry_from=NOW)
    return trigger_part(capture, Job(name=name, asked=asked, rejected=rejected))


def fact(agent_id, status, replays=0, trigger=TRIGGER):
    return Fact(agent_id=agent_id, region="DFW", trigger_key=trigger_key(trigger), replays=replays, status=status)


def counted(state):
    return {status: count for status, count in state.counts.items() if count}


def test_every_final_status_has_a_place_in_the_summary():
    assert tuple(progress([part_of(1)], []).counts) == FINAL_STATUSES


@pytest.mark.parametrize(
    ("facts", "status"),
    [
        ([(CAPTURED, 0)], CAPTURED),
        ([(EXPIRED, 0), (CAPTURED, 0)], CAPTURED),
        ([(FAILED, 0), (EXPIRED, 0)], EXPIRED),
        ([(FAILED, 0), (None, 1), (CAPTURED, 1)], CAPTURED),
        ([(CAPTURED, 0), (FAILED, 1)], FAILED),
        ([(None, 1), (FAILED, 1)], FAILED),
    ],
)
def test_the_highest_replay_counts_and_within_it_the_rank_of_the_status(facts, status):
    for order in permutations(fact("a", *each) for each in facts):
        state = progress([part_of(1)], order)
        assert (counted(state), state.lacking) == ({status: 1}, {trigger_key(TRIGGER): 0})


def test_an_agent_that_waits_after_a_replay_is_lacking():
    state = progress([part_of(2)], [fact("a", FAILED), fact("a", None, 1), fact("b", CAPTURED)])
    assert (counted(state), state.lacking) == ({CAPTURED: 1}, {trigger_key(TRIGGER): 1})


@pytest.mark.parametrize(("asked", "rejected", "lacking"), [(1, 0, 0), (3, 0, 2), (3, 2, 0), (5, 1, 3)])
def test_agents_without_a_fact_are_lacking_and_values_that_could_not_be_read_are_rejected(asked, rejected, lacking):
    state = progress([part_of(asked, rejected)], [fact("a", CAPTURED)])
    assert state.lacking == {trigger_key(TRIGGER): lacking}
    assert counted(state) == ({CAPTURED: 1, Status.REJECTED: rejected} if rejected else {CAPTURED: 1})


def test_facts_of_a_trigger_that_is_forgotten_do_not_count():
    other = Trigger(TriggerType.SQS, "another-message")
    assert counted(progress([part_of(1)], [fact("a", CAPTURED), fact("b", CAPTURED, trigger=other)])) == {CAPTURED: 1}


@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.sampled_from([None, *FINAL_STATUSES]), st.integers(0, 2)), max_size=9
    )
)
def test_what_is_counted_and_what_is_lacking_add_up_to_what_was_asked(facts):
    state = progress([part_of(5, 2)], [fact(*each) for each in facts])
    assert sum(state.counts.values()) + state.lacking[trigger_key(TRIGGER)] >= 5
    assert sum(state.counts.values()) <= 5


@pytest.mark.parametrize(
    ("asked", "name", "shards"), [(1, None, 1), (500, None, 1), (501, None, 10), (1, "night", 10)]
)
def test_a_trigger_of_up_to_500_agents_without_a_name_has_one_shard(asked, name, shards):
    assert part_of(asked, name=name).shards == shards


@pytest.mark.parametrize(
    ("parts", "may_be_done"),
    [
        ([], False),
        ([(2, 2)], True),
        ([(3, 2)], True),
        ([(1, 2)], False),
        ([(2, 2), (0, 1)], False),
    ],
)
def test_a_job_may_be_done_when_each_trigger_has_reached_its_next_look(parts, may_be_done):
    parts = [replace(part_of(2), ended=ended, look_at=look_at) for ended, look_at in parts]
    assert JobItems(job_id="a job", report=Report(), parts=parts).may_be_done is may_be_done


def test_a_summary_is_about_the_first_trigger_of_the_job():
    other = Trigger(TriggerType.SQS, "another-message")
    parts = [part_of(1, trigger=other, asked_at=NOW + timedelta(minutes=1)), part_of(1)]
    report = Report(version=3, revision=2, counts={CAPTURED: 2}, is_reported=False, done_at=NOW + timedelta(hours=1))
    assert summary(JobItems(job_id="a job", report=report, parts=parts), report) == JobSummary(
        job_id="a job",
        revision=2,
        counts={CAPTURED: 2},
        trigger=TRIGGER,
        asked_at=NOW,
        at=NOW + timedelta(hours=1),
    )


def test_the_fact_of_a_capture_says_what_it_ended_in():
    capture = Capture(agent_id="a", region="DFW", trigger=TRIGGER, asked_at=NOW, retry_from=NOW, replays=1)
    assert fact_of(capture) == fact("a", None, 1)
    recorded = replace(capture, phase=Recorded(status=EXPIRED, reason=Reason.GONE, log_file_id="a-log-file"))
    assert fact_of(recorded) == replace(fact("a", EXPIRED, 1), reason=Reason.GONE, log_file_id="a-log-file")


def test_a_job_is_kept_until_its_dead_letters_can_no_longer_be_replayed():
    assert keep_seconds(retry_window_seconds=100, deadline_seconds=50) == 350 + 14 * 86_400
