"""The cold start in Lambda's own runtime."""

from statistics import median

from bench.processes import CAPTURE, Bench
from local.emulator import Emulator

_STARTS = 15
_HANDLERS = {"ours": CAPTURE, "floor": "floor.lambda_handler", "naive": "function.lambda_handler"}


def measure(bench: Bench) -> dict[str, float]:
    """Start each function 15 times, in turns, and compare the medians in milliseconds."""
    starts: dict[str, list[float]] = {name: [] for name in _HANDLERS}
    for _ in range(_STARTS):
        for name, handler in _HANDLERS.items():
            artifact = bench.artifacts[name]
            with Emulator(artifact=artifact, handler=handler, environment=bench.environment) as emulator:
                emulator.invoke({"Records": []})
                starts[name] += emulator.init_milliseconds
    ms = {name: median(each) for name, each in starts.items()}
    return {"cold_start_over_floor": ms["ours"] / ms["floor"], "cold_start_ratio": ms["ours"] / ms["naive"]}
