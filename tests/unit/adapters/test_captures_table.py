import hashlib
import json
from dataclasses import replace
from datetime import timedelta

import pytest
from botocore.config import Config
from botocore.exceptions import ReadTimeoutError

from agent_log_capture.adapters.captures_table import CLAIMS_IN_A_TRANSACTION, CapturesTable, TableError
from agent_log_capture.domain.claim import LAPSED, Claim
from agent_log_capture.domain.job import Fact, JobItems, Report, TriggerPart
from agent_log_capture.domain.outcome import (
    FINAL_STATUSES,
    TRIGGER_ID_CHARACTERS,
    LogFile,
    Reason,
    Status,
    Trigger,
    TriggerType,
)

TRIGGER = Trigger(TriggerType.SQS, "a-message")
OTHER = Trigger(TriggerType.ALARM, "an-alarm", "backup failed")
FACT = Fact(
    agent_id="an-agent",
    region="DFW",
    trigger_key="a-key",
    replays=0,
    status=Status.EXPIRED,
    reason=Reason.GONE,
    log_file_id="a-log-file",
)
COUNTS = dict.fromkeys(FINAL_STATUSES, 0) | {Status.CAPTURED: 2}


@pytest.fixture
def a_claim(now):
    def build(agent_id="an-agent", **changes):
        claim = Claim(
            project_id="110011",
            region="DFW",
            agent_id=agent_id,
            trigger=TRIGGER,
            replays=0,
            claim_id="an-invocation",
            since=now,
            claimed_until=now + timedelta(seconds=330),
            expires=now.replace(microsecond=0) + timedelta(seconds=600),
        )
        return replace(claim, **changes)

    return build


@pytest.fixture
def part(now):
    return TriggerPart(trigger=TRIGGER, asked=3, rejected=1, asked_at=now, shards=1)


@pytest.fixture
def at(captures_table, now):
    """Returns the table at a later time."""
    return lambda **later: replace(captures_table, now=lambda: now + timedelta(**later))


class Batches:
    """Lets BatchWriteItem process only the first items of each of some calls; `sizes` has how many each call had."""

    def __init__(self, client):
        self.sizes = []
        self.processed = []
        self._left = []
        client.meta.events.register("provide-client-params.dynamodb.BatchWriteItem", self._take_out)
        client.meta.events.register("after-call.dynamodb.BatchWriteItem", self._return)

    def _take_out(self, params, **_):
        [(table, requests)] = params["RequestItems"].items()
        self.sizes.append(len(requests))
        count = self.processed.pop(0) if self.processed else len(requests)
        self._left = requests[count:]
        return params | {"RequestItems": {table: requests[:count]}}

    def _return(self, parsed, **_):
        parsed["UnprocessedItems"] = {"CapturesTable": self._left} if self._left else {}


@pytest.fixture
def batches(dynamodb):
    return Batches(dynamodb)


def error_once(client, operation, code):
    """Let the next call of an operation end in an error, and no other."""
    errors = [client.exceptions.from_code(code)({"Error": {"Code": code, "Message": "once"}}, operation)]

    def fail(**_):
        if errors:
            raise errors.pop()

    client.meta.events.register(f"before-call.dynamodb.{operation}", fail)


def cancel(client, *codes):
    """Let every transaction be cancelled, for a reason for each item."""
    reasons = [{"Code": code} for code in codes]
    error = client.exceptions.TransactionCanceledException(
        {"Error": {"Code": "TransactionCanceledException", "Message": "m"}, "CancellationReasons": reasons},
        "TransactWriteItems",
    )

    def fail(**_):
        raise error

    client.meta.events.register("before-call.dynamodb.TransactWriteItems", fail)


def fresh(*claims):
    return [(claim, None) for claim in claims]


# ------------------------------------------------------------------ claims


