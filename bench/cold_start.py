"""The cold start in Lambda's own runtime."""

from contextlib import ExitStack
from statistics import median
from typing import Any

from bench.processes import CAPTURE, Bench
from local.emulator import Emulator

_STARTS = 15


def measure(bench: Bench) -> dict[str, Any]:
    """Start each function 15 times, in turns, and compare the medians in milliseconds."""
    artifacts = bench.artifacts
    functions = {
        "ours": (artifacts.ours, CAPTURE),
        "floor": (artifacts.floor, "floor.lambda_handler"),
        "naive": (artifacts.naive, "function.lambda_handler"),
    }
    starts: dict[str, list[float]] = {name: [] for name in functions}
    with ExitStack() as exits:
        emulators = {
            name: exits.enter_context(Emulator(artifact=folder, handler=handler, environment=bench.environment()))
            for name, (folder, handler) in functions.items()
        }
        for _ in range(_STARTS):
            for name, emulator in emulators.items():
                emulator.restart()
                emulator.invoke({"Records": []})
                starts[name] += emulator.init_milliseconds
    ms = {name: round(median(each), 1) for name, each in starts.items()}
    return {
        "cold_start_over_floor": ms["ours"] / ms["floor"],
        "cold_start_ratio": ms["ours"] / ms["naive"],
        "raw": {"starts": _STARTS, "milliseconds": ms},
    }
