import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from urllib.parse import parse_qs, urlsplit

import pytest
import requests

from local.fake_api import FakeApi, Fault

AGENT = "8f135b4f-7a69-4b8a-947f-5e80d772fd97"
ASKED_AT = datetime(2014, 9, 23, 12, 22, 40, 606703, tzinfo=UTC).timestamp()


class Clock:
    def __init__(self, now):
        self.now = now

    def __call__(self):
        return self.now

    def advance(self, seconds):
        self.now += seconds


class Caller:
    """Calls as the project does: a token, no redirects, one connection that is used again."""

    def __init__(self, fake_api, token, session):
        self.base = f"{fake_api.url}/v2/110011"
        self.headers = {"X-Auth-Token": token, "Content-Type": "application/json"}
        self.session = session

    def __call__(self, method, path, **options):
        options = {"headers": self.headers, "timeout": 10, "allow_redirects": False} | options
        return self.session.request(method, self.base + path, **options)

    def ask(self, agent_id=AGENT, **options):
        return self("POST", f"/agents/{agent_id}/logfiles", **options)

    def look(self, log_file_id):
        return self("GET", f"/agents/{AGENT}/logfiles/{log_file_id}")

    def status(self):
        return self("GET", f"/agents/{AGENT}/status").json()


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
        yield Caller(fake_api, fake_api.issue_token(lives_seconds=1_000_000), session)


def authenticate(fake_api, username="someone", api_key="right", body=None):
    credentials = {"username": username, "apiKey": api_key}
    body = json.dumps({"auth": {"RAX-KSKEY:apiKeyCredentials": credentials}}) if body is None else body
    return requests.post(f"{fake_api.url}/v2.0/tokens", data=body, timeout=10)


def test_a_request_for_a_log_file_is_accepted_with_its_body_and_location(fake_api, call):
    answer = call.ask()
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
    first, second = call.ask().json(), call.ask().json()
    assert first["id"] != second["id"]
    assert call("GET", f"/agents/{AGENT}/logfiles").json() == {"logfiles": [first, second]}
    assert fake_api.posts[AGENT] == 2


def test_a_log_file_moves_on_with_the_clock(clock, call):
    log_file_id = call.ask().json()["id"]
    states = []
    for seconds in (29, 1, 59, 1):
        clock.advance(seconds)
        states.append((call.look(log_file_id).json()["state"], call.status()["busy"]))
    assert states == [("requested", False), ("started", True), ("started", True), ("completed", False)]


def test_a_completed_log_file_has_links_to_download_it(clock, call):
    log_file_id = call.ask().json()["id"]
    clock.advance(90)
    links = {link["rel"]: link["href"] for link in call.look(log_file_id).json()["links"]}
    assert list(links) == ["self", "logfile", "logfile_temp_url"]
    assert links["logfile"].endswith(f"/CloudBackupLogs/v2/{AGENT}/2014-09-23T12-22-40.606703Z.gz")
    address, query = links["logfile_temp_url"].split("?")
    signed = parse_qs(query)
    assert address == links["logfile"]
    assert len(bytes.fromhex(signed["temp_url_sig"][0])) == 20
    assert int(signed["temp_url_expires"][0]) > clock()


def test_an_offline_agent_picks_nothing_up_until_it_is_back(clock, fake_api, call):
    fake_api.set_online(AGENT, online=False)
    log_file_id = call.ask().json()["id"]
    clock.advance(100_000)
    assert call.look(log_file_id).json()["state"] == "requested"
    assert call.status()["busy"] is False
    fake_api.set_online(AGENT, online=True)
    clock.advance(29)
    assert call.look(log_file_id).json()["state"] == "requested"
    clock.advance(1)
    assert call.look(log_file_id).json()["state"] == "started"
    assert call.status()["busy"] is True


ACTIVATION = {"event": "agent_activate", "mode": "active"}


def test_an_idle_agent_is_called_offline(clock, call):
    """The reference says that a status in idle mode means nothing; this one says what misleads most."""
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
def test_any_other_event_is_refused(fake_api, call, body):
    assert call("POST", "/events", json=body).status_code == 400
    assert fake_api.activations == []


def test_agents_have_names_and_hosts(fake_api, call):
    fake_api.add_agents("another", pick_up_seconds=5)
    listed = call("GET", "/agents").json()["agents"]
    assert [(agent["id"], agent["name"], agent["enabled"]) for agent in listed] == [
        (AGENT, "server-001", True),
        ("another", "server-002", True),
    ]
    assert call("GET", f"/agents/{AGENT}").json() == listed[0]
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


def test_an_upload_stands_still_while_its_agent_is_offline(clock, fake_api, call):
    call.ask()
    clock.advance(60)
    fake_api.set_online(AGENT, online=False)
    clock.advance(100_000)
    assert fake_api.log_files(AGENT)[0]["state"] == "started"
    fake_api.set_online(AGENT, online=True)
    clock.advance(30)
    assert fake_api.log_files(AGENT)[0]["state"] == "completed"


