import time
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import pytest
from botocore.exceptions import ClientError, ReadTimeoutError

from agent_log_capture.adapters.grouped_puts import GroupedPuts

TABLE = "RecentCapturesTable"
TIMED_OUT = ReadTimeoutError(endpoint_url="https://dynamodb.us-east-1.amazonaws.com")


@pytest.fixture
def puts(dynamodb, table):  # noqa: ARG001 (the table has to be there)
    return GroupedPuts(dynamodb)


class Gathering:
    """Holds the first call up until so many others wait for it; what became of each is a list in their order."""

    def __init__(self, puts, dynamodb):
        self._puts = puts
        self._first = None
        self._is_under_way, self._go_on = Event(), Event()
        dynamodb.meta.events.register("before-parameter-build.dynamodb.PutItem", self._hold)

    def _hold(self, params, **_):
        if params["Item"]["id"]["S"] == self._first:
            self._is_under_way.set()
            assert self._go_on.wait(timeout=30)

    def put(self, first, others, before_it_goes_on=lambda: None):
        self._first = first
        with ThreadPoolExecutor(1 + len(others)) as threads:
            answers = [threads.submit(self._put, first)]
            assert self._is_under_way.wait(timeout=30)
            answers += [threads.submit(self._put, key) for key in others]
            self.wait_for(len({*others}))
            before_it_goes_on()
            self._go_on.set()
            return [answer.result() for answer in answers]

    def wait_for(self, count):
        """Return when so many wait."""
        while len(self._puts._group._waiting) != count:  # noqa: SLF001 (nothing else shows that they wait)
            time.sleep(0)

    def _put(self, key):
        try:
            self._puts.put_item(
                TableName=TABLE,
                Item={"id": {"S": key}},
                ConditionExpression="attribute_not_exists(#id)",
                ExpressionAttributeNames={"#id": "id"},
            )
        except ClientError as error:
            return error.response["Error"]["Code"]
        except (ReadTimeoutError, RuntimeError, TimeoutError) as error:
            return error
        return "written"


@pytest.fixture
def gathering(puts, dynamodb):
    return Gathering(puts, dynamodb)


def keys(count):
    return [f"key-{number}" for number in range(count)]


def test_a_single_put_is_sent_as_it_is(puts, table, remembered):
    puts.put_item(TableName=TABLE, Item={"id": {"S": "a-key"}})
    assert table.calls == {"PutItem": 1}
    assert remembered() == [{"id": {"S": "a-key"}}]


def test_what_waits_for_a_call_is_sent_as_the_next_one(gathering, table, remembered):
    assert gathering.put("first", keys(10)) == ["written"] * 11
    assert table.calls == {"PutItem": 1, "TransactWriteItems": 1}
    assert len(remembered()) == 11


def test_a_call_has_25_puts_at_the_most(gathering, table, remembered):
    assert gathering.put("first", keys(60)) == ["written"] * 61
    assert table.calls == {"PutItem": 1, "TransactWriteItems": 3}
    assert len(remembered()) == 61


def test_each_is_sent_alone_when_a_condition_does_not_hold_until_the_next_invocation(
    *, puts, gathering, table, remembered, dynamodb
):
    dynamodb.put_item(TableName=TABLE, Item={"id": {"S": "key-3"}})
    table.calls.clear()
    codes = ["written"] * 6
    codes[4] = "ConditionalCheckFailedException"
    assert gathering.put("first", keys(5)) == codes
    assert table.calls == {"PutItem": 6, "TransactWriteItems": 1}
    puts.put_item(TableName=TABLE, Item={"id": {"S": "alone"}})
    assert table.calls == {"PutItem": 7, "TransactWriteItems": 1}
    puts.begin()
    assert Gathering(puts, dynamodb).put("anew", ["new-1", "new-2"]) == ["written"] * 3
    assert table.calls == {"PutItem": 8, "TransactWriteItems": 2}
    assert len(remembered()) == 10


def test_of_two_puts_of_one_item_one_is_sent_alone_and_fails(gathering, table, remembered):
    first, *others = gathering.put("first", ["key", "key", "another"])
    assert first == "written"
    assert sorted(others) == ["ConditionalCheckFailedException", "written", "written"]
    assert table.calls["TransactWriteItems"] == 1
    assert len(remembered()) == 3


def test_a_condition_of_the_first_one_is_its_own_matter(gathering, dynamodb, table):
    dynamodb.put_item(TableName=TABLE, Item={"id": {"S": "first"}})
    table.calls.clear()
    assert gathering.put("first", keys(2)) == ["ConditionalCheckFailedException", "written", "written"]
    assert table.calls == {"PutItem": 1, "TransactWriteItems": 1}


@pytest.mark.parametrize("operation", ["PutItem", "TransactWriteItems"])
def test_who_waits_for_a_table_that_cannot_be_reached_does_not_wait_a_second_time(gathering, table, operation):
    def break_():
        table.errors[operation] = TIMED_OUT

    if operation == "PutItem":
        break_()
    first, *others = gathering.put("first", keys(60), before_it_goes_on=break_)
    assert others == [TIMED_OUT] * 60
    assert first == (TIMED_OUT if operation == "PutItem" else "written")
    assert table.calls.total() == (1 if operation == "PutItem" else 2)


def test_who_waits_is_sent_alone_when_a_call_ends_in_a_way_that_nobody_expects(gathering, table, remembered):
    table.errors["TransactWriteItems"] = bug = RuntimeError("a bug")
    first, *others = gathering.put("first", keys(10))
    assert (first, sorted(others, key=str)) == ("written", [bug, *["written"] * 9])
    assert len(remembered()) == 10


def test_nobody_waits_for_longer_than_a_call_takes(gathering, remembered, monkeypatch):
    monkeypatch.setattr("agent_log_capture.adapters.grouped_puts._LONGEST_WAIT_SECONDS", 0.5)
    first, *others = gathering.put("first", keys(3), before_it_goes_on=lambda: gathering.wait_for(0))
    assert first == "written"
    assert [type(error) for error in others] == [TimeoutError] * 3
    assert remembered() == [{"id": {"S": "first"}}]


def test_what_an_invocation_leaves_unsent_is_not_sent_by_the_next_one(puts, gathering, table, remembered):
    gathering.put("first", keys(10), before_it_goes_on=puts.begin)
    assert table.calls == {"PutItem": 1}
    assert remembered() == [{"id": {"S": "first"}}]


def test_everything_else_is_the_clients_own(puts, dynamodb):
    assert puts.meta is dynamodb.meta
