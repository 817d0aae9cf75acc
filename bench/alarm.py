"""The time from an alarm to the API's receipt of the request."""

import json
from pathlib import Path
from statistics import median
from typing import Any

from bench.bulk import AWS_SECONDS
from bench.processes import Bench, Worker

_EVENT = Path(__file__).resolve().parent.parent / "events/eventbridge-alarm.json"
_ROUNDS = 50
_WARM_UP_ROUNDS = 3


def measure(bench: Bench) -> dict[str, Any]:
    """Invoke the function and a bare handler with an alarm, in turns, and compare the medians in milliseconds."""
    event = json.loads(_EVENT.read_text(encoding="utf-8"))
    bench.reset(0, AWS_SECONDS)
    ours, bare = [], []
    with bench.ours() as our_worker, bench.bare("alarm") as bare_worker:
        for _ in range(_WARM_UP_ROUNDS + _ROUNDS):
            ours.append(_milliseconds_to_request(bench, our_worker, event))
            bare.append(_milliseconds_to_request(bench, bare_worker, event))
    ms = {"ours": median(ours[_WARM_UP_ROUNDS:]), "bare": median(bare[_WARM_UP_ROUNDS:])}
    return {"alarm_ratio": ms["ours"] / ms["bare"], "raw": {"rounds": _ROUNDS, "milliseconds_to_request": ms}}


def _milliseconds_to_request(bench: Bench, worker: Worker, event: object) -> float:
    started_at: float = worker.ask(event)["started_at"]
    return 1000 * float(bench.api.control("report")["last_call_at"] - started_at)