def test_one_agent_is_claimed_with_a_put_and_several_in_a_transaction(captures_table, a_claim, items, table_calls):
    assert captures_table.claim(fresh(a_claim("one"))) is None
    assert captures_table.claim(fresh(a_claim("two"), a_claim("three"))) is None
    assert table_calls.calls == {"PutItem": 1, "TransactWriteItems": 1}
    assert [item["pk"] for item in items()] == [f"AGENT#110011#DFW#{name}" for name in ("one", "three", "two")]


def test_a_hundred_agents_are_claimed_at_once(captures_table, a_claim, items):
    claims = [a_claim(f"agent-{number}") for number in range(CLAIMS_IN_A_TRANSACTION)]
    assert captures_table.claim(fresh(*claims)) is None
    assert len(items("AGENT#")) == 100


@pytest.mark.parametrize("others", [[], ["another"]], ids=["put", "transaction"])
def test_what_was_there_is_found_as_it_was_written_and_nothing_is_claimed(
    *, captures_table, a_claim, items, others, now
):
    log_file = LogFile(
        id="a-log-file",
        date="2026-11-23T03:12:41",
        state="requested",
        location="https://api/log",
        links=({"rel": "full", "href": "https://api/log"},),
    )
    first = a_claim(
        trigger=OTHER,
        replays=3,
        claim_id="the-first",
        claimed_until=LAPSED,
        accepted_at=now,
        http_status=202,
        log_file=log_file,
    )
    captures_table.settle([first], [])
    before = items()
    found = captures_table.claim(fresh(*map(a_claim, others), a_claim()))
    assert found == {len(others): first}
    assert items() == before


def test_a_claim_without_a_log_file_is_found_as_it_was_written(captures_table, a_claim):
    captures_table.claim(fresh(a_claim()))
    assert captures_table.claim(fresh(a_claim(claim_id="another"))) == {0: a_claim()}


def test_a_transaction_finds_everything_that_was_there(captures_table, a_claim, items):
    captures_table.claim(fresh(a_claim("one"), a_claim("three")))
    wanted = [a_claim(name, claim_id="another") for name in ("one", "two", "three")]
    assert captures_table.claim(fresh(*wanted)) == {0: a_claim("one"), 2: a_claim("three")}
    assert len(items()) == 2


@pytest.mark.parametrize("others", [[], ["another"]], ids=["put", "transaction"])
def test_a_claim_that_has_expired_counts_as_absent_before_ttl_deletes_it(captures_table, at, a_claim, others):
    captures_table.claim(fresh(a_claim()))
    again = fresh(a_claim(claim_id="second"), *map(a_claim, others))
    assert at(seconds=598).claim(again) == {0: a_claim()}
    assert at(seconds=600).claim(again) is None
    assert captures_table.claim(fresh(a_claim())) == {0: a_claim(claim_id="second")}


def test_a_lapsed_claim_is_taken_over_beside_a_fresh_one(captures_table, a_claim, items):
    lapsed = a_claim("one", claimed_until=LAPSED)
    captures_table.settle([lapsed], [])
    mine = a_claim("one", claim_id="mine")
    assert captures_table.claim([(mine, lapsed), (a_claim("two"), None)]) is None
    assert [item["claim"] for item in items()] == ["mine", "an-invocation"]


@pytest.mark.parametrize(
    "change",
    [
        {"claim_id": "another"},
        {"claimed_until": LAPSED + timedelta(seconds=1)},
        {"accepted_at": LAPSED + timedelta(days=20_000)},
    ],
)
def test_a_lapsed_claim_is_taken_over_only_as_it_was_read(captures_table, a_claim, change):
    lapsed = a_claim(claimed_until=LAPSED)
    changed = replace(lapsed, **change)
    captures_table.settle([changed], [])
    assert captures_table.claim([(a_claim(claim_id="mine"), lapsed)]) == {0: changed}


