from dataclasses import replace
from datetime import timedelta
from threading import Semaphore

import pytest
import requests

from agent_log_capture.adapters.token_secret import InvocationToken, TokenSecret
from agent_log_capture.domain.capture import LogFile, Polling, Reason, Status, Trigger, TriggerType
from agent_log_capture.domain.circuit_breaker import CircuitBreaker
from agent_log_capture.domain.events.parser import EventParser
from agent_log_capture.domain.polling import PollPolicy
from agent_log_capture.domain.responses import Deferred, Failure, GivenUp, NotTried, RetryPolicy
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
def build_asking(api, token, breaker, now):
    def build(recent):
        return Processor(
            api=api,
            token=token,
            breaker=breaker,
            slots=Semaphore(32),
            recent=recent,
            retries=RetryPolicy(window_seconds=WINDOW_SECONDS, random=lambda: 1.0),
            follow=PollPolicy(deadline_seconds=DEADLINE_SECONDS, grace_seconds=GRACE_SECONDS),
            now=lambda: now,
        )

    return build


@pytest.fixture(params=[True, False], ids=["cool-down", "no cool-down"])
def asking(request, build_asking):
    """What does not depend on the cool-down holds with and without it."""
    return build_asking(request.getfixturevalue("recent") if request.param else None)


@pytest.fixture
def asking_once(build_asking, recent):
    return build_asking(recent)


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


def a_turn(capture, remaining_millis=300_000):
    [parsed] = EventParser(default_region="DFW").parse({}, request_id="request-id", now=capture.asked_at)
    return Task(parsed, capture, TimeLeft(lambda: remaining_millis))


def work_on(asking, capture):
    return asking.work_on(a_turn(capture))


def calls(wire):
    return [(made.request.method, made.request.headers["X-Auth-Token"]) for made in wire.calls]


def methods(wire):
    return [method for method, _ in calls(wire)]


def test_an_accepted_request_is_requested(wire, asking, capture, now):
    wire.post(URL, status=202, json={"id": "made", "state": "requested"})
    outcome = work_on(asking, capture).outcome
    assert (outcome.status, outcome.log_file.id, outcome.http_status) == (Status.REQUESTED, "made", 202)
    assert (outcome.agent_id, outcome.project_id, outcome.region) == (AGENT, "110011", "DFW")
    assert (outcome.asked_at, outcome.at, outcome.trigger) == (capture.asked_at, now, capture.trigger)
    assert (outcome.reason, outcome.message, outcome.attempts) == (None, None, 3)
    assert calls(wire) == [("POST", FIRST)]


@pytest.mark.parametrize(
    ("body", "log_file_id"), [({"id": "made"}, "made"), ({"id": "made", "state": "completed"}, "made"), ({}, None)]
)
def test_an_accepted_request_waits_for_its_first_look(*, wire, asking, unconfirmed, now, body, log_file_id):
    wire.get(URL, json={"logfiles": []})
    wire.post(URL, status=202, json=body)
    then = work_on(asking, unconfirmed).then
    polling = Polling(log_file_id=log_file_id, requested_at=now)
    watched = replace(unconfirmed, attempts=3, unconfirmed_since=None, polling=polling)
    assert (then.capture, then.delay_seconds) == (watched, 30)


def test_a_log_file_may_be_as_old_as_the_moment_before_it_was_asked_for(wire, asking, capture, now):
    moments = [now]

    def answer(_):
        moments.append(now + timedelta(seconds=12))
        return 202, {}, ""

    wire.add_callback("POST", URL, answer)
    told = work_on(replace(asking, now=lambda: moments[-1]), capture)
    assert told.outcome.at == now + timedelta(seconds=12)
    assert told.then.capture.polling.requested_at == now


def test_without_a_deadline_an_accepted_request_is_an_ending(wire, asking, capture):
    wire.post(URL, status=202, json={"id": "made"})
    unfollowed = replace(asking, follow=replace(asking.follow, deadline_seconds=0))
    told = work_on(unfollowed, capture)
    assert (told.outcome.status, told.then) == (Status.REQUESTED, None)


