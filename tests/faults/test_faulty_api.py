import json
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

from tests.api_caller import AGENT, Caller
from tests.faults.faulty_api import Fault, FaultyApi


@pytest.fixture
def api():
    with FaultyApi() as api:
        api.add_agents(AGENT)
        yield api


@pytest.fixture
def call(api):
    with requests.Session() as session:
        yield Caller(api, session)


@pytest.mark.parametrize("path", ["/v2.0/tokens", "/v2/110011/ping"])
def test_a_fault_can_target_a_call_without_an_agent(api, path):
    api.inject(path.split("/")[-1], Fault(drop="before"))
    with pytest.raises(requests.ConnectionError):
        requests.get(api.url + path, timeout=10)


def test_a_fault_with_a_refusing_status_does_not_act(api, call):
    api.inject(AGENT, Fault(status=503, message="Maintenance.", headers={"Retry-After": "7"}))
    response = call.request_log_file()
    assert (response.status_code, response.headers["Retry-After"]) == (503, "7")
    assert response.json() == {"message": "Maintenance.", "errors": []}
    assert (api.asked[AGENT], api.posts[AGENT]) == (1, 0)


def test_a_fault_never_turns_a_refusal_into_a_success(api, call):
    api.inject("unknown", Fault(status=204, body=b""))
    assert call.request_log_file("unknown").status_code == 404


def test_a_fault_can_redirect(api, call):
    api.inject(AGENT, Fault(status=302, headers={"Location": "https://elsewhere.example/"}))
    response = call.request_log_file()
    assert (response.status_code, response.headers["Location"]) == (302, "https://elsewhere.example/")


@pytest.mark.parametrize("body", [b"", b"no JSON"])
def test_a_fault_can_replace_the_body_of_a_success(api, call, body):
    api.inject(AGENT, Fault(status=201, body=body))
    response = call.request_log_file()
    assert (response.status_code, response.content) == (201, body)
    assert response.headers["Location"].endswith(api.log_files(AGENT)[0]["id"])
    assert api.posts[AGENT] == 1


def test_faults_are_queued_and_each_is_used_as_many_times_as_it_says(api, call):
    api.inject(AGENT, Fault(status=500, times=2))
    api.inject(AGENT, Fault(status=409))
    assert [call.request_log_file().status_code for _ in range(4)] == [500, 500, 409, 202]


def test_a_fault_can_be_limited_to_a_method_and_an_agent(api, call):
    api.add_agents("other")
    api.inject(AGENT, Fault(status=500, method="GET"))
    assert call.request_log_file().status_code == 202
    assert call("GET", "/agents/other/logfiles").status_code == 200
    assert call("GET", f"/agents/{AGENT}/logfiles").status_code == 500


@pytest.mark.parametrize(("drop", "posts"), [("before", 0), ("after", 1)])
def test_a_connection_is_dropped_before_or_after_acting(api, call, drop, posts):
    api.inject(AGENT, Fault(drop=drop))
    with pytest.raises(requests.ConnectionError):
        call.request_log_file()
    assert (api.asked[AGENT], api.posts[AGENT]) == (1, posts)
    assert call.request_log_file().status_code == 202


def test_a_delayed_response_exceeds_the_timeout_of_its_client(api, call):
    api.inject(AGENT, Fault(delay_seconds=3600))
    with pytest.raises(requests.ReadTimeout):
        call.request_log_file(timeout=0.1)


def test_a_dripping_response_arrives_complete(api, call):
    api.inject(AGENT, Fault(drip_seconds=0.001))
    with call.request_log_file(stream=True) as response:
        assert json.loads(b"".join(response.raw.stream())) == api.log_files(AGENT)[0]


def test_stopping_ends_every_delay():
    with FaultyApi() as api, requests.Session() as session:
        api.add_agents("slow", "dripping")
        api.inject("slow", Fault(delay_seconds=3600))
        api.inject("dripping", Fault(drip_seconds=3600))
        call = Caller(api, session)
        dripping = call.request_log_file("dripping", stream=True)
        with pytest.raises(requests.ReadTimeout):
            call.request_log_file("slow", timeout=0.1)
    with pytest.raises(requests.exceptions.ChunkedEncodingError):
        dripping.content  # noqa: B018  # read for its error
    with pytest.raises(requests.ConnectionError):
        requests.get(api.url, timeout=10)


def test_hurrying_serves_a_delayed_request_at_once_although_its_client_has_gone(api, call):
    api.inject(AGENT, Fault(delay_seconds=3600))
    with pytest.raises(requests.ReadTimeout):
        call.request_log_file(timeout=0.1)
    assert not api.wait_until_served(0)
    api.hurry()
    assert api.wait_until_served(10)
    assert api.posts[AGENT] == 1


@pytest.mark.parametrize("cut_after", [0, 10, 300])
def test_a_response_can_be_cut(api, call, cut_after):
    api.inject(AGENT, Fault(cut_after=cut_after))
    with pytest.raises(requests.RequestException):
        call.request_log_file()
    assert api.posts[AGENT] == 1


def test_a_dropped_connection_writes_nothing_to_the_terminal(api, call, capfd):
    api.inject(AGENT, Fault(drop="after"))
    with pytest.raises(requests.ConnectionError):
        call.request_log_file()
    assert capfd.readouterr() == ("", "")


def test_concurrent_requests_are_counted(api, call):
    for _ in range(3):
        call("GET", "/ping")
    assert api.most_at_once == 1
    api.latency_seconds = 0.5
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda _: requests.get(api.url, timeout=10), range(3)))
    assert api.most_at_once == 3
