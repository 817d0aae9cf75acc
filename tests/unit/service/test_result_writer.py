"""A capture whose final status is published, and that needs one more step, such as a call to the API."""

import json
from dataclasses import replace
from datetime import timedelta

import pytest
import requests

from agent_log_capture.domain import queue_message
from agent_log_capture.domain.capture import Job, Polling, Recorded, Step
from agent_log_capture.domain.outcome import Status, Trigger, TriggerType
from agent_log_capture.service import invocation
from agent_log_capture.service.invocation import InvocationResult
from agent_log_capture.service.job_tracker import JobTracker
from agent_log_capture.service.processor import Processor
from agent_log_capture.service.result_writer import ResultWriter

LOG_FILE = "https://dfw.backup.api.rackspacecloud.com/v2/110011/agents/one/logfiles/a-log-file"


class KilledError(BaseException):
    """The invocation was killed."""


class DeletingProcessor(Processor):
    """Deletes a log file at the API once its capture's final status is published: in the last phase."""

    def process(self, task):
        step = super().process(task)
        if isinstance(task.capture.phase, Recorded):
            task.call(lambda: requests.delete(LOG_FILE, timeout=1))
        elif recorded := step.recorded:
            return replace(step, next=recorded)
        return step


@pytest.fixture
def polling(a_capture, now):
    """The last capture of its job, whose log file is uploaded."""
    return a_capture(
        agent_id="one",
        trigger=Trigger(TriggerType.SQS, "a-message"),
        job=Job(name=None, asked=1),
        phase=Polling(log_file_id="a-log-file", requested_at=now),
    )


@pytest.fixture
def deleted(wire):
    """The log files that were deleted at the API."""
    deleted = []
    wire.add_callback("GET", LOG_FILE, lambda _: (404, {}, "") if deleted else (200, {}, '{"state": "completed"}'))
    wire.add_callback("DELETE", LOG_FILE, lambda request: deleted.append(request.url) or (204, {}, ""))
    return deleted


@pytest.fixture
def service(capture_service, deleted, monkeypatch):  # noqa: ARG001 (it answers the service's calls)
    """The service with one more call after a final status."""
    monkeypatch.setattr(invocation, "Processor", DeletingProcessor)
    return capture_service


@pytest.fixture
def run(service):
    def run(*bodies):
        records = [
            {"eventSource": "aws:sqs", "messageId": f"m{number}", "body": json.dumps(body)}
            for number, body in enumerate(bodies)
        ]
        return service.run({"Records": records}, request_id="x", remaining_millis=lambda: 300_000)

    return run


@pytest.fixture
def statuses_of(published):
    """The statuses and revisions that were published since the last call, and the outcome IDs."""

    def read():
        bodies = published.bodies()
        return [body["status"] for body in bodies], {body["outcome_id"] for body in bodies}

    return read


def body_of(*captures):
    return {"captures": [queue_message.to_json(capture) for capture in captures]}


def kill(client, operation, *, is_served):
    """Kill the invocation once, before or after a call."""
    kills = [KilledError()]

    def die(**_):
        if kills:
            raise kills.pop()

    client.meta.events.register(f"{'after' if is_served else 'before'}-call.*.{operation}", die)


@pytest.fixture
def write(*, queue, topic, captures_table, logger, now):
    """Saves steps as an invocation does."""

    def write(*steps):
        result = InvocationResult(asked=len(steps), ignored=None)
        tracker = JobTracker(
            table=captures_table,
            topic=topic,
            logger=logger,
            window=timedelta(days=1),
            now=lambda: now,
            has_time=lambda: True,
        )
        writer = ResultWriter(
            queue=queue, topic=topic, logger=logger, tracker=tracker, result=result, has_time=lambda: True
        )
        for step in steps:
            writer.add(step)
        writer.finish(lambda _: None)
        return result

    return write


def final_step(polling, now):
    outcome = polling.outcome(Status.CAPTURED, at=now, project_id="110011")
    step = Step(capture=polling, outcome=outcome)
    return replace(step, next=step.recorded, delay_seconds=7)


def test_a_final_outcome_with_a_next_capture_is_published_and_the_capture_requeued_as_recorded(
    *, write, polling, statuses_of, waiting, items, now
):
    result = write(final_step(polling, now))
    assert +result.counts == {"captured": 1}
    assert statuses_of()[0] == ["captured", "job_done"]
    assert waiting.bodies(after_seconds=6) == []
    [body] = waiting.bodies(after_seconds=8)
    [recorded] = [queue_message.from_json(each, now) for each in body["captures"]]
    assert recorded.phase == Recorded(status=Status.CAPTURED)
    assert recorded.job.is_open is True
    facts = [item["sk"] for item in items("JOB#") if item["sk"].startswith("DFW#one#")]
    assert [fact.rpartition("#")[2] for fact in facts] == ["captured"]


