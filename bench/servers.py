"""The servers that the functions call, each in its own process on the loopback: the Cloud Backup API, and AWS.

`python -m bench.servers api|aws` prints its port on the first line. Then it reads lines such as `["reset", 0.1]`,
calls the method of this name, and prints what it returns.
"""

import asyncio
import json
import re
import sys
import time
from collections import deque
from collections.abc import Callable
from contextlib import closing, suppress
from typing import Any
from urllib.parse import parse_qs

_ENTRY_ID = re.compile(r"PublishBatchRequestEntries\.member\.\d+\.Id")
_LOG_FILE_ID = "a533a845-4279-4838-af13-276114e90234"
_RESPONSES: dict[str, Any] = {
    "BatchWriteItem": {"UnprocessedItems": {}},
    "GetSecretValue": {"SecretString": json.dumps({"token": "a-token", "project_id": "110011"})},
    "Query": {"Items": []},
    # A job with a capture that has not ended.
    "UpdateItem": {"Attributes": {"ended": {"N": "0"}, "look_at": {"N": "1"}, "version": {"N": "1"}}},
}
# Of the capture queue.
_queue: deque[str] = deque()

# Target, headers by their lower-case names and body in; status line and body out.
type ApiResponse = tuple[bytes, bytes]
type Respond = Callable[[str, dict[str, str], bytes], ApiResponse]


class Server:
    """Counts its calls, and delays its responses; the bench controls both."""

    def __init__(self, respond: Respond) -> None:
        self.respond = respond
        self.reset(0)

    def reset(self, latency_seconds: float) -> None:
        """Set the latency of every response, and clear what was counted."""
        self.latency_seconds = latency_seconds
        self.calls = 0
        self.last_call_at = 0.0
        _queue.clear()

    def report(self) -> object:
        """Return the number of calls, and the moment of the last one on the machine's monotonic clock."""
        return {"calls": self.calls, "last_call_at": self.last_call_at}

    def receive(self, count: int) -> list[str]:
        """Take messages from the queue."""
        return [_queue.popleft() for _ in range(min(count, len(_queue)))]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve a persistent connection of HTTP/1.1, one request at a time; every body has a Content-Length."""
        with suppress(asyncio.IncompleteReadError, ConnectionError), closing(writer):
            while True:
                first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                status, answer = self.respond(first.split()[1], headers, body)
                self.last_call_at = time.monotonic()
                self.calls += 1
                if self.latency_seconds:
                    await asyncio.sleep(self.latency_seconds)
                head = b"HTTP/1.1 %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
                writer.write(head % (status, len(answer)) + answer)


def _respond_as_api(target: str, headers: dict[str, str], body: bytes) -> ApiResponse:
    """Accept every request for a log file."""
    links = [{"rel": "self", "href": f"https://127.0.0.1{target}/{_LOG_FILE_ID}"}]
    log_file = {"id": _LOG_FILE_ID, "date": "2026-11-23T03:12:41.606703Z", "state": "pending", "links": links}
    return b"202 Accepted", json.dumps(log_file).encode()


def _respond_as_aws(target: str, headers: dict[str, str], body: bytes) -> ApiResponse:
    """Report success for every call; keep the messages to the capture queue, and nothing else."""
    if "x-amz-target" not in headers:
        return _respond_as_sns(body.decode())
    operation = headers["x-amz-target"].partition(".")[2]
    answer = _RESPONSES.get(operation, {})
    if operation == "SendMessageBatch":
        request = json.loads(body)
        if request["QueueUrl"] == "CaptureQueue":
            _queue.extend(entry["MessageBody"] for entry in request["Entries"])
        ids = [entry["Id"] for entry in request["Entries"]]
        answer = {"Successful": [{"Id": each, "MessageId": each, "MD5OfMessageBody": ""} for each in ids]}
    return b"200 OK", json.dumps(answer).encode()


def _respond_as_sns(body: str) -> ApiResponse:
    fields = parse_qs(body)
    [operation] = fields["Action"]
    ids = [values[0] for name, values in fields.items() if _ENTRY_ID.fullmatch(name)]
    members = "".join(f"<member><Id>{each}</Id><MessageId>{each}</MessageId></member>" for each in ids)
    result = f"<{operation}Result><Successful>{members}</Successful></{operation}Result>"
    return b"200 OK", f"<{operation}Response>{result}</{operation}Response>".encode()


async def _main(server: Server) -> None:
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0, backlog=1024)
    print(listening.sockets[0].getsockname()[1], flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        method, *arguments = json.loads(line)
        print(json.dumps(getattr(server, method)(*arguments)), flush=True)


if __name__ == "__main__":
    asyncio.run(_main(Server({"api": _respond_as_api, "aws": _respond_as_aws}[sys.argv[1]])))
