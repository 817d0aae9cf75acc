"""The time from an alarm to the API's receipt of the request."""

import json
from pathlib import Path
from statistics import median
from typing import Any

from bench.bulk import AWS_SECONDS
from bench.processes import Bench
from local.line_process import LineProcess

_EVENT = Path(__file__).resolve().parent.parent / "events/eventbridge-alarm.json"
_ROUNDS = 50
_WARM_UP_ROUNDS = 3


def measure(bench: Bench) -> dict[str, Any]:
    """Invoke the function and a bare handler with an alarm, in turns, and compare the medians in seconds."""
    bench.reset(0, AWS_SECONDS)
    with bench.ours() as ours, bench.bare("alarm") as bare:
        rounds = [
            {"ours": _seconds_to_request(bench, ours), "bare": _seconds_to_request(bench, bare)}
            for _ in range(_WARM_UP_ROUNDS + _ROUNDS)
        ]
    seconds = {name: median(each[name] for each in rounds[_WARM_UP_ROUNDS:]) for name in ("ours", "bare")}
    return {"alarm_ratio": seconds["ours"] / seconds["bare"], "raw": {"seconds_to_request": seconds}}


def _seconds_to_request(bench: Bench, worker: LineProcess) -> float:
    started_at: float = worker.ask(json.loads(_EVENT.read_text(encoding="utf-8")))["started_at"]
    last_call_at: float = bench.api.ask(["report"])["last_call_at"]
    return last_call_at - started_at