def test_an_offline_agent_that_would_need_no_time_picks_nothing_up_either():
    with FakeApi(pick_up_seconds=0, upload_seconds=0) as fake_api, requests.Session() as session:
        fake_api.add_agents(AGENT, online=False)
        assert Caller(fake_api, fake_api.issue_token(), session).ask().json()["state"] == "requested"
        fake_api.set_online(AGENT, online=True)
        assert fake_api.log_files(AGENT)[0]["state"] == "completed"


def test_an_agent_that_is_online_already_is_not_set_back(clock, fake_api, call):
    call.ask()
    clock.advance(29)
    fake_api.set_online(AGENT, online=True)
    clock.advance(1)
    assert fake_api.log_files(AGENT)[0]["state"] == "started"


def test_a_deleted_log_file_is_gone(call):
    log_file_id = call.ask().json()["id"]
    path = f"/agents/{AGENT}/logfiles/{log_file_id}"
    answer = call("DELETE", path)
    assert (answer.status_code, answer.content) == (204, b"")
    assert call("DELETE", path).status_code == 404
    assert call.look(log_file_id).status_code == 404


def test_the_ping_answers(call):
    assert call("GET", "/ping").status_code == 200


@pytest.mark.parametrize("path", ["/ping", f"/agents/{AGENT}/logfiles", f"/agents/{AGENT}/status"])
@pytest.mark.parametrize("method", ["PUT", "HEAD"])
def test_other_methods_are_not_allowed(call, method, path):
    assert call(method, path).status_code == 405
    assert call("GET", path).status_code == 200


@pytest.mark.parametrize("path", ["/", "/agents/unknown/logfiles", f"/agents/{AGENT}/nothing"])
def test_what_is_unknown_is_not_found(call, path):
    answer = call("GET", path)
    assert answer.status_code == 404
    assert answer.json() == {"message": "Not Found", "errors": []}


def test_a_forbidden_agent_refuses_the_request_but_can_be_read(fake_api, call):
    fake_api.add_agents("other", forbidden=True)
    assert call.ask("other").status_code == 403
    assert call("GET", "/agents/other/logfiles").status_code == 200
    assert (fake_api.asked["other"], fake_api.posts["other"]) == (1, 0)


def test_the_project_of_somebody_else_is_forbidden(fake_api, call):
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
    assert call.ask().status_code == 401
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


@pytest.mark.parametrize(("username", "api_key"), [("someone", "wrong"), ("nobody", "right")])
def test_identity_refuses_wrong_credentials(fake_api, username, api_key):
    fake_api.add_account("someone", "right")
    answer = authenticate(fake_api, username, api_key)
    assert (answer.status_code, answer.json()["unauthorized"]["code"]) == (401, 401)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"{}", b'{"auth": {}}', b"\xff"])
def test_identity_refuses_a_body_that_it_cannot_read(fake_api, body):
    assert authenticate(fake_api, body=body).status_code == 400


def test_identity_takes_no_other_method(fake_api):
    assert requests.get(f"{fake_api.url}/v2.0/tokens", timeout=10).status_code == 405


def test_identity_can_be_limited_for_some_requests(fake_api):
    fake_api.add_account("someone", "right")
    fake_api.limit_identity(2)
    answers = [authenticate(fake_api) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [413, 413, 200]
    assert "overLimit" in answers[0].json()


@pytest.mark.parametrize("path", ["/v2.0/tokens", "/v2/110011/ping"])
def test_a_call_that_names_no_agent_can_fail_too(fake_api, path):
    fake_api.inject(path.split("/")[-1], Fault(drop="before"))
    with pytest.raises(requests.ConnectionError):
        requests.get(fake_api.url + path, timeout=10)


def test_a_fault_with_a_refusing_status_does_not_act(fake_api, call):
    fake_api.inject(AGENT, Fault(status=503, message="Maintenance.", headers={"Retry-After": "7"}))
    answer = call.ask()
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "7")
    assert answer.json() == {"message": "Maintenance.", "errors": []}
    assert (fake_api.asked[AGENT], fake_api.posts[AGENT]) == (1, 0)


def test_no_fault_dresses_a_refusal_up_as_a_success(fake_api, call):
    fake_api.inject("unknown", Fault(status=204, body=b""))
    assert call.ask("unknown").status_code == 404


def test_a_fault_can_redirect(fake_api, call):
    fake_api.inject(AGENT, Fault(status=302, headers={"Location": "https://elsewhere.example/"}))
    answer = call.ask()
    assert (answer.status_code, answer.headers["Location"]) == (302, "https://elsewhere.example/")