@pytest.mark.parametrize("status", [400, 403, 404, 405, 501])
def test_a_refused_request_is_rejected_with_the_words_of_the_api(wire, asking, capture, status):
    wire.post(URL, status=status, json={"message": "Its own words."})
    outcome = work_on(asking, capture).outcome
    assert (outcome.status, outcome.reason) == (Status.REJECTED, Reason.REFUSED)
    assert (outcome.http_status, outcome.message, outcome.attempts) == (status, "Its own words.", 3)
    assert methods(wire) == ["POST"]


def test_a_redirect_is_rejected_and_not_followed(wire, asking, capture):
    wire.post(URL, status=307, headers={"Location": "https://elsewhere.example/"})
    outcome = work_on(asking, capture).outcome
    assert (outcome.status, outcome.reason, outcome.http_status) == (Status.REJECTED, Reason.REDIRECTED, 307)
    assert (outcome.log_file, methods(wire)) == (None, ["POST"])


@pytest.mark.parametrize("status", [408, 413, 429, 500, 503])
def test_a_temporary_answer_defers(wire, asking, capture, status):
    wire.post(URL, status=status, json={"message": "Busy."})
    result = work_on(asking, capture)
    assert result == Deferred(replace(capture, attempts=3), 120, result.failure)
    assert (result.failure.reason, result.failure.http_status) == (Reason.TEMPORARY, status)
    assert result.failure.message == "Busy."
    assert methods(wire) == ["POST"]


def test_a_server_that_says_when_to_come_again_is_heeded(wire, asking, capture):
    wire.post(URL, status=503, headers={"Retry-After": "600"})
    assert work_on(asking, capture).delay_seconds == 600


def test_a_refused_token_is_exchanged_for_another_one(wire, asking, capture, renew, reads):
    wire.post(URL, status=401)
    wire.post(URL.replace("110011", "220022"), status=202)
    asking.token.current()
    renew()
    outcome = work_on(asking, capture).outcome
    assert (outcome.status, outcome.project_id, outcome.attempts) == (Status.REQUESTED, "220022", 3)
    assert calls(wire) == [("POST", FIRST), ("POST", SECOND)]
    assert len(reads) == 2


def test_the_same_token_again_leaves_all_others_untried_at_the_cost_of_one_call(
    *, wire, asking, capture, watched, secret_arn, reads
):
    wire.post(URL, status=401)
    refused, *others = [work_on(asking, each) for each in (capture, capture, watched)]
    assert (refused.capture.attempts, refused.failure.reason) == (3, Reason.TOKEN_REFUSED)
    assert secret_arn in refused.failure.message
    assert others == [NotTried(capture, 90, refused.failure), NotTried(watched, 90, refused.failure)]
    assert (methods(wire), len(reads)) == (["POST"], 2)


def test_a_renewed_token_that_is_refused_too_defers(wire, asking, capture, renew, reads):
    wire.post(URL, status=401)
    wire.post(URL.replace("110011", "220022"), status=401)
    asking.token.current()
    renew()
    assert work_on(asking, capture).failure.reason is Reason.TOKEN_REFUSED
    assert (calls(wire), len(reads)) == ([("POST", FIRST), ("POST", SECOND)], 2)


def test_a_secret_that_cannot_be_read_defers_without_a_call(wire, asking, capture, secrets, secret_arn):
    secrets.delete_secret(SecretId=secret_arn, ForceDeleteWithoutRecovery=True)
    result = work_on(asking, capture)
    assert (result.failure.reason, result.capture.attempts) == (Reason.TOKEN_UNAVAILABLE, 3)
    assert methods(wire) == []


@pytest.mark.parametrize("state", ["requested", "started"])
def test_a_conflict_with_a_pending_log_file_takes_it(wire, asking, capture, listed, state):
    wire.post(URL, status=409)
    wire.get(URL, json=listed(state, made=-timedelta(days=1)))
    outcome = work_on(asking, capture).outcome
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
    result = work_on(asking, capture)
    assert (result.failure.reason, result.failure.http_status) == (Reason.CONFLICT, 409)
    assert (result.failure.message, result.delay_seconds) == ("Conflict.", 300)
    assert result.capture.unconfirmed_since is None


@pytest.mark.parametrize("look", [{"body": requests.ReadTimeout()}, {"body": "no list"}], ids=["lost", "no list"])
def test_a_conflict_whose_look_fails_defers(wire, asking, capture, look):
    wire.post(URL, status=409)
    wire.get(URL, **look)
    result = work_on(asking, capture)
    assert (result.failure.reason, result.capture.unconfirmed_since) == (Reason.TEMPORARY, None)


