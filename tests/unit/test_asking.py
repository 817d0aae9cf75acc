from dataclasses import replace
from datetime import timedelta

import pytest
import requests

from agent_log_capture.adapters.token_secret import InvocationToken
from agent_log_capture.asking import Asking
from agent_log_capture.core.capture import Outcome, Reason, Status
from agent_log_capture.core.decision import Deferred, GivenUp, RetryPolicy

AGENT = "8f135b4f-7a69-4b8a-947f-5e80d772fd97"
URL = f"https://dfw.backup.api.rackspacecloud.com/v2/110011/agents/{AGENT}/logfiles"
WINDOW_SECONDS = 86_400
FIRST, SECOND = "first-token", "second-token"


@pytest.fixture
def token(secret):
    return InvocationToken(secret)


@pytest.fixture
def asking(api, token, now):
    policy = RetryPolicy(window_seconds=WINDOW_SECONDS, random=lambda: 1.0)
    return Asking(api=api, token=token, policy=policy, now=lambda: now)


@pytest.fixture
def capture(a_capture, now):
    """One that has been tried twice."""
    return a_capture(attempts=2, asked_at=now - timedelta(minutes=5), retry_from=now - timedelta(minutes=4))


@pytest.fixture
def unconfirmed(capture, now):
    return replace(capture, unconfirmed_since=now - timedelta(minutes=1))


@pytest.fixture
def overdue(capture, now):
    return replace(capture, retry_from=now - timedelta(seconds=WINDOW_SECONDS))


@pytest.fixture
def listed(now):
    """An agent's log files, as the API lists them."""

    def build(state="requested", made=timedelta(0)):
        return {"logfiles": [{"id": "listed", "date": (now + made).isoformat(), "state": state}]}

    return build


@pytest.fixture
def renew(secrets, secret_arn):
    value = f'{{"token": "{SECOND}", "project_id": "220022"}}'
    return lambda: secrets.put_secret_value(SecretId=secret_arn, SecretString=value)


def calls(wire):
    return [(made.request.method, made.request.headers["X-Auth-Token"]) for made in wire.calls]


def methods(wire):
    return [method for method, _ in calls(wire)]


def test_an_accepted_request_is_requested(wire, asking, capture, now):
    wire.post(URL, status=202, json={"id": "made", "state": "requested"})
    outcome = asking.ask(capture)
    assert (outcome.status, outcome.log_file.id, outcome.http_status) == (Status.REQUESTED, "made", 202)
    assert (outcome.agent_id, outcome.project_id, outcome.region) == (AGENT, "110011", "DFW")
    assert (outcome.asked_at, outcome.at, outcome.trigger) == (capture.asked_at, now, capture.trigger)
    assert (outcome.reason, outcome.message, outcome.attempts) == (None, None, 3)
    assert calls(wire) == [("POST", FIRST)]


@pytest.mark.parametrize("status", [400, 403, 404, 405, 501])
def test_a_refused_request_is_rejected_with_the_words_of_the_api(wire, asking, capture, status):
    wire.post(URL, status=status, json={"message": "Its own words."})
    outcome = asking.ask(capture)
    assert (outcome.status, outcome.reason) == (Status.REJECTED, Reason.REFUSED)
    assert (outcome.http_status, outcome.message, outcome.attempts) == (status, "Its own words.", 3)
    assert methods(wire) == ["POST"]


def test_a_redirect_is_rejected_and_not_followed(wire, asking, capture):
    wire.post(URL, status=307, headers={"Location": "https://elsewhere.example/"})
    outcome = asking.ask(capture)
    assert (outcome.status, outcome.reason, outcome.http_status) == (Status.REJECTED, Reason.REDIRECTED, 307)
    assert (outcome.log_file, methods(wire)) == (None, ["POST"])


@pytest.mark.parametrize("status", [408, 413, 429, 500, 503])
def test_a_temporary_answer_defers(wire, asking, capture, status):
    wire.post(URL, status=status, json={"message": "Busy."})
    result = asking.ask(capture)
    assert result == Deferred(replace(capture, attempts=3), 120, result.trouble)
    assert (result.trouble.reason, result.trouble.http_status) == (Reason.TEMPORARY, status)
    assert result.trouble.message == "Busy."
    assert methods(wire) == ["POST"]


