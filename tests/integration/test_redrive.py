"""What SQS moves back from the dead-letter queue is a new message with a new ID: it must not be a new trigger.

The SQS developer guide: a message is moved to its dead-letter queue with its original ID ("Using dead-letter
queues"), and "a new messageID and enqueueTime are assigned to redriven messages" ("Learn how to configure a
dead-letter queue redrive").
"""

import json
from collections import Counter
from unittest.mock import patch

import pytest
from botocore.exceptions import ClientError

from tests.integration.test_to_the_end import endings
from tests.move_tasks import MoveTasks

AGENTS = ["one", "two", "three"]
BEFORE_IT_WAITS = "agent_log_capture.adapters.capture_queue.CaptureQueue.requeue"
WHEN_IT_WAS_ASKED = "agent_log_capture.service.result_writer.ResultWriter.add"


@pytest.fixture(autouse=True)
def move_tasks():
    with MoveTasks().installed():
        yield


@pytest.fixture
def arn(cloud):
    def arn(url):
        return cloud.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]

    return arn


@pytest.fixture
def redrive(cloud, arn):
    """Moves everything in the dead-letter queue back, to the end."""
    source = arn(cloud.dead_letter_queue_url)

    def redrive():
        cloud.sqs.start_message_move_task(SourceArn=source, DestinationArn=arn(cloud.queue_url))
        while cloud.sqs.list_message_move_tasks(SourceArn=source)["Results"][0]["Status"] == "RUNNING":
            pass

    return redrive


@pytest.fixture
def crash_until_sqs_moves_the_message(cloud, clock):
    """Lets the function crash: at first when everything is published, and from then on when agents were asked."""

    def crash(point):
        with patch(point, side_effect=MemoryError):
            cloud.poll()
        clock.advance(1801)

    def crash_again_and_again():
        crash(BEFORE_IT_WAITS)
        while cloud.waiting:
            crash(WHEN_IT_WAS_ASKED)

    return crash_again_and_again


def test_a_list_that_crashed_the_function_again_and_again_asks_and_counts_no_one_twice(
    api, cloud, crash_until_sqs_moves_the_message, redrive
):
    api.add_agents(*AGENTS)
    message_id = cloud.send(json.dumps({"agent_ids": AGENTS, "job": "night"}))
    crash_until_sqs_moves_the_message()
    redrive()
    cloud.drain()
    assert endings(cloud.notifications()) == {(message_id, agent_id): "captured" for agent_id in AGENTS}
    assert api.posts == Counter(AGENTS)
    [done] = cloud.sums()
    assert (done["job_id"], done["asked"], done["captured"]) == ("night", 3, 3)
    assert cloud.dead_letters() == []


def test_what_is_redriven_has_a_new_id_and_was_never_received(cloud, clock, redrive):
    def crash(_):
        raise MemoryError

    message_id = cloud.send('["agent"]')
    for _ in range(6):
        cloud.poll(crash)
        clock.advance(1801)
    redrive()
    [message] = cloud.messages
    assert message.body == '["agent"]'
    assert message.id != message_id
    assert (message.approximate_receive_count, message.approximate_first_receive_timestamp) == (0, None)
    assert clock.time() - message.sent_timestamp / 1000 < 60


def test_sqs_moves_a_message_that_was_received_too_often_with_its_id(cloud, clock):
    message_id = cloud.send('["agent"]')
    for _ in range(6):
        cloud.poll(lambda _: 1 / 0)
        clock.advance(1801)
    assert [letter["MessageId"] for letter in cloud.dead_letters()] == [message_id]


def test_only_a_dead_letter_queue_is_redriven(cloud, arn):
    with pytest.raises(ClientError, match="must be configured as a Dead Letter Queue"):
        cloud.sqs.start_message_move_task(
            SourceArn=arn(cloud.queue_url), DestinationArn=arn(cloud.dead_letter_queue_url)
        )