@pytest.mark.parametrize("body", [b"", b"no JSON"])
def test_a_fault_can_spoil_the_body_of_an_answer_that_acted(fake_api, call, body):
    fake_api.inject(AGENT, Fault(status=201, body=body))
    answer = call.ask()
    assert (answer.status_code, answer.content) == (201, body)
    assert answer.headers["Location"].endswith(fake_api.log_files(AGENT)[0]["id"])
    assert fake_api.posts[AGENT] == 1


def test_faults_are_queued_and_each_lasts_as_often_as_it_says(fake_api, call):
    fake_api.inject(AGENT, Fault(status=500, times=2))
    fake_api.inject(AGENT, Fault(status=409))
    assert [call.ask().status_code for _ in range(4)] == [500, 500, 409, 202]


def test_a_fault_may_wait_for_its_method_and_its_agent(fake_api, call):
    fake_api.add_agents("other")
    fake_api.inject(AGENT, Fault(status=500, method="GET"))
    assert call.ask().status_code == 202
    assert call("GET", "/agents/other/logfiles").status_code == 200
    assert call("GET", f"/agents/{AGENT}/logfiles").status_code == 500


@pytest.mark.parametrize(("drop", "posts"), [("before", 0), ("after", 1)])
def test_a_connection_is_dropped_before_or_after_acting(fake_api, call, drop, posts):
    fake_api.inject(AGENT, Fault(drop=drop))
    with pytest.raises(requests.ConnectionError):
        call.ask()
    assert (fake_api.asked[AGENT], fake_api.posts[AGENT]) == (1, posts)
    assert call.ask().status_code == 202


def test_a_delayed_answer_outlasts_the_timeout_of_its_caller(fake_api, call):
    fake_api.inject(AGENT, Fault(delay_seconds=3600))
    with pytest.raises(requests.ReadTimeout):
        call.ask(timeout=0.1)


def test_every_answer_comes_after_the_latency():
    with FakeApi(latency_seconds=3600) as fake_api, pytest.raises(requests.ReadTimeout):
        requests.get(fake_api.url, timeout=0.1)


def test_a_dripping_answer_comes_byte_by_byte_and_whole(fake_api, call):
    fake_api.inject(AGENT, Fault(drip_seconds=0.001))
    with call.ask(stream=True) as answer:
        assert json.loads(b"".join(answer.raw.stream())) == fake_api.log_files(AGENT)[0]


def test_stopping_ends_every_wait(clock):
    with FakeApi(clock=clock) as fake_api, requests.Session() as session:
        fake_api.add_agents("slow", "dripping")
        fake_api.inject("slow", Fault(delay_seconds=3600))
        fake_api.inject("dripping", Fault(drip_seconds=3600))
        call = Caller(fake_api, fake_api.issue_token(), session)
        call("GET", "/ping")
        dripping = call.ask("dripping", stream=True)
        with pytest.raises(requests.ReadTimeout):
            call.ask("slow", timeout=0.1)
    with pytest.raises(requests.exceptions.ChunkedEncodingError):
        dripping.content  # noqa: B018  # read for its error
    with pytest.raises(requests.ConnectionError):
        requests.get(fake_api.url, timeout=10)


def test_it_knows_how_many_requests_were_under_way_at_once(fake_api, call):
    for _ in range(3):
        requests.get(fake_api.url, timeout=10)
    assert fake_api.most_at_once == 1
    fake_api.inject(AGENT, Fault(drip_seconds=3600, times=3))
    # The headers are here and the bodies never will be: all three are under way.
    answers = [call.ask(stream=True) for _ in range(3)]
    assert fake_api.most_at_once == 3
    for answer in answers:
        answer.close()


def test_many_callers_at_once_are_counted_right(fake_api, call):
    with ThreadPoolExecutor(8) as pool:
        statuses = {answer.status_code for answer in pool.map(lambda _: call.ask(), range(200))}
    assert (statuses, fake_api.posts[AGENT], len(fake_api.log_files(AGENT))) == ({202}, 200, 200)
    assert 1 <= fake_api.most_at_once <= 8


def test_a_connection_is_used_again(fake_api, call):
    fake_api.inject(AGENT, Fault(status=503))
    answers = [call.ask(data=b'{"nobody": "reads this"}') for _ in range(3)]
    assert [answer.status_code for answer in answers] == [503, 202, 202]
    pools = call.session.get_adapter(call.base).poolmanager.pools
    [pool] = [pools[key] for key in pools.keys()]  # noqa: SIM118  # urllib3's container has no other way in
    assert (pool.num_connections, pool.num_requests) == (1, 3)


def test_it_listens_on_the_loopback_and_writes_nothing(fake_api, call, capfd):
    call.ask()
    fake_api.inject(AGENT, Fault(drop="after"))
    with pytest.raises(requests.ConnectionError):
        call.ask()
    assert urlsplit(fake_api.url).hostname == "127.0.0.1"
    assert capfd.readouterr() == ("", "")
