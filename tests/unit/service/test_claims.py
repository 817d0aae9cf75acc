import json
import re
from dataclasses import replace
from datetime import timedelta

import pytest
import requests

from agent_log_capture.domain.capture import Polling, Recorded, Requesting, Step, not_tried, rejected
from agent_log_capture.domain.claim import LAPSED, ClaimPolicy
from agent_log_capture.domain.outcome import LogFile, Reason, Status, Trigger, TriggerType
from agent_log_capture.domain.polling import FIRST_POLL_SECONDS, PollPolicy
from agent_log_capture.domain.responses import ApiResponse, Failure
from agent_log_capture.service.claims import Claims

OTHER = Trigger(TriggerType.SQS, "another-message")
POLLS = PollPolicy(deadline_seconds=86_400, grace_seconds=0)
BUSY = Failure(reason=Reason.TEMPORARY, message="busy", http_status=503)
LOG_FILES = re.compile(r"https://dfw\.backup\.api\.rackspacecloud\.com/v2/110011/agents/([^/]+)/logfiles")


@pytest.fixture
def an_invocation(captures_table, now, logger):
    """Builds the claims of one more invocation, some seconds later."""
    numbers = iter(range(1000))

    def build(after_seconds=0, **changes):
        at = now + timedelta(seconds=after_seconds)
        policy = ClaimPolicy(
            project_id="110011",
            claim_id=f"invocation-{next(numbers)}",
            claimed_until=at + timedelta(seconds=330),
            cool_down=timedelta(seconds=600),
        )
        table = replace(captures_table, now=lambda: at)
        built = Claims(table=table, policy=policy, polls=POLLS, now=lambda: at, logger=logger, save=[].append)
        return replace(built, **changes)

    return build


@pytest.fixture
def an_agent(a_capture):
    return lambda agent_id, **changes: a_capture(agent_id=agent_id, **changes)


def claimed(claims, *captures):
    """Return what is to be processed, and the steps of the rest."""
    steps = []
    claims.save = steps.append
    return [capture for batch in claims.claim(captures) for capture in batch], steps


def accepted(capture, now):
    response = ApiResponse(http_status=202, log_file=LogFile(id=f"log-of-{capture.agent_id}"))
    return POLLS.requested(capture, response, requested_at=now, at=now, project_id="110011")


def unconfirmed(capture, since):
    waiting = capture.requesting(since)
    return Step(capture=waiting, next=waiting, failure=BUSY)


def visit(claims, capture, step):
    """Claim an agent, visit its capture and settle its claim."""
    assert claimed(claims, capture) == ([capture], [])
    claims.visited(step)
    claims.settle()


# ------------------------------------------------------------------ rounds


def test_no_two_captures_of_a_round_claim_the_same_agent(an_invocation, an_agent):
    one, again, third = (
        an_agent("one"),
        an_agent("one", trigger=OTHER),
        an_agent("one", trigger=replace(OTHER, id="third")),
    )
    two, elsewhere = an_agent("two", trigger=OTHER), an_agent("one", region="LON")
    rounds = an_invocation().rounds([one, again, two, third, elsewhere])
    assert rounds == [[one, two, elsewhere], [again], [third]]


def test_captures_that_claim_nothing_are_all_in_the_first_round(an_invocation, an_agent, now):
    polling = an_agent("one", phase=Polling(log_file_id=None, requested_at=now))
    captures = [an_agent("one"), polling, an_agent("one", force=True), replace(polling, trigger=OTHER)]
    assert an_invocation().rounds(captures) == [captures]
    assert an_invocation(policy=None).rounds([captures[0], replace(captures[0], trigger=OTHER)])[1:] == []


# ------------------------------------------------------------------ what is claimed


def test_agents_are_claimed_a_hundred_at_a_time(an_invocation, an_agent, table_calls, items):
    captures = [an_agent(f"agent-{number}") for number in range(201)]
    batches = list(an_invocation().claim(captures))
    assert [len(batch) for batch in batches] == [100, 100, 1]
    assert [capture for batch in batches for capture in batch] == captures
    assert table_calls.calls == {"TransactWriteItems": 2, "PutItem": 1}
    assert len(items("AGENT#")) == 201


def test_the_first_hundred_are_processed_before_the_next_are_claimed(an_invocation, an_agent, table_calls):
    batches = an_invocation().claim([an_agent(f"agent-{number}") for number in range(101)])
    next(batches)
    assert table_calls.calls == {"TransactWriteItems": 1}


def test_a_capture_that_bypasses_claims_is_processed_before_the_table_is_called(
    an_invocation, an_agent, table_calls, now
):
    free = [
        an_agent("one", force=True),
        an_agent("one", phase=Polling(log_file_id=None, requested_at=now)),
        an_agent("one", phase=Recorded(status=Status.CAPTURED)),
    ]
    batches = an_invocation().claim([an_agent("one"), *free])
    assert next(batches) == free
    assert table_calls.calls == {}


