"""A handler in a process of its own: `python worker.py <handler>` answers one event for each line.

The answer tells the moment when it began, by the machine's monotonic clock, what it took in time and in the
process's CPU, and by how much the process grew at its peak. What the handler prints is thrown away.
"""

import importlib
import json
import os
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

_TIMEOUT_SECONDS = 900


class _Context:
    """What a handler gets beside the event."""

    function_name = "bench"
    memory_limit_in_mb = 512
    invoked_function_arn = "arn:aws:lambda:us-east-1:123456789012:function:bench"

    def __init__(self) -> None:
        self.aws_request_id = str(uuid.uuid4())
        self._until = time.monotonic() + _TIMEOUT_SECONDS

    def get_remaining_time_in_millis(self) -> int:
        return round(1000 * (self._until - time.monotonic()))


def main() -> None:
    """ApiResponse until nobody asks any more."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 (for as long as the process lives)
    handler = _handler(sys.argv[1])
    for line in sys.stdin:
        print(json.dumps(_measured(handler, json.loads(line))), file=answers, flush=True)


def _handler(name: str) -> Callable[..., object]:
    module, _, function = name.rpartition(".")
    if module.startswith("agent_log_capture"):
        # What one invocation leaves to others would not be measured.
        importlib.import_module("agent_log_capture.service.invocation").CAPTURES_IN_AN_INVOCATION = sys.maxsize  # type: ignore[attr-defined]
    handler: Callable[..., object] = getattr(importlib.import_module(module), function)
    return handler


def _measured(handler: Callable[..., object], event: object) -> dict[str, Any]:
    context = _Context()
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak begins anew
    before_kib = _status_kib("VmRSS")
    cpu_began, began = time.process_time(), time.monotonic()
    answer = handler(event, context)
    seconds, cpu_seconds = time.monotonic() - began, time.process_time() - cpu_began
    peak_kib = _status_kib("VmHWM")
    return {
        "began_at": began,
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "peak_mib": peak_kib / 1024,
        "grown_kib": peak_kib - before_kib,
        "answer": answer,
    }


def _status_kib(name: str) -> int:
    status = Path("/proc/self/status").read_text(encoding="ascii")
    [kib] = [line.split()[1] for line in status.splitlines() if line.startswith(f"{name}:")]
    return int(kib)


if __name__ == "__main__":
    main()
