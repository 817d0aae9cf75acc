import json
import socket
from dataclasses import replace
from datetime import UTC, datetime
from operator import attrgetter

import pytest

from agent_log_capture.adapters import http_session
from agent_log_capture.adapters.cloud_backup import CloudBackup
from agent_log_capture.adapters.http_session import MAX_BODY_BYTES, build_session
from agent_log_capture.domain.auth_token import AuthToken
from agent_log_capture.domain.capture import Capture
from agent_log_capture.domain.outcome import Reason, Trigger, TriggerType
from agent_log_capture.domain.responses import RetryableError, is_dated_since
from tests.faults.faulty_api import Fault, FaultyApi

is_pending = attrgetter("is_pending")
AGENT = "8f135b4f-7a69-4b8a-947f-5e80d772fd97"
NOW = datetime(2026, 11, 23, 3, 12, 40, tzinfo=UTC)
HOURS = 3600
CAPTURE = Capture(
    agent_id=AGENT, region="DFW", trigger=Trigger(TriggerType.MANUAL, "request"), asked_at=NOW, retry_from=NOW
)


@pytest.fixture
def fake_api():
    with FaultyApi(clock=NOW.timestamp) as fake_api:
        fake_api.add_agents(AGENT)
        fake_api.add_agents("forbidden", forbidden=True)
        yield fake_api


@pytest.fixture
def token(fake_api):
    return AuthToken(fake_api.issue_token(), fake_api.project_id)


@pytest.fixture
def session():
    with build_session(4) as session:
        yield session


@pytest.fixture
def api(session, fake_api):
    return CloudBackup(session, fake_api.url, lambda: NOW)


@pytest.fixture
def request_log_file(api, token):
    return lambda agent_id=AGENT: api.request_log_file(token, replace(CAPTURE, agent_id=agent_id))


@pytest.fixture
def find_log_file(api, token):
    return lambda is_wanted: api.find_log_file(token, CAPTURE, is_wanted)


@pytest.fixture
def _impatient(monkeypatch):
    monkeypatch.setattr(http_session, "READ_TIMEOUT_SECONDS", 0.2)


def failure_of(call, *arguments):
    with pytest.raises(RetryableError) as caught:
        call(*arguments)
    return caught.value.failure


def test_an_accepted_request_names_its_log_file(fake_api, request_log_file):
    response = request_log_file()
    [made] = fake_api.log_files(AGENT)
    assert response.http_status == 202
    location = made["links"][0]["href"]
    assert response.log_file.to_json() == made | {
        "location": location,
        "download_url": None,
        "download_expires_at": None,
    }


@pytest.mark.parametrize(
    ("agent_id", "status", "message"), [("unknown", 404, "Not Found"), ("forbidden", 403, "Forbidden")]
)
def test_an_agent_may_be_refused(request_log_file, agent_id, status, message):
    response = request_log_file(agent_id)
    assert (response.http_status, response.message, response.log_file) == (status, message, None)


def test_a_token_may_have_expired(fake_api, token, request_log_file):
    fake_api.revoke(token.value)
    response = request_log_file()
    assert (response.http_status, response.message) == (401, "The credentials are expired or invalid.")


def test_a_conflict_leads_to_the_log_file_that_is_pending(fake_api, request_log_file, find_log_file):
    log_file_id = request_log_file().log_file.id
    fake_api.inject(AGENT, Fault(status=409, message="A request is pending."))
    conflict = request_log_file()
    assert (conflict.http_status, conflict.message) == (409, "A request is pending.")
    assert find_log_file(is_pending).log_file.id == log_file_id


def test_a_busy_server_says_when_to_retry(fake_api, request_log_file):
    fake_api.inject(AGENT, Fault(status=503, headers={"Retry-After": "120"}))
    response = request_log_file()
    assert (response.http_status, response.retry_after_seconds) == (503, 120)


@pytest.mark.parametrize(("drop", "made"), [("before", 0), ("after", 1)])
def test_a_request_whose_response_is_lost_can_be_found(fake_api, request_log_file, find_log_file, drop, made):
    fake_api.inject(AGENT, Fault(drop=drop))
    failure = failure_of(request_log_file)
    log_file = find_log_file(lambda log_file: is_dated_since(log_file, failure.unconfirmed_since)).log_file
    found = [log_file.id] if log_file else []
    assert (failure.reason, failure.unconfirmed_since) == (Reason.UNCONFIRMED, NOW)
    assert found == [each["id"] for each in fake_api.log_files(AGENT)]
    assert len(found) == made


