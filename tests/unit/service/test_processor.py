from dataclasses import replace
from datetime import timedelta

import pytest
import requests

from agent_log_capture.adapters.token_secret import InvocationToken, TokenSecret
from agent_log_capture.domain.capture import Polling, Requesting, Step, not_tried
from agent_log_capture.domain.circuit_breaker import CircuitBreaker
from agent_log_capture.domain.outcome import LogFile, Reason, Status
from agent_log_capture.domain.polling import PollPolicy
from agent_log_capture.domain.retry import RetryPolicy
from agent_log_capture.service.processor import Processor
from agent_log_capture.service.worker_pool import CALL_SECONDS, SAVING_SECONDS, AbandonedError, Task, TimeLeft

AGENT = "8f135b4f-7a69-4b8a-947f-5e80d772fd97"
URL = f"https://dfw.backup.api.rackspacecloud.com/v2/110011/agents/{AGENT}/logfiles"
FILE_URL, STATUS_URL = f"{URL}/a-log-file", URL.removesuffix("logfiles") + "status"
WINDOW_SECONDS = 86_400
DEADLINE_SECONDS = 43_200
GRACE_SECONDS = 3600
FIRST, SECOND = "first-token", "second-token"
WORKERS = 4


@pytest.fixture
def breaker():
    return CircuitBreaker(WORKERS, lambda: 0.5)


@pytest.fixture
def token(secret, breaker):
    return InvocationToken(secret, breaker)


@pytest.fixture
def processor(api, token, breaker, now):
    return Processor(
        api=api,
        token=token,
        breaker=breaker,
        retries=RetryPolicy(window_seconds=WINDOW_SECONDS, random=lambda: 1.0),
        polls=PollPolicy(deadline_seconds=DEADLINE_SECONDS, grace_seconds=GRACE_SECONDS),
        now=lambda: now,
    )


@pytest.fixture
def capture(a_capture, now):
    """One that has been tried twice."""
    return a_capture(attempts=2, asked_at=now - timedelta(minutes=5), retry_from=now - timedelta(minutes=4))


@pytest.fixture
def unconfirmed(capture, now):
    return replace(capture, phase=Requesting(now - timedelta(minutes=1)))


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


def a_task(capture, remaining_millis=300_000):
    return Task(capture, TimeLeft(lambda: remaining_millis))


def process(processor, capture):
    return processor.process(a_task(capture))


def requeued(before, delay_seconds, failure, **changes):
    """Return the step of a capture that is requeued after an attempt."""
    after = replace(before, **changes)
    is_request = isinstance(before.phase, Requesting)
    return Step(capture=after if is_request else before, next=after, delay_seconds=delay_seconds, failure=failure)


def calls(wire):
    return [(made.request.method, made.request.headers["X-Auth-Token"]) for made in wire.calls]


def methods(wire):
    return [method for method, _ in calls(wire)]


def test_an_accepted_request_is_requested(wire, processor, capture, now):
    wire.post(URL, status=202, json={"id": "made", "state": "requested"})
    outcome = process(processor, capture).outcome
    assert (outcome.status, outcome.log_file.id, outcome.http_status) == (Status.REQUESTED, "made", 202)
    assert (outcome.agent_id, outcome.project_id, outcome.region) == (AGENT, "110011", "DFW")
    assert (outcome.asked_at, outcome.at, outcome.trigger) == (capture.asked_at, now, capture.trigger)
    assert (outcome.reason, outcome.message, outcome.attempts) == (None, None, 3)
    assert calls(wire) == [("POST", FIRST)]


@pytest.mark.parametrize(
    ("body", "log_file_id"), [({"id": "made"}, "made"), ({"id": "made", "state": "completed"}, "made"), ({}, None)]
)
def test_an_accepted_request_waits_for_its_first_look(*, wire, processor, unconfirmed, now, body, log_file_id):
    wire.get(URL, json={"logfiles": []})
    wire.post(URL, status=202, json=body)
    step = process(processor, unconfirmed)
    phase = Polling(log_file_id=log_file_id, requested_at=now)
    assert (step.next, step.delay_seconds) == (replace(unconfirmed, attempts=3, phase=phase), 30)


