from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from urllib.parse import parse_qs, urlsplit

import pytest
import requests

from local.fake_api import FakeApi
from tests.api_caller import AGENT, Caller, authenticate

ASKED_AT = datetime(2014, 9, 23, 12, 22, 40, 606703, tzinfo=UTC).timestamp()


class Clock:
    def __init__(self, now):
        self.now = now

    def __call__(self):
        return self.now

    def advance(self, seconds):
        self.now += seconds


@pytest.fixture
def clock():
    return Clock(ASKED_AT)


@pytest.fixture
def fake_api(clock):
    with FakeApi(clock=clock) as fake_api:
        fake_api.add_agents(AGENT)
        yield fake_api


@pytest.fixture
def call(fake_api):
    with requests.Session() as session:
        yield Caller(fake_api, session)


def test_a_request_for_a_log_file_is_accepted_with_its_body_and_location(fake_api, call):
    answer = call.request_log_file()
    body = answer.json()
    location = f"{fake_api.url}/v2/110011/agents/{AGENT}/logfiles/{body['id']}"
    assert answer.status_code == 202
    assert answer.headers["Location"] == location
    assert body == {
        "id": body["id"],
        "date": "2014-09-23T12:22:40.606703Z",
        "state": "requested",
        "links": [{"href": location, "rel": "self"}],
    }
    assert (fake_api.asked, fake_api.posts) == ({AGENT: 1}, {AGENT: 1})
    assert fake_api.log_files(AGENT) == [body]


def test_two_requests_are_two_log_files(fake_api, call):
    first, second = call.request_log_file().json(), call.request_log_file().json()
    assert first["id"] != second["id"]
    assert call("GET", f"/agents/{AGENT}/logfiles").json() == {"logfiles": [first, second]}
    assert fake_api.posts[AGENT] == 2


def test_a_log_file_moves_on_with_the_clock(clock, call):
    log_file_id = call.request_log_file().json()["id"]
    states = []
    for seconds in (29, 1, 59, 1):
        clock.advance(seconds)
        states.append((call.log_file(log_file_id).json()["state"], call.status()["busy"]))
    assert states == [("requested", False), ("started", True), ("started", True), ("completed", False)]


def test_a_completed_log_file_has_links_to_download_it(clock, call):
    log_file_id = call.request_log_file().json()["id"]
    clock.advance(90)
    links = {link["rel"]: link["href"] for link in call.log_file(log_file_id).json()["links"]}
    assert list(links) == ["self", "logfile", "logfile_temp_url"]
    assert links["logfile"].endswith(f"/CloudBackupLogs/v2/{AGENT}/2014-09-23T12-22-40.606703Z.gz")
    address, query = links["logfile_temp_url"].split("?")
    signed = parse_qs(query)
    assert address == links["logfile"]
    assert len(bytes.fromhex(signed["temp_url_sig"][0])) == 20
    assert int(signed["temp_url_expires"][0]) > clock()


def test_an_offline_agent_picks_nothing_up_until_it_is_online(clock, fake_api, call):
    fake_api.set_online(AGENT, online=False)
    log_file_id = call.request_log_file().json()["id"]
    clock.advance(100_000)
    assert call.log_file(log_file_id).json()["state"] == "requested"
    assert call.status()["busy"] is False
    fake_api.set_online(AGENT, online=True)
    clock.advance(29)
    assert call.log_file(log_file_id).json()["state"] == "requested"
    clock.advance(1)
    assert call.log_file(log_file_id).json()["state"] == "started"
    assert call.status()["busy"] is True


ACTIVATION = {"event": "agent_activate", "mode": "active"}


def test_an_idle_agent_is_reported_offline(clock, call):
    """The reference says that a status in idle mode means nothing; the fake answers what misleads most."""
    assert call.status()["online"] is False
    clock.advance(3600)
    assert call.status()["online"] is False


def test_after_an_activation_an_agent_is_online_from_its_next_poll_until_its_last_heartbeat_is_75_seconds_old(
    clock, fake_api, call
):
    answer = call("POST", "/events", json=ACTIVATION)
    assert (answer.status_code, answer.content, len(fake_api.activations)) == (202, b"", 1)
    status = []
    for seconds in (29, 1, 45, 55, 5, 1):
        clock.advance(seconds)
        status.append(call.status()["online"])
    assert status == [False, True, True, True, True, False]