def test_a_token_that_expires_between_two_calls_is_exchanged_too(wire, asking, capture, listed, renew):
    wire.post(URL, status=409)
    wire.get(URL, status=401)
    wire.get(URL.replace("110011", "220022"), json=listed())
    asking.token.current()
    renew()
    assert work_on(asking, capture).outcome.log_file.id == "listed"
    assert calls(wire) == [("POST", FIRST), ("GET", FIRST), ("GET", SECOND)]


def test_a_lost_answer_defers_unconfirmed(wire, asking, capture, now):
    wire.post(URL, body=requests.ReadTimeout("timed out"))
    result = work_on(asking, capture)
    assert (result.failure.reason, result.capture.unconfirmed_since) == (Reason.UNCONFIRMED, now)
    assert result.capture == replace(capture, attempts=3, unconfirmed_since=now)


def test_no_connection_defers_with_nothing_to_confirm(wire, asking, capture):
    wire.post(URL, body=requests.exceptions.ConnectTimeout("timed out"))
    result = work_on(asking, capture)
    assert (result.failure.reason, result.capture.unconfirmed_since) == (Reason.NOT_CONNECTED, None)


@pytest.mark.parametrize("state", ["requested", "started", "completed"])
def test_an_unconfirmed_request_that_was_served_is_not_made_again(wire, asking, unconfirmed, listed, state):
    wire.get(URL, json=listed(state))
    outcome = work_on(asking, unconfirmed).outcome
    assert (outcome.status, outcome.log_file.id, outcome.http_status) == (Status.REQUESTED, "listed", 200)
    assert (outcome.attempts, methods(wire)) == (3, ["GET"])


def test_an_unconfirmed_request_that_is_not_found_is_made_again(wire, asking, unconfirmed):
    wire.get(URL, json={"logfiles": []})
    wire.post(URL, status=202, json={"id": "made"})
    assert work_on(asking, unconfirmed).outcome.log_file.id == "made"
    assert methods(wire) == ["GET", "POST"]


@pytest.mark.parametrize("status", [404, 403, 302])
def test_an_unconfirmed_request_that_may_not_be_looked_for_is_rejected_and_not_made_again(
    wire, asking, unconfirmed, status
):
    wire.get(URL, status=status)
    outcome = work_on(asking, unconfirmed).outcome
    assert (outcome.status, outcome.http_status, methods(wire)) == (Status.REJECTED, status, ["GET"])


@pytest.mark.parametrize("look", [{"status": 409}, {"status": 204}, {"status": 201, "json": {"id": "other"}}])
def test_an_unconfirmed_request_that_cannot_be_looked_for_is_not_made_again(wire, asking, unconfirmed, look):
    wire.get(URL, **look)
    result = work_on(asking, unconfirmed)
    assert (result.capture.unconfirmed_since, methods(wire)) == (unconfirmed.unconfirmed_since, ["GET"])


def test_a_log_file_from_before_an_unconfirmed_request_is_not_its_own(wire, asking, unconfirmed, listed):
    wire.get(URL, json=listed(made=-timedelta(minutes=2)))
    wire.post(URL, status=202, json={"id": "made"})
    assert work_on(asking, unconfirmed).outcome.log_file.id == "made"


@pytest.mark.parametrize(
    "look",
    [{"status": 503}, {"status": 429}, {"body": "no list"}, {"body": requests.ReadTimeout()}],
    ids=["busy", "too many", "no list", "lost"],
)
def test_an_unconfirmed_request_stays_so_while_it_cannot_be_looked_for(wire, asking, unconfirmed, look):
    wire.get(URL, **look)
    result = work_on(asking, unconfirmed)
    assert (result.capture, result.failure.reason) == (replace(unconfirmed, attempts=3), Reason.TEMPORARY)
    assert methods(wire) == ["GET"]


