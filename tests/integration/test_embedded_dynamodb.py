"""DynamoDB of the embedded cloud refuses what AWS refuses, and is safe for concurrent invocations.

Sources: the API reference of TransactWriteItems, BatchWriteItem, PutItem and UpdateItem; "Quotas in Amazon DynamoDB"
and "Expression attribute values" in the developer guide.
"""

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import count

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from local.aws import embedded_aws
from local.clock import Clock
from tests.faults.transports import moto_in_process

KIB = 1024
MISSING = "attribute_not_exists(pk)"


def passing(request, serve):
    return serve(request)


@pytest.fixture(scope="module", params=["server", "process"])
def client(request):
    """A client of the embedded DynamoDB, which has a table with `pk` and `sk`."""
    moto = moto_in_process(passing) if request.param == "process" else None
    with embedded_aws(time=Clock().time, moto=moto):
        client = boto3.client("dynamodb", config=Config(max_pool_connections=16, retries={"total_max_attempts": 1}))
        client.create_table(
            TableName="t",
            BillingMode="PAY_PER_REQUEST",
            AttributeDefinitions=[{"AttributeName": name, "AttributeType": "S"} for name in ("pk", "sk")],
            KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}, {"AttributeName": "sk", "KeyType": "RANGE"}],
        )
        yield client


def item(pk="a", sk="a", **attributes):
    return {name: {"S": value} for name, value in {"pk": pk, "sk": sk, **attributes}.items()}


def put(attributes, **options):
    return {"Put": {"TableName": "t", "Item": attributes, **options}}


def update(key, expression="SET x = :x", **values):
    typed = {f":{name}": {"S": value} for name, value in ({"x": "1"} | values).items()}
    return {"TableName": "t", "Key": key, "UpdateExpression": expression, "ExpressionAttributeValues": typed}


def batch(*requests):
    return {"RequestItems": {"t": list(requests)}}


def put_in_batch(attributes):
    return {"PutRequest": {"Item": attributes}}


DELETE = {"DeleteRequest": {"Key": item()}}
REFUSED_WHOLE = {
    "two puts of one item": ("transact_write_items", {"TransactItems": [put(item()), put(item(x="1"))]}),
    "a put and an update of one item": (
        "transact_write_items",
        {"TransactItems": [put(item()), {"Update": update(item())}]},
    ),
    "101 actions": ("transact_write_items", {"TransactItems": [put(item(f"{each}")) for each in range(101)]}),
    "an unused value in a transaction": (
        "transact_write_items",
        {"TransactItems": [put(item(), ConditionExpression=MISSING, ExpressionAttributeValues={":u": {"S": "1"}})]},
    ),
    "an undefined value in a transaction": (
        "transact_write_items",
        {"TransactItems": [put(item(), ConditionExpression="x = :x")]},
    ),
    "an item twice in a batch": ("batch_write_item", batch(put_in_batch(item()), put_in_batch(item(x="1")))),
    "a put and a delete of one item in a batch": ("batch_write_item", batch(put_in_batch(item()), DELETE)),
    "26 requests in a batch": ("batch_write_item", batch(*(put_in_batch(item(f"{each}")) for each in range(26)))),
    "an undefined value": ("put_item", {"TableName": "t", "Item": item(), "ConditionExpression": "x = :x"}),
    "an unused value": ("update_item", update(item(), y="1")),
    "a reserved word": ("update_item", update(item(), "SET state = :x")),
    "a new key": ("update_item", update(item(), "SET pk = :x")),
    "an item that grows above 400 KB": ("update_item", update(item(), x="x" * 400 * KIB)),
}


@pytest.mark.parametrize(("operation", "request_"), REFUSED_WHOLE.values(), ids=REFUSED_WHOLE)
def test_a_request_that_breaks_a_rule_is_refused_and_changes_nothing(client, operation, request_):
    before = client.scan(TableName="t")["Items"]
    with pytest.raises(ClientError) as refused:
        getattr(client, operation)(**request_)
    assert refused.value.response["Error"]["Code"] == "ValidationException"
    assert client.scan(TableName="t")["Items"] == before


