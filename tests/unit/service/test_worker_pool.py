import json
from contextlib import closing
from datetime import UTC, datetime
from threading import Event
from threading import enumerate as enumerate_threads

import pytest

from agent_log_capture.domain.events.parser import EventParser
from agent_log_capture.domain.responses import NotTriedError
from agent_log_capture.service import worker_pool
from agent_log_capture.service.worker_pool import (
    CALL_SECONDS,
    SAVING_SECONDS,
    AbandonedError,
    Task,
    TimeLeft,
    run_tasks,
)

NOW = datetime(2026, 11, 23, tzinfo=UTC)
PLENTY = TimeLeft(lambda: 300_000)


@pytest.fixture(autouse=True)
def _short_rounds(monkeypatch):
    monkeypatch.setattr(worker_pool, "_ROUND_SECONDS", 0.01)


@pytest.fixture
def release():
    """Lets hanging tasks go on, at the latest when the test ends."""
    released = Event()
    yield released
    released.set()
    for thread in enumerate_threads():
        if thread.name.startswith("capture"):
            thread.join(timeout=10)


def turns_of(count, time_left=PLENTY):
    event = {"agent_ids": [f"agent-{number}" for number in range(count)]}
    [parsed] = EventParser(default_region="DFW").parse(event, request_id="request-id", now=NOW)
    return [Task(parsed, capture, time_left) for capture in parsed.captures]


def agent_id(task):
    return task.capture.agent_id


def taken(tasks, work_on, count=4, time_left=PLENTY):
    """What came of each task: what was returned or raised, or None when it was given up."""
    ended = {}
    for task, future in run_tasks(tasks, work_on, workers=count, time_left=time_left):
        assert agent_id(task) not in ended, "a task ends once"
        ended[agent_id(task)] = future and (future.exception() or future.result())
    return ended


def test_every_turn_ends_with_what_came_of_it():
    assert taken(turns_of(50), agent_id) == {f"agent-{number}": f"agent-{number}" for number in range(50)}


def test_no_turns_end_at_once():
    assert taken([], agent_id) == {}


def test_an_error_ends_one_turn():
    error = RuntimeError("nobody expected this")

    def work_on(task):
        if agent_id(task) == "agent-1":
            raise error

    assert taken(turns_of(3), work_on) == {"agent-0": None, "agent-1": error, "agent-2": None}


def test_turns_are_taken_side_by_side_and_no_more_than_there_are_workers():
    side_by_side, most = [], []
    all_here = Event()

    def work_on(task):
        side_by_side.append(task)
        most.append(len(side_by_side))
        if len(side_by_side) == 4:
            all_here.set()
        assert all_here.wait(timeout=10)
        side_by_side.remove(task)

    taken(turns_of(12), work_on)
    assert max(most) == 4


def test_turns_that_request_a_log_file_of_one_agent_are_taken_one_after_the_other():
    records = [
        {"eventSource": "aws:sqs", "messageId": message_id, "body": json.dumps([agent_id])}
        for message_id, agent_id in {"first": "twice", "second": "twice", "third": "once"}.items()
    ]
    parsed_records = EventParser(default_region="DFW").parse({"Records": records}, request_id="request-id", now=NOW)
    taken_in_order, other_was_taken = [], Event()

    def work_on(task):
        trigger_id = task.parsed.trigger.id
        if trigger_id == "first":
            other_was_taken.wait(timeout=10)
        taken_in_order.append(trigger_id)
        if trigger_id == "third":
            other_was_taken.set()

    tasks = [Task(parsed, parsed.captures[0], PLENTY) for parsed in parsed_records]
    assert len(list(run_tasks(tasks, work_on, workers=2, time_left=PLENTY))) == 3
    assert taken_in_order == ["third", "first", "second"]


def test_a_call_that_takes_too_long_is_given_up_while_the_others_go_on(monkeypatch, release):
    monkeypatch.setattr(worker_pool, "CALL_SECONDS", 0.05)

    def work_on(task):
        return task.call(lambda: release.wait(timeout=10) if agent_id(task) == "agent-0" else "answered")

    ended = taken(turns_of(10), work_on)
    assert ended.pop("agent-0") is None
    assert set(ended.values()) == {"answered"}


def test_a_turn_between_its_calls_is_not_overdue(monkeypatch):
    monkeypatch.setattr(worker_pool, "CALL_SECONDS", -1)
    [task] = turns_of(1)
    seen = [task.is_overdue]
    task.call(lambda: seen.append(task.is_overdue))
    seen.append(task.is_overdue)
    assert seen == [False, True, False]


def test_when_time_is_up_every_turn_that_has_not_ended_is_given_up(release):
    begun = Event()
    time_left = TimeLeft(lambda: 1000 * SAVING_SECONDS if begun.is_set() else 300_000)

    def work_on(_):
        begun.set()
        release.wait(timeout=10)

    tasks = turns_of(3)
    assert taken(tasks, work_on, count=1, time_left=time_left) == dict.fromkeys(map(agent_id, tasks))


def test_whoever_ends_the_iteration_gives_up_what_has_not_ended(release):
    begun, results = Event(), []

    def work_on(task):
        if agent_id(task) == "agent-0":
            return
        begun.set()
        try:
            task.call(lambda: release.wait(timeout=10))
        except AbandonedError as error:
            results.append(error)

    tasks = turns_of(3)
    with closing(run_tasks(tasks, work_on, workers=2, time_left=PLENTY)) as ended:
        next(ended)
        assert begun.wait(timeout=10)
    for task in tasks[1:]:
        with pytest.raises(AbandonedError):
            task.begin(NOW)
    release.set()
    for thread in enumerate_threads():
        if thread.name.startswith("capture"):
            thread.join(timeout=10)
    assert results


def test_a_call_of_a_turn_that_was_given_up_meanwhile_shows_neither_its_answer_nor_its_error():
    for outcome in (lambda: "answered", lambda: 1 / 0):
        [task] = turns_of(1)
        with pytest.raises(AbandonedError):
            task.call(lambda task=task, outcome=outcome: task.give_up() or outcome())


def test_nobody_mistakes_a_turn_that_is_over_for_a_failure():
    assert not issubclass(AbandonedError, Exception)


@pytest.mark.parametrize("spare_millis", [-1, 0])
def test_a_call_needs_its_own_time_and_that_for_saving(spare_millis):
    millis = 1000 * (CALL_SECONDS + SAVING_SECONDS) + spare_millis
    [task] = turns_of(1, TimeLeft(lambda: millis))
    for step in (lambda: task.begin(NOW), lambda: task.call(lambda: "answered")):
        if spare_millis < 0:
            with pytest.raises(NotTriedError):
                step()
        else:
            step()
    assert (task.began_at is None) == (spare_millis < 0)
