import errno
import html
import json
import socket
from datetime import timedelta
from http.client import RemoteDisconnected
from operator import attrgetter
from urllib.parse import quote

import pytest
import requests
from urllib3.exceptions import ProtocolError

from agent_log_capture.adapters.cloud_backup import CloudBackup
from agent_log_capture.adapters.http_session import CONNECT_TIMEOUT_SECONDS, READ_TIMEOUT_SECONDS, build_session
from agent_log_capture.domain.auth_token import AuthToken
from agent_log_capture.domain.capture import REGIONS
from agent_log_capture.domain.outcome import LogFile, Reason
from agent_log_capture.domain.responses import RetryableError
from tests.fuzz.answers import check_chain

is_pending = attrgetter("is_pending")
AGENT = "8f135b4f-7a69-4b8a-947f-5e80d772fd97"
LOG_FILE = "a533a845-4279-4838-af13-276114e90234"
TOKEN = AuthToken("the-token-itself", "110011")
URL = f"https://dfw.backup.api.rackspacecloud.com/v2/110011/agents/{AGENT}/logfiles"
BODY = {
    "id": LOG_FILE,
    "date": "2014-09-23T12:22:40.606703Z",
    "state": "requested",
    "links": [{"href": f"{URL}/{LOG_FILE}", "rel": "self"}],
}


FILES = "https://storage101.dfw1.clouddrive.com/v1/MossoCloudFS_3f8a2c1e/CloudBackupLogs/v2/a.gz"
SELF, OBJECT = ({"rel": rel, "href": href} for rel, href in (("self", f"{URL}/{LOG_FILE}"), ("logfile", FILES)))
STATUS_URL = URL.removesuffix("logfiles") + "status"
SIGNED = {"rel": "logfile_temp_url", "href": f"{FILES}?temp_url_sig={40 * '0'}&temp_url_expires=1323479485"}


@pytest.fixture(params=["POST", "GET"])
def method(request):
    return request.param


@pytest.fixture
def capture(a_capture):
    return a_capture()


@pytest.fixture
def request_log_file(api, capture):
    return lambda: api.request_log_file(TOKEN, capture)


@pytest.fixture
def find_log_file(api, capture):
    return lambda is_wanted=is_pending: api.find_log_file(TOKEN, capture, is_wanted)


@pytest.fixture
def call(request_log_file, find_log_file):
    """One call with each method."""
    return {"POST": request_log_file, "GET": find_log_file}


@pytest.fixture
def read(api, capture):
    return lambda: api.read_log_file(TOKEN, capture, LOG_FILE)


@pytest.fixture
def read_status(api, capture):
    return lambda: api.read_status(TOKEN, capture)


def failure_of(call):
    with pytest.raises(RetryableError) as caught:
        call()
    return caught.value.failure


@pytest.mark.parametrize("region", sorted(REGIONS))
def test_each_region_has_its_own_host(wire, api, a_capture, region):
    wire.post(URL.replace("dfw", region.lower()), status=202)
    assert api.request_log_file(TOKEN, a_capture(region=region)).http_status == 202


def test_a_url_without_a_region_serves_every_region(wire, now, a_capture):
    wire.post(f"http://127.0.0.1:8080/v2/110011/agents/{AGENT}/logfiles", status=202)
    with build_session(1) as session:
        api = CloudBackup(session, "http://127.0.0.1:8080", lambda: now)
        assert api.request_log_file(TOKEN, a_capture(region="SYD")).http_status == 202


def test_a_call_carries_the_token_and_the_media_type_and_no_body(wire, call, method):
    wire.add(method, URL, json={"logfiles": []})
    call[method]()
    [sent] = [made.request for made in wire.calls]
    assert sent.headers["X-Auth-Token"] == TOKEN.value
    assert sent.headers["Accept"] == sent.headers["Content-Type"] == "application/json"
    assert not sent.body


def test_a_call_has_a_timeout_for_connecting_and_one_for_reading(wire, call, method):
    wire.add(method, URL, json={"logfiles": []})
    call[method]()
    assert wire.calls[0].request.req_kwargs["timeout"] == (CONNECT_TIMEOUT_SECONDS, READ_TIMEOUT_SECONDS)


