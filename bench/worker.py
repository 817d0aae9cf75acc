"""A handler in its own process: `python worker.py <handler>` reads an event from each line, and measures it.

Each line of its output has the start by the machine's monotonic clock, the time, the CPU time of the process, and the
growth of its memory to the peak. The handler's own output is discarded.
"""

import importlib
import json
import os
import re
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
    results = sys.stdout
    sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 (open for the life of the process)
    if os.environ.get("PROCESS_EVERYTHING"):
        # Otherwise an invocation requeues the rest of a large batch, and that would not be measured.
        importlib.import_module("agent_log_capture.service.invocation").CAPTURES_IN_AN_INVOCATION = sys.maxsize  # type: ignore[attr-defined]
    module, _, function = sys.argv[1].rpartition(".")
    handler = getattr(importlib.import_module(module), function)
    for line in sys.stdin:
        print(json.dumps(_measured(handler, json.loads(line))), file=results, flush=True)


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
    before_kib, cpu_start, started_at = _peak_kib(), time.process_time(), time.monotonic()
    handler(event, context)
    seconds, cpu_seconds = time.monotonic() - started_at, time.process_time() - cpu_start
    grown_kib = _peak_kib() - before_kib
    return {"started_at": started_at, "seconds": seconds, "cpu_seconds": cpu_seconds, "grown_kib": grown_kib}


def _peak_kib() -> int:
    [kib] = re.findall(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text(encoding="ascii"))
    return int(kib)


if __name__ == "__main__":
    main()