def test_a_request_that_is_lost_twice_is_looked_for_from_the_first_time(wire, asking, unconfirmed):
    wire.get(URL, json={"logfiles": []})
    wire.post(URL, body=requests.ReadTimeout())
    result = work_on(asking, unconfirmed)
    assert (result.failure.reason, result.capture.unconfirmed_since) == (
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
    result = work_on(asking, overdue)
    assert isinstance(result, GivenUp)
    assert (result.capture.attempts, result.outcome.attempts) == (3, 3)
    assert (result.outcome.status, result.outcome.project_id) == (Status.FAILED, "110011")
    assert (result.outcome.reason, result.outcome.http_status) == told


def test_a_capture_is_tried_once_more_when_its_time_is_up(wire, asking, overdue):
    wire.post(URL, status=202)
    assert work_on(asking, overdue).outcome.status is Status.REQUESTED


# ------------------------------------------------------------------ the cool-down


@pytest.fixture
def other(capture):
    """The same agent, named by another trigger."""
    return replace(capture, trigger=Trigger(TriggerType.SQS, "a-message"), attempts=0)


@pytest.fixture
def accepting(wire):
    """Accepts every request, with a log file of its own."""
    made = iter(range(1, 10))
    wire.add_callback("POST", URL, lambda _: (202, {}, f'{{"id": "made-{next(made)}"}}'))


@pytest.mark.usefixtures("accepting")
class TestCoolDown:
    def test_the_second_asker_is_told_the_first_ones_log_file_and_who_it_is_for(
        self, wire, asking_once, capture, other, now
    ):
        first, second = work_on(asking_once, capture), work_on(asking_once, other)
        assert (first.outcome.status, first.outcome.log_file.id) == (Status.REQUESTED, "made-1")
        assert (second.outcome.status, second.outcome.reason) == (Status.DUPLICATE, Reason.COOL_DOWN)
        assert (second.outcome.log_file, second.then) == (first.outcome.log_file, None)
        assert second.outcome.message == "the agent was asked at 2026-11-23 03:12 UTC already, for backup failed"
        assert (second.outcome.trigger, second.outcome.attempts) == (other.trigger, 1)
        assert (second.outcome.project_id, second.outcome.at) == ("110011", now)
        assert methods(wire) == ["POST"]

    def test_the_same_trigger_again_is_told_again_what_it_got(self, wire, asking_once, capture, now):
        first = work_on(asking_once, capture)
        later = replace(asking_once, now=lambda: now + timedelta(minutes=5))
        again = work_on(later, replace(capture, attempts=7))
        assert (again.outcome.status, again.outcome.outcome_id) == (Status.REQUESTED, first.outcome.outcome_id)
        assert again.then.capture.polling == first.then.capture.polling
        assert methods(wire) == ["POST"]

    def test_a_trigger_that_is_replayed_is_another_capture(self, wire, asking_once, capture):
        work_on(asking_once, capture)
        assert work_on(asking_once, replace(capture, replays=1)).outcome.status is Status.DUPLICATE
        assert methods(wire) == ["POST"]

    @pytest.mark.parametrize("forced", [0, 1])
    def test_force_goes_round_it(self, wire, asking_once, capture, other, forced):
        askers = [capture, other]
        askers[forced] = replace(askers[forced], force=True)
        told = [work_on(asking_once, asker) for asker in askers]
        assert [each.outcome.status for each in told] == [Status.REQUESTED] * 2
        assert [each.outcome.log_file.id for each in told] == ["made-1", "made-2"]
        assert methods(wire) == ["POST", "POST"]

    def test_without_it_everybody_asks(self, wire, build_asking, capture, other):
        asking = build_asking(None)
        told = [work_on(asking, asker) for asker in (capture, other)]
        assert [each.outcome.status for each in told] == [Status.REQUESTED] * 2
        assert methods(wire) == ["POST", "POST"]

    def test_when_it_is_over_the_agent_is_asked_anew(self, wire, asking_once, capture, other, end_cool_down):
        work_on(asking_once, capture)
        asking_once.recent.end()
        end_cool_down()
        assert work_on(asking_once, other).outcome.log_file.id == "made-2"
        assert methods(wire) == ["POST", "POST"]

    def test_another_region_has_one_of_its_own(self, wire, asking_once, capture):
        wire.post(URL.replace("dfw", "ord"), status=202)
        work_on(asking_once, capture)
        assert work_on(asking_once, replace(capture, region="ORD")).outcome.status is Status.REQUESTED

    def test_without_its_table_everybody_asks(self, wire, asking_once, capture, other, table):
        table.fail("PutItem", "ResourceNotFoundException")
        told = [work_on(asking_once, asker) for asker in (capture, other)]
        assert [each.outcome.status for each in told] == [Status.REQUESTED] * 2
        assert methods(wire) == ["POST", "POST"]


@pytest.mark.parametrize(
    "answer",
    [{"status": 404}, {"status": 503}, {"status": 302}, {"body": requests.ReadTimeout()}],
    ids=["refused", "busy", "redirected", "lost"],
)
def test_what_is_not_accepted_keeps_nobody_from_asking(*, wire, asking_once, capture, other, remembered, answer):
    wire.post(URL, **answer)
    work_on(asking_once, capture)
    assert remembered() == []
    wire.replace("POST", URL, status=202)
    assert work_on(asking_once, other).outcome.status is Status.REQUESTED


def test_a_log_file_that_is_found_is_remembered_like_one_that_was_made(wire, asking_once, unconfirmed, other, listed):
    wire.get(URL, json=listed())
    assert work_on(asking_once, unconfirmed).outcome.status is Status.REQUESTED
    assert work_on(asking_once, other).outcome.log_file.id == "listed"
    assert methods(wire) == ["GET"]


def test_whoever_finds_somebody_else_asking_comes_again_and_looks_first(
    *, wire, asking_once, capture, other, listed, now
):
    results = []

    def answer(_):
        results.append(work_on(asking_once, other))
        return 503, {}, ""

    wire.add_callback("POST", URL, answer)
    work_on(asking_once, capture)
    [result] = results
    assert (result.failure.reason, result.delay_seconds) == (Reason.IN_PROGRESS, 30)
    assert result.capture == replace(other, attempts=1, unconfirmed_since=now - timedelta(seconds=300))
    wire.get(URL, json=listed(made=-timedelta(seconds=299)))
    assert work_on(asking_once, result.capture).outcome.log_file.id == "listed"
    assert methods(wire) == ["POST", "GET"]


# ------------------------------------------------------------------ polling


@pytest.fixture
def watched(overdue, now):
    """A capture whose log file was requested an hour ago; its retry window has passed."""
    polling = Polling(log_file_id="a-log-file", requested_at=now - timedelta(hours=1))
    return replace(overdue, polling=polling)


@pytest.fixture
def activated(watched, now):
    """One whose agent was activated long enough ago for the API to know whether it is online."""
    return replace(watched, polling=watched.polling.activated(now - timedelta(seconds=100)))


@pytest.fixture
def unnamed(watched):
    """One whose log file the API did not name."""
    return replace(watched, polling=replace(watched.polling, log_file_id=None))


@pytest.fixture
def at_the_deadline(watched, now):
    requested_at = now - timedelta(seconds=DEADLINE_SECONDS)
    return replace(watched, polling=replace(watched.polling, requested_at=requested_at))


def with_following(capture, **changes):
    return replace(capture, polling=replace(capture.polling, **changes))


def test_a_log_file_is_looked_for_by_its_id(wire, asking, watched, now):
    wire.get(FILE_URL, json={"id": "a-log-file", "state": "completed"})
    outcome = work_on(asking, watched).outcome
    assert (outcome.status, outcome.log_file) == (Status.CAPTURED, LogFile(id="a-log-file", state="completed"))
    assert (outcome.project_id, outcome.at, outcome.attempts) == ("110011", now, 2)
    assert calls(wire) == [("GET", FIRST)]


def test_a_log_file_without_an_id_is_looked_for_among_the_agents(wire, asking, unnamed, listed):
    wire.get(URL, json=listed("completed", made=-timedelta(minutes=59)))
    outcome = work_on(asking, unnamed).outcome
    assert (outcome.status, outcome.log_file.id) == (Status.CAPTURED, "listed")


def test_once_it_is_found_it_has_an_id(wire, asking, unnamed, listed):
    wire.get(URL, json=listed("started"))
    result = work_on(asking, unnamed)
    assert result.capture == with_following(unnamed, log_file_id="listed")


@pytest.mark.parametrize("log_files", ["older", "none"])
def test_until_it_is_found_it_is_looked_for(wire, asking, unnamed, listed, log_files):
    wire.get(URL, json=listed(made=-timedelta(hours=2)) if log_files == "older" else {"logfiles": []})
    result = work_on(asking, unnamed)
    assert result.capture == unnamed
    assert methods(wire) == ["GET"]


def test_an_agent_that_is_offline_is_told_and_its_log_file_watched(wire, asking, activated):
    wire.get(FILE_URL, json={"id": "a-log-file", "state": "requested"})
    wire.get(STATUS_URL, json={"busy": False, "online": False})
    told = work_on(asking, activated)
    assert (told.outcome.status, told.outcome.reason) == (Status.WAITING, Reason.AGENT_OFFLINE)
    assert told.outcome.message == "the agent is offline; its log file is watched until 2026-11-23 14:12 UTC"
    assert told.then == Deferred(with_following(activated, is_presence_known=True), 900, told.then.failure)
    assert [made.request.url for made in wire.calls] == [FILE_URL, STATUS_URL]


def test_an_agent_that_is_online_is_only_slow(wire, asking, activated):
    wire.get(FILE_URL, json={"id": "a-log-file", "state": "requested"})
    wire.get(STATUS_URL, json={"busy": False, "online": True})
    result = work_on(asking, activated)
    assert result == Deferred(with_following(activated, is_presence_known=True), 900, result.failure)
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
    ids=["not told", "no such agent", "redirect", "busy", "no answer"],
)
def test_an_agent_that_is_not_known_to_be_offline_is_only_looked_for_again(wire, asking, activated, status):
    wire.get(FILE_URL, json={"id": "a-log-file", "state": "requested"})
    wire.get(STATUS_URL, **status)
    result = work_on(asking, activated)
    assert result == Deferred(activated, 900, result.failure)
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
def test_the_status_of_the_agent_is_asked_for_only_when_it_is_in_question(wire, asking, activated, state, changes):
    wire.get(FILE_URL, json={"id": "a-log-file", "state": state})
    work_on(asking, with_following(activated, **changes))
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
def test_a_look_that_fails_is_repeated_however_old_the_capture_is(wire, asking, watched, answer, reason):
    wire.get(FILE_URL, **answer)
    result = work_on(asking, watched)
    assert result == Deferred(watched, 900, result.failure)
    assert result.failure.reason is reason


