"""How many times a capture is sent to the queue before its first request, when one message names many agents.

The event source mapping is simulated: one invocation after the other gets as many messages as `BatchSize` allows.
Smaller batches, as AWS delivers them when several invocations share the queue, can only lower the number. Log files
are not polled, so that a capture is not sent again after its request.
"""

import re

from bench.processes import Bench, message, queue_event
from local.template import translate

_SIZES = (6000, 25_000)
_AGENT = re.compile(r"bench-agent-\d+")


def measure(bench: Bench) -> dict[str, float]:
    """Return the larger mean of 6,000 and of 25,000 agents in one message."""
    return {"sends_per_capture": max(_sends(bench, agents) / agents for agents in _SIZES)}


def _sends(bench: Bench, agents: int) -> int:
    """Return how many times the agents of one message are sent to the queue, all together."""
    bench.reset(0, 0)
    batch_size = translate()["Resources"]["CaptureFunctionCaptureQueue"]["Properties"]["BatchSize"]
    sends = 0
    batch = [message(f"bench-agent-{number}" for number in range(agents))]
    with bench.ours(PROCESS_EVERYTHING="", CAPTURE_DEADLINE_SECONDS="0") as worker:
        while batch:
            worker.ask(queue_event(batch))
            batch = bench.aws.ask(["receive", batch_size])
            sends += sum(len(set(_AGENT.findall(body))) for body in batch)
    bench.check_requests(agents)
    return sends
