"""An API that fails for all agents, or whose responses do not end, over real connections."""

from collections import Counter

import pytest

from agent_log_capture.service import worker_pool
from tests.faults.faulty_api import Fault

FLEET = [f"agent-{number:03}" for number in range(200)]
WORKERS = 32


def endings(notifications):
    return Counter(notification["status"] for notification in notifications if notification["status"] != "requested")


@pytest.fixture
def _short_calls(monkeypatch):
    monkeypatch.setattr(worker_pool, "CALL_SECONDS", 0.3)
    monkeypatch.setattr(worker_pool, "_CHECK_SECONDS", 0.05)


@pytest.mark.usefixtures("_short_calls")
@pytest.mark.parametrize("drips_head", [False, True], ids=["body", "head"])
def test_a_request_whose_response_drips_is_abandoned_and_its_log_file_found(api, cloud, drips_head):
    api.add_agents("agent", "other")
    api.inject("agent", Fault(drip_seconds=0.05, drips_head=drips_head))
    cloud.send('["agent", "other"]')
    cloud.poll()
    assert [notification["agent_id"] for notification in cloud.notifications()] == ["other"]
    cloud.drain()
    assert endings(cloud.notifications()) == {"captured": 2}
    assert api.asked == Counter(["agent", "other"])


@pytest.mark.usefixtures("_short_calls")
def test_polls_whose_responses_drip_are_repeated(api, cloud):
    api.add_agents("agent")
    cloud.send('["agent"]')
    cloud.poll()
    api.inject("agent", Fault(drip_seconds=0.05, method="GET", times=2))
    cloud.drain()
    assert endings(cloud.notifications()) == {"captured": 1}


def test_an_outage_costs_few_calls_and_everybody_is_asked_when_it_is_over(api, cloud, clock):
    api.pick_up_seconds = api.upload_seconds = 0
    api.add_agents(*FLEET)
    for agent_id in FLEET:
        api.inject(agent_id, Fault(status=503, method="POST"))
    cloud.send(" ".join(FLEET))
    cloud.poll()
    assert WORKERS < api.asked.total() <= 2 * WORKERS
    tried = set(api.asked)
    assert cloud.poll() == 0
    clock.advance(59)
    cloud.poll()
    assert set(api.asked) == tried, "what was not tried waits for a minute"
    cloud.drain()
    assert endings(cloud.notifications()) == {"captured": len(FLEET)}
    assert api.posts == Counter(FLEET)