def test_a_secret_that_cannot_be_read_fails_a_look_too(wire, asking, watched, secrets, secret_arn):
    secrets.delete_secret(SecretId=secret_arn, ForceDeleteWithoutRecovery=True)
    result = work_on(asking, watched)
    assert (result.capture, result.failure.reason) == (watched, Reason.TOKEN_UNAVAILABLE)
    assert methods(wire) == []


@pytest.mark.parametrize(
    ("answer", "http_status"), [({"status": 503}, 503), ({"body": requests.ReadTimeout()}, None)]
)
def test_a_look_that_fails_for_too_long_was_the_last_one(wire, asking, at_the_deadline, answer, http_status):
    wire.get(FILE_URL, **answer)
    assert isinstance(work_on(asking, at_the_deadline), Deferred)
    told = work_on(replace(asking, follow=replace(asking.follow, grace_seconds=0)), at_the_deadline)
    assert (told.outcome.status, told.outcome.reason, told.then) == (Status.EXPIRED, Reason.NOT_UPLOADED, None)
    assert (told.outcome.project_id, told.outcome.http_status) == ("110011", http_status)


@pytest.mark.parametrize("refused_at", [FILE_URL, STATUS_URL], ids=["the log file", "the agent"])
def test_a_token_that_expires_while_a_log_file_is_watched_is_exchanged(wire, asking, activated, renew, refused_at):
    for url, body in ((FILE_URL, {"id": "a-log-file", "state": "requested"}), (STATUS_URL, {"online": False})):
        if url == refused_at:
            wire.get(url, status=401)
        else:
            wire.get(url, json=body)
        wire.get(url.replace("110011", "220022"), json=body)
    asking.token.current()
    renew()
    told = work_on(asking, activated)
    assert told.outcome.status is Status.WAITING
    assert [token for _, token in calls(wire)].count(FIRST) == (1 if refused_at == FILE_URL else 2)
    assert calls(wire)[-1] == ("GET", SECOND)


