"""Many agents in one invocation: time, CPU and memory."""

import uuid
from collections.abc import Iterable
from itertools import batched
from statistics import median
from typing import Any

from bench.processes import WORKERS, Bench, Worker, queue_event

API_SECONDS = 0.1
AWS_SECONDS = 0.005
AGENTS = 1000
_MOST_AGENTS = 10_000
_NAIVE_AGENTS = 100  # its time per agent does not depend on their number
_IDS_IN_A_MESSAGE = 100
# The number of agents, and of rounds with as many.
_SIZES = {10: 5, 100: 5, AGENTS: 5, _MOST_AGENTS: 2}

type Run = dict[str, Any]


def message(agent_ids: Iterable[str]) -> str:
    """Return the body of a message that names agents."""
    return f'{{"agent_ids": ["{'", "'.join(agent_ids)}"]}}'


def ideal_seconds(agents: int) -> float:
    """Return the time of the API's responses when all workers are busy all the time."""
    return max(API_SECONDS, agents * API_SECONDS / WORKERS)


def measure(bench: Bench) -> dict[str, Any]:
    """Request 10 to 10,000 agents with the function, 1,000 with the requests alone, 100 with the naive function."""
    ours, bare = {}, []
    for agents, rounds in _SIZES.items():
        runs = []
        for _ in range(rounds):
            runs.append(_warm_run(bench, bench.ours(), agents))
            if agents == AGENTS:
                bare.append(_warm_run(bench, bench.bare("bulk"), agents))
        ours[agents] = _medians(runs, agents)
    naive = {agents: _warm_run(bench, bench.naive(), agents)["seconds"] for agents in (1, 10, _NAIVE_AGENTS)}
    cpu, growth = "cpu_ms_per_agent", ("cpu_ms_per_agent", "grown_kib_per_agent")
    bare_medians = _medians(bare, AGENTS)
    return {
        "bulk_over_ideal": ours[AGENTS]["seconds"] / ideal_seconds(AGENTS),
        "bulk_speedup": naive[_NAIVE_AGENTS] / _NAIVE_AGENTS * AGENTS / ours[AGENTS]["seconds"],
        "cpu_ratio": ours[AGENTS][cpu] / bare_medians[cpu],
        "growth": max(ours[_MOST_AGENTS][name] / ours[AGENTS][name] for name in growth),
        "raw": {"ours": ours, "bare": bare_medians, "naive_seconds": naive},
    }


def _warm_run(bench: Bench, new_worker: Worker, agents: int) -> Run:
    """Measure in a new process, warmed up with 32 agents: a used one has memory that it does not return."""
    with new_worker as worker:
        bench.reset(API_SECONDS, AWS_SECONDS)
        worker.ask(_event_of(WORKERS))
        event = _event_of(agents)
        bench.reset(API_SECONDS, AWS_SECONDS)
        run: Run = worker.ask(event)
    api, aws = bench.api.control("report"), bench.aws.control("report")
    if api["calls"] != {"POST logfiles": agents}:
        raise AssertionError(f"expected one request for each of {agents} agents, found {api['calls']}")
    return run | {"api_cpu_seconds": api["cpu_seconds"], "aws_calls": aws["calls"]}


def _event_of(agents: int) -> dict[str, Any]:
    ids = (str(uuid.uuid4()) for _ in range(agents))
    return queue_event(message(group) for group in batched(ids, _IDS_IN_A_MESSAGE, strict=False))


def _medians(runs: list[Run], agents: int) -> dict[str, Any]:
    """Return the medians of some runs; `api_load` shows whether the fake API was the bottleneck."""

    def middle(name: str, factor: float) -> float:
        return round(factor * float(median(run[name] for run in runs)), 3)

    seconds = middle("seconds", 1)
    return {
        "seconds": seconds,
        "cpu_ms_per_agent": middle("cpu_seconds", 1000 / agents),
        "grown_kib_per_agent": middle("grown_kib", 1 / agents),
        "peak_mib": middle("peak_kib", 1 / 1024),
        "api_load": middle("api_cpu_seconds", 1 / seconds),
        "aws_calls": runs[-1]["aws_calls"],
    }
