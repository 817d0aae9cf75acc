import json
from datetime import UTC, datetime

import pytest
import requests

from agent_log_capture.adapters.http_session import CONNECT_TIMEOUT_SECONDS, READ_TIMEOUT_SECONDS, build_session
from agent_log_capture.adapters.identity import Identity, IdentityError
from agent_log_capture.domain.auth_token import AuthToken, Credentials
from tests.fuzz.answers import check_chain

URL = "https://identity.api.rackspacecloud.com/v2.0/tokens"
CREDENTIALS = Credentials("backup-bot", "the-api-key-itself")
UNUSABLE = "Identity's answer has no token, expiry and project ID that can be used"


def access(**changes):
    token = {"id": "the-token-itself", "expires": "2015-11-18T18:35:45.013Z", "tenant": {"id": "110011"}}
    return {"access": {"token": token | changes, "serviceCatalog": []}}


@pytest.fixture
def authenticate():
    with build_session(1) as session:
        identity = Identity(session, "https://identity.api.rackspacecloud.com")
        yield lambda credentials=CREDENTIALS: identity.authenticate(credentials)


def error_of(call, *arguments):
    with pytest.raises(IdentityError) as caught:
        call(*arguments)
    return caught.value


def test_the_credentials_are_sent_in_the_form_of_the_api(wire, authenticate):
    wire.post(URL, json=access())
    authenticate()
    [sent] = [made.request for made in wire.calls]
    assert json.loads(sent.body) == {
        "auth": {"RAX-KSKEY:apiKeyCredentials": {"username": "backup-bot", "apiKey": "the-api-key-itself"}}
    }
    assert sent.headers["Accept"] == sent.headers["Content-Type"] == "application/json"
    assert sent.req_kwargs["timeout"] == (CONNECT_TIMEOUT_SECONDS, READ_TIMEOUT_SECONDS)


@pytest.mark.parametrize(
    ("expires", "moment"),
    [
        ("2015-11-18T18:35:45.013Z", datetime(2015, 11, 18, 18, 35, 45, 13000, tzinfo=UTC)),
        ("2015-11-18T12:35:45-06:00", datetime(2015, 11, 18, 18, 35, 45, tzinfo=UTC)),
        ("2015-11-18T18:35:45", datetime(2015, 11, 18, 18, 35, 45, tzinfo=UTC)),
    ],
)
def test_the_token_its_project_and_its_expiry_are_read(wire, authenticate, expires, moment):
    wire.post(URL, json=access(expires=expires))
    assert authenticate() == (AuthToken("the-token-itself", "110011"), moment)


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (
            401,
            "Identity refuses the API key of 'backup-bot' (401): put the right username and api_key into the secret",
        ),
        (413, "Identity limits the rate (413): rotate again in some seconds"),
        (429, "Identity limits the rate (429): rotate again in some seconds"),
        *(
            (status, f"Identity answers with HTTP status {status}: check the URL and the user, or rotate again later")
            for status in (203, 302, 400, 403, 404, 500, 503, 599)
        ),
    ],
)
def test_a_refusal_says_what_to_do(wire, authenticate, status, message):
    wire.post(URL, status=status, json=access() | {"unauthorized": {"message": "the-api-key-itself was wrong"}})
    assert str(error_of(authenticate)) == message


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[]",
        b"{}",
        b"[" * 100_000,
        *(
            json.dumps(response).encode()
            for response in (
                {"access": {}},
                {"access": {"token": None}},
                access(id=None),
                access(id=""),
                access(id="a\r\nHost: evil"),
                access(id="t" * 8193),
                access(tenant={}),
                access(tenant={"id": 110011}),
                access(tenant={"id": "../110011"}),
                access(expires=None),
                access(expires=1447871745),
                access(expires="tomorrow"),
                access(expires="0001-01-01T00:00:00+14:00"),
            )
        ),
    ],
    ids=lambda body: repr(body[-30:]),
)
def test_a_malformed_response_has_no_token_and_is_not_shown(wire, authenticate, body):
    wire.post(URL, body=body)
    assert str(error_of(authenticate)) == UNUSABLE


def test_a_redirect_is_not_followed_with_the_api_key(wire, authenticate):
    wire.post(URL, status=307, headers={"Location": "https://elsewhere.example/"})
    assert "HTTP status 307" in str(error_of(authenticate))
    assert [made.request.url for made in wire.calls] == [URL]


@pytest.mark.parametrize(
    "failure",
    [
        requests.exceptions.ConnectTimeout("timed out"),
        requests.ReadTimeout("timed out"),
        requests.ConnectionError("reset\nby peer" + "x" * 9000),
    ],
    ids=lambda failure: type(failure).__name__,
)
def test_a_request_without_a_response_is_reported_on_one_short_line(wire, authenticate, failure):
    wire.post(URL, body=failure)
    message = str(error_of(authenticate))
    assert message.startswith(f"Identity does not answer: {type(failure).__name__}: ")
    assert (len(message) <= 530, message.isprintable()) == (True, True)


def test_a_username_is_shown_short_and_printable(wire, authenticate):
    wire.post(URL, status=401)
    message = str(error_of(authenticate, Credentials("bot\n\u202e" + "x" * 500, "the-api-key-itself")))
    assert message.isprintable()
    assert len(message) < 200


@pytest.mark.parametrize("response", [{"status": 401}, {"body": "{"}, {"body": requests.ReadTimeout()}], ids=str)
def test_no_error_in_the_chain_holds_the_api_key(wire, authenticate, response):
    wire.post(URL, **response)
    check_chain(error_of(authenticate), CREDENTIALS.api_key)