def test_a_log_file_that_is_watched_is_not_asked_for_again(wire, asking_once, watched, remembered):
    wire.get(FILE_URL, status=404)
    told = work_on(asking_once, with_following(watched, is_missing=True))
    assert (told.outcome.status, told.outcome.reason) == (Status.EXPIRED, Reason.GONE)
    assert (methods(wire), remembered()) == (["GET"], [])


# ------------------------------------------------------------------ the breaker and the clock


def test_more_temporary_failures_in_a_row_than_workers_leave_the_others_untried(wire, asking, capture):
    wire.post(URL, status=503, headers={"Retry-After": "600"})
    results = [work_on(asking, capture) for _ in range(WORKERS + 3)]
    assert [type(result) for result in results] == [*[Deferred] * (WORKERS + 1), NotTried, NotTried]
    assert [(result.capture, result.delay_seconds) for result in results[-2:]] == [(capture, 600)] * 2
    assert results[-1].failure == results[0].failure
    assert len(wire.calls) == WORKERS + 1


@pytest.mark.parametrize("status", [202, 403, 409])
def test_an_answer_for_good_in_between_begins_the_row_anew(wire, asking, capture, status):
    forced = replace(capture, force=True)
    wire.get(URL, json={"logfiles": []})
    for _ in range(WORKERS):
        wire.post(URL, status=503)
    wire.post(URL, status=status)
    wire.post(URL, status=503)
    results = [work_on(asking, forced) for _ in range(2 * WORKERS + 1)]
    assert not [result for result in results if isinstance(result, NotTried)]


