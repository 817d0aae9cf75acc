"""An instance of the capture function: a process of its own, as Lambda keeps one for each invocation at a time."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self

_ROOT = Path(__file__).resolve().parent.parent


class InstanceError(Exception):
    """The function has ended with an error, or its process is gone."""


class Instance:
    """A process with the function in it, in the environment of this one, for as long as the `with` block lasts.

    What it logs is thrown away. `invoke` is for one thread at a time, as Lambda has it.
    """

    def __init__(self, timeout_seconds: int = 300) -> None:
        self._timeout_seconds = timeout_seconds
        self.most_memory_mib = 0.0

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(  # noqa: S603 (it is this file)
            [sys.executable, "-m", "local.instance", str(self._timeout_seconds)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=_ROOT,
            env=os.environ | {"PYTHONPATH": f"{_ROOT / 'src'}{os.pathsep}{_ROOT}"},
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self._process:
            self._process.kill()

    def invoke(self, event: object) -> Any:  # noqa: ANN401 (it is what the handler returns)
        """Hand an event to the function and return its answer; InstanceError when it ends with an error."""
        if self._process.stdin is None or self._process.stdout is None:
            raise InstanceError("it was not started")
        self._process.stdin.write(json.dumps(event).encode() + b"\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise InstanceError("its process is gone")
        answer = json.loads(line)
        self.most_memory_mib = answer["most_memory_mib"]
        if "error" in answer:
            raise InstanceError(answer["error"])
        return answer["answer"]


def _serve(timeout_seconds: int) -> None:
    """Answer one event for each line."""
    # Here, as Lambda has it: an instance imports the function, whoever starts it does not.
    from agent_log_capture.handlers.capture import lambda_handler  # noqa: PLC0415
    from local.lambda_service import Context  # noqa: PLC0415

    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 (for as long as the process lives)
    for line in sys.stdin:
        context = Context(function_name="CaptureFunction", timeout_seconds=timeout_seconds)
        answer: dict[str, object] = {}
        try:
            answer["answer"] = lambda_handler(json.loads(line), context)  # type: ignore[arg-type]
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