def test_force_is_processed_although_the_agent_is_claimed(an_invocation, an_agent):
    visit(first := an_invocation(), an_agent("one"), accepted(an_agent("one"), first.now()))
    forced = an_agent("one", trigger=OTHER, force=True)
    assert claimed(an_invocation(1), forced) == ([forced], [])


def test_without_a_policy_nothing_is_claimed(an_invocation, an_agent, table_calls):
    captures = [an_agent("one"), an_agent("two")]
    free = an_invocation(policy=None)
    assert claimed(free, *captures) == (captures, [])
    free.visited(accepted(captures[0], free.now()))
    free.settle()
    assert table_calls.calls == {}


# ------------------------------------------------------------------ what is found


def test_the_same_owner_gets_the_same_requested_again(an_invocation, an_agent, now):
    capture = an_agent("one")
    first = accepted(replace(capture, attempts=1), now)
    visit(an_invocation(), capture, first)
    to_process, [again] = claimed(an_invocation(60), capture)
    assert to_process == []
    assert again.outcome.outcome_id == first.outcome.outcome_id
    assert replace(again.outcome, at=now, log_file=None) == replace(first.outcome, log_file=None)
    assert (again.next, again.delay_seconds) == (first.next, FIRST_POLL_SECONDS)


def test_another_trigger_gets_a_duplicate_with_the_log_file_of_the_first(an_invocation, an_agent, now):
    visit(an_invocation(), an_agent("one"), accepted(an_agent("one"), now))
    to_process, [step] = claimed(an_invocation(60), an_agent("one", trigger=OTHER))
    assert (to_process, step.next, step.outcome.status) == ([], None, Status.DUPLICATE)
    assert (step.outcome.reason, step.outcome.attempts) == (Reason.COOL_DOWN, 1)
    assert (step.outcome.trigger, step.outcome.log_file.id) == (OTHER, "log-of-one")
    assert step.outcome.message == "the log file was requested at 2026-11-23 03:12 UTC already, for backup failed"


def test_a_duplicate_is_one_only_within_the_cool_down(an_invocation, an_agent, now):
    visit(an_invocation(), an_agent("one"), accepted(an_agent("one"), now))
    second = an_agent("one", trigger=OTHER)
    assert claimed(an_invocation(601), second) == ([second], [])


@pytest.mark.parametrize("trigger", [None, OTHER])
def test_an_agent_that_another_invocation_has_claimed_is_requeued_as_it_is(an_invocation, an_agent, now, trigger):
    claimed(an_invocation(), an_agent("one"))
    waiting = an_agent("one", attempts=3, phase=Requesting(now), **({"trigger": trigger} if trigger else {}))
    to_process, [step] = claimed(an_invocation(329), waiting)
    assert (to_process, step.next, step.is_tried) == ([], waiting, False)
    assert (step.failure.reason, step.delay_seconds) == (Reason.IN_PROGRESS, 30)


def test_a_lapsed_claim_is_taken_over_at_once_and_its_request_may_have_been_served(
    *, an_invocation, an_agent, now, items, pauses
):
    claimed(an_invocation(), an_agent("one"))
    taker = an_invocation(331)
    assert claimed(taker, an_agent("one", trigger=OTHER)) == (
        [an_agent("one", trigger=OTHER, phase=Requesting(now))],
        [],
    )
    [item] = items("AGENT#")
    assert (item["claim"], item["trigger_id"]) == (taker.policy.claim_id, OTHER.id)
    assert item["since"] == "2026-11-23T03:12:40.985Z"
    assert pauses == []


def test_the_earliest_time_is_kept_from_one_take_over_to_the_next(an_invocation, an_agent, now):
    claimed(an_invocation(), an_agent("one"))
    claimed(an_invocation(331), an_agent("one", trigger=OTHER))
    later = now + timedelta(seconds=500)
    [third], _ = claimed(an_invocation(670), an_agent("one", phase=Requesting(later)))
    assert third.unconfirmed_since == now


def test_a_capture_that_was_unconfirmed_earlier_than_the_lapsed_claim_keeps_its_own_time(
    an_invocation, an_agent, now
):
    claimed(an_invocation(), an_agent("one"))
    earlier = an_agent("one", phase=Requesting(now - timedelta(hours=1)))
    assert claimed(an_invocation(331), earlier) == ([earlier], [])


