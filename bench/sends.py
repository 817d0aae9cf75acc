"""How many times a capture is sent to the queue before its first request, when one message names many agents.

The event source mapping is simulated: one invocation after the other gets as many messages as `BatchSize` allows.
Smaller batches, as AWS delivers them when several invocations share the queue, can only lower the number. Log files
are not polled, so that a capture is not sent again after its request.
"""

import re
from typing import Any

from bench.bulk import message
from bench.processes import Bench, queue_event
from local.template import translate

_SIZES = (6000, 25_000)
_AGENT = re.compile(r"bench-agent-\d+")


def measure(bench: Bench) -> dict[str, Any]:
    """Return the larger mean of 6,000 and of 25,000 agents in one message."""
    sizes = {agents: _simulate(bench, agents) for agents in _SIZES}
    return {"sends_per_capture": max(each["sends_per_capture"] for each in sizes.values()), "raw": sizes}


def _simulate(bench: Bench, agents: int) -> dict[str, float]:
    bench.reset(0, 0)
    batch_size = next(
        resource["Properties"]["BatchSize"]
        for resource in translate()["Resources"].values()
        if resource["Type"] == "AWS::Lambda::EventSourceMapping"
    )
    sends = messages = invocations = 0
    batch = [message(f"bench-agent-{number}" for number in range(agents))]
    with bench.ours(PROCESS_EVERYTHING="", CAPTURE_DEADLINE_SECONDS="0") as worker:
        while batch:
            worker.ask(queue_event(batch))
            invocations += 1
            batch = bench.aws.control(f"receive?{batch_size}")
            messages += len(batch)
            sends += sum(len(set(_AGENT.findall(body))) for body in batch)
    requests = bench.api.control("report")["calls"]["POST logfiles"]
    if requests != agents:
        raise AssertionError(f"expected one request for each of {agents} agents, found {requests}")
    return {"sends_per_capture": sends / agents, "messages": messages, "invocations": invocations}
