"""`make bench`: how fast, how frugal and how small the function is, each as a ratio to what is measured beside it."""

import json
import platform
import sys
import tempfile
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from operator import ge, le
from os import cpu_count, getloadavg
from pathlib import Path
from typing import Any

from bench import alarm, bulk, cold_start, picture, polling
from bench.artifacts import pack, size
from bench.processes import WORKERS, Server

_HERE = Path(__file__).resolve().parent


@dataclass(frozen=True, slots=True)
class Figure:
    """One ratio, and what it is to be at most, or at least."""

    name: str
    says: str
    goal: float
    is_most: bool = True

    def row(self, measured: float) -> str:
        """Return its row of the table."""
        is_met = (le if self.is_most else ge)(measured, self.goal)
        goal = f"{'≤' if self.is_most else '≥'} {self.goal:g}"
        return f"| {self.says} | {measured:.2f} | {goal}{'' if is_met else ' (missed)'} |"


_FIGURES = (
    Figure("cold_start_ratio", "cold start, of the naive function's", 0.30),
    Figure("zip_ratio", "zip, of the naive function's", 0.35),
    Figure("bulk_over_ideal", "1,000 agents, of the time that the API's answers take with 32 workers", 1.2),
    Figure("bulk_speedup", "1,000 agents, times as fast as one by one", 25, is_most=False),
    Figure("cpu_ratio", "CPU for each agent, of bare requests' in 32 threads", 3),
    Figure("alarm_ratio", "alarm to request, of a bare handler's that writes to the table, too", 1.5),
    Figure("growth", "CPU or memory for each of 10,000 agents, of that for each of 1,000", 1.1),
    Figure("late_seconds", "seconds from uploaded to published, 95th percentile (simulated)", 25),
    Figure("polls", "polls an agent, mean (simulated)", 2),
)


def main() -> None:
    """Measure all, write results.json and bulk.svg, and print the table."""
    raw = _measure()
    figures = {name: round(each, 3) for name, each in _figures(raw).items()}
    results = figures | {"raw": raw}
    (_HERE / "results.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    (_HERE / "bulk.svg").write_text(_picture(raw), encoding="utf-8")
    print(f"\nMeasured on {raw['machine']}, {raw['date']}; load before it {raw['load_average']['before']}.\n")
    print("| figure | measured | goal |\n|---|---|---|")
    for figure in _FIGURES:
        print(figure.row(figures[figure.name]))


def _measure() -> dict[str, Any]:
    raw: dict[str, Any] = {"machine": _machine(), "date": f"{datetime.now(UTC):%Y-%m-%d}"}
    load_before = round(getloadavg()[0], 1)
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, Server("api") as api, Server("aws") as aws:
        _say("packs both functions")
        artifacts = pack(Path(folder))
        bench = bulk.Bench(artifacts, api, aws)
        raw["zip"] = size(artifacts)
        _say("starts them")
        raw["cold_start"] = cold_start.measure(artifacts, api, aws)
        _say("sends alarms")
        raw["alarm"] = alarm.measure(bench)
        _say("asks 1,000 agents")
        raw["bulk"] = bulk.measure(bench)
        _say("asks up to 10,000")
        raw["growth"] = bulk.measure_growth(bench)
    raw["polling"] = asdict(polling.simulate())
    # What else has run on the machine shows here; the second one has the bench's own processes in it.
    raw["load_average"] = {"before": load_before, "after": round(getloadavg()[0], 1)}
    return raw


def _say(what: str) -> None:
    print(f"bench: {what}", file=sys.stderr)


def _machine() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{cpu_count()} cores of {names[0] if names else platform.machine()}"


def _figures(raw: dict[str, Any]) -> dict[str, float]:
    starts, many = raw["cold_start"]["init_milliseconds"], raw["bulk"]
    to_post = raw["alarm"]["milliseconds_to_post"]["aws_answers_in_5_ms"]
    naive_seconds = many["naive"]["seconds_per_agent"] * many["agents"]
    return {
        "cold_start_ratio": starts["ours"] / starts["naive"],
        "bulk_over_ideal": many["cool_down"]["seconds"] / many["ideal_seconds"],
        "bulk_speedup": naive_seconds / many["cool_down"]["seconds"],
        "cpu_ratio": many["cool_down"]["cpu_milliseconds_per_agent"] / many["bare"]["cpu_milliseconds_per_agent"],
        "alarm_ratio": to_post["ours_cool_down"] / to_post["bare_with_put"],
        "growth": _growth(raw["growth"]["1000"], raw["growth"]["10000"]),
        "zip_ratio": raw["zip"]["ours_bytes"] / raw["zip"]["naive_bytes"],
        **raw["polling"],
    }


def _growth(fewer: dict[str, float], more: dict[str, float]) -> float:
    names = ("cpu_milliseconds_per_agent", "grown_kib_per_agent")
    return max(more[name] / fewer[name] for name in names)


def _picture(raw: dict[str, Any]) -> str:
    ours = {int(agents): each["seconds"] for agents, each in raw["growth"].items()}
    naive = {int(agents): seconds for agents, seconds in raw["bulk"]["naive"]["seconds"].items()}
    ideal = {agents: bulk.ideal_seconds(agents) for agents in (1, WORKERS, max(ours))}
    return picture.draw(ours, naive, ideal)


if __name__ == "__main__":
    main()