def test_of_a_hundred_agents_each_gets_what_was_found_for_it(an_invocation, an_agent, now):
    agents = [an_agent(f"agent-{number}", trigger=OTHER) for number in range(100)]
    first = an_invocation()
    claimed(first, *(replace(agent, trigger=an_agent("x").trigger) for agent in agents[:2]))
    first.visited(accepted(an_agent("agent-0"), now))
    first.settle()
    claimed(an_invocation(100), an_agent("agent-2"))
    to_process, steps = claimed(an_invocation(200), *agents)
    assert [(step.capture.agent_id, step.outcome and step.outcome.status) for step in steps] == [
        ("agent-0", Status.DUPLICATE),
        ("agent-2", None),
    ]
    since = {capture.agent_id: capture.unconfirmed_since for capture in to_process}
    assert since == {"agent-1": now} | {f"agent-{number}": None for number in range(3, 100)}


def test_a_claim_that_changes_while_it_is_taken_over_is_decided_as_it_is_then(an_invocation, an_agent, now, dynamodb):
    claimed(first := an_invocation(), an_agent("one"))
    second = an_invocation(331)

    def settle_first(params, **_):
        if "claim = " in params["ConditionExpression"]:
            first.visited(accepted(an_agent("one"), now))
            first.settle()

    dynamodb.meta.events.register("provide-client-params.dynamodb.PutItem", settle_first)
    to_process, [step] = claimed(second, an_agent("one", trigger=OTHER))
    assert (to_process, step.outcome.status) == ([], Status.DUPLICATE)


def test_after_four_rounds_of_conflicts_agents_are_requeued_as_they_are(
    *, an_invocation, an_agent, table_calls, pauses
):
    table_calls.fail("TransactWriteItems", "TransactionInProgressException")
    captures = [an_agent("one"), an_agent("two")]
    to_process, steps = claimed(an_invocation(), *captures)
    assert (to_process, [step.next for step in steps]) == ([], captures)
    assert {(step.failure.reason, step.is_tried) for step in steps} == {(Reason.IN_PROGRESS, False)}
    assert (table_calls.calls["TransactWriteItems"], pauses) == (4, [1, 2, 3])


def test_an_agent_that_meets_one_conflict_is_claimed_in_the_next_round(
    an_invocation, an_agent, table_calls, dynamodb
):
    table_calls.fail("PutItem", "TransactionConflictException")
    dynamodb.meta.events.register(
        "provide-client-params.dynamodb.PutItem",
        lambda **_: table_calls.errors.clear() if table_calls.calls["PutItem"] else None,
    )
    assert claimed(an_invocation(), an_agent("one")) == ([an_agent("one")], [])


# ------------------------------------------------------------------ without the table


def test_captures_are_processed_without_a_table_that_cannot_be_reached(an_invocation, an_agent, table_calls, log):
    table_calls.fail("TransactWriteItems", "InternalServerError")
    captures = [an_agent(f"agent-{number}") for number in range(250)]
    claims = an_invocation()
    assert claimed(claims, *captures) == (captures, [])
    assert claims.rounds([captures[0], replace(captures[0], trigger=OTHER)])[1:] == []
    claims.settle()
    assert table_calls.calls == {"TransactWriteItems": 1}
    [line] = [json.loads(line) for line in log.getvalue().splitlines()]
    assert line["level"] == "WARNING"
    assert line["message"] == "the table cannot be reached: log files are requested without it"


def test_claims_that_cannot_be_settled_lapse(*, an_invocation, an_agent, table_calls, log, now):
    claims = an_invocation()
    claimed(claims, an_agent("one"))
    claims.visited(accepted(an_agent("one"), now))
    table_calls.fail("BatchWriteItem", "InternalServerError")
    claims.settle()
    assert "claims were not settled" in log.getvalue()
    table_calls.errors.clear()
    assert claimed(an_invocation(331), an_agent("one", trigger=OTHER))[0][0].unconfirmed_since == now


# ------------------------------------------------------------------ settling


def test_a_retryable_failure_or_a_refusal_leaves_the_agent_free(an_invocation, an_agent, now):
    steps = [
        lambda capture: Step(capture=capture, next=capture, failure=BUSY),
        lambda capture: not_tried(capture, BUSY, 60),
        lambda capture: rejected(capture, ApiResponse(http_status=404), at=now, project_id="110011"),
    ]
    for number, step in enumerate(steps):
        capture = an_agent("one", trigger=replace(OTHER, id=f"message-{number}"))
        visit(an_invocation(), capture, step(capture))


def test_an_unanswered_request_leaves_a_lapsed_claim(an_invocation, an_agent, now, items):
    since = now + timedelta(seconds=2)
    visit(an_invocation(), an_agent("one"), unconfirmed(an_agent("one"), since))
    [item] = items("AGENT#")
    assert (item["state"], item["claimed_until"]) == ("claimed", "1970-01-01T00:00:00.000Z")
    [other], _ = claimed(an_invocation(10), an_agent("one", trigger=OTHER))
    assert other.unconfirmed_since == now