def test_a_server_that_says_when_to_come_again_is_heeded(wire, asking, capture):
    wire.post(URL, status=503, headers={"Retry-After": "600"})
    assert asking.ask(capture).delay_seconds == 600


def test_a_refused_token_is_exchanged_for_another_one(wire, asking, capture, renew, reads):
    wire.post(URL, status=401)
    wire.post(URL.replace("110011", "220022"), status=202)
    asking.token.current()
    renew()
    outcome = asking.ask(capture)
    assert (outcome.status, outcome.project_id, outcome.attempts) == (Status.REQUESTED, "220022", 3)
    assert calls(wire) == [("POST", FIRST), ("POST", SECOND)]
    assert len(reads) == 2


def test_the_same_token_again_defers_all_captures_at_the_cost_of_one_call(wire, asking, capture, secret_arn, reads):
    wire.post(URL, status=401)
    results = [asking.ask(capture) for _ in range(3)]
    assert [result.capture.attempts for result in results] == [3, 3, 3]
    assert {result.trouble.reason for result in results} == {Reason.TOKEN_REFUSED}
    assert secret_arn in results[0].trouble.message
    assert (methods(wire), len(reads)) == (["POST"], 2)


def test_a_renewed_token_that_is_refused_too_defers(wire, asking, capture, renew, reads):
    wire.post(URL, status=401)
    wire.post(URL.replace("110011", "220022"), status=401)
    asking.token.current()
    renew()
    assert asking.ask(capture).trouble.reason is Reason.TOKEN_REFUSED
    assert (calls(wire), len(reads)) == ([("POST", FIRST), ("POST", SECOND)], 2)


def test_a_secret_that_cannot_be_read_defers_without_a_call(wire, asking, capture, secrets, secret_arn):
    secrets.delete_secret(SecretId=secret_arn, ForceDeleteWithoutRecovery=True)
    result = asking.ask(capture)
    assert (result.trouble.reason, result.capture.attempts) == (Reason.TOKEN_UNAVAILABLE, 3)
    assert methods(wire) == []


@pytest.mark.parametrize("state", ["requested", "started"])
def test_a_conflict_with_a_pending_log_file_takes_it(wire, asking, capture, listed, state):
    wire.post(URL, status=409)
    wire.get(URL, json=listed(state, made=-timedelta(days=1)))
    outcome = asking.ask(capture)
    assert (outcome.status, outcome.log_file.id, outcome.http_status) == (Status.REQUESTED, "listed", 409)
    assert methods(wire) == ["POST", "GET"]


@pytest.mark.parametrize(
    "look",
    [
        {"json": {"logfiles": []}},
        {"json": {"logfiles": [{"id": "done", "state": "completed"}]}},
        {"status": 503, "headers": {"Retry-After": "900"}},
        {"status": 403},
    ],
    ids=["none", "completed", "busy", "forbidden"],
)
def test_a_conflict_without_a_pending_log_file_defers(wire, asking, capture, look):
    wire.post(URL, status=409, json={"message": "Conflict."}, headers={"Retry-After": "300"})
    wire.get(URL, **look)
    result = asking.ask(capture)
    assert (result.trouble.reason, result.trouble.http_status) == (Reason.CONFLICT, 409)
    assert (result.trouble.message, result.delay_seconds) == ("Conflict.", 300)
    assert result.capture.unconfirmed_since is None


@pytest.mark.parametrize("look", [{"body": requests.ReadTimeout()}, {"body": "no list"}], ids=["lost", "no list"])
def test_a_conflict_whose_look_fails_defers(wire, asking, capture, look):
    wire.post(URL, status=409)
    wire.get(URL, **look)
    result = asking.ask(capture)
    assert (result.trouble.reason, result.capture.unconfirmed_since) == (Reason.TEMPORARY, None)


def test_a_token_that_expires_between_two_calls_is_exchanged_too(wire, asking, capture, listed, renew):
    wire.post(URL, status=409)
    wire.get(URL, status=401)
    wire.get(URL.replace("110011", "220022"), json=listed())
    asking.token.current()
    renew()
    assert asking.ask(capture).log_file.id == "listed"
    assert calls(wire) == [("POST", FIRST), ("GET", FIRST), ("GET", SECOND)]


