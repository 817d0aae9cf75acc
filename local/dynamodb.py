"""DynamoDB in moto, made as strict as AWS: requests are checked, and a request that is refused changes nothing."""

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

from moto.core.responses import ActionResult
from moto.dynamodb.exceptions import MockValidationException
from moto.dynamodb.models import DynamoDBBackend
from moto.dynamodb.models.table import Table
from moto.dynamodb.responses import DynamoHandler

type Key = dict[str, Any]

_BATCH_SIZE = 25
_EMPTY = ({"S": ""}, {"B": b""})

_call_action = DynamoHandler.call_action
_update_item = DynamoHandler.update_item
_batch_write_item = DynamoHandler.batch_write_item
_transact_write_items = DynamoDBBackend.transact_write_items


@contextmanager
def strict_dynamodb() -> Iterator[None]:
    """Let moto check requests as AWS does, for the duration of the `with` block."""
    patches = (
        # moto has no setting for these checks, and botocore's hooks do not reach clients in other processes.
        (DynamoHandler, "call_action", _checked),
        # moto writes a part of what it then refuses, and has no setting for that either.
        (DynamoHandler, "update_item", _update),
        (DynamoHandler, "batch_write_item", _write_batch),
        (DynamoDBBackend, "transact_write_items", _transact),
    )
    with ExitStack() as exits:
        for owner, name, replacement in patches:
            exits.enter_context(patch.object(owner, name, replacement))
        # `_transact` makes needless the copies of the whole table that moto makes for each of up to 100 actions.
        exits.enter_context(patch.object(Table, "__deepcopy__", lambda table, _: table, create=True))
        yield


def _checked(handler: DynamoHandler) -> Any:  # noqa: ANN401 (moto's own)
    """Serve a call after the checks that moto lacks. Sources: the API reference of each call."""
    actions = [next(iter(action.values())) for action in handler.params.get("TransactItems", [])]
    try:
        for action in (handler.params, *actions):
            _check_expression_values(action)
            _check_key(action.get("Key", {}))
    except MockValidationException as error:
        return error.code, dict(error.get_headers()), error.description
    return _call_action(handler)


def _check_expression_values(action: Mapping[str, Any]) -> None:
    expressions = " ".join(text for name, text in action.items() if name.endswith("Expression"))
    used, given = set(re.findall(r":\w+", expressions)), set(action.get("ExpressionAttributeValues") or {})
    if missing := used - given:
        raise MockValidationException(f"An expression attribute value used in expression is not defined: {missing}")
    if unused := given - used:
        raise MockValidationException(
            f"Value provided in ExpressionAttributeValues unused in expressions: keys: {unused}"
        )


def _check_key(key: Key) -> None:
    for name, value in key.items():
        if value in _EMPTY:
            raise MockValidationException(
                "One or more parameter values are not valid. The AttributeValue for a key attribute cannot contain "
                f"an empty string value. Key: {name}"
            )


def _update(handler: DynamoHandler) -> ActionResult:
    keys = [(handler.params["TableName"], handler.params["Key"])]
    return _all_or_nothing(handler.dynamodb_backend, keys, lambda: _update_item(handler))


def _write_batch(handler: DynamoHandler) -> ActionResult:
    backend = handler.dynamodb_backend
    keys = [
        (table_name, _key(backend, table_name, next(iter(request.values()))))
        for table_name, requests in handler.params["RequestItems"].items()
        for request in requests
    ]
    if len(keys) > _BATCH_SIZE:
        raise MockValidationException("Too many items requested for the BatchWriteItem call")
    if any(each in keys[:place] for place, each in enumerate(keys)):
        raise MockValidationException("Provided list of item keys contains duplicates")
    for _, key in keys:
        _check_key(key)
    return _all_or_nothing(backend, keys, lambda: _batch_write_item(handler))


def _transact(backend: DynamoDBBackend, actions: list[dict[str, Any]]) -> None:
    each = [next(iter(action.values())) for action in actions]
    keys = [(action["TableName"], _key(backend, action["TableName"], action)) for action in each]
    _all_or_nothing(backend, keys, lambda: _transact_write_items(backend, actions))


def _key(backend: DynamoDBBackend, table_name: str, action: Mapping[str, Any]) -> Key:
    """Return the key of the item that is put, updated, deleted or checked."""
    attributes = action.get("Key") or action["Item"]
    try:
        return {name: attributes[name] for name in backend.get_table(table_name).table_key_attrs}
    except KeyError as error:
        raise MockValidationException(f"One of the required keys was not given a value: {error}") from error


def _all_or_nothing[Result](
    backend: DynamoDBBackend, keys: list[tuple[str, Key]], write: Callable[[], Result]
) -> Result:
    """Write; when that fails, write the old items back."""
    items = [(table_name, key, backend.get_item(table_name, key)) for table_name, key in keys]
    before = [(table_name, key, item and item.to_json()["Attributes"]) for table_name, key, item in items]
    try:
        return write()
    except Exception:
        for table_name, key, attributes in before:
            if attributes:
                backend.put_item(table_name, attributes)
            else:
                backend.delete_item(table_name, key)
        raise