def test_a_claim_without_a_step_is_settled_as_lapsed(an_invocation, an_agent, items):
    claims = an_invocation()
    claimed(claims, an_agent("one"), an_agent("two"))
    claims.visited(Step(capture=an_agent("two"), next=an_agent("two"), failure=BUSY))
    claims.settle()
    assert [item["claimed_until"] for item in items("AGENT#")] == ["1970-01-01T00:00:00.000Z"]


def test_a_claim_is_settled_once(an_invocation, an_agent, now, table_calls):
    claims = an_invocation()
    claimed(claims, an_agent("one"))
    claims.visited(accepted(an_agent("one"), now))
    claims.settle()
    claims.settle()
    assert table_calls.calls["BatchWriteItem"] == 1


def test_the_poll_of_a_capture_that_was_delivered_twice_leaves_its_claim_alone(an_invocation, an_agent, now):
    capture = an_agent("one")
    polling = an_agent("one", phase=Polling(log_file_id=None, requested_at=now))
    claims = an_invocation()
    claimed(claims, capture, polling)
    claims.visited(accepted(capture, now))
    claims.visited(Step(capture=polling, next=polling, failure=BUSY))
    claims.settle()
    assert claimed(an_invocation(60), an_agent("one", trigger=OTHER))[1][0].outcome.status is Status.DUPLICATE


def test_a_claim_that_was_taken_over_and_not_settled_is_found_by_the_third(an_invocation, an_agent, captures_table):
    policy = an_invocation().policy
    capture = an_agent("one")
    lapsed = replace(policy.claim(capture, captures_table.now()), claimed_until=LAPSED)
    captures_table.settle([lapsed], [])
    visit_of = an_invocation()
    [taken], _ = claimed(visit_of, capture)
    visit_of.visited(not_tried(taken, BUSY, 60))
    visit_of.settle()
    [third], _ = claimed(an_invocation(60), an_agent("one", trigger=OTHER))
    assert third.unconfirmed_since == lapsed.since


# ------------------------------------------------------------------ with the service


def run(service, *agent_ids, trigger="a-message"):
    record = {"eventSource": "aws:sqs", "messageId": trigger, "body": json.dumps(agent_ids)}
    result = service.run({"Records": [record]}, request_id="request-id", remaining_millis=lambda: 300_000)
    return replace(result, counts=+result.counts)


def test_the_log_files_of_a_lapsed_claim_are_listed_before_one_is_requested(capture_service, wire, now):
    log_file = {"id": "the-first", "date": now.isoformat(), "state": "requested"}
    post = wire.post(LOG_FILES, body=requests.ReadTimeout())
    run(capture_service, "one", trigger="first")
    listed = wire.get(LOG_FILES, json={"logfiles": [log_file]})
    [outcome] = run(capture_service, "one", trigger="second").outcomes
    assert (outcome.status, outcome.log_file.id) == (Status.REQUESTED, "the-first")
    [third] = run(capture_service, "one", trigger="third").outcomes
    assert (third.status, third.log_file.id) == (Status.DUPLICATE, "the-first")
    assert (len(post.calls), len(listed.calls)) == (1, 1)


def test_when_the_list_fails_nothing_is_requested_and_the_claim_lapses_again(capture_service, wire):
    post = wire.post(LOG_FILES, body=requests.ReadTimeout())
    run(capture_service, "one", trigger="first")
    listed = wire.get(LOG_FILES, status=503)
    assert run(capture_service, "one", trigger="second").counts == {"deferred": 1}
    wire.replace("GET", LOG_FILES, json={"logfiles": []})
    wire.replace("POST", LOG_FILES, status=202)
    assert run(capture_service, "one", trigger="third").counts == {"requested": 1}
    assert (len(post.calls), len(listed.calls)) == (1, 1)


def test_a_cool_down_of_0_makes_no_claims(capture_service, wire, table_calls, items):
    wire.post(LOG_FILES, status=202)
    free = replace(capture_service, cool_down=timedelta())
    for trigger in ("first", "second"):
        assert run(free, "one", trigger=trigger).counts == {"requested": 1}
    assert items("AGENT#") == []
    assert table_calls.calls["PutItem"] == 0


def test_claims_are_settled_before_anything_is_requeued(capture_service, wire, sqs, items):
    states = []
    sqs.meta.events.register(
        "before-call.sqs.SendMessageBatch", lambda **_: states.append([item["state"] for item in items("AGENT#")])
    )
    wire.post(LOG_FILES, status=202)
    run(capture_service, "one", "two")
    assert states == [["accepted", "accepted"]]