def test_of_two_that_take_over_a_lapsed_claim_one_does(captures_table, a_claim):
    lapsed = a_claim(claimed_until=LAPSED)
    captures_table.settle([lapsed], [])
    first, second = a_claim(claim_id="first"), a_claim(claim_id="second")
    assert captures_table.claim([(first, lapsed)]) is None
    assert captures_table.claim([(second, lapsed)]) == {0: first}


def test_a_lapsed_claim_that_was_deleted_is_not_taken_over(captures_table, a_claim, items):
    assert captures_table.claim([(a_claim(), a_claim(claim_id="gone", claimed_until=LAPSED))]) == {}
    assert items() == []


CONFLICTS = ["TransactionConflictException", "ThrottlingException", "ProvisionedThroughputExceededException"]


@pytest.mark.parametrize("code", CONFLICTS)
def test_a_claim_that_meets_a_conflict_or_throttling_may_be_tried_again(captures_table, a_claim, table_calls, code):
    table_calls.fail("PutItem", code)
    assert captures_table.claim(fresh(a_claim())) == {}


@pytest.mark.parametrize("code", ["TransactionConflict", "ThrottlingError", "ProvisionedThroughputExceeded"])
def test_a_transaction_that_meets_a_conflict_or_throttling_may_be_tried_again(
    captures_table, a_claim, dynamodb, code
):
    cancel(dynamodb, "None", code)
    assert captures_table.claim(fresh(a_claim("one"), a_claim("two"))) == {}


def test_a_transaction_that_is_in_progress_may_be_tried_again(captures_table, a_claim, table_calls):
    table_calls.fail("TransactWriteItems", "TransactionInProgressException")
    assert captures_table.claim(fresh(a_claim("one"), a_claim("two"))) == {}


@pytest.mark.parametrize("code", ["AccessDeniedException", "ResourceNotFoundException", "InternalServerError"])
def test_any_other_error_of_a_claim_is_a_table_error(captures_table, a_claim, table_calls, code):
    table_calls.fail("PutItem", code)
    table_calls.fail("TransactWriteItems", code)
    for names in (["one"], ["one", "two"]):
        with pytest.raises(TableError, match=code):
            captures_table.claim(fresh(*map(a_claim, names)))


def test_a_transaction_that_can_never_succeed_is_a_table_error(captures_table, a_claim, dynamodb):
    cancel(dynamodb, "TransactionConflict", "ValidationError")
    with pytest.raises(TableError, match="TransactionCanceledException"):
        captures_table.claim(fresh(a_claim("one"), a_claim("two")))


@pytest.fixture
def lossy(captures_table, aws):
    """The table over a network that loses the responses to the first two requests, of three; and their bodies."""
    client = aws("dynamodb", config=Config(retries={"mode": "standard", "total_max_attempts": 3}))
    bodies = []

    def lose(request, **_):
        bodies.append(json.loads(request.body))
        if len(bodies) < 3:
            raise ReadTimeoutError(endpoint_url=request.url)

    client.meta.events.register_last("before-send", lose)  # by then, moto has served the request
    return replace(captures_table, client=client), bodies


def test_a_transaction_whose_response_was_lost_is_repeated_as_the_same_one(lossy, a_claim, items):
    table, bodies = lossy
    table.claim(fresh(a_claim("one"), a_claim("two")))
    assert len({body["ClientRequestToken"] for body in bodies}) == 1
    assert len(items("AGENT#")) == 2


def test_a_put_whose_response_was_lost_finds_its_own_claim(lossy, a_claim):
    table, bodies = lossy
    assert table.claim(fresh(a_claim())) == {0: a_claim()}
    assert len(bodies) == 3


def test_a_claim_of_which_no_response_arrives_is_a_table_error(captures_table, a_claim, dynamodb, items):
    def lose(**_):
        raise ReadTimeoutError(endpoint_url="https://dynamodb")

    dynamodb.meta.events.register("after-call.dynamodb.PutItem", lose)
    with pytest.raises(TableError, match="ReadTimeoutError"):
        captures_table.claim(fresh(a_claim()))
    assert len(items("AGENT#")) == 1


