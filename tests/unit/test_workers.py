import json
from contextlib import closing
from datetime import UTC, datetime
from threading import Event
from threading import enumerate as enumerate_threads

import pytest

from agent_log_capture import workers
from agent_log_capture.core.decision import NotTriedError
from agent_log_capture.core.intake import Reader
from agent_log_capture.workers import CALL_SECONDS, SAVING_SECONDS, TimeLeft, Turn, TurnOverError, take_turns

NOW = datetime(2026, 11, 23, tzinfo=UTC)
PLENTY = TimeLeft(lambda: 300_000)


@pytest.fixture(autouse=True)
def _short_rounds(monkeypatch):
    monkeypatch.setattr(workers, "_ROUND_SECONDS", 0.01)


@pytest.fixture
def release():
    """Lets hanging turns go on, at the latest when the test ends."""
    released = Event()
    yield released
    released.set()
    for thread in enumerate_threads():
        if thread.name.startswith("capture"):
            thread.join(timeout=10)


def turns_of(count, time_left=PLENTY):
    event = {"agent_ids": [f"agent-{number}" for number in range(count)]}
    [arrival] = Reader(default_region="DFW").read(event, request_id="request-id", now=NOW)
    return [Turn(arrival, capture, time_left) for capture in arrival.captures]


def agent_id(turn):
    return turn.capture.agent_id


def taken(turns, work_on, count=4, time_left=PLENTY):
    """What came of each turn: what was returned or raised, or None when it was given up."""
    ended = {}
    for turn, future in take_turns(turns, work_on, workers=count, time_left=time_left):
        assert agent_id(turn) not in ended, "a turn ends once"
        ended[agent_id(turn)] = future and (future.exception() or future.result())
    return ended


def test_every_turn_ends_with_what_came_of_it():
    assert taken(turns_of(50), agent_id) == {f"agent-{number}": f"agent-{number}" for number in range(50)}


def test_no_turns_end_at_once():
    assert taken([], agent_id) == {}


def test_an_error_ends_one_turn():
    error = RuntimeError("nobody expected this")

    def work_on(turn):
        if agent_id(turn) == "agent-1":
            raise error

    assert taken(turns_of(3), work_on) == {"agent-0": None, "agent-1": error, "agent-2": None}


def test_turns_are_taken_side_by_side_and_no_more_than_there_are_workers():
    side_by_side, most = [], []
    all_here = Event()

    def work_on(turn):
        side_by_side.append(turn)
        most.append(len(side_by_side))
        if len(side_by_side) == 4:
            all_here.set()
        assert all_here.wait(timeout=10)
        side_by_side.remove(turn)

    taken(turns_of(12), work_on)
    assert max(most) == 4


def test_turns_that_request_a_log_file_of_one_agent_are_taken_one_after_the_other():
    records = [
        {"eventSource": "aws:sqs", "messageId": message_id, "body": json.dumps([agent_id])}
        for message_id, agent_id in {"first": "twice", "second": "twice", "third": "once"}.items()
    ]
    arrivals = Reader(default_region="DFW").read({"Records": records}, request_id="request-id", now=NOW)
    taken_in_order, other_was_taken = [], Event()

    def work_on(turn):
        trigger_id = turn.arrival.trigger.id
        if trigger_id == "first":
            other_was_taken.wait(timeout=10)
        taken_in_order.append(trigger_id)
        if trigger_id == "third":
            other_was_taken.set()

    turns = [Turn(arrival, arrival.captures[0], PLENTY) for arrival in arrivals]
    assert len(list(take_turns(turns, work_on, workers=2, time_left=PLENTY))) == 3
    assert taken_in_order == ["third", "first", "second"]


def test_a_call_that_takes_too_long_is_given_up_while_the_others_go_on(monkeypatch, release):
    monkeypatch.setattr(workers, "CALL_SECONDS", 0.05)

    def work_on(turn):
        return turn.call(lambda: release.wait(timeout=10) if agent_id(turn) == "agent-0" else "answered")

    ended = taken(turns_of(10), work_on)
    assert ended.pop("agent-0") is None
    assert set(ended.values()) == {"answered"}


def test_a_turn_between_its_calls_is_not_overdue(monkeypatch):
    monkeypatch.setattr(workers, "CALL_SECONDS", -1)
    [turn] = turns_of(1)
    seen = [turn.is_overdue]
    turn.call(lambda: seen.append(turn.is_overdue))
    seen.append(turn.is_overdue)
    assert seen == [False, True, False]


def test_when_time_is_up_every_turn_that_has_not_ended_is_given_up(release):
    begun = Event()
    time_left = TimeLeft(lambda: 1000 * SAVING_SECONDS if begun.is_set() else 300_000)

    def work_on(_):
        begun.set()
        release.wait(timeout=10)

    turns = turns_of(3)
    assert taken(turns, work_on, count=1, time_left=time_left) == dict.fromkeys(map(agent_id, turns))


def test_whoever_ends_the_iteration_gives_up_what_has_not_ended(release):
    begun, results = Event(), []

    def work_on(turn):
        if agent_id(turn) == "agent-0":
            return
        begun.set()
        try:
            turn.call(lambda: release.wait(timeout=10))
        except TurnOverError as error:
            results.append(error)

    turns = turns_of(3)
    with closing(take_turns(turns, work_on, workers=2, time_left=PLENTY)) as ended:
        next(ended)
        assert begun.wait(timeout=10)
    for turn in turns[1:]:
        with pytest.raises(TurnOverError):
            turn.begin(NOW)
    release.set()
    for thread in enumerate_threads():
        if thread.name.startswith("capture"):
            thread.join(timeout=10)
    assert results


def test_a_call_of_a_turn_that_was_given_up_meanwhile_shows_neither_its_answer_nor_its_error():
    for outcome in (lambda: "answered", lambda: 1 / 0):
        [turn] = turns_of(1)
        with pytest.raises(TurnOverError):
            turn.call(lambda turn=turn, outcome=outcome: turn.give_up() or outcome())


def test_nobody_mistakes_a_turn_that_is_over_for_a_failure():
    assert not issubclass(TurnOverError, Exception)


@pytest.mark.parametrize("spare_millis", [-1, 0])
def test_a_call_needs_its_own_time_and_that_for_saving(spare_millis):
    millis = 1000 * (CALL_SECONDS + SAVING_SECONDS) + spare_millis
    [turn] = turns_of(1, TimeLeft(lambda: millis))
    for step in (lambda: turn.begin(NOW), lambda: turn.call(lambda: "answered")):
        if spare_millis < 0:
            with pytest.raises(NotTriedError):
                step()
        else:
            step()
    assert (turn.began_at is None) == (spare_millis < 0)