def test_one_session_has_a_connection_for_every_worker():
    with build_session(32) as session:
        pools = session.get_adapter(URL).poolmanager
        assert pools.connection_pool_kw["maxsize"] == 32
        assert session.get_adapter("http://127.0.0.1").poolmanager.connection_pool_kw["maxsize"] == 32


def test_no_proxy_and_no_netrc_of_the_environment_is_used(monkeypatch, tmp_path, wire, request_log_file):
    netrc = tmp_path / "netrc"
    netrc.write_text("machine dfw.backup.api.rackspacecloud.com login user password something")
    monkeypatch.setenv("NETRC", str(netrc))
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://proxy.example:3128")
    wire.post(URL, status=202)
    request_log_file()
    sent = wire.calls[0].request
    assert not sent.req_kwargs.get("proxies")
    assert "Authorization" not in sent.headers


@pytest.mark.parametrize("status", [300, 301, 302, 303, 304, 305, 307, 308])
@pytest.mark.parametrize(
    "location",
    [
        "https://elsewhere.example/",
        "/v2/other",
        "//elsewhere.example",
        "http://[::1",
        "http://\xff\xfe",
        "",
        None,
    ],
)
def test_a_redirect_is_returned_and_not_followed(wire, call, method, status, location):
    headers = {} if location is None else {"Location": location}
    wire.add(method, URL, status=status, headers=headers)
    assert call[method]().http_status == status
    assert [made.request.url for made in wire.calls] == [URL]


def test_the_new_log_file_is_read(wire, request_log_file):
    wire.post(URL, status=202, json=BODY, headers={"Location": f"{URL}/{LOG_FILE}"})
    response = request_log_file()
    assert (response.http_status, response.message, response.retry_after_seconds) == (202, None, 0)
    assert response.log_file == LogFile(
        id=LOG_FILE,
        date=BODY["date"],
        state="requested",
        location=f"{URL}/{LOG_FILE}",
        links=({"rel": "self", "href": f"{URL}/{LOG_FILE}"},),
    )


@pytest.mark.parametrize(
    "body",
    [b"", b"no JSON", b"\xff\xfe", b"null", b"[]", b"[" * 100_000, b'"text"', b"{}", b'{"id": "cut off', b"1" * 5000],
    ids=lambda body: repr(body[:12]),
)
def test_an_accepted_request_stays_accepted_with_any_body(wire, request_log_file, body):
    wire.post(URL, status=202, body=body)
    assert (request_log_file().http_status, request_log_file().log_file) == (202, LogFile())


@pytest.mark.parametrize("wrong", [None, 1, True, [], {}, ["a"], {"a": "b"}, ""], ids=repr)
def test_fields_of_the_wrong_type_are_left_out(wire, request_log_file, wrong):
    wire.post(URL, status=202, json=dict.fromkeys(BODY, wrong))
    assert request_log_file().log_file == LogFile()


@pytest.mark.parametrize(
    ("links", "read"),
    [
        ([{"rel": "self"}, {"href": ""}, {"href": 1}, "text", None, ["href"]], ()),
        ([{"href": "https://a.example", "rel": 7, "more": "x"}], ({"href": "https://a.example"},)),
        ([{"href": "https://a.example/\n\u202eb"}], ({"href": "https://a.example/  b"},)),
        ([{"href": "h" * 5000}], ({"href": "h" * 2047 + "…"},)),
    ],
)
def test_links_are_read_as_far_as_they_are_links(wire, request_log_file, links, read):
    wire.post(URL, status=202, json={"links": links})
    assert request_log_file().log_file.links == read


@pytest.mark.parametrize(
    ("body_id", "location", "read"),
    [
        (LOG_FILE, "https://api.example/logfiles/other", LOG_FILE),
        (None, f"https://api.example/logfiles/{LOG_FILE}", LOG_FILE),
        (None, f"https://api.example/logfiles/{LOG_FILE}/", LOG_FILE),
        (None, f"/v2/110011/logfiles/{LOG_FILE}?a=b#c", LOG_FILE),
        ("../../etc", f"/logfiles/{LOG_FILE}", LOG_FILE),
        ("x" * 129, None, None),
        ("with space", None, None),
        (None, "https://api.example/logfiles/..%2F..", None),
        (None, "https://api.example/logfiles/<script>", None),
        (None, "http://[::1", None),
        (None, "https://api.example", None),
        (None, "", None),
        (None, None, None),
    ],
)
def test_location_names_the_log_file_where_the_body_does_not(wire, request_log_file, body_id, location, read):
    headers = {} if location is None else {"Location": location}
    wire.post(URL, status=202, json={"id": body_id}, headers=headers)
    assert request_log_file().log_file.id == read


