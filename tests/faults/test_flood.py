"""More agents at once than one invocation can ask."""

import json
import threading
import uuid
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import batched

import pytest

from agent_log_capture.adapters.capture_queue import CAPTURES_IN_A_MESSAGE
from agent_log_capture.service.invocation import CAPTURES_IN_AN_INVOCATION
from local.clock import Clock
from local.cloud import EmbeddedCloud
from tests.faults.faulty_api import FaultyApi
from tests.faults.instance import Instance

CONCURRENCY, MAXIMUM_CONCURRENCY = 8, 4
MOST_MEMORY_MIB = 256
IN_A_MESSAGE = 25_000
PARAMETERS = {
    # What moto needs for its tables, and for looks, says nothing of a flood.
    "CoolDownSeconds": "0",
    "CaptureDeadlineSeconds": "0",
    "Concurrency": str(CONCURRENCY),
    "MaximumConcurrency": str(MAXIMUM_CONCURRENCY),
}

pytestmark = pytest.mark.faults


@pytest.fixture
def api():
    with FaultyApi(clock=Clock().time) as fake_api:
        yield fake_api


@pytest.fixture
def cloud(api):
    secret = json.dumps({"token": api.issue_token(lives_seconds=10**7), "project_id": api.project_id})
    with EmbeddedCloud(api, clock=Clock(), secret=secret, parameters=PARAMETERS) as embedded:
        yield embedded


@pytest.fixture
def instances(cloud):  # noqa: ARG001 (they live in its environment)
    with ExitStack() as exits:
        yield [exits.enter_context(Instance()) for _ in range(MAXIMUM_CONCURRENCY)]


def fleet(api, count):
    agents = [str(uuid.uuid4()) for _ in range(count)]
    api.add_agents(*agents)
    return agents


def work_off(cloud, instances):
    """Let all instances invoke the function side by side until the queue is empty; return who was published of.

    Notifications are read at once: moto looks through a whole queue for each message that is received or deleted.
    """
    pause = threading.Event()
    published = []

    def work(instance):
        while cloud.poll(instance.invoke) or cloud.waiting:
            published.extend(cloud.notifications())
            pause.wait(0.01)

    with ThreadPoolExecutor(len(instances)) as threads:
        list(threads.map(work, instances))
    return Counter(notification["agent_id"] for notification in [*published, *cloud.notifications()])


def assert_each_is_asked_once_and_published(api, cloud, instances, agents, published):
    assert api.posts == Counter(agents)
    assert published == Counter(agents)
    assert cloud.dead_letters() == []
    assert CONCURRENCY < api.most_at_once <= CONCURRENCY * MAXIMUM_CONCURRENCY
    assert 0 < max(instance.most_memory_mib for instance in instances) < MOST_MEMORY_MIB


def test_a_message_of_1_mib_fans_out_at_once_and_loses_no_one(api, cloud, instances):
    agents = fleet(api, IN_A_MESSAGE)
    cloud.send("\n".join(agents))
    assert cloud.poll(instances[0].invoke) == 1
    assert api.posts == Counter(agents[:CAPTURES_IN_AN_INVOCATION])
    assert instances[0].most_memory_mib < MOST_MEMORY_MIB
    captures = [json.loads(message.body)["captures"] for message in cloud.messages]
    assert len(captures) == (IN_A_MESSAGE - CAPTURES_IN_AN_INVOCATION) / CAPTURES_IN_A_MESSAGE
    requeue = [capture["agent_id"] for message in captures for capture in message]
    assert sorted(requeue) == sorted(agents[CAPTURES_IN_AN_INVOCATION:])


@pytest.mark.parametrize(
    ("in_a_message", "single"),
    [(1_000, 200), pytest.param(IN_A_MESSAGE, 10_000, marks=pytest.mark.long)],
)
def test_a_flood_is_worked_off_side_by_side_within_bounds(*, api, cloud, instances, in_a_message, single):
    api.latency_seconds = 0.01
    agents = fleet(api, in_a_message + single)
    cloud.send("\n".join(agents[:in_a_message]))
    for ten in batched(agents[in_a_message:], 10, strict=False):
        entries = [{"Id": agent_id, "MessageBody": agent_id} for agent_id in ten]
        assert not cloud.sqs.send_message_batch(QueueUrl=cloud.queue_url, Entries=entries).get("Failed")
    published = work_off(cloud, instances)
    assert_each_is_asked_once_and_published(api, cloud, instances, agents, published)
