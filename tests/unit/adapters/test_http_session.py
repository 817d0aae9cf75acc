"""Responses as they are received, byte by byte."""

import gzip
import logging
import tracemalloc
import zlib
from itertools import chain, repeat

import pytest

from agent_log_capture.adapters import http_session
from agent_log_capture.adapters.http_session import MAX_BODY_BYTES, build_session
from agent_log_capture.domain.outcome import LogFile, Reason
from agent_log_capture.domain.responses import RetryableError
from tests.fuzz.answers import API, CALLS, CAPTURE, CREDENTIALS, POSTS, TOKEN, check_authentication, check_call
from tests.fuzz.transport import responding

ACCEPTED = b"HTTP/1.1 202 Accepted\r\nLocation: /logfiles/located\r\n"
CHUNKED = ACCEPTED + b"Transfer-Encoding: chunked\r\n\r\n"
BODY = b'{"id": "in-the-body"}'
RESPONSE = ACCEPTED + b"\r\n" + BODY
A_BODY_WITHOUT_END = {
    "without a length": (ACCEPTED + b"\r\n", b" " * 10_000),
    "with a length": (ACCEPTED + b"Content-Length: %d\r\n\r\n" % 10**15, b" " * 10_000),
    "in large chunks": (CHUNKED, b"ffff\r\n" + b" " * 0xFFFF + b"\r\n"),
    "in one chunk": (CHUNKED + b"%x\r\n" % 10**15, b" " * 10_000),
    "in a chunk of size -1": (CHUNKED + b"-1\r\n", b" " * 10_000),
    "in a chunk of size -2": (CHUNKED + b"-2\r\n", b" " * 10_000),
    "in a size of a chunk": (CHUNKED, b"1"),
    "in an extension of a chunk": (CHUNKED + b"1;", b"x"),
    "in one trailer": (CHUNKED + b"0\r\n", b"a"),
}
A_HEAD_WITHOUT_END = {
    "in its first line": (b"HTTP/1.1 200 ", b"x"),
    "in a header": (ACCEPTED + b"X: ", b"x"),
    "in headers": (ACCEPTED, b"a: b\r\n"),
    "in long headers": (ACCEPTED, b"a: " + b"b" * 60_000 + b"\r\n"),
}


def without_end(cases):
    responses = [chain([begin], repeat(more)) for begin, more in cases.values()]
    return pytest.mark.parametrize("received", responses, ids=list(cases))


@pytest.fixture
def request_log_file():
    """Requests a log file, and receives these bytes."""

    def request(received, call=lambda: API.request_log_file(TOKEN, CAPTURE)):
        with responding([received] if isinstance(received, bytes) else received) as connections:
            response = call()
        return response, connections[0]

    return request


# ------------------------------------------------------------------ no end


@without_end(A_BODY_WITHOUT_END)
def test_a_body_without_end_is_read_up_to_1_mib_and_its_request_stays_accepted(request_log_file, received):
    response, connection = request_log_file(received)
    assert (response.http_status, response.log_file.id) == (202, "located")
    assert connection.received <= MAX_BODY_BYTES + 128 * 1024


@pytest.mark.parametrize("status", [200, 301, 307, 400, 404, 409, 500, 503])
def test_the_limit_of_a_body_holds_for_every_status(request_log_file, status):
    head = b"HTTP/1.1 %d \r\nLocation: http://elsewhere.example/\r\n\r\n" % status
    response, connection = request_log_file(chain([head], repeat(b" " * 10_000)))
    assert response.http_status == status
    assert MAX_BODY_BYTES <= connection.received <= MAX_BODY_BYTES + 128 * 1024


@without_end(A_HEAD_WITHOUT_END)
def test_a_head_without_end_is_not_a_response(received):
    assert check_call(CALLS[0], received) is None


# ------------------------------------------------------------------ what is between, before and behind


@pytest.mark.parametrize(
    "chunk", [b"-1\r\n", b"-2\r\n", b"-ffffffffffffffffffff\r\n", b"zz\r\n", b"\r\n", b"1_0\r\n"]
)
def test_a_chunk_of_an_impossible_size_ends_the_body_and_not_the_worker(request_log_file, chunk):
    response, _ = request_log_file(CHUNKED + b"%x\r\n%b\r\n" % (len(BODY), BODY) + chunk + b"    ")
    assert (response.http_status, response.log_file.id) == (202, "in-the-body")


def test_a_body_that_breaks_off_is_read_as_far_as_it_was_received(request_log_file):
    response, _ = request_log_file(ACCEPTED + b"Content-Length: 1000\r\n\r\n" + BODY)
    assert (response.http_status, response.log_file.id) == (202, "in-the-body")


@pytest.mark.parametrize("head", [ACCEPTED + b"\r\n", CHUNKED + b"-1\r\n"], ids=["plain", "in a chunk of size -1"])
def test_a_body_is_cut_at_1_mib(head):
    with build_session(1) as session, responding(chain([head], repeat(b" " * 10_000))):
        response, _ = http_session.exchange(session, "GET", "http://api.example/")
    assert MAX_BODY_BYTES <= response.raw.tell() < MAX_BODY_BYTES + 100_000


def test_100_continue_is_skipped(request_log_file):
    response, _ = request_log_file(b"HTTP/1.1 100 Continue\r\n\r\n" * 2 + RESPONSE)
    assert (response.http_status, response.log_file.id) == (202, "in-the-body")