def test_a_log_file_may_be_as_old_as_the_moment_before_it_was_asked_for(wire, processor, capture, now):
    moments = [now]

    def answer(_):
        moments.append(now + timedelta(seconds=12))
        return 202, {}, ""

    wire.add_callback("POST", URL, answer)
    published = process(replace(processor, now=lambda: moments[-1]), capture)
    assert published.outcome.at == now + timedelta(seconds=12)
    assert published.next.phase.requested_at == now


def test_without_a_deadline_an_accepted_request_is_an_ending(wire, processor, capture):
    wire.post(URL, status=202, json={"id": "made"})
    unfollowed = replace(processor, polls=replace(processor.polls, deadline_seconds=0))
    published = process(unfollowed, capture)
    assert (published.outcome.status, published.next) == (Status.REQUESTED, None)


@pytest.mark.parametrize("status", [400, 403, 404, 405, 501])
def test_a_refused_request_is_rejected_with_the_words_of_the_api(wire, processor, capture, status):
    wire.post(URL, status=status, json={"message": "Its own words."})
    outcome = process(processor, capture).outcome
    assert (outcome.status, outcome.reason) == (Status.REJECTED, Reason.REFUSED)
    assert (outcome.http_status, outcome.message, outcome.attempts) == (status, "Its own words.", 3)
    assert methods(wire) == ["POST"]


def test_a_redirect_is_rejected_and_not_followed(wire, processor, capture):
    wire.post(URL, status=307, headers={"Location": "https://elsewhere.example/"})
    outcome = process(processor, capture).outcome
    assert (outcome.status, outcome.reason, outcome.http_status) == (Status.REJECTED, Reason.REDIRECTED, 307)
    assert (outcome.log_file, methods(wire)) == (None, ["POST"])


@pytest.mark.parametrize("status", [408, 413, 429, 500, 503])
def test_a_temporary_answer_defers(wire, processor, capture, status):
    wire.post(URL, status=status, json={"message": "Busy."})
    result = process(processor, capture)
    assert result == requeued(capture, 120, result.failure, attempts=3)
    assert (result.failure.reason, result.failure.http_status) == (Reason.TEMPORARY, status)
    assert result.failure.message == "Busy."
    assert methods(wire) == ["POST"]


def test_a_server_that_says_when_to_come_again_is_heeded(wire, processor, capture):
    wire.post(URL, status=503, headers={"Retry-After": "600"})
    assert process(processor, capture).delay_seconds == 600


def test_a_refused_token_is_exchanged_for_another_one(wire, processor, capture, renew, reads):
    wire.post(URL, status=401)
    wire.post(URL.replace("110011", "220022"), status=202)
    processor.token.current()
    renew()
    outcome = process(processor, capture).outcome
    assert (outcome.status, outcome.project_id, outcome.attempts) == (Status.REQUESTED, "220022", 3)
    assert calls(wire) == [("POST", FIRST), ("POST", SECOND)]
    assert len(reads) == 2


def test_the_same_token_again_leaves_all_others_untried_at_the_cost_of_one_call(
    *, wire, processor, capture, watched, secret_arn, reads
):
    wire.post(URL, status=401)
    refused, *others = [process(processor, each) for each in (capture, capture, watched)]
    assert (refused.capture.attempts, refused.failure.reason) == (3, Reason.TOKEN_REFUSED)
    assert secret_arn in refused.failure.message
    assert others == [not_tried(each, refused.failure, 90) for each in (capture, watched)]
    assert (methods(wire), len(reads)) == (["POST"], 2)


def test_a_renewed_token_that_is_refused_too_defers(wire, processor, capture, renew, reads):
    wire.post(URL, status=401)
    wire.post(URL.replace("110011", "220022"), status=401)
    processor.token.current()
    renew()
    assert process(processor, capture).failure.reason is Reason.TOKEN_REFUSED
    assert (calls(wire), len(reads)) == ([("POST", FIRST), ("POST", SECOND)], 2)


def test_a_secret_that_cannot_be_read_defers_without_a_call(wire, processor, capture, secrets, secret_arn):
    secrets.delete_secret(SecretId=secret_arn, ForceDeleteWithoutRecovery=True)
    result = process(processor, capture)
    assert (result.failure.reason, result.capture.attempts) == (Reason.TOKEN_UNAVAILABLE, 3)
    assert methods(wire) == []


