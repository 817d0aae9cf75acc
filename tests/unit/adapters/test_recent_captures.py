import json
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import Barrier, Lock

import pytest
from botocore.exceptions import ClientError, ConnectTimeoutError

from agent_log_capture.domain.failure import Failure, RetryableError
from agent_log_capture.domain.outcome import LogFile, Reason
from agent_log_capture.domain.responses import Accepted, ApiResponse
from agent_log_capture.domain.trigger import Trigger, TriggerType

WORKERS = 32
KEY = "110011#DFW#an-agent"
BROKEN = (
    ClientError({"Error": {"Code": "AccessDeniedException", "Message": "not allowed"}}, "AnyCall"),
    ConnectTimeoutError(endpoint_url="https://dynamodb.us-east-1.amazonaws.com"),
)


@pytest.fixture
def accepted(now):
    log_file = LogFile(id="a-log-file", state="requested", links=({"rel": "self", "href": "https://x"},))
    return Accepted(
        trigger=Trigger(TriggerType.ALARM, "arn@time", "an alarm"),
        replays=1,
        requested_at=now,
        answer=ApiResponse(http_status=202, log_file=log_file),
    )


@pytest.fixture
def request_(accepted):
    """A request that is accepted, and knows how often it was made."""
    return Request(accepted)


class Request:
    """Comes to an answer or an error, and counts how often it is made."""

    def __init__(self, result):
        self.result = result
        self.times = 0

    def __call__(self):
        self.times += 1
        if isinstance(self.result, Exception):
            raise self.result
        return self.result


def outcome_of(recent, request, key=KEY):
    try:
        return recent.once(key, request)
    except RetryableError as error:
        return error


def warnings_in(log):
    lines = map(json.loads, log.getvalue().splitlines())
    return [line for line in lines if line["level"] == "WARNING"]


def refused():
    return RetryableError(Failure(reason=Reason.TEMPORARY, message="Busy."))


# ------------------------------------------------------------------ what is remembered


def test_an_accepted_request_is_made_once_and_its_answer_returned_to_everybody(build_recent, request_, accepted):
    invocations = [build_recent() for _ in range(3)]
    answers = []
    for invocation in invocations:
        answers += [invocation.once(KEY, request_) for _ in range(2)]
        invocation.end()
    assert (answers, request_.times) == ([accepted] * 6, 1)


def test_it_is_remembered_for_as_long_as_the_cool_down_lasts(recent, request_, accepted, remembered):
    earliest = int(time.time()) + 600
    recent.once(KEY, request_)
    recent.end()
    [item] = remembered()
    assert item["status"] == {"S": "COMPLETED"}
    assert json.loads(item["data"]["S"]) == accepted.to_json()
    assert earliest <= int(item["expiration"]["N"]) <= time.time() + 600


def test_when_it_is_over_the_next_asker_asks_anew(recent, request_, end_cool_down):
    for _ in range(2):
        recent.once(KEY, request_)
        recent.end()
        end_cool_down()
    assert request_.times == 2


@pytest.mark.parametrize("other", ["110011#DFW#another-agent", "110011#ORD#an-agent", "220022#DFW#an-agent"])
def test_another_key_is_another_request(recent, request_, other):
    recent.once(KEY, request_)
    recent.once(other, request_)
    assert request_.times == 2


@pytest.mark.parametrize("error", [refused(), ValueError("refused")], ids=["temporary", "refused"])
def test_what_is_not_accepted_is_forgotten_at_once(recent, request_, remembered, error):
    with pytest.raises(type(error)) as caught:
        recent.once(KEY, Request(error))
    assert caught.value is error
    assert remembered() == []
    recent.once(KEY, request_)
    assert request_.times == 1


# ------------------------------------------------------------------ many


def ask_for(recent, count, request):
    for number in range(count):
        recent.once(f"key-{number}", request)


def test_records_are_written_25_at_a_time_and_the_rest_in_the_end(recent, request_, table, remembered):
    ask_for(recent, 60, request_)
    assert table.calls["BatchWriteItem"] == 2
    assert Counter(item["status"]["S"] for item in remembered()) == {"COMPLETED": 50, "INPROGRESS": 10}
    recent.end()
    assert (table.calls["BatchWriteItem"], table.calls["PutItem"]) == (3, 60)
    assert Counter(item["status"]["S"] for item in remembered()) == {"COMPLETED": 60}


def test_nothing_is_written_when_nothing_was_accepted(recent, table):
    recent.end()
    assert table.calls == {}


@pytest.mark.parametrize("times", [1, 2])
def test_what_the_table_has_not_taken_is_written_once_more(recent, request_, dynamodb, remembered, times):
    tries = []

    def take_half(params, **_):
        [(name, entries)] = params["RequestItems"].items()
        tries.append(len(entries))
        if len(tries) <= times:
            params["RequestItems"] = {name: entries[::2]}
            left.update({name: entries[1::2]})

    def tell(parsed, **_):
        parsed["UnprocessedItems"] = dict(left)
        left.clear()

    left = {}
    dynamodb.meta.events.register("provide-client-params.dynamodb.BatchWriteItem", take_half)
    dynamodb.meta.events.register("after-call.dynamodb.BatchWriteItem", tell)
    ask_for(recent, 8, request_)
    recent.end()
    statuses = Counter(item["status"]["S"] for item in remembered())
    assert (tries, statuses["COMPLETED"]) == ([8, 4], 8 if times == 1 else 6)