def test_after_an_activation_an_agent_that_is_off_stays_offline(clock, fake_api, call):
    fake_api.set_online(AGENT, online=False)
    call("POST", "/events", json=ACTIVATION)
    for _ in range(20):
        clock.advance(10)
        assert call.status()["online"] is False


def test_an_agent_that_goes_off_after_an_activation_is_offline_75_seconds_after_its_last_heartbeat(
    clock, fake_api, call
):
    call("POST", "/events", json=ACTIVATION)
    clock.advance(40)
    fake_api.set_online(AGENT, online=False)
    clock.advance(75)
    assert call.status()["online"] is True
    clock.advance(1)
    assert call.status()["online"] is False


@pytest.mark.parametrize("body", [None, {}, [], {"event": "agent_activate"}, ACTIVATION | {"mode": "fast"}])
def test_other_events_are_refused(fake_api, call, body):
    assert call("POST", "/events", json=body).status_code == 400
    assert fake_api.activations == []


def test_agents_have_names_and_hosts(fake_api, call):
    fake_api.add_agents("another", pick_up_seconds=5)
    listed = [call("GET", f"/agents/{agent_id}").json() for agent_id in (AGENT, "another")]
    assert [(agent["id"], agent["name"], agent["enabled"]) for agent in listed] == [
        (AGENT, "server-001", True),
        ("another", "server-002", True),
    ]
    assert listed[0]["host"]["machine"]["id"] != listed[1]["host"]["machine"]["id"]
    assert call("GET", "/agents/unknown").status_code == 404
    assert call("DELETE", f"/agents/{AGENT}").status_code == 405


def test_an_agent_can_be_slower_than_the_others(clock, fake_api, call):
    fake_api.add_agents("slow", pick_up_seconds=300)
    log_file_id = call("POST", "/agents/slow/logfiles").json()["id"]
    clock.advance(299)
    assert call("GET", f"/agents/slow/logfiles/{log_file_id}").json()["state"] == "requested"
    clock.advance(1)
    assert call("GET", f"/agents/slow/logfiles/{log_file_id}").json()["state"] == "started"


def test_an_upload_pauses_while_its_agent_is_offline(clock, fake_api, call):
    call.request_log_file()
    clock.advance(60)
    fake_api.set_online(AGENT, online=False)
    clock.advance(100_000)
    assert fake_api.log_files(AGENT)[0]["state"] == "started"
    fake_api.set_online(AGENT, online=True)
    clock.advance(30)
    assert fake_api.log_files(AGENT)[0]["state"] == "completed"


def test_an_offline_agent_with_no_pick_up_time_picks_nothing_up():
    with FakeApi(pick_up_seconds=0, upload_seconds=0) as fake_api, requests.Session() as session:
        fake_api.add_agents(AGENT, online=False)
        assert Caller(fake_api, session).request_log_file().json()["state"] == "requested"
        fake_api.set_online(AGENT, online=True)
        assert fake_api.log_files(AGENT)[0]["state"] == "completed"


def test_switching_on_an_agent_that_is_online_changes_nothing(clock, fake_api, call):
    call.request_log_file()
    clock.advance(29)
    fake_api.set_online(AGENT, online=True)
    clock.advance(1)
    assert fake_api.log_files(AGENT)[0]["state"] == "started"


def test_an_agent_can_answer_its_first_request_with_503(fake_api, call):
    fake_api.add_agents("busy", retry_after_seconds=60)
    first, second = call.request_log_file("busy"), call.request_log_file("busy")
    assert (first.status_code, first.headers["Retry-After"], second.status_code) == (503, "60", 202)
    assert (fake_api.asked["busy"], fake_api.posts["busy"]) == (2, 1)


def test_the_ping_answers(call):
    assert call("GET", "/ping").status_code == 200


@pytest.mark.parametrize("path", ["/ping", f"/agents/{AGENT}/logfiles", f"/agents/{AGENT}/status"])
@pytest.mark.parametrize("method", ["PUT", "HEAD"])
def test_other_methods_are_not_allowed(call, method, path):
    assert call(method, path).status_code == 405
    assert call("GET", path).status_code == 200