def test_settling_replaces_what_is_kept_and_deletes_the_rest(captures_table, a_claim, items, now):
    captures_table.claim(fresh(a_claim("one"), a_claim("two"), a_claim("three")))
    captures_table.settle([a_claim("one", accepted_at=now), a_claim("two", claimed_until=LAPSED)], [a_claim("three")])
    assert [(item["pk"].rpartition("#")[2], item["state"]) for item in items()] == [
        ("one", "accepted"),
        ("two", "claimed"),
    ]


def test_claims_are_settled_25_at_a_time(captures_table, a_claim, items, batches):
    kept = [a_claim(f"agent-{number}") for number in range(60)]
    captures_table.settle(kept, [a_claim("another")])
    assert batches.sizes == [25, 25, 11]
    assert len(items()) == 60
    captures_table.settle([], kept)
    assert items() == []


def test_nothing_to_settle_is_no_call(captures_table, table_calls):
    captures_table.settle([], [])
    assert table_calls.calls == {}


def test_items_that_were_not_processed_are_written_again_until_nothing_is_left(
    *, captures_table, a_claim, items, batches, pauses
):
    batches.processed = [10, 5, 9]
    captures_table.settle([a_claim(f"agent-{number}") for number in range(26)], [])
    assert batches.sizes == [25, 15, 10, 1, 1]
    assert len(items()) == 26
    assert pauses == [0.1, 0.2, 0.4]


def test_items_that_are_never_processed_are_a_table_error(captures_table, a_claim, batches):
    batches.processed = [2, 1, 1, 1, 1]
    with pytest.raises(TableError, match="4 items were not processed"):
        captures_table.settle([a_claim(f"agent-{number}") for number in range(10)], [])


@pytest.mark.parametrize("code", CONFLICTS)
def test_a_write_that_meets_a_conflict_or_throttling_is_repeated(captures_table, a_claim, dynamodb, items, code):
    error_once(dynamodb, "BatchWriteItem", code)
    captures_table.settle([a_claim()], [])
    assert len(items()) == 1


def test_a_write_that_meets_conflicts_all_the_time_is_a_table_error(captures_table, part, table_calls, pauses):
    table_calls.fail("UpdateItem", "TransactionConflictException")
    with pytest.raises(TableError, match="TransactionConflictException"):
        captures_table.add_ended("a-job", part, 1)
    assert (table_calls.calls["UpdateItem"], pauses) == (5, [0.1, 0.2, 0.4, 0.8])


@pytest.mark.parametrize(
    ("operation", "call"),
    [
        ("BatchWriteItem", lambda table, _: table.write_facts("a-job", 1, [FACT])),
        ("UpdateItem", lambda table, part: table.add_ended("a-job", part, 1)),
        ("UpdateItem", lambda table, part: table.look_again("a-job", part, 1)),
        ("UpdateItem", lambda table, _: table.change_version("a-job")),
        ("UpdateItem", lambda table, _: table.update_report(items_of(), COUNTS)),
        ("UpdateItem", lambda table, _: table.mark_reported("a-job", 1)),
        ("Query", lambda table, _: table.read_job("a-job")),
        ("Query", lambda table, _: table.read_facts(items_of())),
    ],
)
def test_any_other_error_is_a_table_error_at_once(captures_table, part, table_calls, operation, call):
    table_calls.fail(operation, "AccessDeniedException")
    with pytest.raises(TableError, match="AccessDeniedException"):
        call(captures_table, part)
    assert table_calls.calls[operation] == 1


# ------------------------------------------------------------------ facts


def items_of(job_id="a-job", parts=(), report=None):
    return JobItems(job_id=job_id, report=report or Report(), parts=parts)


