"""An instance of the capture function: a process of its own, as Lambda keeps one for each concurrent invocation."""

import json
import os
import sys
from pathlib import Path

from local.line_process import LineProcess

_ROOT = Path(__file__).resolve().parents[2]


class InstanceError(Exception):
    """The function has ended with an error."""


class Instance(LineProcess):
    """A process that runs the function in the environment of this one, and discards its log."""

    def __init__(self, timeout_seconds=300):
        command = [sys.executable, "-m", "tests.faults.instance", str(timeout_seconds)]
        super().__init__(command, os.environ | {"PYTHONPATH": f"{_ROOT / 'src'}{os.pathsep}{_ROOT}"})
        self.most_memory_mib = 0.0

    def invoke(self, event):
        """Invoke the function and return its answer; InstanceError when it ends with an error."""
        answer = self.ask(event)
        self.most_memory_mib = answer["most_memory_mib"]
        if "error" in answer:
            raise InstanceError(answer["error"])
        return answer["answer"]


def _serve(timeout_seconds):
    """Read one event per line, and print one answer per line."""
    # As on Lambda, only the instance imports the function.
    from agent_log_capture.handlers.capture import lambda_handler  # noqa: PLC0415
    from local.lambda_service import Context  # noqa: PLC0415
    from local.lineage import traced  # noqa: PLC0415

    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 (open as long as the process runs)
    for line in sys.stdin:
        context = Context("CaptureFunction", timeout_seconds)
        answer = {}
        event = json.loads(line)
        try:
            with traced(event):
                answer["answer"] = lambda_handler(event, context)
        except Exception as error:  # noqa: BLE001 (any error ends the invocation, not the instance)
            answer["error"] = f"{type(error).__name__}: {error}"
        answer["most_memory_mib"] = _most_memory_mib()
        print(json.dumps(answer), file=answers, flush=True)


def _most_memory_mib():
    # Not getrusage: its figure begins with the memory of the process that this one was forked from.
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    [kib] = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:")]
    return int(kib) / 1024


if __name__ == "__main__":
    _serve(int(sys.argv[1]))