@pytest.mark.parametrize("path", ["/", "/agents/unknown/logfiles", f"/agents/{AGENT}/nothing"])
def test_unknown_paths_are_not_found(call, path):
    answer = call("GET", path)
    assert answer.status_code == 404
    assert answer.json() == {"message": "Not Found", "errors": []}


def test_a_forbidden_agent_refuses_the_request_but_can_be_read(fake_api, call):
    fake_api.add_agents("other", forbidden=True)
    assert call.request_log_file("other").status_code == 403
    assert call("GET", "/agents/other/logfiles").status_code == 200
    assert (fake_api.asked["other"], fake_api.posts["other"]) == (1, 0)


def test_another_project_is_forbidden(fake_api, call):
    answer = requests.get(f"{fake_api.url}/v2/220022/ping", headers=call.headers, timeout=10)
    assert answer.status_code == 403


def test_a_token_is_refused_when_unknown_expired_or_revoked(clock, fake_api, call):
    assert call("GET", "/ping", headers={}).status_code == 401
    assert call("GET", "/ping", headers={"X-Auth-Token": "unknown"}).status_code == 401
    short = {"X-Auth-Token": fake_api.issue_token(lives_seconds=60)}
    assert call("GET", "/ping", headers=short).status_code == 200
    clock.advance(60)
    assert call("GET", "/ping", headers=short).status_code == 401
    assert call("GET", "/ping").status_code == 200
    fake_api.revoke(call.headers["X-Auth-Token"])
    assert call.request_log_file().status_code == 401
    assert (fake_api.asked[AGENT], fake_api.posts[AGENT]) == (1, 0)


def test_identity_issues_a_token_that_works(fake_api, call):
    fake_api.add_account("someone", "right")
    access = authenticate(fake_api).json()["access"]
    assert access["token"]["expires"] == "2014-09-24T12:22:40.606Z"
    assert access["token"]["tenant"]["id"] == "110011"
    assert [(entry["type"], entry["name"]) for entry in access["serviceCatalog"]] == [("rax:backup", "cloudBackup")]
    base = access["serviceCatalog"][0]["endpoints"][0]["publicURL"]
    assert base == call.base
    assert call("GET", "/ping", headers={"X-Auth-Token": access["token"]["id"]}).status_code == 200


@pytest.mark.parametrize(("username", "api_key"), [("someone", "wrong"), ("unknown", "right")])
def test_identity_refuses_wrong_credentials(fake_api, username, api_key):
    fake_api.add_account("someone", "right")
    answer = authenticate(fake_api, username, api_key)
    assert (answer.status_code, answer.json()["unauthorized"]["code"]) == (401, 401)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"{}", b'{"auth": {}}', b"\xff"])
def test_identity_refuses_a_body_that_it_cannot_read(fake_api, body):
    assert authenticate(fake_api, body=body).status_code == 400


def test_identity_allows_no_other_method(fake_api):
    assert requests.get(f"{fake_api.url}/v2.0/tokens", timeout=10).status_code == 405


def test_every_response_waits_for_the_latency():
    with FakeApi(latency_seconds=3600) as fake_api, pytest.raises(requests.ReadTimeout):
        requests.get(fake_api.url, timeout=0.1)


def test_many_concurrent_requests_are_counted_correctly(fake_api, call):
    with ThreadPoolExecutor(8) as pool:
        statuses = {answer.status_code for answer in pool.map(lambda _: call.request_log_file(), range(200))}
    assert (statuses, fake_api.posts[AGENT], len(fake_api.log_files(AGENT))) == ({202}, 200, 200)


def test_a_connection_is_used_again(fake_api, call):
    fake_api.add_agents("forbidden", forbidden=True)
    answers = [call.request_log_file(agent_id, data=b'{"ignored": 1}') for agent_id in ("forbidden", AGENT, AGENT)]
    assert [answer.status_code for answer in answers] == [403, 202, 202]
    pools = call.session.get_adapter(call.base).poolmanager.pools
    [pool] = [pools[key] for key in pools.keys()]  # noqa: SIM118  # urllib3's container has no other way in
    assert (pool.num_connections, pool.num_requests) == (1, 3)


def test_it_listens_on_the_loopback_and_writes_nothing_to_the_terminal(fake_api, call, capfd):
    call.request_log_file()
    assert urlsplit(fake_api.url).hostname == "127.0.0.1"
    assert capfd.readouterr() == ("", "")