def test_a_location_is_kept_printable_and_short(wire, request_log_file):
    wire.post(URL, status=202, headers={"Location": f"{URL}/\x07\xad" + "a" * 5000})
    location = request_log_file().log_file.location
    assert location.startswith(f"{URL}/  a")
    assert (len(location), location.isprintable()) == (2048, True)


@pytest.mark.parametrize(
    ("location", "is_kept"),
    [
        (f"{URL}/{LOG_FILE}", True),
        (f"{URL}/{LOG_FILE}".replace("dfw.", "DFW."), True),
        (f"/v2/110011/logfiles/{LOG_FILE}", True),
        (f"{URL}/{LOG_FILE}?X-Auth-Token=a-key", False),
        (f"{URL}/{LOG_FILE}#a-key", False),
        (f"https://user:a-key@dfw.backup.api.rackspacecloud.com/{LOG_FILE}", False),
        (f"https://dfw.backup.api.rackspacecloud.com.elsewhere.example/{LOG_FILE}", False),
        (f"http://dfw.backup.api.rackspacecloud.com/{LOG_FILE}", False),
        (f"//elsewhere.example/{LOG_FILE}", False),
        (f"javascript:{LOG_FILE}", False),
        ("http://[::1", False),
    ],
)
def test_a_location_is_kept_where_it_leads_to_the_api_itself_without_a_query(
    wire, request_log_file, location, is_kept
):
    wire.post(URL, status=202, headers={"Location": location})
    assert request_log_file().log_file.location == (location if is_kept else None)


# How an API may escape `the-token-itself`, and of a token with characters that are escaped everywhere.
ODD_TOKEN = AuthToken('abc+/de%2F"=&<f', "110011")
ESCAPED = [
    TOKEN.value,
    r"\u0074he-token-itself",
    r"the\u002Dtoken\u002ditself",
    "the%2Dtoken%2ditself",
    "the%252Dtoken%252Ditself",
    "the&#45;token&#x2D;itself",
    "the&amp;#45;token&amp;#0045;itself",
    r"the\\u002dtoken-itself",
]
ODDLY_ESCAPED = [
    ODD_TOKEN.value,
    quote(ODD_TOKEN.value),
    quote(ODD_TOKEN.value, safe=""),
    quote(quote(ODD_TOKEN.value)),
    html.escape(ODD_TOKEN.value),
    json.dumps(ODD_TOKEN.value),
    json.dumps(json.dumps(ODD_TOKEN.value)).replace("/", r"\/"),
    "".join(f"\\u{ord(character):04x}" for character in ODD_TOKEN.value),
    "".join(f"&#{ord(character)};" for character in ODD_TOKEN.value),
    quote("".join(f"\\u{ord(character):04X}" for character in ODD_TOKEN.value)),
]
repeated = pytest.mark.parametrize(
    ("token", "text"), [(TOKEN, text) for text in ESCAPED] + [(ODD_TOKEN, text) for text in ODDLY_ESCAPED]
)


@repeated
@pytest.mark.parametrize("status", [202, 400, 503])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_no_form_in_which_the_api_repeats_the_token_is_read(wire, api, capture, token, text, status, encoding):
    body = {
        **dict.fromkeys(("id", "date", "state"), f"a {text} b"),
        "message": f"X-Auth-Token: {text}.",
        "errors": [f"{text} again"],
        "links": [{"rel": text, "href": f"{URL}?token={text}"}],
    }
    sent = json.dumps(body).replace("-token", r"\u002dtoken").encode(encoding)
    wire.post(URL, status=status, body=sent)
    response = api.request_log_file(token, capture)
    read = str(response)
    for form in (token.value, text):
        assert form not in read
    assert "***" in response.message
    assert (response.log_file is not None) == (status == 202)


