"""How long after an alarm the API sees the request."""

import json
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

from bench.bulk import AWS_SECONDS, Bench
from bench.processes import Worker

_EVENT = Path(__file__).resolve().parent.parent / "events/eventbridge-alarm.json"
_ROUNDS = 50
_WARM_ROUNDS = 3


def measure(bench: Bench) -> dict[str, Any]:
    """Hand an alarm to warm functions, one after the other; return the medians in milliseconds.

    By what a call to AWS takes: the function with its default settings and a handler that writes to the same table
    with boto3 before the request; the function without the cool-down and a handler that makes the request alone.
    """
    event = json.loads(_EVENT.read_text(encoding="utf-8"))
    with ExitStack() as exits:
        workers = {
            "ours_cool_down": exits.enter_context(bench.ours()),
            "bare_with_put": exits.enter_context(bench.bare("alarm", has_cool_down=True)),
            "ours_no_cool_down": exits.enter_context(bench.ours(has_cool_down=False)),
            "bare": exits.enter_context(bench.bare("alarm")),
        }
        return {
            "rounds": _ROUNDS,
            "milliseconds_to_post": {
                "aws_answers_in_5_ms": _medians(bench, workers, event, AWS_SECONDS),
                "aws_answers_at_once": _medians(bench, workers, event, 0),
            },
        }


def _medians(bench: Bench, workers: dict[str, Worker], event: object, aws_seconds: float) -> dict[str, float]:
    bench.reset(api_seconds=0, aws_seconds=aws_seconds)
    took: dict[str, list[float]] = {name: [] for name in workers}
    for _ in range(_WARM_ROUNDS + _ROUNDS):
        for name, worker in workers.items():
            began_at = worker.invoke(event).began_at
            took[name].append(1000 * (bench.api.report()["last_seen_at"] - began_at))
    return {name: round(median(each[_WARM_ROUNDS:]), 3) for name, each in took.items()}