@pytest.mark.parametrize("state", ["requested", "started"])
def test_a_conflict_with_a_pending_log_file_takes_it(wire, processor, capture, listed, state):
    wire.post(URL, status=409)
    wire.get(URL, json=listed(state, made=-timedelta(days=1)))
    outcome = process(processor, capture).outcome
    assert (outcome.status, outcome.log_file.id, outcome.http_status) == (Status.REQUESTED, "listed", 409)
    assert methods(wire) == ["POST", "GET"]


@pytest.mark.parametrize(
    "look",
    [
        {"json": {"logfiles": []}},
        {"json": {"logfiles": [{"id": "done", "state": "completed"}]}},
        {"status": 403},
    ],
    ids=["none", "completed", "forbidden"],
)
def test_a_conflict_without_a_pending_log_file_defers(wire, processor, capture, look):
    wire.post(URL, status=409, json={"message": "Conflict."}, headers={"Retry-After": "300"})
    wire.get(URL, **look)
    result = process(processor, capture)
    assert (result.failure.reason, result.failure.http_status) == (Reason.CONFLICT, 409)
    assert (result.failure.message, result.delay_seconds) == ("Conflict.", 300)
    assert result.capture.unconfirmed_since is None


@pytest.mark.parametrize(
    "look",
    [{"status": 503}, {"body": requests.ReadTimeout()}, {"body": "no list"}],
    ids=["busy", "lost", "no list"],
)
def test_a_conflict_whose_look_fails_defers(wire, processor, capture, look):
    wire.post(URL, status=409)
    wire.get(URL, **look)
    result = process(processor, capture)
    assert (result.failure.reason, result.capture.unconfirmed_since) == (Reason.TEMPORARY, None)


def test_a_token_that_expires_between_two_calls_is_exchanged_too(wire, processor, capture, listed, renew):
    wire.post(URL, status=409)
    wire.get(URL, status=401)
    wire.get(URL.replace("110011", "220022"), json=listed())
    processor.token.current()
    renew()
    assert process(processor, capture).outcome.log_file.id == "listed"
    assert calls(wire) == [("POST", FIRST), ("GET", FIRST), ("GET", SECOND)]


def test_a_lost_answer_defers_unconfirmed(wire, processor, capture, now):
    wire.post(URL, body=requests.ReadTimeout("timed out"))
    result = process(processor, capture)
    assert (result.failure.reason, result.capture.unconfirmed_since) == (Reason.UNCONFIRMED, now)
    assert result.next == replace(capture, attempts=3, phase=Requesting(now))


def test_no_connection_defers_with_nothing_to_confirm(wire, processor, capture):
    wire.post(URL, body=requests.exceptions.ConnectTimeout("timed out"))
    result = process(processor, capture)
    assert (result.failure.reason, result.capture.unconfirmed_since) == (Reason.NOT_CONNECTED, None)


@pytest.mark.parametrize("state", ["requested", "started", "completed"])
def test_an_unconfirmed_request_that_was_served_is_not_made_again(wire, processor, unconfirmed, listed, state):
    wire.get(URL, json=listed(state))
    outcome = process(processor, unconfirmed).outcome
    assert (outcome.status, outcome.log_file.id, outcome.http_status) == (Status.REQUESTED, "listed", 200)
    assert (outcome.attempts, methods(wire)) == (3, ["GET"])


def test_an_unconfirmed_request_that_is_not_found_is_made_again(wire, processor, unconfirmed):
    wire.get(URL, json={"logfiles": []})
    wire.post(URL, status=202, json={"id": "made"})
    assert process(processor, unconfirmed).outcome.log_file.id == "made"
    assert methods(wire) == ["GET", "POST"]


@pytest.mark.parametrize("status", [404, 403, 302])
def test_an_unconfirmed_request_that_may_not_be_looked_for_is_rejected_and_not_made_again(
    wire, processor, unconfirmed, status
):
    wire.get(URL, status=status)
    outcome = process(processor, unconfirmed).outcome
    assert (outcome.status, outcome.http_status, methods(wire)) == (Status.REJECTED, status, ["GET"])