@repeated
def test_a_location_that_repeats_the_token_is_left_out(wire, api, capture, token, text):
    wire.post(URL, status=202, headers={"Location": f"{URL}/{text}"})
    assert api.request_log_file(token, capture).log_file == LogFile()


def test_what_only_looks_escaped_is_read_as_it_is(wire, request_log_file):
    message = r"100% sure: C:\u0041 & &amp; %41 \/ the-token"
    wire.post(URL, status=400, json={"message": message})
    assert request_log_file().message == message


@pytest.mark.parametrize("status", [302, 400, 401, 403, 404, 405, 409, 413, 429, 500, 501, 503, 599])
def test_a_response_that_is_not_a_success_has_no_log_file(wire, call, method, status):
    wire.add(method, URL, status=status, json={"logfiles": [BODY], **BODY})
    assert (call[method]().http_status, call[method]().log_file) == (status, None)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (
            '{"message": "Validation failed.", "errors": ["Name is required."]}',
            "Validation failed. Name is required.",
        ),
        ('{"message": "Validation failed.", "errors": []}', "Validation failed."),
        ('{"errors": ["One.", 2, "Three."]}', "One. Three."),
        ('{"message": "Gone.", "errors": "none"}', "Gone."),
        ('{"overLimit": {"code": 413, "message": "Slow down.", "details": "x"}}', "Slow down."),
        ('{"code": 404, "itemNotFound": {"message": "No such agent."}}', "No such agent."),
        ('{"message": {"message": "Inside."}}', "Inside."),
        ('{"message": 7, "errors": {"a": 1}}', None),
        ('{"message": ""}', None),
        ('{"message": "   "}', None),
        ("<html><title>503</title></html>", None),
        ("", None),
    ],
)
def test_the_message_of_an_error_is_read_in_each_of_its_forms(wire, call, method, body, message):
    wire.add(method, URL, status=400, body=body)
    assert call[method]().message == message


def test_a_message_is_cut_at_500_characters_and_printable(wire, request_log_file):
    wire.post(URL, status=400, json={"message": "a\nb\x00c\u202e" + "x" * 1000})
    message = request_log_file().message
    assert message.startswith("a b c x")
    assert (len(message), message.isprintable()) == (500, True)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("7", 7),
        ("Mon, 23 Nov 2026 03:13:40 GMT", 59.015),
        ("Mon, 23 Nov 2026 03:00:00 GMT", 0),
        ("soon", 0),
        (None, 0),
    ],
)
def test_retry_after_is_read_as_seconds_or_as_a_date(wire, call, method, header, seconds):
    wire.add(method, URL, status=503, headers={"Retry-After": header} if header else {})
    assert call[method]().retry_after_seconds == pytest.approx(seconds)


def broken(error):
    """The error as requests raises it when a connection breaks off."""
    return requests.ConnectionError(ProtocolError("Connection aborted.", error))


NO_RESPONSE = pytest.mark.parametrize(
    "error",
    [
        requests.ReadTimeout("Read timed out. (read timeout=10)"),
        broken(ConnectionResetError(errno.ECONNRESET, "Connection reset by peer")),
        broken(RemoteDisconnected("Remote end closed connection without response")),
        requests.exceptions.SSLError("wrong version number"),
        requests.ConnectionError(),
    ],
    ids=["read timeout", "reset", "closed", "TLS", "unknown"],
)


@NO_RESPONSE
def test_a_request_without_a_response_is_unconfirmed(wire, request_log_file, now, error):
    wire.post(URL, body=error)
    failure = failure_of(request_log_file)
    assert (failure.reason, failure.unconfirmed_since) == (Reason.UNCONFIRMED, now)


@NO_RESPONSE
def test_a_list_without_a_response_is_temporary(wire, find_log_file, error):
    wire.get(URL, body=error)
    failure = failure_of(find_log_file)
    assert (failure.reason, failure.unconfirmed_since) == (Reason.TEMPORARY, None)


