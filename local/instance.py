"""An instance of the capture function: a process of its own, as Lambda keeps one for each invocation at a time."""

import json
import os
import sys
from pathlib import Path
from typing import Any

from local.line_process import LineProcess

_ROOT = Path(__file__).resolve().parent.parent


class InstanceError(Exception):
    """The function has ended with an error."""


class Instance(LineProcess):
    """A process with the function in it, in the environment of this one.

    What it logs is thrown away.
    """

    def __init__(self, timeout_seconds: int = 300) -> None:
        command = [sys.executable, "-m", "local.instance", str(timeout_seconds)]
        super().__init__(command, os.environ | {"PYTHONPATH": f"{_ROOT / 'src'}{os.pathsep}{_ROOT}"})
        self.most_memory_mib = 0.0

    def invoke(self, event: object) -> Any:  # noqa: ANN401 (it is what the handler returns)
        """Hand an event to the function and return its answer; InstanceError when it ends with an error."""
        answer = self.ask(event)
        self.most_memory_mib = answer["most_memory_mib"]
        if "error" in answer:
            raise InstanceError(answer["error"])
        return answer["answer"]


def _serve(timeout_seconds: int) -> None:
    """ApiResponse one event for each line."""
    # Here, as Lambda has it: an instance imports the function, whoever starts it does not.
    from agent_log_capture.handlers.capture import lambda_handler  # noqa: PLC0415
    from local.lambda_service import Context  # noqa: PLC0415
    from local.lineage import traced  # noqa: PLC0415

    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 (for as long as the process lives)
    for line in sys.stdin:
        context = Context(function_name="CaptureFunction", timeout_seconds=timeout_seconds)
        answer: dict[str, object] = {}
        event = json.loads(line)
        try:
            with traced(event):
                answer["answer"] = lambda_handler(event, context)  # type: ignore[arg-type]
        except Exception as error:  # noqa: BLE001 (it goes to whoever invokes)
            answer["error"] = f"{type(error).__name__}: {error}"
        answer["most_memory_mib"] = _most_memory_mib()
        print(json.dumps(answer), file=answers, flush=True)


def _most_memory_mib() -> float:
    # Not getrusage: what it says begins with the memory of the process that this one was forked from.
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    [kib] = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:")]
    return int(kib) / 1024


if __name__ == "__main__":
    _serve(int(sys.argv[1]))