def test_facts_are_read_as_they_were_written(captures_table, part):
    facts = [
        FACT,
        replace(FACT, status=None, reason=None, log_file_id=None, replays=1),
        replace(FACT, region="LON"),
        replace(FACT, agent_id="an_Agent-2", trigger_key="another"),
    ]
    captures_table.write_facts("a-job", 1, facts)
    assert sorted(captures_table.read_facts(items_of(parts=[part])), key=str) == sorted(facts, key=str)
    assert captures_table.read_facts(items_of("another-job", parts=[part])) == []


@pytest.mark.parametrize("status", FINAL_STATUSES)
def test_a_fact_of_each_status_is_kept_beside_the_others(captures_table, part, status):
    captures_table.write_facts("a-job", 1, [FACT])
    captures_table.write_facts("a-job", 1, [replace(FACT, status=status)])
    assert {fact.status for fact in captures_table.read_facts(items_of(parts=[part]))} == {Status.EXPIRED, status}


def test_the_same_fact_twice_is_one(captures_table, items):
    captures_table.write_facts("a-job", 1, [FACT, FACT])
    captures_table.write_facts("a-job", 1, [FACT])
    assert len(items("JOB#")) == 1


def test_facts_of_large_jobs_are_spread_over_ten_shards_and_all_of_them_are_read(captures_table, part, items):
    facts = [replace(FACT, agent_id=f"agent-{number}") for number in range(60)]
    captures_table.write_facts("a-job", 10, facts)
    captures_table.write_facts("a-job", 10, facts)
    assert len(items("JOB#")) == 60
    assert {item["pk"] for item in items()} == {f"JOB#a-job#{shard}" for shard in range(10)}
    large = items_of(parts=[part, replace(part, trigger=OTHER, shards=10)])
    assert sorted(captures_table.read_facts(large), key=str) == sorted(facts, key=str)


def test_facts_are_read_a_page_after_another(captures_table, part, dynamodb):
    dynamodb.meta.events.register(
        "provide-client-params.dynamodb.Query", lambda params, **_: params | {"Limit": 7, "ConsistentRead": True}
    )
    captures_table.write_facts("a-job", 1, [replace(FACT, agent_id=f"agent-{number}") for number in range(50)])
    assert len(captures_table.read_facts(items_of(parts=[part]))) == 50


# ------------------------------------------------------------------ triggers and reports


def test_a_trigger_is_kept_as_it_was_first_and_what_has_ended_adds_up(captures_table, at, part, now):
    later = at(days=1)
    changed = replace(part, asked=9, rejected=5, asked_at=now + timedelta(days=1), shards=10)
    assert captures_table.add_ended("a-job", part, 0) is False
    assert later.add_ended("a-job", changed, 1) is False
    assert later.add_ended("a-job", changed, 2) is True
    [read] = captures_table.read_job("a-job").parts
    assert read == replace(part, ended=3, look_at=2)


def test_a_job_is_to_be_read_once_all_that_can_end_has_ended(captures_table, part):
    assert captures_table.add_ended("a-job", part, 1) is False
    assert captures_table.add_ended("a-job", part, 1) is True
    assert captures_table.add_ended("a-job", part, 0) is True


def test_a_trigger_keeps_its_time_to_live_when_something_ends_in_it(captures_table, at, part, items):
    captures_table.add_ended("a-job", part, 0)
    [opened] = items("JOB#")
    at(days=3).add_ended("a-job", part, 1)
    [item] = items("JOB#")
    assert item["expires"] == opened["expires"]


def test_the_facts_are_read_again_when_as_many_as_are_lacking_have_ended(captures_table, part):
    captures_table.add_ended("a-job", part, 2)
    [read] = captures_table.read_job("a-job").parts
    captures_table.look_again("a-job", read, 2)
    assert [each.look_at for each in captures_table.read_job("a-job").parts] == [4]
    assert captures_table.add_ended("a-job", part, 1) is False
    assert captures_table.add_ended("a-job", part, 1) is True


