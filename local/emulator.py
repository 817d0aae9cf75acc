"""A packed function in AWS's runtime interface emulator: Lambda's own runtime, without Docker; on Linux alone."""

import compileall
import json
import os
import platform
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from http.client import HTTPConnection
from importlib.metadata import distribution
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

_VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"
# Not this environment's: a function has its own packages only.
PYTHON = Path(sys.base_prefix, "bin", f"python{_VERSION}")
_BINARIES = {"x86_64": "aws-lambda-rie-x86_64", "aarch64": "aws-lambda-rie-arm64"}
# Lambda's packages besides the function's own.
_RUNTIME = ("awslambdaric", "simplejson", "snapshot-restore-py")
_PATH = "/2015-03-31/functions/function/invocations"
_INIT = re.compile(r"INIT REPORT\(durationMs: ([0-9.]+)\)")
_START_SECONDS = 10
_STOP_SECONDS = 10


class FunctionError(Exception):
    """The function has ended with an error, or was killed; the message is Lambda's own."""


@dataclass(kw_only=True)
class Emulator:
    """One instance of a function, for the duration of the `with` block.

    `artifact` is the folder that `sam build` has filled. The function has its own code, the runtime's and the
    standard library only; it inherits PATH and LD_LIBRARY_PATH, and gets `environment`. It starts with the first
    invocation, and again with the first one after it was killed. `invoke` is for one thread at a time: a second
    concurrent invocation would end the emulator. The function gets no trace ID, so that recursive loops are not
    detected. `process` is the emulator's.
    """

    artifact: Path
    handler: str
    environment: Mapping[str, str] = field(default_factory=dict)
    timeout_seconds: int = 300
    memory_mib: int = 512
    process: subprocess.Popen[bytes] = field(init=False, repr=False)

    def __enter__(self) -> Self:
        """Start the emulator; the function itself waits for its first event."""
        with ExitStack() as exits:
            folder = Path(exits.enter_context(TemporaryDirectory(prefix="emulator-")))
            self._log, self._runtime = folder / "log", folder / "runtime"
            _install_runtime(self._runtime)
            self._start()
            exits.callback(self._stop)
            self._exits = exits.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop the emulator and the function."""
        self._exits.close()

    def invoke(self, event: object) -> Any:  # noqa: ANN401 (it is what the handler returns)
        """Invoke the function with an event and return its answer; FunctionError when it fails or is killed."""
        with closing(HTTPConnection("127.0.0.1", self._port, timeout=self.timeout_seconds + 60)) as connection:
            connection.request("POST", _PATH, json.dumps(event))
            body = connection.getresponse().read().decode()
        try:
            answer = json.loads(body)
        except ValueError:
            raise FunctionError(body) from None  # "Task timed out after 3.00 seconds"
        if isinstance(answer, dict) and "errorType" in answer:
            raise FunctionError(f"{answer['errorType']}: {answer.get('errorMessage')}")
        return answer

    def restart(self) -> None:
        """Restart, so that the next invocation is a cold start."""
        self._stop()
        self._start()

    @property
    def log(self) -> str:
        """The output of the emulator and the function since the last start."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    @property
    def init_milliseconds(self) -> list[float]:
        """The duration of each cold start since the last start, without the invocation itself."""
        return [float(milliseconds) for milliseconds in _INIT.findall(self.log)]

    def _start(self) -> None:
        self._port, runtime_port = _free_ports()
        command: list[str | Path] = [_binary(), "--log-level", "info"]
        command += ["--runtime-interface-emulator-address", f"127.0.0.1:{self._port}"]
        command += ["--runtime-api-address", f"127.0.0.1:{runtime_port}"]
        # Without site-packages, so that a package that the function lacks is missing here too.
        command += [PYTHON, "-S", "-m", "awslambdaric", self.handler]
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(  # noqa: S603 (its own programs)
                command, cwd=self.artifact, env=self._environment(), stdout=log, stderr=subprocess.STDOUT
            )
        until = time.monotonic() + _START_SECONDS
        while True:
            try:
                return socket.create_connection(("127.0.0.1", self._port), timeout=1).close()
            except OSError:
                if self.process.poll() is not None or time.monotonic() > until:
                    self._stop()
                    raise FunctionError(f"the emulator has not started: {self.log}") from None
                time.sleep(0.01)

    def _stop(self) -> None:
        self.process.terminate()  # the emulator kills the function, and ends
        try:
            self.process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def _environment(self) -> dict[str, str]:
        return {
            **inherited(),
            "AWS_ACCESS_KEY_ID": "emulated",
            "AWS_SECRET_ACCESS_KEY": "emulated",
            "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EXECUTION_ENV": f"AWS_Lambda_python{_VERSION}",
            "AWS_LAMBDA_FUNCTION_NAME": self.handler.split(".")[-2],
            "AWS_LAMBDA_FUNCTION_TIMEOUT": str(self.timeout_seconds),
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(self.memory_mib),
            "LAMBDA_TASK_ROOT": str(self.artifact),
            "TZ": ":UTC",
            "PYTHONPATH": str(self._runtime),
            # On Lambda a function's folder is read-only.
            "PYTHONDONTWRITEBYTECODE": "1",
            **self.environment,
        }


def _binary() -> Path:
    name = _BINARIES.get(platform.machine())
    if sys.platform != "linux" or name is None:
        raise FunctionError(f"AWS has no emulator for {sys.platform} on {platform.machine()}")
    return Path(str(distribution("aws-sam-cli").locate_file("samcli/local/rapid"))) / name


def inherited() -> dict[str, str]:
    """Return the variables that a function's process needs from this one."""
    return {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}


def _install_runtime(folder: Path) -> None:
    """Copy the runtime's packages to a folder, with bytecode as on Lambda."""
    for name in _RUNTIME:
        for file in distribution(name).files or []:
            if file.suffix in {".py", ".so"} and "tests" not in file.parts:
                target = folder / file
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(str(file.locate()), target)
    compileall.compile_dir(folder, quiet=1)


def _free_ports() -> tuple[int, int]:
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
        return one.getsockname()[1], other.getsockname()[1]