def test_who_waits_for_others_calls_makes_none_when_the_brake_is_pulled_meanwhile(asking, breaker, capture, wire):
    failure = Failure(reason=Reason.TEMPORARY, message="Busy.")

    class PulledMeanwhile:
        """A slot that takes as long to come free as it takes to pull the breaker."""

        def __enter__(self):
            breaker.pull(failure)

        def __exit__(self, *_):
            pass

    result = work_on(replace(asking, slots=PulledMeanwhile()), capture)
    assert (result, calls(wire)) == (NotTried(capture, 90, failure), [])


@pytest.mark.parametrize("answer", [{"status": 503}, {"body": requests.ReadTimeout("timed out")}])
def test_looks_that_fail_pull_the_brake_too(wire, asking, capture, watched, answer):
    wire.get(FILE_URL, **answer)
    results = [work_on(asking, watched) for _ in range(WORKERS + 1)]
    assert {type(result) for result in results} == {Deferred}
    assert isinstance(work_on(asking, capture), NotTried)


def test_agents_that_others_ask_right_now_do_not_pull_the_brake(wire, asking_once, capture, other):
    results = []

    def answer(_):
        results.extend(work_on(asking_once, other) for _ in range(WORKERS + 2))
        return 202, {}, ""

    wire.add_callback("POST", URL, answer)
    assert work_on(asking_once, capture).outcome.status is Status.REQUESTED
    assert {result.failure.reason for result in results} == {Reason.IN_PROGRESS}


@pytest.mark.parametrize("spare_seconds", [-0.001, 0])
def test_no_call_starts_that_may_not_end_in_time(*, wire, asking, capture, watched, table, spare_seconds):
    wire.post(URL, status=202)
    wire.get(FILE_URL, json={"state": "completed"})
    remaining_millis = round(1000 * (CALL_SECONDS + SAVING_SECONDS + spare_seconds))
    results = [asking.work_on(a_turn(each, remaining_millis)) for each in (capture, watched)]
    if spare_seconds:
        assert [(result.capture, result.delay_seconds) for result in results] == [(capture, 0), (watched, 0)]
        assert {result.failure.reason for result in results} == {Reason.OUT_OF_TIME}
        assert not wire.calls
        assert not table.calls
    else:
        assert [result.outcome.status for result in results] == [Status.REQUESTED, Status.CAPTURED]


def test_a_capture_between_two_calls_goes_back_as_it_came_when_time_runs_out(wire, asking, capture, remembered):
    millis = [300_000]
    task = a_turn(capture)
    task.time_left = TimeLeft(lambda: millis[-1])

    def conflict(_):
        millis.append(10_000)
        return 409, {}, ""

    wire.add_callback("POST", URL, conflict)
    result = asking.work_on(task)
    assert (result.capture, result.failure.reason, methods(wire)) == (capture, Reason.OUT_OF_TIME, ["POST"])
    assert not asking.recent or remembered() == []


