"""Any response of an API is a response or a failure, and what is published, logged or saved of it is safe."""

import json
import math
import re
from contextlib import suppress
from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agent_log_capture.adapters.capture_queue import CAPTURES_IN_A_MESSAGE, CaptureQueue
from agent_log_capture.domain.auth_token import AuthToken, TokenFormatError
from agent_log_capture.domain.capture import Polling
from agent_log_capture.domain.outcome import Trigger, TriggerType
from tests.fuzz.answers import (
    ACCEPTED_HEAD,
    API,
    CALLS,
    CAPTURE,
    CREDENTIALS,
    HEAD,
    TOKEN,
    check_authentication,
    check_call,
)
from tests.fuzz.checks import NOW
from tests.fuzz.transport import responding

# Python warns of cookies that it cannot read; requests reads those of every response, and they are dropped.
pytestmark = pytest.mark.filterwarnings("ignore:http.cookiejar bug:UserWarning")

MIB = 1024 * 1024
TEXTS = st.text() | st.text(
    st.sampled_from('\n\r\x00\x1b\u061c\u200f\u2028\u202e\u2066\ufeff\ud800\U000e0041\u0301"\\é𝄞a.%/?#')
)
WORDS = st.sampled_from(
    """
    requested started completed self logfile logfile_temp_url ../.. %2e%2e a/b ?x=1 # an-id 2026-11-23T03:13:40Z
    2026-11-23T03:13:40 0001-01-01T00:00:00+14:00 9999-12-31T23:59:59-14:00 the-api-key-itself 110011
    https://files.example/a.gz?temp_url_sig=0&temp_url_expires=1795490052 ?temp_url_expires=99999999999 http://[::1
    """.split()  # noqa: SIM905 (one word a line would fill a page)
)
NUMBERS = st.integers() | st.sampled_from([10**400, -1, 0, 2**63]) | st.floats()
KEYS = st.sampled_from(
    """
    id date state links rel href logfiles message errors online access token expires tenant code overLimit
    """.split()  # noqa: SIM905 (one word a line would fill a page)
)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS | WORDS,
    lambda inner: st.lists(inner) | st.dictionaries(KEYS | TEXTS, inner) | st.dictionaries(KEYS, inner),
)
LOG_FILES = st.fixed_dictionaries(
    {},
    optional=dict.fromkeys(("id", "date", "state", "message", "online"), VALUES | WORDS | TEXTS)
    | {
        "links": VALUES | st.lists(st.fixed_dictionaries({}, optional={"rel": WORDS | VALUES, "href": WORDS | TEXTS}))
    },
)
ACCESS = st.builds(
    lambda token: {"access": {"token": token}},
    st.fixed_dictionaries(
        {}, optional=dict.fromkeys(("id", "expires", "tenant"), VALUES | st.builds(dict, id=WORDS))
    ),
)
ANSWERS = VALUES | LOG_FILES | ACCESS | st.builds(lambda listed: {"logfiles": listed}, st.lists(LOG_FILES) | VALUES)
ENCODINGS = st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-32-be", "utf-16-le"])
BODIES = st.builds(lambda body, encoding: json.dumps(body).encode(encoding), ANSWERS, ENCODINGS) | st.binary()
HEADER_NAMES = st.sampled_from(
    """
    Location Retry-After Content-Type Content-Encoding Content-Length Transfer-Encoding Connection Set-Cookie Link
    Keep-Alive
    """.split()  # noqa: SIM905 (one word a line would fill a page)
)
HEADER_VALUES = st.binary() | st.sampled_from(
    [
        *(b"120", b"-1", b"9" * 400, b"Fri, 31 Dec 9999 23:59:59 GMT", b"Mon, 23 Nov 2026 03:13:40 -9999", b"1e999"),
        *(
            b"7\r\nRetry-After: 8",
            b"/x\rLocation: /y",
            b"http://[::1",
            b"http://\xff\xfe/",
            b"/logfiles/..%2F..",
            b"//x",
        ),
        *(b"/logfiles/an-id\x00", b"a=b; Max-Age=" + b"9" * 400, b"a=b; expires=Fri, 99 Dec 99999 23:59:59"),
        *(b"chunked", b"gzip", b"gzip, deflate, br", b"identity", b"close", b"keep-alive", b"0", b"1, 2", b"2, 2"),
        *(b"text/html; charset=x", b"multipart/mixed; boundary=a", b"application/json; charset=utf-16"),
    ]
)
STATUSES = st.integers(0, 1100) | st.sampled_from(
    [100, 101, 103, 200, 202, 204, 302, 304, 404, 409, 413, 429, 503, 999]
)


@st.composite
def raw_response(draw):
    """A response as its server sends it."""
    lines = [b"HTTP/1.%d %03d %b" % (draw(st.integers(0, 2)), draw(STATUSES), draw(st.just(b"OK") | st.binary()))]
    lines += [b"%b: %b" % header for header in draw(st.lists(st.tuples(HEADER_NAMES.map(str.encode), HEADER_VALUES)))]
    return b"\r\n".join([*lines, b"", draw(BODIES)])


RECEIVED = raw_response() | st.builds(bytes.__add__, st.sampled_from([HEAD, ACCEPTED_HEAD]), BODIES)


@given(call=st.sampled_from(CALLS), received=RECEIVED | st.builds(bytes.__add__, RECEIVED, RECEIVED) | st.binary())
def test_any_response_of_the_api_is_a_response_or_a_failure(call, received):
    check_call(call, [received])


@given(received=RECEIVED | st.binary())
def test_any_response_of_identity_is_a_token_or_an_error_that_shows_no_key(received):
    check_authentication([received])


