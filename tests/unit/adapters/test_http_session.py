"""What comes off the wire, up to the last byte that is wanted."""

import gzip
import logging
import tracemalloc
import zlib
from itertools import chain, count, repeat

import pytest

from agent_log_capture.adapters import http_session
from agent_log_capture.adapters.http_session import MAX_ANSWER_BYTES, MAX_BODY_BYTES, build_session
from agent_log_capture.domain.outcome import LogFile, Reason
from tests.fuzz.answers import API, CALLS, CAPTURE, CREDENTIALS, POSTS, TOKEN, check_authentication, check_call
from tests.fuzz.wire import answering

ACCEPTED = b"HTTP/1.1 202 Accepted\r\nLocation: /logfiles/located\r\n"
CHUNKED = ACCEPTED + b"Transfer-Encoding: chunked\r\n\r\n"
BODY = b'{"id": "in-the-body"}'
ANSWER = ACCEPTED + b"\r\n" + BODY
A_BODY_WITHOUT_END = {
    "of a length that is not told": (ACCEPTED + b"\r\n", b" " * 1000),
    "of a length that is told": (ACCEPTED + b"Content-Length: %d\r\n\r\n" % 10**15, b" " * 1000),
    "in large chunks": (CHUNKED, b"ffff\r\n" + b" " * 0xFFFF + b"\r\n"),
    "in one chunk": (CHUNKED + b"%x\r\n" % 10**15, b" " * 1000),
    "in chunks of one byte": (CHUNKED, b"1\r\n \r\n"),
    "in a chunk of size -1": (CHUNKED + b"-1\r\n", b" " * 1000),
    "in a chunk of size -2": (CHUNKED + b"-2\r\n", b" " * 1000),
    "in a size of a chunk": (CHUNKED, b"1"),
    "in an extension of a chunk": (CHUNKED + b"1;", b"x"),
    "in trailers": (CHUNKED + b"0\r\n", b"a: b\r\n"),
    "in one trailer": (CHUNKED + b"0\r\n", b"a"),
}
A_HEAD_WITHOUT_END = {
    "in its first line": (b"HTTP/1.1 200 ", b"x"),
    "in a header": (ACCEPTED + b"X: ", b"x"),
    "in headers": (ACCEPTED, b"a: b\r\n"),
    "in long headers": (ACCEPTED, b"a: " + b"b" * 60_000 + b"\r\n"),
    "in answers before the answer": (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "in hints before the answer": (b"", b"HTTP/1.1 103 Early Hints\r\n\r\n"),
}


def without_end(cases):
    answers = [chain([begin], repeat(more)) for begin, more in cases.values()]
    return pytest.mark.parametrize("received", answers, ids=list(cases))


@pytest.fixture
def ask():
    """Asks for a log file, and gets these bytes back."""

    def ask(received, call=lambda: API.request_log_file(TOKEN, CAPTURE)):
        with answering([received] if isinstance(received, bytes) else received) as wires:
            answer = call()
        return answer, wires[0]

    return ask


@pytest.fixture
def _short(monkeypatch):
    monkeypatch.setattr(http_session, "MAX_ANSWER_BYTES", 200_000)
    monkeypatch.setattr(http_session, "MAX_BODY_BYTES", 100_000)


# ------------------------------------------------------------------ no end


@pytest.mark.usefixtures("_short")
@without_end(A_BODY_WITHOUT_END)
def test_a_body_without_end_is_read_up_to_a_limit_and_its_request_stays_accepted(ask, received):
    answer, wire = ask(received)
    assert (answer.http_status, answer.log_file.id) == (202, "located")
    assert wire.received <= 200_000


@pytest.mark.usefixtures("_short")
@pytest.mark.parametrize("status", [200, 301, 307, 400, 404, 409, 500, 503])
def test_no_status_makes_the_client_read_on(ask, status):
    answer, wire = ask(
        chain([b"HTTP/1.1 %d \r\nLocation: http://elsewhere.example/\r\n\r\n" % status], repeat(b" " * 100))
    )
    assert (answer.http_status, wire.received <= 150_000) == (status, True)


@pytest.mark.usefixtures("_short")
@without_end(A_HEAD_WITHOUT_END)
def test_a_head_without_end_is_no_answer(received):
    assert check_call(CALLS[0], received) is None


def test_the_limit_is_1_mib_for_a_body_and_2_mib_for_all(ask):
    bodies = {received for received, _ in A_BODY_WITHOUT_END.values() if not received.startswith(CHUNKED)}
    for begin in bodies:
        _, wire = ask(chain([begin], repeat(b" " * 10_000)))
        assert MAX_BODY_BYTES <= wire.received <= MAX_BODY_BYTES + 65_536
    _, wire = ask(chain([CHUNKED + b"-1\r\n"], repeat(b" " * 10_000)))
    assert wire.received == MAX_ANSWER_BYTES == 2 * MAX_BODY_BYTES


@pytest.mark.parametrize(
    ("begin", "status"),
    [(ACCEPTED + b"\r\n", 202), (ACCEPTED, None), (b"HTTP/1.1 2", None)],
    ids=["body", "header", "line"],
)
def test_what_drips_in_is_waited_for_20_seconds_in_all(monkeypatch, ask, begin, status):
    seconds = count()
    monkeypatch.setattr(http_session.time, "monotonic", lambda: next(seconds))
    if status:
        answer, wire = ask(chain([begin], repeat(b" ")))
        assert (answer.http_status, wire.received) == (status, len(begin) + 19)
    else:
        assert check_call(CALLS[0], chain([begin], repeat(b" "))) is None


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_there_is_no_way_around_the_limits(scheme):
    with build_session(1) as session:
        pool = session.get_adapter(f"{scheme}://").poolmanager.connection_from_host("api.example", scheme=scheme)
        assert pool.ConnectionCls.response_class is http_session._Answer  # noqa: SLF001 (seen nowhere else without TLS)


# ------------------------------------------------------------------ what is between, before and behind


@pytest.mark.parametrize(
    "chunk", [b"-1\r\n", b"-2\r\n", b"-ffffffffffffffffffff\r\n", b"zz\r\n", b"\r\n", b"1_0\r\n"]
)
def test_a_chunk_of_an_impossible_size_ends_the_body_and_not_the_worker(ask, chunk):
    answer, _ = ask(CHUNKED + b"%x\r\n%b\r\n" % (len(BODY), BODY) + chunk + b"more")
    assert (answer.http_status, answer.log_file.id) == (202, "in-the-body")


@pytest.mark.parametrize("status", [b"100 Continue", b"102 Processing", b"103 Early Hints", b"199 "])
def test_what_is_no_answer_yet_is_passed_over(ask, status):
    hint = b"HTTP/1.1 " + status + b"\r\nLink: </a>; rel=preload\r\n\r\n"
    answer, _ = ask(hint + hint + ANSWER)
    assert (answer.http_status, answer.log_file.id) == (202, "in-the-body")


def test_a_change_of_protocol_is_no_answer():
    assert check_call(CALLS[0], [b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n\x00\x01"]) is None


def test_cookies_are_neither_kept_nor_sent():
    cookies = b"Set-Cookie: a=b; Max-Age=%d\r\nset-cookie2: c=d\r\n" % 10**400
    with build_session(1) as session, answering([ACCEPTED + cookies + b"\r\n" + BODY]) as wires:
        for _ in range(2):
            http_session.exchange(session, "GET", "http://api.example/")
        assert list(session.cookies) == []
        assert b"cookie" not in b"".join(wire.sent for wire in wires).lower()


@pytest.mark.parametrize(
    "header", [b"no header\x1b[31m", b": nameless", b" folded", b"Content-Length: 2\r\nTransfer-Encoding: chunked"]
)
def test_headers_that_cannot_be_read_are_logged_nowhere_as_they_came(caplog, ask, header):
    caplog.set_level(logging.DEBUG)
    answer, _ = ask(ACCEPTED + header + b"\r\n\r\n" + BODY)
    assert answer.http_status == 202
    assert not [record for record in caplog.records if "\x1b" in record.getMessage() or record.exc_info]


# ------------------------------------------------------------------ compressed bodies


def test_no_compressed_body_is_asked_for(ask):
    _, wire = ask(ANSWER)
    assert b"\r\nAccept-Encoding: identity\r\n" in wire.sent


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "gzip, gzip", "br", "zstd", "x" * 1000, ""])
def test_a_compressed_body_is_not_opened_and_its_request_stays_accepted(ask, encoding):
    body = gzip.compress(BODY) if "gzip" in encoding else zlib.compress(BODY)
    answer, _ = ask(ACCEPTED + b"Content-Encoding: %b\r\n\r\n" % encoding.encode() + body)
    assert (answer.http_status, answer.log_file) == (202, LogFile(id="located", location="/logfiles/located"))


def test_a_body_that_is_called_compressed_and_is_not_is_read(ask):
    answer, _ = ask(ACCEPTED + b"Content-Encoding: gzip\r\n\r\n" + BODY)
    assert answer.log_file.id == "in-the-body"


def test_a_bomb_does_not_go_off(ask):
    bomb = gzip.compress(gzip.compress(bytes(64 * MAX_BODY_BYTES)))
    tracemalloc.start()
    ask(ACCEPTED + b"Content-Encoding: gzip, gzip\r\n\r\n" + bomb)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < MAX_BODY_BYTES


# ------------------------------------------------------------------ what is no HTTP


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
def test_what_is_no_http_is_no_answer(head):
    assert [check_call(call, [head + b"\r\n\r\n"]) for call in CALLS] == [None] * len(CALLS)
    assert check_authentication([head + b"\r\n\r\n"]) is None


@pytest.mark.parametrize(
    ("head", "status"),
    [(b"HTTP/1.1 200", 200), (b"HTTP/1.0 503 Busy", 503), (b"HTTP/0.9 418 \xff\x1b", 418), (b"HTTP/1.1 999 ", 999)],
)
def test_a_reason_is_not_asked_for(ask, head, status):
    assert ask(head + b"\r\n\r\n")[0].http_status == status


@pytest.mark.parametrize(
    "head", [b"%b", b"HTTP/1.1 %b OK", b"HTTP/%b 200 OK", b"HTTP/1.1 200 OK\r\n%b\r\nContent-Length: 1, 2"]
)
def test_what_the_answer_repeats_of_the_request_is_not_shown(head):
    for secret, check in (
        (TOKEN.value, lambda received: check_call(CALLS[0], received)),
        (CREDENTIALS.api_key, check_authentication),
    ):
        check([head % secret.encode() + b"\r\n\r\n"])


def test_no_answer_to_a_request_leaves_it_unconfirmed_whatever_came_instead(ask):
    for call in CALLS:
        with pytest.raises(Exception, match="ConnectionError") as caught:
            ask(b"garbage\r\n\r\n", call)
        assert caught.value.failure.reason is (Reason.UNCONFIRMED if call in POSTS else Reason.TEMPORARY)
