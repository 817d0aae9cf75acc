"""Real connections to servers whose responses do not end."""

import socketserver
import threading
from contextlib import contextmanager

import pytest

from agent_log_capture.adapters.cloud_backup import CloudBackup
from agent_log_capture.adapters.http_session import MAX_BODY_BYTES, build_session
from tests.fuzz.answers import CAPTURE, TOKEN

ENDLESS = b"Transfer-Encoding: chunked\r\n\r\n", b"ffff\r\n" + b" " * 0xFFFF + b"\r\n"
# What the kernel holds of a connection at most, on both sides, while no one reads.
MAX_BUFFERED_BYTES = 16 * MAX_BODY_BYTES


class Endless(socketserver.ThreadingTCPServer):
    """Sends without end, until its client closes the connection; `sent` counts the bytes."""

    daemon_threads = True

    def __init__(self, head, more):
        super().__init__(("127.0.0.1", 0), None)
        self.head, self.more = head, more
        self.sent = 0
        self.is_closed = threading.Event()

    def finish_request(self, request, client_address):  # noqa: ARG002 (socketserver's own)
        request.recv(65_536)
        request.sendall(self.head)
        try:
            while True:
                self.sent += request.send(self.more)
        except ConnectionError:
            self.is_closed.set()


@contextmanager
def server(head, more):
    with Endless(head, more) as endless:
        thread = threading.Thread(target=endless.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield endless, f"http://127.0.0.1:{endless.server_address[1]}"
        finally:
            endless.shutdown()
            thread.join()


@pytest.mark.parametrize(
    "status", [b"202 Accepted", b"302 Found\r\nLocation: /elsewhere", b"404 Not Found", b"503 Busy"]
)
@pytest.mark.parametrize(
    ("head", "more"),
    [(b"\r\n", b" " * 65_536), ENDLESS, (b"Transfer-Encoding: chunked\r\n\r\n-1\r\n", b" " * 65_536)],
    ids=["plain", "chunked", "in one chunk"],
)
def test_the_connection_of_a_body_without_end_is_closed(status, head, more):
    with server(b"HTTP/1.1 " + status + b"\r\n" + head, more) as (endless, url), build_session(1) as session:
        api = CloudBackup(session, url, lambda: CAPTURE.asked_at)
        assert api.request_log_file(TOKEN, CAPTURE).http_status == int(status[:3])
        assert endless.is_closed.wait(10)
    assert endless.sent < MAX_BUFFERED_BYTES