@given(log_file_id=TEXTS | WORDS, project_id=TEXTS | WORDS | st.just("110011"))
@example(log_file_id="an-id", project_id="110011")
@example(log_file_id="..", project_id="110011")
@example(log_file_id="an-id", project_id="..")
def test_no_id_leads_to_another_place(log_file_id, project_id):
    body = json.dumps({"id": log_file_id}).encode()
    with responding([HEAD, body]), suppress(TokenFormatError):
        token = AuthToken("t", project_id)
        named = API.request_log_file(token, CAPTURE).log_file.id
        if named is not None:
            with responding([HEAD]) as connections:
                API.read_log_file(token, CAPTURE, named)
            [connection] = connections
            path = rb"GET /v2/[^/?#% .]+/agents/an-agent/logfiles/[^/?#% .]+ HTTP/1\.1\r\nHost: dfw\.api\.example\r\n"
            assert re.match(path, connection.sent)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("9" * 400, math.inf),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 251_591_000_000),
        *(
            (header, 0)
            for header in ("-1", "1e999", "0x10", "7\r\nRetry-After: 8", "7\x00", "\u00b2", "99 Dec 99999", "")
        ),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_retry_after_is_read_with_any_value(header, seconds):
    received = b"HTTP/1.1 503 Busy\r\nRetry-After: " + header.encode("latin-1") + b"\r\n\r\n"
    assert check_call(CALLS[0], [received]).retry_after_seconds == pytest.approx(seconds, rel=1e-2)


# ------------------------------------------------------------------ sizes

WIDE = ["\\", '"', "\x00", "𝄞", "é", "\ud800", "\u202e"]


@pytest.mark.parametrize(
    ("most", "character"),
    [*(("texts", character) for character in WIDE), ("links", '"'), ("log files", '"'), ("fields", "𝄞")],
    ids=ascii,
)
def test_no_response_makes_a_notification_too_large(character, most):
    text = character * 10_000
    links = [
        {"rel": text, "href": text + "temp_url_sig"},
        *({"rel": rel, "href": text} for rel in ("logfile", "logfile_temp_url")),
    ]
    body = {
        "texts": {"message": text * 4, "errors": [text] * 5, "id": text, "date": text, "state": text, "links": links},
        "links": {"state": "completed", "links": [*links, *[{"rel": "r", "href": text[:9]}] * 15_000]},
        "log files": {"logfiles": [{"state": "started", "links": links[:1]}] * 9 + [{}] * 10_000},
        "fields": {text[:99] + str(number): text[:99] for number in range(1000)},
    }[most]
    raw = json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")
    location = b"Location: /" + b"\xff" * 60_000
    for status in (b"200 OK", b"202 Accepted", b"400 Bad"):
        for call in CALLS:
            check_call(call, [b"HTTP/1.1 " + status + b"\r\n" + location + b"\r\n\r\n" + raw])


def test_ten_links_are_kept_and_the_others_are_left_out():
    links = [{"rel": str(number), "href": "h"} for number in range(50)]
    response = check_call(CALLS[0], [ACCEPTED_HEAD + json.dumps({"links": links}).encode()])
    assert [link["rel"] for link in response.log_file.links] == [str(number) for number in range(10)]


def test_words_and_addresses_are_cut():
    text = "x" * MIB
    fields = {"date": text[:9999], "state": text[:9999], "links": [{"rel": text[:9999], "href": text[:9999]}]}
    log_file = check_call(CALLS[0], [ACCEPTED_HEAD + json.dumps(fields).encode()]).log_file
    assert (len(log_file.date), len(log_file.state)) == (100, 100)
    assert {name: len(value) for name, value in log_file.links[0].items()} == {"rel": 100, "href": 2048}


@pytest.mark.parametrize("listed", [7, "text", {"a": 1}, True, None], ids=repr)
def test_a_refusal_may_have_anything_in_place_of_a_list(listed):
    body = json.dumps({"logfiles": listed}).encode()
    assert check_call(CALLS[3], [b"HTTP/1.1 404 Not Found\r\n\r\n" + body]).http_status == 404


@pytest.mark.parametrize("character", WIDE, ids=ascii)
def test_a_full_message_of_captures_fits_into_the_queue(queue: CaptureQueue, waiting, character):
    wide = character if character.isprintable() else "𝄞"
    capture = replace(
        CAPTURE,
        agent_id="a" * 128,
        trigger=Trigger(TriggerType.EVENTBRIDGE, wide * 512, wide * 256),
        phase=Polling(log_file_id="l" * 128, requested_at=NOW, activated_at=NOW, activations=10**6),
    )
    assert queue.requeue([(capture, 0)] * CAPTURES_IN_A_MESSAGE) == {}
    [message] = waiting.messages()
    assert len(message["Body"].encode()) < MIB


# ------------------------------------------------------------------ secrets


def test_a_token_that_the_api_repeats_is_not_published():
    body = {
        "id": TOKEN.value,
        "message": f"{TOKEN.value} is no token",
        "links": [{"href": f"https://x?{TOKEN.value}"}],
    }
    for status in (b"202 Accepted", b"400 Bad"):
        response = check_call(CALLS[0], [b"HTTP/1.1 " + status + b"\r\n\r\n" + json.dumps(body).encode()])
        assert response.message == "*** is no token"
        assert TOKEN.value not in repr(response)


@pytest.mark.parametrize("status", [b"200 OK", b"401 Unauthorized", b"500 Error"])
def test_a_key_that_identity_repeats_is_not_published(status):
    assert check_authentication([b"HTTP/1.1 " + status + b"\r\n\r\n" + CREDENTIALS.api_key.encode()]) is None
