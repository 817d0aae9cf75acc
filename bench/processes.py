"""The processes of a measurement: two servers, and one for each handler."""

import json
import os
import sys
import uuid
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, Self, override

from bench.artifacts import BARE, Artifacts
from local.emulator import PYTHON, inherited
from local.line_process import LineProcess

CAPTURE = "agent_log_capture.handlers.capture.lambda_handler"
WORKERS = 32


class Server(LineProcess):
    """One of the servers of servers.py, which prints its port on the first line."""

    def __init__(self, kind: str) -> None:
        super().__init__([sys.executable, "-m", "bench.servers", kind], os.environ)

    @override
    def __enter__(self) -> Self:
        super().__enter__()
        self._port = self.read()
        self.url = f"http://127.0.0.1:{self._port}"
        return self

    def control(self, command: str) -> Any:
        """Send one of the commands of servers.py; return its response."""
        with closing(HTTPConnection("127.0.0.1", self._port, timeout=60)) as connection:
            connection.request("POST", f"/-/{command}")
            return json.loads(connection.getresponse().read())


class Worker(LineProcess):
    """A handler in its own process, with the packages in `code`; `ask` invokes it, and returns its figures."""

    def __init__(self, handler: str, *code: Path, environment: Mapping[str, str]) -> None:
        variables = {
            "PYTHONDONTWRITEBYTECODE": "1",  # a package without bytecode stays without
            "PYTHONPATH": os.pathsep.join(map(str, code)),
        }
        command = [str(PYTHON), "-S", "-P", str(Path(__file__).with_name("worker.py")), handler]
        super().__init__(command, {**inherited(), **variables, **environment})


@dataclass(frozen=True, slots=True)
class Bench:
    """The artifacts and servers of all measurements."""

    artifacts: Artifacts
    api: Server
    aws: Server

    def ours(self, **variables: str) -> Worker:
        """Return the capture function, without its limit of captures in an invocation unless `variables` say so."""
        variables = {"PROCESS_EVERYTHING": "yes", **self.environment(), **variables}
        return Worker(CAPTURE, self.artifacts.ours, environment=variables)

    def naive(self) -> Worker:
        """Return the function that requests one agent's log file after the other."""
        return Worker("function.lambda_handler", self.artifacts.naive, environment=self.environment())

    def bare(self, name: str) -> Worker:
        """Return a handler that makes the requests and nothing else, with the packages of ours."""
        return Worker(f"function.{name}_handler", BARE, self.artifacts.ours, environment=self.environment())

    def reset(self, api_seconds: float, aws_seconds: float) -> None:
        """Set the latency of every call, and clear what was counted."""
        self.api.control(f"reset?{1000 * api_seconds}")
        self.aws.control(f"reset?{1000 * aws_seconds}")

    def environment(self) -> dict[str, str]:
        """Return the environment of the functions, as template.yaml defines it."""
        account = "us-east-1:123456789012"
        return {
            "AWS_ACCESS_KEY_ID": "bench",
            "AWS_SECRET_ACCESS_KEY": "bench",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": self.aws.url,
            "TOKEN_SECRET_ARN": f"arn:aws:secretsmanager:{account}:secret:token-a1b2c3",
            "OUTCOME_TOPIC_ARN": f"arn:aws:sns:{account}:outcomes",
            "CAPTURE_QUEUE_URL": f"{self.aws.url}/123456789012/captures",
            "DEAD_LETTER_QUEUE_URL": f"{self.aws.url}/123456789012/dead-letters",
            "CAPTURES_TABLE": "captures",
            "CLOUD_BACKUP_URL": self.api.url,
            "CLOUD_BACKUP_REGION": "DFW",
            "COOL_DOWN_SECONDS": "600",
            "CONCURRENCY": str(WORKERS),
            "POWERTOOLS_SERVICE_NAME": "agent-log-capture",
            "POWERTOOLS_METRICS_NAMESPACE": "AgentLogCapture",
            "POWERTOOLS_LOG_LEVEL": "INFO",
        }


def queue_event(bodies: Iterable[str]) -> dict[str, Any]:
    """Return the event of an SQS batch."""
    fields = {
        "receiptHandle": "receipt",
        "attributes": {"ApproximateReceiveCount": "1", "SentTimestamp": "1795490052000"},
        "messageAttributes": {},
        "eventSource": "aws:sqs",
        "eventSourceARN": "arn:aws:sqs:us-east-1:123456789012:captures",
        "awsRegion": "us-east-1",
    }
    return {"Records": [{"messageId": str(uuid.uuid4()), "body": body, **fields} for body in bodies]}
