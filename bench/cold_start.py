"""How long Lambda's own runtime takes to start a function."""

import sys
from contextlib import ExitStack
from statistics import median
from typing import Any

from bench.artifacts import Artifacts
from bench.processes import BARE, Server, environment
from local.emulator import Emulator, FunctionError

_STARTS = 15


def measure(artifacts: Artifacts, api: Server, aws: Server) -> dict[str, Any]:
    """Start each function so often, one after the other; return the medians in milliseconds.

    `parts` is what of ours comes on top of an interpreter that does nothing; what the runtime does is in none.
    """
    variables = environment(api, aws, has_cool_down=True)
    emulators = {
        "ours": Emulator(
            artifact=artifacts.ours,
            handler="agent_log_capture.handlers.capture.lambda_handler",
            environment=variables,
        ),
        "naive": Emulator(artifact=artifacts.naive, handler="function.lambda_handler", environment=variables),
        "empty": Emulator(artifact=BARE, handler="empty.lambda_handler", environment=variables),
        "parts": Emulator(
            artifact=BARE,
            handler="parts.lambda_handler",
            environment=variables | {"ARTIFACT": str(artifacts.ours)},
        ),
    }
    starts: dict[str, list[float]] = {name: [] for name in emulators}
    parts: list[dict[str, float]] = []
    with ExitStack() as exits:
        for emulator in emulators.values():
            exits.enter_context(emulator)
        for _ in range(_STARTS):
            for name, emulator in emulators.items():
                answer = _start(emulator)
                starts[name] += emulator.init_milliseconds
                parts += [answer] if name == "parts" else []
    milliseconds = {name: round(median(each), 1) for name, each in starts.items()}
    return {
        "starts": _STARTS,
        "init_milliseconds": {name: milliseconds[name] for name in ("ours", "naive", "empty")},
        "parts_milliseconds": {name: round(median(each[name] for each in parts), 1) for name in parts[0]},
    }


def _start(emulator: Emulator) -> Any:
    emulator.restart()
    try:
        return emulator.invoke({"Records": []})
    except FunctionError as error:
        sys.exit(f"bench: a function does not start: {error}")