def test_the_facts_are_not_read_later_when_something_has_ended_since(captures_table, part):
    captures_table.add_ended("a-job", part, 2)
    [read] = captures_table.read_job("a-job").parts
    captures_table.add_ended("a-job", part, 1)
    captures_table.look_again("a-job", read, 5)
    assert [(each.ended, each.look_at) for each in captures_table.read_job("a-job").parts] == [(3, 2)]


def test_a_job_that_is_not_there_has_no_report_and_no_triggers(captures_table):
    assert captures_table.read_job("a-job") == JobItems(job_id="a-job", report=Report(), parts=[])


def test_a_job_is_read_with_all_its_triggers_and_its_report(captures_table, part):
    other = replace(part, trigger=OTHER, shards=10)
    captures_table.add_ended("a-job", part, 1)
    captures_table.add_ended("a-job", other, 2)
    captures_table.change_version("a-job")
    read = captures_table.read_job("a-job")
    assert sorted(read.parts, key=str) == sorted(
        [replace(part, ended=1, look_at=2), replace(other, ended=2, look_at=2)], key=str
    )
    assert (read.report, read.shards) == (Report(version=1), 10)


def test_a_trigger_that_has_expired_is_no_longer_in_its_job(captures_table, at, part):
    captures_table.add_ended("a-job", part, 1)
    at(days=1).add_ended("a-job", replace(part, trigger=OTHER), 1)
    assert len(at(days=19).read_job("a-job").parts) == 2
    assert [each.trigger for each in at(days=20, seconds=1).read_job("a-job").parts] == [OTHER]


def test_the_first_report_has_the_first_revision_and_is_not_reported(captures_table, now):
    report = captures_table.update_report(items_of(), COUNTS)
    assert report == Report(version=1, revision=1, counts=COUNTS, is_reported=False, done_at=now)
    assert captures_table.read_job("a-job").report == report


def test_a_report_has_a_new_version_each_time_and_a_new_revision_only_with_other_counts(captures_table, at, now):
    captures_table.update_report(items_of(), COUNTS)
    captures_table.mark_reported("a-job", 1)
    same = at(days=1).update_report(captures_table.read_job("a-job"), COUNTS)
    assert same == Report(version=2, revision=1, counts=COUNTS, is_reported=True, done_at=now)
    counts = COUNTS | {Status.FAILED: 1}
    other = at(days=1).update_report(captures_table.read_job("a-job"), counts)
    assert other == Report(version=3, revision=2, counts=counts, is_reported=False, done_at=now + timedelta(days=1))


def test_a_report_that_has_changed_since_it_was_read_is_not_updated(captures_table, items):
    before = captures_table.read_job("a-job")
    captures_table.change_version("a-job")
    assert captures_table.update_report(before, COUNTS) is None
    read = captures_table.read_job("a-job")
    assert captures_table.update_report(read, COUNTS).revision == 1
    assert captures_table.update_report(read, COUNTS | {Status.FAILED: 1}) is None
    assert [item["revision"] for item in items("JOB#")] == ["1"]


def test_a_report_is_marked_only_while_its_revision_is_the_one_that_was_published(captures_table):
    captures_table.update_report(items_of(), COUNTS)
    captures_table.update_report(captures_table.read_job("a-job"), COUNTS | {Status.FAILED: 1})
    captures_table.mark_reported("a-job", 1)
    assert captures_table.read_job("a-job").report.is_reported is False
    captures_table.mark_reported("a-job", 2)
    assert captures_table.read_job("a-job").report.is_reported is True


# ------------------------------------------------------------------ keys, sizes and time to live


LONG = "x" * 601
HOSTILE = [
    "a-job",
    "a-job#0",
    "a-job%230",
    "a-job%25230",
    "#",
    "%",
    "%23",
    "%25",
    "TRIGGER#",
    "REPORT",
    "\N{SNOWMAN}" * 200,
    "\N{SNOWMAN}" * 201,
    "#" * 600,
    "%" * 600,
    LONG,
    LONG + "y",
    hashlib.sha256(LONG.encode()).hexdigest(),
]


