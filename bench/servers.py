"""The servers that the functions call, each in its own process on the loopback: the Cloud Backup API, and AWS.

`python -m bench.servers api|aws` prints its port on the first line. `/-/reset?<milliseconds>` sets the latency of
every response and clears the counts, `/-/report` returns them, `/-/receive?<count>` takes messages from the queue.
"""

import asyncio
import json
import re
import sys
import time
from collections import Counter, deque
from collections.abc import Callable
from contextlib import closing, suppress
from functools import partial
from typing import Any
from urllib.parse import parse_qs

_ENTRY_ID = re.compile(r"PublishBatchRequestEntries\.member\.\d+\.Id")
_SECRET = json.dumps({"token": "a-token", "project_id": "110011"})
# A job with a capture that has not ended.
_JOB = {"ended": {"N": "0"}, "look_at": {"N": "1"}, "version": {"N": "1"}}
_RESPONSES: dict[str, Any] = {
    "BatchWriteItem": {"UnprocessedItems": {}},
    "GetSecretValue": {"ARN": "arn", "Name": "token", "VersionId": "1", "SecretString": _SECRET},
    "Query": {"Items": [], "Count": 0, "ScannedCount": 0},
    "UpdateItem": {"Attributes": _JOB},
}
# Of the capture queue.
_queue: deque[str] = deque()

# Target, headers by their lower-case names and body in; the call's name, status line and body out.
type ApiResponse = tuple[str, bytes, bytes]
type Respond = Callable[[str, dict[str, str], bytes], ApiResponse]


class Server:
    """Counts its calls, and delays its responses; the bench controls both."""

    def __init__(self, respond: Respond) -> None:
        self.respond = respond
        self.reset(0)

    def reset(self, latency_seconds: float) -> None:
        """Clear what was counted."""
        self.latency_seconds = latency_seconds
        self.calls: Counter[str] = Counter()
        self.last_call_at = 0.0
        self.cpu_start = time.process_time()
        _queue.clear()

    def control(self, command: str) -> object:
        """Execute a command of the bench; moments are of the machine's monotonic clock."""
        name, _, value = command.partition("?")
        if name == "receive":
            return [_queue.popleft() for _ in range(min(int(value), len(_queue)))]
        if name == "reset":
            self.reset(float(value) / 1000)
        cpu_seconds = time.process_time() - self.cpu_start
        return {"calls": self.calls, "last_call_at": self.last_call_at, "cpu_seconds": cpu_seconds}


async def _serve(server: Server, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Serve a persistent connection of HTTP/1.1, one request at a time; every body has a Content-Length."""
    with suppress(asyncio.IncompleteReadError, ConnectionError), closing(writer):
        while True:
            first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
            body = await reader.readexactly(int(headers.get("content-length", 0)))
            target = first.split()[1]
            if target.startswith("/-/"):
                status, answer = b"200 OK", json.dumps(server.control(target[3:])).encode()
            else:
                call, status, answer = server.respond(target, headers, body)
                server.last_call_at = time.monotonic()
                server.calls[call] += 1
                if server.latency_seconds:
                    await asyncio.sleep(server.latency_seconds)
            head = b"HTTP/1.1 %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
            writer.write(head % (status, len(answer)) + answer)


def _respond_as_api(target: str, headers: dict[str, str], body: bytes) -> ApiResponse:
    """Accept every request for a log file."""
    log_file = {
        "id": "a533a845-4279-4838-af13-276114e90234",
        "date": "2026-11-23T03:12:41.606703Z",
        "state": "pending",
        "links": [{"rel": "self", "href": f"https://127.0.0.1{target}/a533a845-4279-4838-af13-276114e90234"}],
    }
    return "POST logfiles", b"202 Accepted", json.dumps(log_file).encode()


def _respond_as_aws(target: str, headers: dict[str, str], body: bytes) -> ApiResponse:
    """Report success for every call; keep the messages to the capture queue, and nothing else."""
    if "x-amz-target" not in headers:
        return _respond_as_sns(body.decode())
    service, _, operation = headers["x-amz-target"].partition(".")
    answer = _RESPONSES.get(operation, {})
    if operation == "SendMessageBatch":
        request = json.loads(body)
        if request["QueueUrl"].endswith("/captures"):
            _queue.extend(entry["MessageBody"] for entry in request["Entries"])
        ids = [entry["Id"] for entry in request["Entries"]]
        sent = [{"Id": each, "MessageId": each, "MD5OfMessageBody": ""} for each in ids]
        answer = {"Successful": sent, "Failed": []}
    return f"{service.partition('_')[0]} {operation}", b"200 OK", json.dumps(answer).encode()


def _respond_as_sns(body: str) -> ApiResponse:
    fields = parse_qs(body)
    [operation] = fields["Action"]
    ids = [values[0] for name, values in fields.items() if _ENTRY_ID.fullmatch(name)]
    members = "".join(f"<member><Id>{each}</Id><MessageId>{each}</MessageId></member>" for each in ids)
    batch = f"<Successful>{members}</Successful><Failed/>"
    answer = (
        f'<{operation}Response xmlns="http://sns.amazonaws.com/doc/2010-03-31/"><{operation}Result>'
        f"{batch if operation == 'PublishBatch' else '<MessageId>1</MessageId>'}"
        f"</{operation}Result><ResponseMetadata><RequestId>1</RequestId></ResponseMetadata></{operation}Response>"
    )
    return f"SNS {operation}", b"200 OK", answer.encode()


async def _main(server: Server) -> None:
    listening = await asyncio.start_server(partial(_serve, server), "127.0.0.1", 0, backlog=1024)
    print(listening.sockets[0].getsockname()[1], flush=True)
    await listening.serve_forever()


if __name__ == "__main__":
    asyncio.run(_main(Server({"api": _respond_as_api, "aws": _respond_as_aws}[sys.argv[1]])))