@pytest.mark.parametrize("status", [b"101 Switching Protocols", b"102 Processing", b"103 Early Hints", b"199 "])
def test_no_other_informational_status_is_a_response_and_its_connection_ends(status):
    hint = b"HTTP/1.1 " + status + b"\r\nLink: </a>; rel=preload\r\n\r\n"
    with responding([hint + RESPONSE]) as connections:
        for _ in range(2):
            with pytest.raises(RetryableError, match="in place of a response") as caught:
                API.request_log_file(TOKEN, CAPTURE)
            assert caught.value.failure.reason is Reason.UNCONFIRMED
    assert len(connections) == 2


def test_cookies_are_not_sent():
    cookies = b"Set-Cookie: a=b; Path=/; Max-Age=1000\r\nset-cookie2: c=d\r\n"
    with build_session(1) as session, responding([ACCEPTED + cookies + b"\r\n" + BODY]) as connections:
        for _ in range(2):
            http_session.exchange(session, "GET", "http://api.example/")
        assert list(session.cookies) == []
    assert len(connections) == 2
    assert b"cookie" not in b"".join(connection.sent for connection in connections).lower()


@pytest.mark.parametrize(
    "header", [b"no header\x1b[31m", b": nameless", b" folded", b"Content-Length: 2\r\nTransfer-Encoding: chunked"]
)
def test_malformed_headers_are_not_logged(caplog, request_log_file, header):
    caplog.set_level(logging.DEBUG)
    response, _ = request_log_file(ACCEPTED + header + b"\r\n\r\n" + BODY)
    assert response.http_status == 202
    assert not [record for record in caplog.records if "\x1b" in record.getMessage() or record.exc_info]


# ------------------------------------------------------------------ compressed bodies


def test_no_compressed_body_is_requested(request_log_file):
    _, connection = request_log_file(RESPONSE)
    assert b"\r\nAccept-Encoding: identity\r\n" in connection.sent


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "gzip, gzip", "br", "zstd", "x" * 1000, ""])
def test_a_compressed_body_is_not_decoded_and_its_request_stays_accepted(request_log_file, encoding):
    body = gzip.compress(BODY) if "gzip" in encoding else zlib.compress(BODY)
    response, _ = request_log_file(ACCEPTED + b"Content-Encoding: %b\r\n\r\n" % encoding.encode() + body)
    assert (response.http_status, response.log_file) == (202, LogFile(id="located", location="/logfiles/located"))


def test_a_body_that_is_not_compressed_is_read_although_its_header_says_so(request_log_file):
    response, _ = request_log_file(ACCEPTED + b"Content-Encoding: gzip\r\n\r\n" + BODY)
    assert response.log_file.id == "in-the-body"


def test_a_body_that_grows_when_it_is_decoded_takes_no_memory(request_log_file):
    bomb = gzip.compress(gzip.compress(bytes(64 * MAX_BODY_BYTES)))
    tracemalloc.start()
    request_log_file(ACCEPTED + b"Content-Encoding: gzip, gzip\r\n\r\n" + bomb)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < MAX_BODY_BYTES


# ------------------------------------------------------------------ what is not HTTP


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"\r\n",
        b"garbage",
        b"<html>HTTP/0.9</html>",
        b"HTTP/1.1",
        b"HTTP/1.1 000 None",
        b"HTTP/1.1 099 None",
        b"HTTP/1.1 1000 Too much",
        b"HTTP/1.1 -200 Below",
        b"HTTP/1.1 200OK",
        b"HTTP/1.1 \xd9\xa2\xd9\xa0\xd9\xa0 OK",
        b"HTTP/9.9 200 OK",
        b"SSH-2.0-OpenSSH_9.9",
        b"\x16\x03\x01\x02\x00",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 5000,
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * MAX_BODY_BYTES,
        b"HTTP/1.1 200 OK\r\nContent-Length: 1, 2",
    ],
    ids=lambda head: repr(head[:24]),
)
def test_what_is_not_http_is_not_a_response(head):
    assert [check_call(call, [head + b"\r\n\r\n"]) for call in CALLS] == [None] * len(CALLS)
    assert check_authentication([head + b"\r\n\r\n"]) is None


@pytest.mark.parametrize(
    ("head", "status"),
    [(b"HTTP/1.1 200", 200), (b"HTTP/1.0 503 Busy", 503), (b"HTTP/0.9 418 \xff\x1b", 418), (b"HTTP/1.1 999 ", 999)],
)
def test_a_status_needs_no_reason(request_log_file, head, status):
    assert request_log_file(head + b"\r\n\r\n")[0].http_status == status


@pytest.mark.parametrize(
    "head",
    [
        b"%b",
        b"HTTP/1.1 %b OK",
        b"HTTP/%b 200 OK",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1, %b",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1, 2\r\nX: %b",
        b"HTTP/1.1 200 OK\r\nnot a header %b\r\nContent-Length: 1, 2",
        b"HTTP/1.1 200 OK\r\nX: %b" + b"x" * 66_000,
        b"HTTP/1.1 200 %b\r\n%b: y\r\nContent-Type: %b",
    ],
)
def test_a_secret_that_a_malformed_head_repeats_is_not_in_the_failure_or_the_log(caplog, head):
    caplog.set_level(logging.DEBUG)
    for secret, check in (
        (TOKEN.value, lambda received: check_call(CALLS[0], received)),
        (CREDENTIALS.api_key, check_authentication),
    ):
        check([head.replace(b"%b", secret.encode()) + b"\r\n\r\n"])
        assert secret not in caplog.text


@pytest.mark.parametrize("call", CALLS)
def test_a_failure_names_a_protocol_error_without_its_text(request_log_file, call):
    with pytest.raises(RetryableError) as caught:
        request_log_file(b"garbage\r\n\r\n", call)
    assert caught.value.failure.message == "ConnectionError: BadStatusLine"
    assert caught.value.failure.reason is (Reason.UNCONFIRMED if call in POSTS else Reason.TEMPORARY)
