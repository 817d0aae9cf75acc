"""How soon after an upload its notification is published, and with how many polls: a simulation.

Agents poll for work every 30 s at a random moment, and upload for a few seconds to a few minutes: the durations are
log-normal with a median of 10 s, and 1 in 200 takes longer than two minutes. The policy is the function's own; the
latency of the queue, Lambda and the API is left out.
"""

import math
import random
from datetime import UTC, datetime, timedelta
from statistics import fmean, quantiles

from agent_log_capture.domain.capture import Capture, Polling
from agent_log_capture.domain.outcome import LogFile, Trigger, TriggerType
from agent_log_capture.domain.polling import Poll, PollPolicy
from agent_log_capture.domain.responses import ApiResponse

_AGENTS = 20_000
_SEED = 11
_IDLE_POLL_SECONDS = 30
_UPLOAD_MEDIAN_SECONDS = 10
_UPLOAD_SIGMA = 1
_START = datetime(2026, 11, 23, 3, 12, 40, tzinfo=UTC)
_TRIGGER = Trigger(TriggerType.MANUAL, "simulation")
_CAPTURE = Capture(agent_id="agent", region="DFW", trigger=_TRIGGER, asked_at=_START, retry_from=_START)
_POLICY = PollPolicy(deadline_seconds=86_400, grace_seconds=0)


def measure(_: object) -> dict[str, float]:
    """Return the 95th percentile of the seconds from uploaded to published, and the mean number of polls."""
    generator = random.Random(_SEED)
    uploads = (generator.lognormvariate(math.log(_UPLOAD_MEDIAN_SECONDS), _UPLOAD_SIGMA) for _ in range(_AGENTS))
    runs = [_capture(generator.uniform(0, _IDLE_POLL_SECONDS) + upload) for upload in uploads]
    late_seconds = quantiles((late for late, _ in runs), n=20)[-1]
    return {"late_seconds": late_seconds, "polls": fmean(polls for _, polls in runs)}


def _capture(upload_seconds: float) -> tuple[float, int]:
    """Poll one agent's log file until it is uploaded; return the seconds since then, and the number of polls."""
    accepted = ApiResponse(http_status=202, log_file=LogFile())
    step = _POLICY.requested(_CAPTURE, accepted, requested_at=_START, at=_START, project_id=None)
    seconds = polls = 0
    while step.next:
        seconds += step.delay_seconds
        polls += 1
        at = _START + timedelta(seconds=seconds)
        state = "completed" if seconds >= upload_seconds else "started"
        assert isinstance(step.next.phase, Polling)
        poll = Poll(policy=_POLICY, capture=step.next, phase=step.next.phase, at=at, project_id=None)
        step = poll.answered(ApiResponse(http_status=200, log_file=LogFile(id="log-file", state=state)))
    return seconds - upload_seconds, polls
