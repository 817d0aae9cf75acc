"""`make bench`: measures speed, cost and size as ratios, and compares each with its goal.

`python -m bench alarm sends` measures these parts only. Exit code: 0 all goals are met, 1 one is missed.
"""

import json
import platform
import re
import sys
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from os import cpu_count, getloadavg
from pathlib import Path
from typing import Any

from bench import alarm, bulk, cold_start, picture, polling, sends
from bench.artifacts import make_artifacts, zip_ratio
from bench.processes import WORKERS, Bench, Server

_HERE = Path(__file__).resolve().parent
# Each returns figures by name; bulk also returns under `raw` the seconds that the picture shows.
_PARTS: dict[str, Callable[[Bench], dict[str, Any]]] = {
    "cold_start": cold_start.measure,
    "zip": lambda bench: {"zip_ratio": zip_ratio(bench.artifacts)},
    "bulk": bulk.measure,
    "alarm": alarm.measure,
    "sends": sends.measure,
    "polling": polling.measure,
}
# What a figure says, and its goal: at most (≤) or at least (≥) this value.
_FIGURES = {
    "cold_start_over_floor": (
        "cold start, relative to an empty handler with the same packages and clients",
        "≤ 1.10",
    ),
    "cold_start_ratio": ("cold start, relative to the naive function", ""),
    "zip_ratio": ("zip, relative to the naive function's", "≤ 0.35"),
    "bulk_over_ideal": ("1,000 agents, relative to the time of the API's responses with 32 workers", "≤ 1.2"),
    "bulk_speedup": ("1,000 agents, times as fast as the naive function", "≥ 25"),
    "cpu_ratio": ("CPU per agent, relative to bare requests in 32 threads", "≤ 3"),
    "growth": ("CPU or memory per agent with 10,000 agents, relative to 1,000", "≤ 1.1"),
    "alarm_ratio": ("alarm to request, relative to a bare handler that also writes to the table", "≤ 1.5"),
    "sends_per_capture": ("sends of a capture before its request, up to 25,000 in a message (simulated)", "≤ 2"),
    "late_seconds": ("seconds from uploaded to published, 95th percentile (simulated)", "≤ 25"),
    "polls": ("polls per agent, mean (simulated)", "≤ 2"),
}


def main(parts: list[str]) -> int:
    """Measure the parts, write results.json and bulk.svg, and print the table; return the exit code."""
    load = round(getloadavg()[0], 1)
    measured: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, Server("api") as api, Server("aws") as aws:
        print("bench: packing", file=sys.stderr)
        bench = Bench(make_artifacts(Path(folder)), api, aws)
        for part in parts:
            print(f"bench: measuring {part}", file=sys.stderr)
            measured |= _PARTS[part](bench)
    (_HERE / "results.json").write_text(json.dumps(measured, indent=2) + "\n", encoding="utf-8")
    if raw := measured.pop("raw", None):
        ideal = {agents: bulk.ideal_seconds(agents) for agents in (1, WORKERS, max(raw["ours"]))}
        picture.draw(_HERE / "bulk.svg", raw["ours"], raw["naive"], ideal)
    print(f"\nMeasured on {_machine()}, {datetime.now(UTC):%Y-%m-%d}; load before: {load}.\n")
    print("| figure | measured | goal |\n|---|---|---|")
    missed = [name for name, value in measured.items() if not _is_met(value, _FIGURES[name][1])]
    for name, value in measured.items():
        description, goal = _FIGURES[name]
        print(f"| {description} | {value:.2f} | {goal}{' (missed)' if name in missed else ''} |")
    return 1 if missed else 0


def _is_met(value: float, goal: str) -> bool:
    relation, _, limit = goal.partition(" ")
    return not goal or (value <= float(limit) if relation == "≤" else value >= float(limit))


def _machine() -> str:
    names = re.findall(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text(encoding="utf-8"))
    return f"{cpu_count()} cores of {names[0] if names else platform.machine()}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or list(_PARTS)))
