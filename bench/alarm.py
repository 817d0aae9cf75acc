"""The time from an alarm to the API's receipt of the request."""

import json
from pathlib import Path
from statistics import median

from bench.bulk import AWS_SECONDS
from bench.processes import Bench
from local.line_process import LineProcess

_EVENT = Path(__file__).resolve().parent.parent / "events/eventbridge-alarm.json"
_ROUNDS = 50


def measure(bench: Bench) -> dict[str, float]:
    """Invoke the function and a bare handler with an alarm, in turns, and compare the medians."""
    bench.reset(0, AWS_SECONDS)
    ours, bare = [], []
    with bench.ours() as our_worker, bench.bare("alarm") as bare_worker:
        for _ in range(_ROUNDS):
            ours.append(_seconds_to_request(bench, our_worker))
            bare.append(_seconds_to_request(bench, bare_worker))
    return {"alarm_ratio": median(ours) / median(bare)}


def _seconds_to_request(bench: Bench, worker: LineProcess) -> float:
    started_at: float = worker.ask(json.loads(_EVENT.read_text(encoding="utf-8")))["started_at"]
    last_call_at: float = bench.api.ask(["report"])["last_call_at"]
    return last_call_at - started_at
