"""The processes of a measurement: two servers, and one for each handler."""

import json
import os
import sys
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self, override

from bench.artifacts import BARE
from local.emulator import PYTHON, inherited
from local.line_process import LineProcess
from local.template import resolve, translate

CAPTURE = "agent_log_capture.handlers.capture.lambda_handler"
WORKERS = 32
_WORKER = Path(__file__).with_name("worker.py")


class Server(LineProcess):
    """One of the servers of servers.py; `ask` takes the name of one of its methods, and arguments."""

    def __init__(self, kind: str) -> None:
        super().__init__([sys.executable, "-m", "bench.servers", kind], os.environ)

    @override
    def __enter__(self) -> Self:
        super().__enter__()
        self.url = f"http://127.0.0.1:{self.read()}"
        return self


@dataclass(frozen=True)
class Bench:
    """The artifacts and servers of all measurements, and the processes of handlers, whose `ask` invokes them."""

    artifacts: Mapping[str, Path]
    api: Server
    aws: Server

    def ours(self, **variables: str) -> LineProcess:
        """Return the capture function, without its limit of captures in an invocation unless `variables` say so."""
        return self._worker(CAPTURE, self.artifacts["ours"], **{"PROCESS_EVERYTHING": "yes", **variables})

    def naive(self) -> LineProcess:
        """Return the function that requests one agent's log file after the other."""
        return self._worker("function.lambda_handler", self.artifacts["naive"])

    def bare(self, name: str) -> LineProcess:
        """Return a handler that makes the requests and nothing else, with the packages of ours."""
        return self._worker(f"function.{name}_handler", BARE, self.artifacts["ours"])

    def reset(self, api_seconds: float, aws_seconds: float) -> None:
        """Set the latency of every call, and clear what was counted."""
        self.api.ask(["reset", api_seconds])
        self.aws.ask(["reset", aws_seconds])

    def check_requests(self, agents: int) -> None:
        """Raise AssertionError unless the API has got one request for each of the agents."""
        calls = self.api.ask(["report"])["calls"]
        assert calls == agents, f"not one request for each of {agents} agents, but {calls}"

    @cached_property
    def environment(self) -> Mapping[str, str]:
        """The environment of the functions: the defaults of template.yaml, and the servers."""
        template = translate()
        function = template["Resources"]["CaptureFunction"]["Properties"]
        variables: dict[str, str] = resolve(template, function["Environment"]["Variables"])
        return variables | {
            "AWS_ACCESS_KEY_ID": "bench",
            "AWS_SECRET_ACCESS_KEY": "bench",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": self.aws.url,
            "CLOUD_BACKUP_URL": self.api.url,
            "CONCURRENCY": str(WORKERS),
            "TOKEN_SECRET_ARN": "arn:aws:secretsmanager:us-east-1:123456789012:secret:token-a1b2c3",
        }

    def _worker(self, handler: str, *code: Path, **variables: str) -> LineProcess:
        """Return a process of worker.py, with the packages in `code` and none of this environment."""
        variables |= {
            "PYTHONDONTWRITEBYTECODE": "1",  # a package without bytecode stays without
            "PYTHONPATH": os.pathsep.join(map(str, code)),
        }
        command = [str(PYTHON), "-S", "-P", str(_WORKER), handler]
        return LineProcess(command, {**inherited(), **self.environment, **variables})


def message(agent_ids: Iterable[str]) -> str:
    """Return the body of a message that names agents."""
    return json.dumps({"agent_ids": list(agent_ids)})


def queue_event(bodies: Iterable[str]) -> dict[str, Any]:
    """Return the event of an SQS batch."""
    fields = {"attributes": {"SentTimestamp": "1795490052000"}, "eventSource": "aws:sqs"}
    return {"Records": [{"messageId": str(uuid.uuid4()), "body": body, **fields} for body in bodies]}