def test_a_request_is_unconfirmed_since_before_it_was_sent(wire, capture, now):
    moments = iter([now, now + timedelta(seconds=10)])
    wire.post(URL, body=requests.ReadTimeout())
    with build_session(1) as session:
        api = CloudBackup(session, "https://{region}.backup.api.rackspacecloud.com", lambda: next(moments))
        assert failure_of(lambda: api.request_log_file(TOKEN, capture)).unconfirmed_since == now


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_connect_timeout_is_not_connected(monkeypatch, capture, now, scheme):
    def time_out(*_, **__):
        raise TimeoutError

    monkeypatch.setattr("urllib3.util.connection.create_connection", time_out)
    with build_session(1) as session:
        api = CloudBackup(session, f"{scheme}://api.example", lambda: now)
        failure = failure_of(lambda: api.request_log_file(TOKEN, capture))
    assert (failure.reason, failure.unconfirmed_since) == (Reason.NOT_CONNECTED, None)
    assert failure.message.startswith(f"ConnectTimeout: {scheme.upper()}ConnectionPool(host='api.example'")
    assert "timed out. (connect timeout=3.05)" in failure.message


def test_a_host_without_an_address_is_not_connected(monkeypatch, call, method):
    def fail(*_, **__):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    failure = failure_of(call[method])
    assert failure.reason is Reason.NOT_CONNECTED
    assert "Name or service not known" in failure.message


@pytest.mark.parametrize("error", [requests.ReadTimeout("timed out"), requests.exceptions.SSLError("x" * 9000)])
def test_an_error_is_short_and_does_not_show_the_token(wire, call, method, error):
    wire.add(method, URL, body=error)
    with pytest.raises(RetryableError) as caught:
        call[method]()
    check_chain(caught.value, TOKEN.value)
    assert TOKEN.value not in repr(caught.value.failure)
    assert len(caught.value.failure.message) <= 500
    assert TOKEN.value not in repr(TOKEN)


def listed(*log_files):
    return {"logfiles": [BODY | log_file for log_file in log_files]}


def test_the_latest_log_file_that_is_wanted_is_found(wire, find_log_file):
    log_files = listed(
        {"id": "older", "date": "2014-09-23T12:00:00Z"},
        {"id": "undated", "date": None},
        {"id": "latest", "date": "2014-09-23T14:00:00Z", "state": "started"},
        {"id": "between", "date": "2014-09-23T13:00:00Z"},
        {"id": "later", "date": "2014-09-23T15:00:00Z", "state": "completed"},
    )
    wire.get(URL, json=log_files)
    response = find_log_file()
    assert (response.http_status, response.log_file.id, response.log_file.state) == (200, "latest", "started")
    assert response.log_file.links == ({"rel": "self", "href": BODY["links"][0]["href"]},)


@pytest.mark.parametrize(
    "body",
    [{"logfiles": []}, {"logfiles": [None, 1, "text", []]}, listed({"state": "completed"}), listed({"state": 7})],
)
def test_no_log_file_may_be_wanted(wire, find_log_file, body):
    wire.get(URL, json=body)
    assert find_log_file().log_file is None


@pytest.mark.parametrize(
    "body", ["", "<html>", "[]", "{}", '{"logfiles": null}', '{"logfiles": {}}', '{"logfiles": [']
)
def test_a_malformed_list_is_not_an_empty_list(wire, find_log_file, body):
    wire.get(URL, body=body)
    failure = failure_of(find_log_file)
    assert (failure.reason, failure.unconfirmed_since) == (Reason.TEMPORARY, None)
    assert "could not be read" in failure.message


def test_a_body_is_read_up_to_1_mib(wire, request_log_file):
    body = {"id": "in-the-body", "padding": "x" * (1024 * 1024 - 100)}
    fits, is_cut = json.dumps(body), json.dumps(body | {"more": "x" * 100})
    headers = {"Location": "/logfiles/in-the-location"}
    wire.post(URL, status=202, body=fits, headers=headers)
    wire.post(URL, status=202, body=is_cut, headers=headers)
    assert [request_log_file().log_file.id, request_log_file().log_file.id] == ["in-the-body", "in-the-location"]


# ------------------------------------------------------------------ reading one log file


def test_a_log_file_is_read_by_its_id(wire, read):
    wire.get(f"{URL}/{LOG_FILE}", json=BODY | {"state": "completed", "links": [SELF, OBJECT, SIGNED]})
    response = read()
    assert (response.http_status, response.message, response.is_online) == (200, None, None)
    assert response.log_file == LogFile(
        id=LOG_FILE, date=BODY["date"], state="completed", links=(SELF, OBJECT, SIGNED)
    )
    assert wire.calls[0].request.headers["X-Auth-Token"] == TOKEN.value