def test_jobs_with_hostile_ids_are_kept_apart(captures_table, part, items):
    for number, job_id in enumerate(HOSTILE, 1):
        captures_table.add_ended(job_id, part, number)
        captures_table.change_version(job_id)
        captures_table.write_facts(job_id, 1, [replace(FACT, replays=number)])
    assert len(items()) == 3 * len(HOSTILE)
    for number, job_id in enumerate(HOSTILE, 1):
        read = captures_table.read_job(job_id)
        assert [each.ended for each in read.parts] == [number]
        assert [fact.replays for fact in captures_table.read_facts(read)] == [number]


def size_of(item):
    """As DynamoDB counts it, about: names and values in bytes, and 21 bytes for a number at most."""
    return sum(len(name) + (len(str(value).encode()) if name != "counts" else 200) for name, value in item.items())


def write_everything(table, part, claim, job_id):
    table.claim(fresh(claim))
    table.add_ended(job_id, part, 2)
    table.change_version(job_id)
    table.update_report(table.read_job(job_id), COUNTS)
    table.write_facts(job_id, 1, [replace(FACT, agent_id=claim.agent_id, trigger_key=part.key)])


def test_every_item_expires_and_facts_do_so_a_day_after_their_trigger(captures_table, a_claim, part, items, now):
    write_everything(captures_table, part, a_claim(), "a-job")
    seconds = {item["sk"].split("#")[0]: int(item["expires"]) - int(now.timestamp()) - 1 for item in items()}
    day = 86_400
    assert seconds == {"CLAIM": 599, "TRIGGER": 20 * day, "REPORT": 21 * day, "DFW": 21 * day}


def test_the_items_of_an_alarm_are_smaller_than_1_kb(captures_table, a_claim, part, items):
    name = "n" * 150
    alarm = Trigger(TriggerType.ALARM, f"arn:aws:cloudwatch:us-east-1:123456789012:alarm:{name}@2026-11-23", name)
    write_everything(captures_table, replace(part, trigger=alarm), a_claim("a" * 128, trigger=alarm), alarm.id)
    assert len(items()) == 4
    assert max(map(size_of, items())) < 1024


def test_the_longest_fact_is_smaller_than_1_kb(captures_table, items):
    longest = replace(
        FACT, agent_id="a" * 128, trigger_key="k" * 24, replays=999, status=Status.DUPLICATE, log_file_id="l" * 128
    )
    for job_id in HOSTILE:
        captures_table.write_facts(job_id, 10, [longest])
    assert len(items()) == len(HOSTILE)
    assert max(map(size_of, items())) < 1024


def test_keys_keep_within_the_limits_of_dynamodb(captures_table, a_claim, part, items):
    for number, job_id in enumerate([*HOSTILE, "\N{SNOWMAN}" * TRIGGER_ID_CHARACTERS]):
        write_everything(captures_table, part, a_claim(f"{number}-".ljust(128, "a")), job_id)
    assert max(len(item["pk"].encode()) for item in items()) <= 2048
    assert max(len(item["sk"].encode()) for item in items()) <= 1024


def test_the_table_waits_for_a_random_part_of_a_time(captures_table, dynamodb, table_calls, part, monkeypatch):
    table = CapturesTable(client=dynamodb, table=captures_table.table, keep=timedelta(0), now=captures_table.now)
    slept = []
    monkeypatch.setattr("random.random", lambda: 0.25)
    monkeypatch.setattr("time.sleep", slept.append)
    table_calls.fail("UpdateItem", "TransactionConflictException")
    with pytest.raises(TableError):
        table.add_ended("a-job", part, 1)
    assert slept == [0, 0.025, 0.05, 0.1, 0.2]