def test_a_lost_answer_defers_unconfirmed(wire, asking, capture, now):
    wire.post(URL, body=requests.ReadTimeout("timed out"))
    result = asking.ask(capture)
    assert (result.trouble.reason, result.capture.unconfirmed_since) == (Reason.UNCONFIRMED, now)
    assert result.capture == replace(capture, attempts=3, unconfirmed_since=now)


def test_no_connection_defers_with_nothing_to_confirm(wire, asking, capture):
    wire.post(URL, body=requests.exceptions.ConnectTimeout("timed out"))
    result = asking.ask(capture)
    assert (result.trouble.reason, result.capture.unconfirmed_since) == (Reason.NOT_CONNECTED, None)


@pytest.mark.parametrize("state", ["requested", "started", "completed"])
def test_an_unconfirmed_request_that_was_served_is_not_made_again(wire, asking, unconfirmed, listed, state):
    wire.get(URL, json=listed(state))
    outcome = asking.ask(unconfirmed)
    assert (outcome.status, outcome.log_file.id, outcome.http_status) == (Status.REQUESTED, "listed", 200)
    assert (outcome.attempts, methods(wire)) == (3, ["GET"])


@pytest.mark.parametrize("look", [{"json": {"logfiles": []}}, {"status": 404}, {"status": 403}, {"status": 302}])
def test_an_unconfirmed_request_that_is_not_found_is_made_again(wire, asking, unconfirmed, look):
    wire.get(URL, **look)
    wire.post(URL, status=202, json={"id": "made"})
    assert asking.ask(unconfirmed).log_file.id == "made"
    assert methods(wire) == ["GET", "POST"]


def test_a_log_file_from_before_an_unconfirmed_request_is_not_its_own(wire, asking, unconfirmed, listed):
    wire.get(URL, json=listed(made=-timedelta(minutes=2)))
    wire.post(URL, status=202, json={"id": "made"})
    assert asking.ask(unconfirmed).log_file.id == "made"


@pytest.mark.parametrize(
    "look",
    [{"status": 503}, {"status": 429}, {"body": "no list"}, {"body": requests.ReadTimeout()}],
    ids=["busy", "too many", "no list", "lost"],
)
def test_an_unconfirmed_request_stays_so_while_it_cannot_be_looked_for(wire, asking, unconfirmed, look):
    wire.get(URL, **look)
    result = asking.ask(unconfirmed)
    assert (result.capture, result.trouble.reason) == (replace(unconfirmed, attempts=3), Reason.TEMPORARY)
    assert methods(wire) == ["GET"]


def test_a_request_that_is_lost_twice_is_looked_for_from_the_first_time(wire, asking, unconfirmed):
    wire.get(URL, json={"logfiles": []})
    wire.post(URL, body=requests.ReadTimeout())
    result = asking.ask(unconfirmed)
    assert (result.trouble.reason, result.capture.unconfirmed_since) == (
        Reason.UNCONFIRMED,
        unconfirmed.unconfirmed_since,
    )


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ({"status": 503}, (Reason.TEMPORARY, 503)),
        ({"status": 401}, (Reason.TOKEN_REFUSED, None)),
        ({"body": requests.ReadTimeout()}, (Reason.UNCONFIRMED, None)),
    ],
    ids=["busy", "token refused", "lost"],
)
def test_what_is_temporary_for_too_long_is_given_up(wire, asking, overdue, answer, told):
    wire.post(URL, **answer)
    result = asking.ask(overdue)
    assert isinstance(result, GivenUp)
    assert (result.capture.attempts, result.outcome.attempts) == (3, 3)
    assert (result.outcome.status, result.outcome.project_id) == (Status.FAILED, "110011")
    assert (result.outcome.reason, result.outcome.http_status) == told


def test_a_capture_is_tried_once_more_when_its_time_is_up(wire, asking, overdue):
    wire.post(URL, status=202)
    assert isinstance(asking.ask(overdue), Outcome)
