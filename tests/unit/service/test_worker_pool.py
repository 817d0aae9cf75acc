from contextlib import closing
from datetime import UTC, datetime
from itertools import batched
from threading import Event
from threading import enumerate as enumerate_threads

import pytest

from agent_log_capture.domain.capture import Capture
from agent_log_capture.domain.outcome import Trigger, TriggerType
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
    monkeypatch.setattr(worker_pool, "_CHECK_SECONDS", 0.01)


@pytest.fixture
def release():
    """Lets hanging tasks go on, at the latest when the test ends."""
    released = Event()
    yield released
    released.set()
    for thread in enumerate_threads():
        if thread.name.startswith("capture"):
            thread.join(timeout=10)


def captures_of(count):
    trigger = Trigger(TriggerType.MANUAL, "a-request")
    return [
        Capture(agent_id=f"agent-{number}", region="DFW", trigger=trigger, asked_at=NOW, retry_from=NOW)
        for number in range(count)
    ]


def a_task(time_left=PLENTY):
    return Task(captures_of(1)[0], time_left)


def agent_id(task):
    return task.capture.agent_id


def results_of(captures, process, workers=4, time_left=PLENTY):
    """What each task resulted in: what was returned or raised, or None when it was abandoned."""
    ended = {}
    for task, future in run_tasks(batched(captures, 7, strict=False), process, workers=workers, time_left=time_left):
        assert agent_id(task) not in ended, "a task ends once"
        ended[agent_id(task)] = future and (future.exception() or future.result())
    return ended


def test_every_task_ends_with_its_result():
    assert results_of(captures_of(50), agent_id) == {f"agent-{number}": f"agent-{number}" for number in range(50)}


def test_no_captures_end_at_once():
    assert results_of([], agent_id) == {}


def test_an_error_ends_one_task():
    error = RuntimeError("no one expected this")

    def process(task):
        if agent_id(task) == "agent-1":
            raise error

    assert results_of(captures_of(3), process) == {"agent-0": None, "agent-1": error, "agent-2": None}


def test_as_many_captures_are_processed_at_a_time_as_there_are_workers():
    side_by_side, most = [], []
    all_here = Event()

    def process(task):
        side_by_side.append(task)
        most.append(len(side_by_side))
        if len(side_by_side) == 4:
            all_here.set()
        assert all_here.wait(timeout=10)
        side_by_side.remove(task)

    results_of(captures_of(12), process)
    assert max(most) == 4


def test_a_call_that_takes_too_long_is_abandoned_while_the_others_continue(monkeypatch, release):
    monkeypatch.setattr(worker_pool, "CALL_SECONDS", 0.05)

    def process(task):
        return task.call(lambda: release.wait(timeout=10) if agent_id(task) == "agent-0" else "answered")

    ended = results_of(captures_of(10), process)
    assert ended.pop("agent-0") is None
    assert set(ended.values()) == {"answered"}


def test_a_task_between_its_calls_is_not_overdue(monkeypatch):
    monkeypatch.setattr(worker_pool, "CALL_SECONDS", -1)
    task = a_task()
    seen = [task.is_overdue]
    task.call(lambda: seen.append(task.is_overdue))
    seen.append(task.is_overdue)
    assert seen == [False, True, False]


def test_when_time_is_up_every_task_that_has_not_ended_is_abandoned(release):
    begun = Event()
    time_left = TimeLeft(lambda: 1000 * SAVING_SECONDS if begun.is_set() else 300_000)

    def process(_):
        begun.set()
        release.wait(timeout=10)

    captures = captures_of(3)
    expected = dict.fromkeys(capture.agent_id for capture in captures)
    assert results_of(captures, process, workers=1, time_left=time_left) == expected


def test_ending_the_iteration_abandons_what_has_not_ended(release):
    begun, results = Event(), []

    def process(task):
        if agent_id(task) == "agent-0":
            return
        begun.set()
        try:
            task.call(lambda: release.wait(timeout=10))
        except AbandonedError as error:
            results.append(error)

    with closing(run_tasks([captures_of(3)], process, workers=2, time_left=PLENTY)) as ended:
        next(ended)
        assert begun.wait(timeout=10)
    release.set()
    for thread in enumerate_threads():
        if thread.name.startswith("capture"):
            thread.join(timeout=10)
    assert results


def test_a_call_of_an_abandoned_task_returns_nothing_and_raises_no_error_of_its_own():
    for outcome in (lambda: "answered", lambda: 1 / 0):
        task = a_task()
        with pytest.raises(AbandonedError):
            task.call(lambda task=task, outcome=outcome: task.abandon() or outcome())


def test_an_abandoned_task_cannot_be_taken_for_a_failure():
    assert not issubclass(AbandonedError, Exception)


@pytest.mark.parametrize("spare_millis", [-1, 0])
def test_a_call_needs_its_own_time_and_the_time_to_save(spare_millis):
    millis = 1000 * (CALL_SECONDS + SAVING_SECONDS) + spare_millis
    task = a_task(TimeLeft(lambda: millis))
    if spare_millis < 0:
        with pytest.raises(NotTriedError):
            task.call(lambda: "answered")
    else:
        assert task.call(lambda: "answered") == "answered"