@pytest.mark.parametrize("look", [{"status": 409}, {"status": 204}, {"status": 201, "json": {"id": "other"}}])
def test_an_unconfirmed_request_that_cannot_be_looked_for_is_not_made_again(wire, processor, unconfirmed, look):
    wire.get(URL, **look)
    result = process(processor, unconfirmed)
    assert (result.capture.unconfirmed_since, methods(wire)) == (unconfirmed.unconfirmed_since, ["GET"])


def test_a_log_file_from_before_an_unconfirmed_request_is_not_its_own(wire, processor, unconfirmed, listed):
    wire.get(URL, json=listed(made=-timedelta(minutes=2)))
    wire.post(URL, status=202, json={"id": "made"})
    assert process(processor, unconfirmed).outcome.log_file.id == "made"


@pytest.mark.parametrize(
    "look",
    [{"status": 503}, {"status": 429}, {"body": "no list"}, {"body": requests.ReadTimeout()}],
    ids=["busy", "too many", "no list", "lost"],
)
def test_an_unconfirmed_request_stays_so_while_it_cannot_be_looked_for(wire, processor, unconfirmed, look):
    wire.get(URL, **look)
    result = process(processor, unconfirmed)
    assert (result.capture, result.failure.reason) == (replace(unconfirmed, attempts=3), Reason.TEMPORARY)
    assert methods(wire) == ["GET"]


def test_a_request_that_is_lost_twice_is_looked_for_from_the_first_time(wire, processor, unconfirmed):
    wire.get(URL, json={"logfiles": []})
    wire.post(URL, body=requests.ReadTimeout())
    result = process(processor, unconfirmed)
    assert (result.failure.reason, result.capture.unconfirmed_since) == (
        Reason.UNCONFIRMED,
        unconfirmed.unconfirmed_since,
    )


@pytest.mark.parametrize(
    ("answer", "published"),
    [
        ({"status": 503}, (Reason.TEMPORARY, 503)),
        ({"status": 401}, (Reason.TOKEN_REFUSED, None)),
        ({"body": requests.ReadTimeout()}, (Reason.UNCONFIRMED, None)),
    ],
    ids=["busy", "token refused", "lost"],
)
def test_what_is_temporary_for_too_long_is_abandoned(wire, processor, overdue, answer, published):
    wire.post(URL, **answer)
    result = process(processor, overdue)
    assert result.is_dead_letter
    assert (result.capture.attempts, result.outcome.attempts) == (3, 3)
    assert (result.outcome.status, result.outcome.project_id) == (Status.FAILED, "110011")
    assert (result.outcome.reason, result.outcome.http_status) == published


def test_a_capture_is_tried_once_more_when_its_time_is_up(wire, processor, overdue):
    wire.post(URL, status=202)
    assert process(processor, overdue).outcome.status is Status.REQUESTED


# ------------------------------------------------------------------ polling


@pytest.fixture
def watched(overdue, now):
    """A capture whose log file was requested an hour ago; its retry window has passed."""
    polling = Polling(log_file_id="a-log-file", requested_at=now - timedelta(hours=1))
    return replace(overdue, phase=polling)


@pytest.fixture
def activated(watched, now):
    """One whose agent was activated long enough ago for the API to know whether it is online."""
    return with_phase(watched, activated_at=now - timedelta(seconds=100), activations=1)


@pytest.fixture
def unnamed(watched):
    """One whose log file the API did not name."""
    return with_phase(watched, log_file_id=None)


@pytest.fixture
def at_the_deadline(watched, now):
    return with_phase(watched, requested_at=now - timedelta(seconds=DEADLINE_SECONDS))


def with_phase(capture, **changes):
    return replace(capture, phase=replace(capture.phase, **changes))


def test_a_log_file_is_looked_for_by_its_id(wire, processor, watched, now):
    wire.get(FILE_URL, json={"id": "a-log-file", "state": "completed"})
    outcome = process(processor, watched).outcome
    assert (outcome.status, outcome.log_file) == (Status.CAPTURED, LogFile(id="a-log-file", state="completed"))
    assert (outcome.project_id, outcome.at, outcome.attempts) == ("110011", now, 2)
    assert calls(wire) == [("GET", FIRST)]


def test_a_log_file_without_an_id_is_looked_for_among_the_agents(wire, processor, unnamed, listed):
    wire.get(URL, json=listed("completed", made=-timedelta(minutes=59)))
    outcome = process(processor, unnamed).outcome
    assert (outcome.status, outcome.log_file.id) == (Status.CAPTURED, "listed")


