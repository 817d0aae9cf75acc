"""How soon after an upload its notification is published, and how many polls that takes: a simulation.

Agents poll for work every 30 s at a random moment, and upload for a few seconds to a few minutes: the times are
log-normal, with a median of 10 s, and 1 in 200 takes longer than two minutes. The policy is the function's own. What
the queue, Lambda and the API add is left out. `python -m bench.polling` prints both figures.
"""

import math
import random
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from statistics import fmean, quantiles

from agent_log_capture.domain.capture import Capture
from agent_log_capture.domain.outcome import LogFile
from agent_log_capture.domain.polling import Poll, PollPolicy
from agent_log_capture.domain.responses import Accepted, ApiResponse, Deferred
from agent_log_capture.domain.trigger import Trigger, TriggerType

_AGENTS = 20_000
_SEED = 11
_IDLE_POLL_SECONDS = 30
_UPLOAD_MEDIAN_SECONDS = 10
_UPLOAD_SIGMA = 1
_REQUESTED_AT = datetime(2026, 11, 23, 3, 12, 40, tzinfo=UTC)
_TRIGGER = Trigger(TriggerType.MANUAL, "simulation")
_CAPTURE = Capture(agent_id="agent", region="DFW", trigger=_TRIGGER, asked_at=_REQUESTED_AT, retry_from=_REQUESTED_AT)
_POLICY = PollPolicy(deadline_seconds=86_400, grace_seconds=0)


@dataclass(frozen=True, slots=True)
class Polling:
    """`late_seconds` is the 95th percentile from "uploaded" to "published"; `polls` is the mean for an agent."""

    late_seconds: float
    polls: float


def simulate() -> Polling:
    """Follow 20,000 agents from the request to the poll that finds the log file."""
    dice = random.Random(_SEED)
    runs = [_follow(_uploaded_after(dice)) for _ in range(_AGENTS)]
    return Polling(quantiles((late for late, _ in runs), n=20)[-1], fmean(polls for _, polls in runs))


def _uploaded_after(dice: random.Random) -> timedelta:
    upload = dice.lognormvariate(math.log(_UPLOAD_MEDIAN_SECONDS), _UPLOAD_SIGMA)
    return timedelta(seconds=dice.uniform(0, _IDLE_POLL_SECONDS) + upload)


def _follow(uploaded_after: timedelta) -> tuple[float, int]:
    """Poll until the log file is found; return how late that is, in seconds, and how many polls it took."""
    accepted = Accepted(
        trigger=_TRIGGER,
        replays=0,
        requested_at=_REQUESTED_AT,
        answer=ApiResponse(http_status=202, log_file=LogFile()),
    )
    waiting = _POLICY.first_poll(_CAPTURE, accepted)
    since_request = timedelta()
    polls = 0
    while isinstance(waiting, Deferred):
        since_request += timedelta(seconds=waiting.delay_seconds)
        polls += 1
        state = "completed" if since_request >= uploaded_after else "started"
        waiting = _poll(waiting.capture, since_request, state)
    return (since_request - uploaded_after).total_seconds(), polls


def _poll(capture: Capture, since_request: timedelta, state: str) -> object:
    assert capture.polling
    at = _REQUESTED_AT + since_request
    poll = Poll(policy=_POLICY, capture=capture, polling=capture.polling, at=at, project_id=None)
    return poll.answered(ApiResponse(http_status=200, log_file=LogFile(id="log-file", state=state)))


if __name__ == "__main__":
    found = simulate()
    print(f"uploaded to published, 95th percentile: {found.late_seconds:.1f} s; polls an agent: {found.polls:.2f}")
