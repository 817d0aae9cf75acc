"""The processes that a measurement is made of: two servers, and a handler each."""

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, Self, override

from local.line_process import LineProcess

_HERE = Path(__file__).resolve().parent
BARE = _HERE / "bare"
WORKERS = 32


class Server(LineProcess):
    """One of the servers of servers.py, which says its port as the first line."""

    def __init__(self, kind: str) -> None:
        super().__init__([sys.executable, "-m", "bench.servers", kind], os.environ)

    @override
    def __enter__(self) -> Self:
        super().__enter__()
        self._port = self.read()
        self.url = f"http://127.0.0.1:{self._port}"
        return self

    def reset(self, latency_seconds: float) -> None:
        """Forget what was counted, and let every answer take so long."""
        self._control("POST", f"/-/reset?{1000 * latency_seconds}")

    def report(self) -> dict[str, Any]:
        """Return what was counted since."""
        return self._control("GET", "/-/report")

    def _control(self, method: str, target: str) -> dict[str, Any]:
        connection = HTTPConnection("127.0.0.1", self._port, timeout=10)
        try:
            connection.request(method, target)
            report: dict[str, Any] = json.loads(connection.getresponse().read())
        finally:
            connection.close()
        return report


@dataclass(frozen=True, slots=True)
class Measured:
    """One invocation; `began_at` is by the machine's monotonic clock."""

    began_at: float
    seconds: float
    cpu_seconds: float
    peak_mib: float
    grown_kib: int
    answer: Any


class Worker(LineProcess):
    """A handler in a process of its own.

    `code` is the folder that it is packed in, or those that it and its packages are in. Like the emulator's, the
    interpreter has no other packages.
    """

    def __init__(self, handler: str, *code: Path, environment: Mapping[str, str]) -> None:
        here = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}
        here["PYTHONDONTWRITEBYTECODE"] = "1"  # what is packed without bytecode stays so
        here["PYTHONPATH"] = os.pathsep.join(map(str, code))
        command = [str(interpreter()), "-S", "-P", str(_HERE / "worker.py"), handler]
        super().__init__(command, {**here, **environment})

    def invoke(self, event: object) -> Measured:
        """Hand an event to the handler; ProcessEndedError when it ends with an error."""
        return Measured(**self.ask(event))


def interpreter() -> Path:
    """Return the Python that this environment is made of."""
    return Path(sys.base_prefix, "bin", f"python{sys.version_info.major}.{sys.version_info.minor}")


def environment(api: Server, aws: Server, *, has_cool_down: bool) -> dict[str, str]:
    """Return the variables of the functions, ours and those to compare it with, as template.yaml has them."""
    account = "us-east-1:123456789012"
    return {
        "AWS_ACCESS_KEY_ID": "canned",
        "AWS_SECRET_ACCESS_KEY": "canned",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": aws.url,
        "TOKEN_SECRET_ARN": f"arn:aws:secretsmanager:{account}:secret:token-a1b2c3",
        "OUTCOME_TOPIC_ARN": f"arn:aws:sns:{account}:outcomes",
        "CAPTURE_QUEUE_URL": f"{aws.url}/123456789012/captures",
        "DEAD_LETTER_QUEUE_URL": f"{aws.url}/123456789012/dead-letters",
        "RECENT_CAPTURES_TABLE": "recent-captures",
        "JOBS_TABLE": "jobs",
        "CLOUD_BACKUP_URL": api.url,
        "CLOUD_BACKUP_REGION": "DFW",
        "COOL_DOWN_SECONDS": "600" if has_cool_down else "0",
        "CONCURRENCY": str(WORKERS),
        "POWERTOOLS_SERVICE_NAME": "agent-log-capture",
        "POWERTOOLS_METRICS_NAMESPACE": "AgentLogCapture",
        "POWERTOOLS_LOG_LEVEL": "INFO",
    }