def test_once_it_is_found_it_has_an_id(wire, processor, unnamed, listed):
    wire.get(URL, json=listed("started"))
    result = process(processor, unnamed)
    assert result.next == with_phase(unnamed, log_file_id="listed")


@pytest.mark.parametrize("log_files", ["older", "none"])
def test_until_it_is_found_it_is_looked_for(wire, processor, unnamed, listed, log_files):
    wire.get(URL, json=listed(made=-timedelta(hours=2)) if log_files == "older" else {"logfiles": []})
    result = process(processor, unnamed)
    assert result.next == unnamed
    assert methods(wire) == ["GET"]


def test_an_agent_that_is_offline_is_published_and_its_log_file_watched(wire, processor, activated):
    wire.get(FILE_URL, json={"id": "a-log-file", "state": "requested"})
    wire.get(STATUS_URL, json={"busy": False, "online": False})
    published = process(processor, activated)
    assert (published.outcome.status, published.outcome.reason) == (Status.WAITING, Reason.AGENT_OFFLINE)
    assert published.outcome.message == "the agent is offline; its log file is polled until 2026-11-23 14:12 UTC"
    assert (published.next, published.delay_seconds) == (with_phase(activated, is_presence_known=True), 900)
    assert [made.request.url for made in wire.calls] == [FILE_URL, STATUS_URL]


def test_an_agent_that_is_online_is_only_slow(wire, processor, activated):
    wire.get(FILE_URL, json={"id": "a-log-file", "state": "requested"})
    wire.get(STATUS_URL, json={"busy": False, "online": True})
    result = process(processor, activated)
    assert (result.next, result.delay_seconds) == (with_phase(activated, is_presence_known=True), 900)
    assert result.failure.reason is Reason.NOT_UPLOADED


@pytest.mark.parametrize(
    "status",
    [
        {"json": {"busy": False}},
        {"status": 404, "json": {"online": False}},
        {"status": 302},
        {"status": 503},
        {"body": requests.ReadTimeout()},
    ],
    ids=["not published", "no such agent", "redirect", "busy", "no answer"],
)
def test_an_agent_that_is_not_known_to_be_offline_is_only_looked_for_again(wire, processor, activated, status):
    wire.get(FILE_URL, json={"id": "a-log-file", "state": "requested"})
    wire.get(STATUS_URL, **status)
    result = process(processor, activated)
    assert (result.next, result.delay_seconds) == (activated, 900)
    assert result.failure.reason is Reason.NOT_UPLOADED


@pytest.mark.parametrize(
    ("state", "changes"),
    [
        ("started", {}),
        ("completed", {}),
        ("new", {}),
        ("requested", {"is_presence_known": True}),
        ("requested", {"activated_at": None}),
    ],
)
def test_the_status_of_the_agent_is_asked_for_only_when_it_is_in_question(wire, processor, activated, state, changes):
    wire.get(FILE_URL, json={"id": "a-log-file", "state": state})
    process(processor, with_phase(activated, **changes))
    assert [made.request.url for made in wire.calls] == [FILE_URL]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ({"status": 503}, Reason.TEMPORARY),
        ({"status": 401}, Reason.TOKEN_REFUSED),
        ({"body": requests.ReadTimeout()}, Reason.TEMPORARY),
        ({"body": requests.exceptions.ConnectTimeout()}, Reason.NOT_CONNECTED),
    ],
    ids=["busy", "token refused", "no answer", "no connection"],
)
def test_a_look_that_fails_is_repeated_however_old_the_capture_is(wire, processor, watched, answer, reason):
    wire.get(FILE_URL, **answer)
    result = process(processor, watched)
    assert result == requeued(watched, 900, result.failure)
    assert result.failure.reason is reason


def test_a_secret_that_cannot_be_read_fails_a_look_too(wire, processor, watched, secrets, secret_arn):
    secrets.delete_secret(SecretId=secret_arn, ForceDeleteWithoutRecovery=True)
    result = process(processor, watched)
    assert (result.capture, result.failure.reason) == (watched, Reason.TOKEN_UNAVAILABLE)
    assert methods(wire) == []


