"""Lambda's recursive loop detection: what waits goes through the queue again and again, and must not be stopped.

What the embedded cloud does follows the Lambda developer guide, "Use Lambda recursive loop detection to prevent
infinite loops" (docs.aws.amazon.com/lambda/latest/dg/invocation-recursion.html), the X-Ray developer guide, "Amazon
SQS and AWS X-Ray", and boto/boto3 issue 3899. What a batch with messages of several chains counts as is documented
nowhere.
"""

import pytest

from local.lineage import MOST_INVOCATIONS

TRIPS = 30


def statuses(cloud):
    return [notification["status"] for notification in cloud.notifications()]


@pytest.fixture
def travel(cloud, clock):
    """Lets a capture come out of the queue, again and again; says how often the function was invoked with it."""

    def travel(trips):
        invocations = 0
        for _ in range(trips):
            clock.advance(1801)  # longer than any delay, and than a message is hidden that was received
            invocations += cloud.poll()
        return invocations

    return travel


def test_a_capture_is_polled_for_as_long_as_it_takes(api, cloud, travel):
    api.add_agents("agent", online=False)
    cloud.send('["agent"]')
    assert travel(1 + TRIPS) == 1 + TRIPS
    api.set_online("agent", online=True)
    travel(2)
    assert statuses(cloud) == ["requested", "captured"]
    assert cloud.dead_letters() == []


def test_a_loop_that_lambda_does_not_allow_ends_after_sixteen_invocations_and_the_capture_is_lost(api, cloud, travel):
    cloud.recursive_loop = "Terminate"
    api.add_agents("agent", online=False)
    cloud.send('["agent"]')
    assert travel(TRIPS) == MOST_INVOCATIONS
    api.set_online("agent", online=True)
    cloud.drain()
    assert statuses(cloud) == ["requested"]
    [letter] = cloud.dead_letters()
    assert "reason" not in letter.get("MessageAttributes", {})


def test_each_message_is_stopped_by_its_own_chain(api, cloud, travel):
    cloud.recursive_loop = "Terminate"
    api.add_agents("old", "new")
    api.set_online("old", online=False)
    cloud.send('["old"]')
    travel(MOST_INVOCATIONS)
    cloud.send('["new"]')
    assert travel(1) == 1
    assert [
        notification["agent_id"] for notification in cloud.notifications() if notification["status"] == "requested"
    ] == ["old", "new"]