@pytest.mark.parametrize("body", ["", "no JSON", "[]", "{}", '{"id": ["a"], "state": 7, "links": {}}'])
def test_a_log_file_is_read_as_far_as_it_is_described(wire, read, body):
    wire.get(f"{URL}/{LOG_FILE}", body=body)
    assert (read().http_status, read().log_file) == (200, LogFile())


@pytest.mark.parametrize("status", [403, 404, 410, 429, 503])
def test_a_read_that_fails_has_no_log_file(wire, read, status):
    body = BODY | {"message": "Its words."}
    wire.get(f"{URL}/{LOG_FILE}", status=status, json=body, headers={"Retry-After": "7"})
    response = read()
    assert (response.http_status, response.message, response.retry_after_seconds) == (status, "Its words.", 7)
    assert response.log_file is None


def test_a_read_that_is_redirected_is_not_followed(wire, read):
    wire.get(f"{URL}/{LOG_FILE}", status=302, headers={"Location": "https://elsewhere.example/"})
    assert (read().http_status, len(wire.calls)) == (302, 1)


@NO_RESPONSE
def test_a_read_without_a_response_is_temporary(wire, read, error):
    wire.get(f"{URL}/{LOG_FILE}", body=error)
    failure = failure_of(read)
    assert (failure.reason, failure.unconfirmed_since) == (Reason.TEMPORARY, None)


# ------------------------------------------------------------------ an agent's status


@pytest.mark.parametrize(
    ("body", "is_online"),
    [
        ('{"busy": false, "online": true}', True),
        ('{"busy": false, "online": false}', False),
        ('{"busy": false}', None),
        ('{"online": null}', None),
        ('{"online": 0}', None),
        ('{"online": "false"}', None),
        ("[]", None),
        ("", None),
    ],
)
def test_an_agent_is_online_or_offline_or_unknown(wire, read_status, body, is_online):
    wire.get(STATUS_URL, body=body)
    response = read_status()
    assert (response.http_status, response.is_online, response.log_file) == (200, is_online, None)


@pytest.mark.parametrize("status", [302, 401, 404, 503])
def test_an_error_leaves_the_status_of_an_agent_unknown(wire, read_status, status):
    wire.get(STATUS_URL, status=status, json={"online": False})
    assert (read_status().http_status, read_status().is_online) == (status, None)


def test_a_status_without_a_response_is_temporary(wire, read_status):
    wire.get(STATUS_URL, body=requests.ReadTimeout())
    assert failure_of(read_status).unconfirmed_since is None


# ------------------------------------------------------------------ signed links that are dropped


@pytest.fixture
def unsigned_api(now):
    with build_session(1) as session:
        url = "https://{region}.backup.api.rackspacecloud.com"
        yield CloudBackup(session, url, lambda: now, keeps_signed_links=False)


@pytest.mark.parametrize(
    "signed",
    [
        SIGNED,
        {"rel": "logfile_temp_url", "href": FILES},
        {"rel": "logfile", "href": SIGNED["href"]},
        {"href": f"{FILES}?temp_url_expires=1323479485&temp_url_sig=0"},
    ],
    ids=["as documented", "by its name", "by its signature", "without a name"],
)
@pytest.mark.parametrize("source", ["request", "read", "find"])
def test_a_signed_link_is_dropped_in_every_response(wire, unsigned_api, capture, signed, source):
    body = BODY | {"links": [SELF, signed, OBJECT]}
    wire.post(URL, status=202, json=body)
    wire.get(f"{URL}/{LOG_FILE}", json=body)
    wire.get(URL, json={"logfiles": [body]})
    call = {
        "request": lambda: unsigned_api.request_log_file(TOKEN, capture),
        "read": lambda: unsigned_api.read_log_file(TOKEN, capture, LOG_FILE),
        "find": lambda: unsigned_api.find_log_file(TOKEN, capture, is_pending),
    }[source]
    assert call().log_file.links == (SELF, OBJECT)