def test_an_outcome_that_is_not_published_is_requeued_in_its_earlier_phase(
    *, write, polling, topic_entries, waiting, now
):
    topic_entries.fail(lambda _: True, calls=3)
    assert +write(final_step(polling, now)).counts == {"deferred": 1}
    assert waiting.bodies(after_seconds=301) == [body_of(replace(polling, job=replace(polling.job, is_open=True)))]


def test_the_next_visit_does_what_remains_and_publishes_nothing_a_second_time(
    *, run, polling, statuses_of, waiting, deleted
):
    run(body_of(polling))
    assert statuses_of()[0] == ["captured", "job_done"]
    [recorded] = waiting.bodies()
    assert deleted == []
    result = run(recorded)
    assert (result.asked, +result.counts, deleted) == (0, {}, [LOG_FILE])
    run(recorded)
    assert (statuses_of()[0], waiting.messages(after_seconds=900)) == ([], [])


@pytest.mark.parametrize("operation", ["PublishBatch", "UpdateItem", "SendMessageBatch"])
def test_a_crash_between_publishing_and_requeuing_publishes_the_same_again(
    *, run, polling, waiting, deleted, operation, sns, sqs, dynamodb, published
):
    client = {"PublishBatch": sns, "UpdateItem": dynamodb, "SendMessageBatch": sqs}[operation]
    kill(client, operation, is_served=operation == "PublishBatch")
    with pytest.raises(KilledError):
        run(body_of(polling))
    assert (waiting.messages(after_seconds=900), deleted) == ([], [])
    run(body_of(polling))
    [recorded] = waiting.bodies()
    run(recorded)
    bodies = published.bodies()
    assert len({body["outcome_id"] for body in bodies if body["status"] == "captured"}) == 1
    assert {(body["status"], body.get("captured"), body.get("revision")) for body in bodies} == {
        ("captured", None, None),
        ("job_done", 1, 1),
    }


def delivered(waiting):
    return waiting.bodies(after_seconds=900)


def test_a_crash_after_requeuing_never_counts_what_was_captured_as_expired(*, run, polling, published, waiting, sqs):
    """The earlier message is delivered again after the log file was deleted: its polls find that it is gone."""
    kill(sqs, "SendMessageBatch", is_served=True)
    with pytest.raises(KilledError):
        run(body_of(polling))
    [recorded] = delivered(waiting)
    run(recorded)
    run(body_of(polling))
    while bodies := delivered(waiting):
        run(*bodies)
    bodies = published.bodies()
    assert {body["status"] for body in bodies} == {"captured", "job_done"}
    assert {(body["revision"], body["captured"]) for body in bodies if body["status"] == "job_done"} == {(1, 1)}


def test_a_crash_after_requeuing_publishes_captured_again_when_the_earlier_message_is_delivered_first(
    *, run, polling, published, waiting, sqs
):
    kill(sqs, "SendMessageBatch", is_served=True)
    with pytest.raises(KilledError):
        run(body_of(polling))
    run(body_of(polling))
    for recorded in delivered(waiting):
        run(recorded)
    bodies = published.bodies()
    assert [body["status"] for body in bodies if body["status"] != "job_done"] == ["captured", "captured"]
    assert len({body["outcome_id"] for body in bodies if body["status"] == "captured"}) == 1
    assert {body["captured"] for body in bodies if body["status"] == "job_done"} == {1}


@pytest.mark.parametrize("operation", ["BatchWriteItem", "UpdateItem", "Query"])
@pytest.mark.parametrize("is_served", [False, True], ids=["before it", "after it"])
def test_a_crash_while_a_published_capture_is_recorded_leaves_its_status_alone(
    *, run, polling, published, waiting, dynamodb, operation, is_served
):
    run(body_of(polling))
    [recorded] = waiting.bodies()
    kill(dynamodb, operation, is_served=is_served)
    with pytest.raises(KilledError):
        run(recorded)
    run(recorded)
    first, *summaries = published.bodies()
    assert first["status"] == "captured"
    assert {(done["status"], done["captured"], done["outcome_id"]) for done in summaries} == {
        ("job_done", 1, summaries[0]["outcome_id"])
    }


def test_a_log_file_that_is_gone_is_polled_again_while_the_table_cannot_say_whether_it_was_captured(
    *, run, polling, published, waiting, table_calls, deleted
):
    deleted.append(LOG_FILE)
    missing = replace(polling, phase=replace(polling.phase, is_missing=True))
    table_calls.fail("Query", "AccessDeniedException")
    run(body_of(missing))
    assert published.bodies() == []
    [body] = waiting.bodies(after_seconds=301)
    table_calls.errors.clear()
    run(body)
    assert [each["status"] for each in published.bodies()] == ["expired", "job_done"]