@pytest.mark.usefixtures("_impatient")
def test_a_request_without_a_response_in_time_is_unconfirmed(fake_api, request_log_file, find_log_file):
    fake_api.inject(AGENT, Fault(delay_seconds=HOURS, method="POST"))
    fake_api.inject(AGENT, Fault(delay_seconds=HOURS, method="GET"))
    assert failure_of(request_log_file).reason is Reason.UNCONFIRMED
    assert failure_of(find_log_file, is_pending).reason is Reason.TEMPORARY


@pytest.mark.usefixtures("_impatient")
@pytest.mark.parametrize(
    "fault",
    [Fault(drip_seconds=HOURS), Fault(body=b'{"id": "half-wr', headers={"Content-Length": "1000"})],
    ids=["dripping", "half-written"],
)
def test_an_accepted_request_stays_accepted_when_its_body_does_not_arrive(fake_api, request_log_file, fault):
    fake_api.inject(AGENT, fault)
    response = request_log_file()
    [made] = fake_api.log_files(AGENT)
    assert (response.http_status, response.log_file.id, response.log_file.state) == (202, made["id"], None)
    assert fake_api.posts[AGENT] == 1


def test_a_body_that_drips_in_is_read_whole(fake_api, request_log_file):
    fake_api.inject(AGENT, Fault(drip_seconds=0.0001))
    assert request_log_file().log_file.state == "requested"


@pytest.mark.usefixtures("_impatient")
def test_a_list_that_breaks_off_is_not_a_list(fake_api, request_log_file, find_log_file):
    request_log_file()
    fake_api.inject(AGENT, Fault(drip_seconds=HOURS))
    assert failure_of(find_log_file, is_pending).reason is Reason.TEMPORARY


@pytest.mark.parametrize("status", [202, 302, 400])
def test_an_endless_body_is_read_up_to_1_mib(monkeypatch, fake_api, request_log_file, status):
    responses = []
    read = http_session._read  # noqa: SLF001 (how much is read is seen nowhere else)
    monkeypatch.setattr(http_session, "_read", lambda response: responses.append(response) or read(response))
    headers = {"Content-Length": str(10**12), "Location": "/logfiles/located"}
    fake_api.inject(AGENT, Fault(status=status, body=b" " * (2 * MAX_BODY_BYTES), headers=headers))
    assert request_log_file().http_status == status
    [response] = responses
    assert MAX_BODY_BYTES <= response.raw.tell() < MAX_BODY_BYTES + 100_000
    assert request_log_file().http_status == 202


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(fake_api, token, request_log_file, status):
    with FaultyApi() as elsewhere:
        elsewhere.add_agents(AGENT)
        location = f"{elsewhere.url}/v2/{token.project_id}/agents/{AGENT}/logfiles"
        fake_api.inject(AGENT, Fault(status=status, headers={"Location": location}))
        assert request_log_file().http_status == status
        assert elsewhere.most_at_once == 0
    assert fake_api.asked[AGENT] == 1


def test_a_connection_is_used_again(session, fake_api, request_log_file):
    fake_api.inject(AGENT, Fault(status=503, body=json.dumps({"message": "busy"}).encode()))
    fake_api.inject(AGENT, Fault(status=302, headers={"Location": "https://elsewhere.example/"}))
    assert [request_log_file().http_status for _ in range(4)] == [503, 302, 202, 202]
    pools = session.get_adapter(fake_api.url).poolmanager.pools
    [pool] = [pools[key] for key in pools.keys()]  # noqa: SIM118 (urllib3's container has no other way in)
    assert (pool.num_connections, pool.num_requests) == (1, 4)


@pytest.fixture
def closed_port():
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        yield closed.getsockname()[1]


def test_a_closed_port_is_not_connected(session, token, closed_port):
    api = CloudBackup(session, f"http://127.0.0.1:{closed_port}", lambda: NOW)
    assert failure_of(api.request_log_file, token, CAPTURE).reason is Reason.NOT_CONNECTED


def test_a_server_without_tls_is_not_connected_and_gets_no_token(session, fake_api, token):
    api = CloudBackup(session, fake_api.url.replace("http:", "https:"), lambda: NOW)
    failure = failure_of(api.request_log_file, token, CAPTURE)
    assert (failure.reason, fake_api.most_at_once) == (Reason.NOT_CONNECTED, 0)
