"""Many agents in one invocation: time, CPU and memory."""

import uuid
from itertools import batched
from statistics import median
from typing import Any

from bench.processes import WORKERS, Bench, message, queue_event
from local.line_process import LineProcess

API_SECONDS = 0.1
AWS_SECONDS = 0.005
AGENTS = 1000
_MOST_AGENTS = 10_000
_NAIVE_AGENTS = 100  # its time per agent does not depend on their number
_IDS_IN_A_MESSAGE = 100
# The number of agents, and of rounds with as many.
_SIZES = {10: 5, 100: 5, AGENTS: 5, _MOST_AGENTS: 2}

type Run = dict[str, float]


def ideal_seconds(agents: int) -> float:
    """Return the time of the API's responses when all workers are busy all the time."""
    return max(API_SECONDS, agents * API_SECONDS / WORKERS)


def measure(bench: Bench) -> dict[str, Any]:
    """Request 10 to 10,000 agents with the function, 1,000 with the requests alone, 100 with the naive function."""
    runs: dict[int, list[Run]] = {agents: [] for agents in _SIZES}
    bare_runs = []
    for agents, rounds in _SIZES.items():
        for _ in range(rounds):
            runs[agents].append(_warm_run(bench, bench.ours(), agents))
            if agents == AGENTS:
                bare_runs.append(_warm_run(bench, bench.bare("bulk"), agents))
    ours, bare = {agents: _medians(each) for agents, each in runs.items()}, _medians(bare_runs)
    naive = {agents: _warm_run(bench, bench.naive(), agents)["seconds"] for agents in (1, 10, _NAIVE_AGENTS)}
    grown = (ours[_MOST_AGENTS][name] / ours[AGENTS][name] for name in ("cpu_seconds", "grown_kib"))
    return {
        "bulk_over_ideal": ours[AGENTS]["seconds"] / ideal_seconds(AGENTS),
        "bulk_speedup": naive[_NAIVE_AGENTS] / _NAIVE_AGENTS * AGENTS / ours[AGENTS]["seconds"],
        "cpu_ratio": ours[AGENTS]["cpu_seconds"] / bare["cpu_seconds"],
        "growth": max(grown) / (_MOST_AGENTS / AGENTS),
        "raw": {"ours": {agents: run["seconds"] for agents, run in ours.items()}, "naive": naive},
    }


def _warm_run(bench: Bench, new_worker: LineProcess, agents: int) -> Run:
    """Measure in a new process, warmed up with 32 agents: a used one has memory that it does not return."""
    with new_worker as worker:
        for count in (WORKERS, agents):
            ids = (str(uuid.uuid4()) for _ in range(count))
            event = queue_event(message(group) for group in batched(ids, _IDS_IN_A_MESSAGE, strict=False))
            bench.reset(API_SECONDS, AWS_SECONDS)
            run: Run = worker.ask(event)
    bench.check_requests(agents)
    return run


def _medians(runs: list[Run]) -> Run:
    return {name: median(run[name] for run in runs) for name in ("seconds", "cpu_seconds", "grown_kib")}