@pytest.mark.parametrize(
    ("answer", "http_status"), [({"status": 503}, 503), ({"body": requests.ReadTimeout()}, None)]
)
def test_a_look_that_fails_for_too_long_was_the_last_one(wire, processor, at_the_deadline, answer, http_status):
    wire.get(FILE_URL, **answer)
    assert process(processor, at_the_deadline).outcome is None
    published = process(replace(processor, polls=replace(processor.polls, grace_seconds=0)), at_the_deadline)
    assert (published.outcome.status, published.outcome.reason, published.next) == (
        Status.EXPIRED,
        Reason.NOT_UPLOADED,
        None,
    )
    assert (published.outcome.project_id, published.outcome.http_status) == ("110011", http_status)


@pytest.mark.parametrize("refused_at", [FILE_URL, STATUS_URL], ids=["the log file", "the agent"])
def test_a_token_that_expires_while_a_log_file_is_watched_is_exchanged(wire, processor, activated, renew, refused_at):
    for url, body in ((FILE_URL, {"id": "a-log-file", "state": "requested"}), (STATUS_URL, {"online": False})):
        if url == refused_at:
            wire.get(url, status=401)
        else:
            wire.get(url, json=body)
        wire.get(url.replace("110011", "220022"), json=body)
    processor.token.current()
    renew()
    published = process(processor, activated)
    assert published.outcome.status is Status.WAITING
    assert [token for _, token in calls(wire)].count(FIRST) == (1 if refused_at == FILE_URL else 2)
    assert calls(wire)[-1] == ("GET", SECOND)


def test_a_log_file_that_is_polled_is_not_requested_again(wire, processor, watched):
    wire.get(FILE_URL, status=404)
    published = process(processor, with_phase(watched, is_missing=True))
    assert (published.outcome.status, published.outcome.reason) == (Status.EXPIRED, Reason.GONE)
    assert methods(wire) == ["GET"]


# ------------------------------------------------------------------ the breaker and the clock


def test_more_temporary_failures_in_a_row_than_workers_leave_the_others_untried(wire, processor, capture):
    wire.post(URL, status=503, headers={"Retry-After": "600"})
    results = [process(processor, capture) for _ in range(WORKERS + 3)]
    assert [result.is_tried for result in results] == [*[True] * (WORKERS + 1), False, False]
    assert [(result.capture, result.delay_seconds) for result in results[-2:]] == [(capture, 600)] * 2
    assert results[-1].failure == results[0].failure
    assert len(wire.calls) == WORKERS + 1


@pytest.mark.parametrize("status", [202, 403, 409])
def test_an_answer_for_good_in_between_begins_the_row_again(wire, processor, capture, status):
    forced = replace(capture, force=True)
    wire.get(URL, json={"logfiles": []})
    for _ in range(WORKERS):
        wire.post(URL, status=503)
    wire.post(URL, status=status)
    wire.post(URL, status=503)
    results = [process(processor, forced) for _ in range(2 * WORKERS + 1)]
    assert all(result.is_tried for result in results)


@pytest.mark.parametrize("answer", [{"status": 503}, {"body": requests.ReadTimeout("timed out")}])
def test_looks_that_fail_open_the_circuit_breaker_too(wire, processor, capture, watched, answer):
    wire.get(FILE_URL, **answer)
    results = [process(processor, watched) for _ in range(WORKERS + 1)]
    assert all(result.is_tried for result in results)
    assert not process(processor, capture).is_tried


@pytest.mark.parametrize("spare_seconds", [-0.001, 0])
def test_no_call_starts_that_may_not_end_in_time(*, wire, processor, capture, watched, spare_seconds):
    wire.post(URL, status=202)
    wire.get(FILE_URL, json={"state": "completed"})
    remaining_millis = round(1000 * (CALL_SECONDS + SAVING_SECONDS + spare_seconds))
    results = [processor.process(a_task(each, remaining_millis)) for each in (capture, watched)]
    if spare_seconds:
        assert [(result.capture, result.delay_seconds) for result in results] == [(capture, 0), (watched, 0)]
        assert {result.failure.reason for result in results} == {Reason.OUT_OF_TIME}
        assert not wire.calls
    else:
        assert [result.outcome.status for result in results] == [Status.REQUESTED, Status.CAPTURED]