@pytest.mark.parametrize(
    "attributes",
    [
        item(pk=""),
        item(sk=""),
        item(pk="k" * (2 * KIB + 1)),
        item(sk="ä" * (KIB // 2) + "k"),
        item(x="x" * 400 * KIB),
        {"pk": {"S": "no sort key"}},
    ],
    ids=["empty partition key", "empty sort key", "long partition key", "long sort key", "large item", "no sort key"],
)
def test_an_item_that_breaks_a_rule_is_refused_in_each_kind_of_write(client, attributes):
    key = {name: value for name, value in attributes.items() if name != "x"}
    writes = [
        partial(client.put_item, TableName="t", Item=attributes),
        partial(client.transact_write_items, TransactItems=[put(item("other")), put(attributes)]),
        partial(client.batch_write_item, **batch(put_in_batch(item("other")), put_in_batch(attributes))),
    ]
    if key == attributes:
        writes += [partial(client.update_item, **update(key))]
    if not all(value["S"] for value in key.values()):
        writes += [partial(client.delete_item, TableName="t", Key=key)]
        writes += [partial(client.batch_write_item, **batch({"DeleteRequest": {"Key": key}}))]
    for write in writes:
        with pytest.raises(ClientError) as refused:
            write()
        assert refused.value.response["Error"]["Code"] == "ValidationException"
    assert "Item" not in client.get_item(TableName="t", Key=item("other"))


def test_the_largest_keys_and_batches_are_accepted(client):
    largest = item(pk="k" * 2 * KIB, sk="k" * KIB)
    client.put_item(TableName="t", Item=largest)
    client.transact_write_items(TransactItems=[put(item(f"{each}", "largest")) for each in range(100)])
    client.batch_write_item(**batch(*({"DeleteRequest": {"Key": item(f"{each}", "largest")}} for each in range(25))))
    keys = [{"TableName": "t", "Key": item(f"{each}", "largest")} for each in range(100)]
    assert ["Item" in client.get_item(**key) for key in keys] == [False] * 25 + [True] * 75


def test_a_cancelled_transaction_returns_the_reasons_with_the_items_and_changes_nothing(client):
    client.put_item(TableName="t", Item=item("there", claim="old"))
    conditional = {"ConditionExpression": MISSING, "ReturnValuesOnConditionCheckFailure": "ALL_OLD"}
    actions = [
        put(item("new"), **conditional),
        put(item("there", claim="new"), **conditional),
        {"Update": update(item("updated"))},
    ]
    with pytest.raises(client.exceptions.TransactionCanceledException) as cancelled:
        client.transact_write_items(TransactItems=actions)
    reasons = cancelled.value.response["CancellationReasons"]
    assert [reason["Code"] for reason in reasons] == ["None", "ConditionalCheckFailed", "None"]
    assert [reason.get("Item") for reason in reasons] == [None, item("there", claim="old"), None]
    assert client.get_item(TableName="t", Key=item("there"))["Item"] == item("there", claim="old")
    assert all("Item" not in client.get_item(TableName="t", Key=item(pk)) for pk in ("new", "updated"))


def test_each_item_is_claimed_once_and_no_concurrent_write_is_undone(client):
    """A cancelled transaction must write back its own items only, while other threads write theirs."""
    conditional = {"ConditionExpression": MISSING, "ReturnValuesOnConditionCheckFailure": "ALL_OLD"}
    numbers = count()

    def claim(worker):
        claimed = 0
        for agent in range(10):
            actions = [put(item(f"{agent}-{each}", "claim", owner=worker), **conditional) for each in range(10)]
            try:
                client.transact_write_items(TransactItems=actions)
                claimed += 1
            except client.exceptions.TransactionCanceledException as cancelled:
                owners = {reason["Item"]["owner"]["S"] for reason in cancelled.response["CancellationReasons"]}
                assert len(owners) == 1
            client.put_item(TableName="t", Item=item("facts", f"{next(numbers):05}"))
            client.update_item(
                TableName="t",
                Key=item("counter"),
                UpdateExpression="ADD ended :one",
                ExpressionAttributeValues={":one": {"N": "1"}},
            )
        return claimed

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(claim, map(str, range(8)))) == 10
    facts = client.query(
        TableName="t",
        KeyConditionExpression="pk = :pk",
        ExpressionAttributeValues={":pk": {"S": "facts"}},
        ConsistentRead=True,
    )
    assert facts["Count"] == 80
    assert client.get_item(TableName="t", Key=item("counter"))["Item"]["ended"] == {"N": "80"}
