"""What the functions call, each a process of its own on the loopback: the Cloud Backup API, and AWS, canned.

`python -m bench.servers api|aws` says its port on the first line. `POST /-/reset?<milliseconds>` sets how long each
answer takes and forgets what was counted; `GET /-/report` returns it.
"""

import asyncio
import json
import re
import sys
import time
from collections import Counter
from collections.abc import Callable
from typing import override
from urllib.parse import parse_qs

_ENTRY_ID = re.compile(r"PublishBatchRequestEntries\.member\.\d+\.Id")
_SECRET = json.dumps({"token": "a-token", "project_id": "110011"})

# Target, headers by their lower-case names and body in; what to count it as, status line and answer out.
type ApiResponse = tuple[str, bytes, bytes]
type Serve = Callable[[str, dict[str, str], bytes], ApiResponse]


class Ledger:
    """What a server has counted, and how long it lets every call wait."""

    def __init__(self) -> None:
        self.reset(0)

    def reset(self, latency_seconds: float) -> None:
        """Forget what was counted."""
        self.latency_seconds = latency_seconds
        self.calls: Counter[str] = Counter()
        self.last_seen_at = 0.0
        self.cpu_began = time.process_time()

    def note(self, call: str) -> None:
        """Count a call, at the moment when all of it has arrived."""
        self.last_seen_at = time.monotonic()
        self.calls[call] += 1

    def report(self) -> bytes:
        """Return what was counted; the moment is of the machine's monotonic clock."""
        cpu_seconds = time.process_time() - self.cpu_began
        return json.dumps(
            {"calls": self.calls, "last_seen_at": self.last_seen_at, "cpu_seconds": cpu_seconds}
        ).encode()


class Connection(asyncio.Protocol):
    """One kept-alive connection of HTTP/1.1, with one request at a time and bodies of a known length."""

    def __init__(self, serve: Serve, ledger: Ledger) -> None:
        self._serve = serve
        self._ledger = ledger
        self._received = b""

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # for the type checker
        self._transport = transport

    @override
    def data_received(self, data: bytes) -> None:
        self._received += data
        head, end, rest = self._received.partition(b"\r\n\r\n")
        if not end:
            return
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        if len(rest) < int(headers.get("content-length", 0)):
            return
        self._received = b""
        self._answer(first.split()[1], headers, rest)

    def _answer(self, target: str, headers: dict[str, str], body: bytes) -> None:
        if target.startswith("/-/"):
            self._write(b"200 OK", self._control(target))
            return
        call, status, answer = self._serve(target, headers, body)
        self._ledger.note(call)
        if self._ledger.latency_seconds:
            loop = asyncio.get_running_loop()
            loop.call_later(self._ledger.latency_seconds, self._write, status, answer)
        else:
            self._write(status, answer)

    def _control(self, target: str) -> bytes:
        if target == "/-/report":
            return self._ledger.report()
        self._ledger.reset(float(target.partition("?")[2]) / 1000)
        return b"{}"

    def _write(self, status: bytes, answer: bytes) -> None:
        if not self._transport.is_closing():
            head = b"HTTP/1.1 %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
            self._transport.write(head % (status, len(answer)) + answer)


def serve_api(target: str, headers: dict[str, str], body: bytes) -> ApiResponse:
    """Accept every request for a log file."""
    log_file = {
        "id": "a533a845-4279-4838-af13-276114e90234",
        "date": "2026-11-23T03:12:41.606703Z",
        "state": "pending",
        "links": [{"rel": "self", "href": f"https://127.0.0.1{target}/a533a845-4279-4838-af13-276114e90234"}],
    }
    return "POST logfiles", b"202 Accepted", json.dumps(log_file).encode()


def serve_aws(target: str, headers: dict[str, str], body: bytes) -> ApiResponse:
    """Say that it is done to all that the functions ask of AWS."""
    if "x-amz-target" not in headers:
        return _serve_sns(body.decode())
    service, _, operation = headers["x-amz-target"].partition(".")
    answer: object = {}
    if operation == "GetSecretValue":
        answer = {"ARN": "arn", "Name": "token", "VersionId": "1", "SecretString": _SECRET}
    elif operation == "SendMessageBatch":
        ids = [entry["Id"] for entry in json.loads(body)["Entries"]]
        answer = {
            "Successful": [{"Id": each, "MessageId": each, "MD5OfMessageBody": ""} for each in ids],
            "Failed": [],
        }
    elif operation == "BatchWriteItem":
        answer = {"UnprocessedItems": {}}
    return f"{service.partition('_')[0]} {operation}", b"200 OK", json.dumps(answer).encode()


def _serve_sns(body: str) -> ApiResponse:
    fields = parse_qs(body)
    [operation] = fields["Action"]
    result = "<MessageId>1</MessageId>"
    if operation == "PublishBatch":
        ids = [values[0] for name, values in fields.items() if _ENTRY_ID.fullmatch(name)]
        members = "".join(f"<member><Id>{each}</Id><MessageId>{each}</MessageId></member>" for each in ids)
        result = f"<Successful>{members}</Successful><Failed/>"
    answer = (
        f'<{operation}Response xmlns="http://sns.amazonaws.com/doc/2010-03-31/"><{operation}Result>{result}'
        f"</{operation}Result><ResponseMetadata><RequestId>1</RequestId></ResponseMetadata></{operation}Response>"
    )
    return f"SNS {operation}", b"200 OK", answer.encode()


async def _main(serve: Serve) -> None:
    ledger = Ledger()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(serve, ledger), "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_main({"api": serve_api, "aws": serve_aws}[sys.argv[1]]))