def test_a_capture_is_requeued_as_it_is_when_time_runs_out_between_two_calls(wire, processor, capture):
    millis = [300_000]
    task = a_task(capture)
    task.time_left = TimeLeft(lambda: millis[-1])

    def conflict(_):
        millis.append(10_000)
        return 409, {}, ""

    wire.add_callback("POST", URL, conflict)
    result = processor.process(task)
    assert (result.capture, result.failure.reason, methods(wire)) == (capture, Reason.OUT_OF_TIME, ["POST"])


def test_a_turn_that_is_abandoned_before_it_began_is_untried(processor, capture):
    assert processor.abandoned(a_task(capture)).capture == capture


def test_a_request_that_is_abandoned_may_have_been_served(wire, processor, capture, now):
    task = a_task(capture)
    wire.add_callback("POST", URL, lambda _: task.abandon() or (202, {}, '{"id": "made"}'))
    with pytest.raises(AbandonedError):
        processor.process(task)
    result = processor.abandoned(task)
    assert (result.failure.reason, result.capture.attempts) == (Reason.UNCONFIRMED, 3)
    assert result.capture.unconfirmed_since == now


def test_an_abandoned_task_makes_no_call(wire, processor, capture):
    task = a_task(capture)
    task.abandon()
    with pytest.raises(AbandonedError):
        processor.process(task)
    assert not wire.calls


def test_a_look_that_is_abandoned_was_a_look(processor, watched):
    task = a_task(watched)
    task.began_at = watched.phase.requested_at
    result = processor.abandoned(task)
    assert (result.capture, result.failure.reason) == (watched, Reason.TEMPORARY)


def test_turns_that_are_abandoned_open_the_circuit_breaker(processor, capture, watched):
    for each in [capture, *[watched] * WORKERS]:
        task = a_task(each)
        task.began_at = capture.asked_at
        processor.abandoned(task)
    assert not process(processor, capture).is_tried


@pytest.mark.parametrize("is_known", [True, False])
def test_what_cannot_be_published_has_the_same_outcome_again(*, wire, processor, capture, watched, now, is_known):
    wire.post(URL, status=202 if is_known else 404)
    wire.get(FILE_URL, json={"state": "completed"})
    again = replace(capture, attempts=3, phase=Requesting(now if is_known else None))
    assert process(processor, capture).capture == again
    assert process(processor, watched).capture == watched


# ------------------------------------------------------------------ processor for another token


@pytest.fixture
def rotating(processor, secrets, secret_arn):
    """With a secret that Secrets Manager rotates."""
    return replace(
        processor, token=InvocationToken(TokenSecret(secrets, secret_arn, None, is_rotated=True), processor.breaker)
    )


def test_a_rotation_is_asked_for_once_in_an_invocation(wire, rotating, capture, watched, secret_calls):
    wire.post(URL, status=401)
    wire.get(FILE_URL, status=401)
    results = [process(rotating, each) for each in (capture, watched, capture)]
    assert [result.is_tried for result in results] == [True, False, False]
    assert results[0].failure.message.endswith(" holds a token that the API refuses; its rotation was asked for")
    assert secret_calls.calls["RotateSecret"] == 1
    assert methods(wire) == ["POST"]


def test_no_rotation_is_asked_for_when_the_secret_holds_another_token(wire, rotating, capture, renew, secret_calls):
    wire.post(URL, status=401)
    wire.post(URL.replace("110011", "220022"), status=202)
    rotating.token.current()
    renew()
    assert process(rotating, capture).outcome.status is Status.REQUESTED
    assert secret_calls.calls["RotateSecret"] == 0


@pytest.mark.parametrize("code", ["InvalidRequestException", "AccessDeniedException"])
def test_a_rotation_that_cannot_be_asked_for_defers_all_the_same(wire, rotating, capture, secret_calls, code):
    wire.post(URL, status=401)
    secret_calls.fail("RotateSecret", code)
    result = process(rotating, capture)
    assert (result.failure.reason, result.capture.attempts) == (Reason.TOKEN_REFUSED, 3)


def test_a_secret_that_no_one_rotates_is_not_rotated(wire, processor, capture, secret_calls):
    wire.post(URL, status=401)
    assert process(processor, capture).failure.message.endswith(
        " holds a token that the API refuses; put another one"
    )
    assert secret_calls.calls["RotateSecret"] == 0