def test_what_an_invocation_leaves_unwritten_is_not_written_by_the_next_one(recent, request_, remembered):
    recent.once(KEY, request_)
    recent.begin(lambda: 300_000)
    recent.end()
    assert [item["status"]["S"] for item in remembered()] == ["INPROGRESS"]


# ------------------------------------------------------------------ two at a time


@pytest.mark.parametrize("is_same_invocation", [True, False])
def test_of_two_askers_at_the_same_time_one_asks_and_the_other_one_comes_again(
    *, recent, build_recent, accepted, now, is_same_invocation
):
    other = recent if is_same_invocation else build_recent()
    second = Request(accepted)
    results = []

    def first():
        with ThreadPoolExecutor(1) as thread:
            results.append(thread.submit(outcome_of, other, second).result())
        return accepted

    assert recent.once(KEY, first) == accepted
    [error] = results
    assert error.failure == Failure(
        reason=Reason.IN_PROGRESS,
        message="another invocation is asking this agent right now",
        unconfirmed_since=now - timedelta(seconds=300),
    )
    assert second.times == 0
    recent.end()
    assert (other.once(KEY, second), second.times) == (accepted, 0)


def test_nobody_waits_for_an_invocation_that_was_killed(build_recent, accepted, request_):
    killed, other = build_recent(remaining_millis=-1000), build_recent()

    def ask():
        other.once(KEY, request_)
        return accepted

    killed.once(KEY, ask)
    assert request_.times == 1


def test_who_writes_at_the_same_time_as_another_invocation_comes_again(recent, table, request_):
    table.fail("PutItem", "TransactionConflictException")
    error = outcome_of(recent, request_)
    assert (error.failure.reason, request_.times) == (Reason.IN_PROGRESS, 0)


def test_threads_do_not_mix_up_their_records(recent, accepted, remembered):
    keys = [f"110011#DFW#agent-{number}" for number in range(200)]
    made, lock, barrier = Counter(), Lock(), Barrier(WORKERS)

    def ask(key):
        def request():
            with lock:
                made[key] += 1
                is_early = made.total() <= WORKERS
            if is_early:
                barrier.wait(timeout=30)
            return accepted

        return recent.once(key, request)

    with ThreadPoolExecutor(WORKERS) as workers:
        answers = list(workers.map(ask, keys))
    assert answers == [accepted] * 200
    assert made == Counter(keys)
    recent.end()
    items = remembered()
    assert Counter(item["status"]["S"] for item in items) == {"COMPLETED": 200}
    assert max(int(item["expiration"]["N"]) for item in items) <= time.time() + 600


# ------------------------------------------------------------------ a table that cannot be reached


@pytest.mark.parametrize("error", BROKEN, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize(
    ("operation", "is_accepted"),
    [("PutItem", True), ("PutItem", False), ("BatchWriteItem", True), ("DeleteItem", False)],
    ids=["before it is accepted", "before it fails", "after it was accepted", "after it failed"],
)
def test_a_request_is_made_once_whether_or_not_the_table_can_be_reached(
    *, recent, table, accepted, log, operation, is_accepted, error
):
    request = Request(accepted if is_accepted else refused())
    table.errors[operation] = error
    assert (outcome_of(recent, request), request.times) == (request.result, 1)
    recent.end()
    assert table.calls[operation] == 1

    [warning] = warnings_in(log)
    assert warning["message"] == "the cool-down table cannot be reached: agents are asked without it"
    assert str(error) in warning["reason"]

    calls = table.calls.total()
    others = [Request(accepted), Request(refused()), Request(accepted)]
    assert [outcome_of(recent, other) for other in others] == [other.result for other in others]
    assert ([other.times for other in others], table.calls.total()) == ([1, 1, 1], calls)
    assert len(warnings_in(log)) == 1


def test_two_requests_that_lose_the_table_together_are_one_warning(recent, table, accepted, log):
    table.fail("BatchWriteItem", "InternalServerError")
    second = Request(accepted)

    def first():
        table.fail("PutItem", "InternalServerError")
        recent.once("another-key", second)
        return accepted

    assert (recent.once(KEY, first), second.times) == (accepted, 1)
    recent.end()
    assert (table.calls["PutItem"], table.calls["BatchWriteItem"], len(warnings_in(log))) == (2, 1, 1)


def test_the_next_invocation_tries_the_table_again(recent, table, request_, log):
    table.errors["PutItem"] = BROKEN[0]
    recent.once(KEY, request_)
    recent.begin(lambda: 300_000)
    recent.once(KEY, request_)
    assert (request_.times, len(warnings_in(log))) == (2, 2)
    table.errors.clear()
    recent.begin(lambda: 300_000)
    recent.once(KEY, request_)
    recent.once(KEY, request_)
    assert (request_.times, len(warnings_in(log))) == (3, 2)


def test_a_table_that_is_not_there_is_one_that_cannot_be_reached(recent, dynamodb, request_, accepted, log):
    dynamodb.delete_table(TableName="RecentCapturesTable")
    assert (recent.once(KEY, request_), request_.times) == (accepted, 1)
    assert "ResourceNotFoundException" in warnings_in(log)[0]["reason"]


def test_all_workers_ask_once_each_without_a_table(recent, table, accepted):
    table.errors["PutItem"] = BROKEN[1]
    requests = [Request(accepted) for _ in range(100)]
    with ThreadPoolExecutor(WORKERS) as workers:
        list(workers.map(lambda number: recent.once(f"key-{number}", requests[number]), range(100)))
    assert [request.times for request in requests] == [1] * 100
