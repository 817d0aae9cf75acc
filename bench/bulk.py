"""How long many agents take, and what of CPU, memory and calls."""

import uuid
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import batched
from statistics import median
from typing import Any

from bench.artifacts import Artifacts
from bench.processes import BARE, WORKERS, Measured, Server, Worker, environment

API_SECONDS = 0.1
AWS_SECONDS = 0.005
AGENTS = 1000
_NAIVE_AGENTS = 100
_IDS_IN_A_RECORD = 100
_ROUNDS = 5
_SIZES = (10, 100, 1000, 10_000)
_NAIVE_SIZES = (1, 10, _NAIVE_AGENTS)


@dataclass(frozen=True, slots=True)
class Bench:
    """What all measurements are made with."""

    artifacts: Artifacts
    api: Server
    aws: Server

    def ours(self, *, has_cool_down: bool = True) -> Worker:
        """Return the capture function."""
        variables = environment(self.api, self.aws, has_cool_down=has_cool_down)
        return Worker("agent_log_capture.handlers.capture.lambda_handler", self.artifacts.ours, environment=variables)

    def naive(self) -> Worker:
        """Return the function that asks one agent after the other."""
        variables = environment(self.api, self.aws, has_cool_down=True)
        return Worker("function.lambda_handler", self.artifacts.naive, environment=variables)

    def bare(self, name: str, *, has_cool_down: bool = False) -> Worker:
        """Return a handler that does nothing but the requests, with the packages of ours."""
        variables = environment(self.api, self.aws, has_cool_down=has_cool_down)
        return Worker(f"{name}.lambda_handler", BARE, self.artifacts.ours, environment=variables)

    def reset(self, *, api_seconds: float = API_SECONDS, aws_seconds: float = AWS_SECONDS) -> None:
        """Let every call take so long, and forget those that were made."""
        self.api.reset(api_seconds)
        self.aws.reset(aws_seconds)


@dataclass(frozen=True, slots=True)
class Run:
    """One invocation, with what the servers have counted of it."""

    measured: Measured
    api: Mapping[str, Any]
    aws: Mapping[str, Any]


def queue_event(agents: int) -> dict[str, Any]:
    """Return what Lambda hands over of a queue: so many agents, a hundred in each message."""
    ids = [str(uuid.uuid4()) for _ in range(agents)]
    return {"Records": [_record(list(group)) for group in batched(ids, _IDS_IN_A_RECORD, strict=False)]}


def _record(agent_ids: list[str]) -> dict[str, Any]:
    sent = {"ApproximateReceiveCount": "1", "SentTimestamp": "1795490052000"}
    return {
        "messageId": str(uuid.uuid4()),
        "receiptHandle": "receipt",
        "body": f'{{"agent_ids": ["{'", "'.join(agent_ids)}"]}}',
        "attributes": sent,
        "messageAttributes": {},
        "eventSource": "aws:sqs",
        "eventSourceARN": "arn:aws:sqs:us-east-1:123456789012:captures",
        "awsRegion": "us-east-1",
    }


def ideal_seconds(agents: int) -> float:
    """Return how long the API's answers take when all workers ask all the time."""
    return max(API_SECONDS, agents * API_SECONDS / WORKERS)


def measure(bench: Bench) -> dict[str, Any]:
    """Ask a thousand agents: with and without the cool-down, and with nothing but the requests; and fewer, naively.

    Every process is warm: it has done the same for as many agents as there are workers.
    """
    runs: dict[str, list[Run]] = {"cool_down": [], "no_cool_down": [], "bare": []}
    with ExitStack() as exits:
        workers = {
            "cool_down": exits.enter_context(bench.ours()),
            "no_cool_down": exits.enter_context(bench.ours(has_cool_down=False)),
            "bare": exits.enter_context(bench.bare("bulk")),
        }
        for worker in workers.values():
            worker.invoke(queue_event(WORKERS))
        for _ in range(_ROUNDS):
            for name, worker in workers.items():
                runs[name].append(_run(bench, worker, AGENTS))
    return {
        "agents": AGENTS,
        "workers": WORKERS,
        "api_seconds": API_SECONDS,
        "aws_seconds": AWS_SECONDS,
        "rounds": _ROUNDS,
        "ideal_seconds": ideal_seconds(AGENTS),
        **{name: _of_rounds(each) for name, each in runs.items()},
        "naive": _naive(bench),
    }


def _run(bench: Bench, worker: Worker, agents: int) -> Run:
    event = queue_event(agents)
    bench.reset()
    measured = worker.invoke(event)
    run = Run(measured, bench.api.report(), bench.aws.report())
    if run.api["calls"] != {"POST logfiles": agents}:
        raise AssertionError(f"{agents} agents were to be asked, and these calls were made: {run.api['calls']}")
    return run


def _of_rounds(runs: list[Run]) -> dict[str, Any]:
    """Return the medians of one kind's rounds; the API's load says whether the server was what it waited for."""
    seconds = median(run.measured.seconds for run in runs)
    return {
        "seconds": round(seconds, 3),
        "cpu_milliseconds_per_agent": round(median(1000 * run.measured.cpu_seconds / AGENTS for run in runs), 3),
        "peak_mib": round(max(run.measured.peak_mib for run in runs), 1),
        "api_server_load": round(median(run.api["cpu_seconds"] / run.measured.seconds for run in runs), 3),
        "aws_server_load": round(median(run.aws["cpu_seconds"] / run.measured.seconds for run in runs), 3),
        "aws_calls": dict(sorted(runs[-1].aws["calls"].items())),
    }


def _naive(bench: Bench) -> dict[str, Any]:
    """Ask few agents one after the other; each takes as long as the one before."""
    with bench.naive() as worker:
        worker.invoke(queue_event(1))
        seconds = {agents: _run(bench, worker, agents).measured.seconds for agents in _NAIVE_SIZES}
    return {
        "seconds": {str(agents): round(each, 3) for agents, each in seconds.items()},
        "seconds_per_agent": round(seconds[_NAIVE_AGENTS] / _NAIVE_AGENTS, 5),
        "says": f"measured up to {_NAIVE_AGENTS} agents; its time per agent does not depend on how many there are",
    }


def measure_growth(bench: Bench) -> dict[str, Any]:
    """Ask more and more agents; return what each of them takes, in a process of its own for each number."""
    return {str(agents): _per_agent(bench, agents) for agents in _SIZES}


def _per_agent(bench: Bench, agents: int) -> dict[str, float]:
    rounds = _ROUNDS if agents <= AGENTS else 2
    runs = []
    for _ in range(rounds):
        # Memory that was taken once stays: a used process would grow by less.
        with bench.ours() as worker:
            worker.invoke(queue_event(WORKERS))
            runs.append(_run(bench, worker, agents).measured)
    return {
        "seconds": round(median(run.seconds for run in runs), 3),
        "over_ideal": round(median(run.seconds for run in runs) / ideal_seconds(agents), 3),
        "cpu_milliseconds_per_agent": round(median(1000 * run.cpu_seconds / agents for run in runs), 3),
        "grown_kib_per_agent": round(median(run.grown_kib / agents for run in runs), 2),
        "peak_mib": round(max(run.peak_mib for run in runs), 1),
    }
