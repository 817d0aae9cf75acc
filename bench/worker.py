"""A handler in its own process: `python worker.py <handler>` reads an event from each line, and measures it.

Each line of its output has the start by the machine's monotonic clock, the time, the CPU time of the process, and its
peak memory and growth. The handler's own output is discarded.
"""

import importlib
import json
import os
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

_TIMEOUT_SECONDS = 900


def main() -> None:
    """Measure every event on the standard input."""
    results = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 (open for the life of the process)
    handler = _handler(sys.argv[1])
    for line in sys.stdin:
        print(json.dumps(_measured(handler, json.loads(line))), file=results, flush=True)


def _handler(name: str) -> Callable[..., object]:
    module, _, function = name.rpartition(".")
    if os.environ.get("PROCESS_EVERYTHING"):
        # Otherwise an invocation requeues the rest of a large batch, and that would not be measured.
        importlib.import_module("agent_log_capture.service.invocation").CAPTURES_IN_AN_INVOCATION = sys.maxsize  # type: ignore[attr-defined]
    handler: Callable[..., object] = getattr(importlib.import_module(module), function)
    return handler


def _measured(handler: Callable[..., object], event: object) -> dict[str, Any]:
    until = time.monotonic() + _TIMEOUT_SECONDS
    context = SimpleNamespace(
        function_name="bench",
        memory_limit_in_mb=512,
        invoked_function_arn="arn:aws:lambda:us-east-1:123456789012:function:bench",
        aws_request_id=str(uuid.uuid4()),
        get_remaining_time_in_millis=lambda: round(1000 * (until - time.monotonic())),
    )
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # resets the peak
    before_kib = _status_kib("VmRSS")
    cpu_start, started_at = time.process_time(), time.monotonic()
    handler(event, context)
    seconds, cpu_seconds = time.monotonic() - started_at, time.process_time() - cpu_start
    peak_kib = _status_kib("VmHWM")
    return {
        "started_at": started_at,
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "peak_kib": peak_kib,
        "grown_kib": peak_kib - before_kib,
    }


def _status_kib(name: str) -> int:
    status = Path("/proc/self/status").read_text(encoding="ascii")
    [kib] = [line.split()[1] for line in status.splitlines() if line.startswith(f"{name}:")]
    return int(kib)


if __name__ == "__main__":
    main()