def test_a_turn_that_is_given_up_before_it_began_is_untried(asking, capture):
    assert asking.given_up(a_turn(capture)).capture == capture


def test_a_request_that_is_given_up_may_have_been_served(wire, asking, capture, now):
    task = a_turn(capture)
    wire.add_callback("POST", URL, lambda _: task.give_up() or (202, {}, '{"id": "made"}'))
    with pytest.raises(AbandonedError):
        asking.work_on(task)
    result = asking.given_up(task)
    assert (result.failure.reason, result.capture.attempts) == (Reason.UNCONFIRMED, 3)
    assert result.capture.unconfirmed_since == now


def test_a_request_that_was_given_up_is_neither_remembered_nor_forgotten(wire, asking_once, capture, table):
    task = a_turn(capture)
    wire.add_callback("POST", URL, lambda _: task.give_up() or (202, {}, '{"id": "made"}'))
    with pytest.raises(AbandonedError):
        asking_once.work_on(task)
    assert table.calls == {"PutItem": 1}


def test_a_turn_that_was_given_up_makes_no_call(wire, asking, capture, table):
    task = a_turn(capture)
    task.give_up()
    with pytest.raises(AbandonedError):
        asking.work_on(task)
    assert not wire.calls
    assert not table.calls


def test_a_look_that_is_given_up_was_a_look(asking, watched):
    task = a_turn(watched)
    task.begin(watched.polling.requested_at)
    result = asking.given_up(task)
    assert (result.capture, result.failure.reason) == (watched, Reason.TEMPORARY)


def test_turns_that_are_given_up_pull_the_brake(asking, capture, watched):
    for each in [capture, *[watched] * WORKERS]:
        task = a_turn(each)
        task.begin(capture.asked_at)
        asking.given_up(task)
    assert isinstance(work_on(asking, capture), NotTried)


@pytest.mark.parametrize("is_known", [True, False])
def test_what_cannot_be_told_comes_to_the_same_again(*, wire, asking, capture, watched, now, is_known):
    wire.post(URL, status=202 if is_known else 404)
    wire.get(FILE_URL, json={"state": "completed"})
    assert work_on(asking, capture).again == replace(capture, unconfirmed_since=now if is_known else None)
    assert work_on(asking, watched).again == watched


# ------------------------------------------------------------------ asking for another token


@pytest.fixture
def rotating(asking, secrets, secret_arn):
    """With a secret that Secrets Manager rotates."""
    return replace(
        asking, token=InvocationToken(TokenSecret(secrets, secret_arn, None, is_rotated=True), asking.breaker)
    )


def test_a_rotation_is_asked_for_once_in_an_invocation(wire, rotating, capture, watched, secret_calls):
    wire.post(URL, status=401)
    wire.get(FILE_URL, status=401)
    results = [work_on(rotating, each) for each in (capture, watched, capture)]
    assert [type(result) for result in results] == [Deferred, NotTried, NotTried]
    assert results[0].failure.message.endswith(" holds a token that the API refuses; its rotation was asked for")
    assert secret_calls.calls["RotateSecret"] == 1
    assert methods(wire) == ["POST"]


def test_no_rotation_is_asked_for_when_the_secret_holds_another_token(wire, rotating, capture, renew, secret_calls):
    wire.post(URL, status=401)
    wire.post(URL.replace("110011", "220022"), status=202)
    rotating.token.current()
    renew()
    assert work_on(rotating, capture).outcome.status is Status.REQUESTED
    assert secret_calls.calls["RotateSecret"] == 0


@pytest.mark.parametrize("code", ["InvalidRequestException", "AccessDeniedException"])
def test_a_rotation_that_cannot_be_asked_for_defers_all_the_same(wire, rotating, capture, secret_calls, code):
    wire.post(URL, status=401)
    secret_calls.fail("RotateSecret", code)
    result = work_on(rotating, capture)
    assert (result.failure.reason, result.capture.attempts) == (Reason.TOKEN_REFUSED, 3)


def test_a_secret_that_nobody_rotates_is_not_rotated(wire, asking, capture, secret_calls):
    wire.post(URL, status=401)
    assert work_on(asking, capture).failure.message.endswith(" holds a token that the API refuses; put another one")
    assert secret_calls.calls["RotateSecret"] == 0
