"""Real connections to servers that do not come to an end."""

import socketserver
import threading
from contextlib import contextmanager
from dataclasses import replace

import pytest

from agent_log_capture.adapters import http_session
from agent_log_capture.adapters.cloud_backup import CloudBackup
from agent_log_capture.adapters.http_session import MAX_BODY_BYTES, build_session
from agent_log_capture.domain.outcome import Reason
from agent_log_capture.domain.responses import RetryableError
from tests.faults.faulty_api import Fault, FaultyApi
from tests.fuzz.answers import CAPTURE, TOKEN

ENDLESS = b"Transfer-Encoding: chunked\r\n\r\n", b"ffff\r\n" + b" " * 0xFFFF + b"\r\n"
# What the kernel holds of a connection at most, on both sides, when no one reads.
MOST_UNDER_WAY = 16 * MAX_BODY_BYTES


class Endless(socketserver.ThreadingTCPServer):
    """Sends without end, until it is hung up on; `sent` counts the bytes."""

    daemon_threads = True

    def __init__(self, head, more):
        super().__init__(("127.0.0.1", 0), None)
        self.head, self.more = head, more
        self.sent = 0
        self.is_hung_up_on = threading.Event()

    def finish_request(self, request, client_address):  # noqa: ARG002 (socketserver's own)
        request.recv(65_536)
        request.sendall(self.head)
        try:
            while True:
                self.sent += request.send(self.more)
        except ConnectionError:
            self.is_hung_up_on.set()


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


@pytest.fixture
def ask():
    with build_session(1) as session:

        def ask(url, token=TOKEN):
            return CloudBackup(session, url, lambda: CAPTURE.asked_at).request_log_file(token, CAPTURE)

        yield ask


@pytest.mark.parametrize(
    "status", [b"202 Accepted", b"302 Found\r\nLocation: /elsewhere", b"404 Not Found", b"503 Busy"]
)
@pytest.mark.parametrize(
    ("head", "more"),
    [(b"\r\n", b" " * 65_536), ENDLESS, (b"Transfer-Encoding: chunked\r\n\r\n-1\r\n", b" " * 65_536)],
    ids=["plain", "chunked", "in one chunk"],
)
def test_a_server_that_never_stops_is_hung_up_on(ask, status, head, more):
    with server(b"HTTP/1.1 " + status + b"\r\n" + head, more) as (endless, url):
        assert ask(url).http_status == int(status[:3])
        assert endless.is_hung_up_on.wait(10)
    assert endless.sent < MOST_UNDER_WAY


def test_a_server_that_never_begins_is_hung_up_on(ask):
    with server(b"", b"HTTP/1.1 103 Early Hints\r\n\r\n" * 1000) as (endless, url):
        with pytest.raises(RetryableError) as caught:
            ask(url)
        assert endless.is_hung_up_on.wait(10)
    assert caught.value.failure.reason is Reason.UNCONFIRMED
    assert endless.sent < MOST_UNDER_WAY


@pytest.fixture
def drip(monkeypatch):
    """An API that sends a byte every few milliseconds, asked by a client that has waited for so long."""
    monkeypatch.setattr(http_session, "ANSWER_TIMEOUT_SECONDS", 0.2)
    with FaultyApi() as fake_api:
        fake_api.add_agents(CAPTURE.agent_id)
        token = replace(TOKEN, value=fake_api.issue_token())

        def drip(**changes):
            fake_api.inject(CAPTURE.agent_id, Fault(drip_seconds=0.005, body=b" " * 100_000, **changes))
            return fake_api.url, token

        yield drip


def test_a_body_that_drips_in_is_not_waited_for(ask, drip):
    assert ask(*drip()).http_status == 202


def test_a_head_that_drips_in_is_not_waited_for(ask, drip):
    with pytest.raises(RetryableError) as caught:
        ask(*drip(drips_head=True))
    assert caught.value.failure.reason is Reason.UNCONFIRMED
