"""Conditional writes of DynamoDB that wait at the same time, sent as one call: one by one, they cost too much CPU."""

from itertools import islice
from threading import Lock
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

# A quarter of what a transaction takes: those who wait for it must not wait for the API's answers all together.
_PUTS_IN_A_CALL = 25


class GroupedPuts:
    """A DynamoDB client whose `put_item` shares a call with those of other threads; a single one is sent as it is.

    While a call is under way, others gather; one of them then sends them all in a transaction, of which nothing is
    written unless all conditions hold. After the first that does not, each is sent alone until `begin`: a list that
    names what was asked for a short while ago would fail so all the time.
    """

    def __init__(self, client: "DynamoDBClient") -> None:
        self._client = client
        self._group = _Group(client)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 (whatever else the client has)
        return getattr(self._client, name)

    def begin(self) -> None:
        """Begin an invocation: what an earlier one has left unsent is not sent any more."""
        self._group.is_over = True
        self._group = _Group(self._client)

    def put_item(self, **put: Any) -> None:  # noqa: ANN401 (what the client's own takes)
        """Write an item as the client's own `put_item` does, and fail as that does."""
        self._group.put(put)


class _Put:
    """A put that waits, and what became of it."""

    def __init__(self, put: dict[str, Any]) -> None:
        self.put = put
        self.is_answered = False
        self.is_alone = False
        self.error: Exception | None = None


class _Group:
    """The puts of one invocation."""

    def __init__(self, client: "DynamoDBClient") -> None:
        self._client = client
        self._lock = Lock()
        self._sending = Lock()
        self._waiting: dict[str, _Put] = {}
        self._is_grouping = True
        self.is_over = False

    def put(self, put: dict[str, Any]) -> None:
        mine = _Put(put)
        if self._is_joined_by(mine):
            with self._sending:
                while not (mine.is_answered or self.is_over):
                    self._send()
        if mine.error:
            raise mine.error
        if mine.is_alone:
            self._client.put_item(**put)

    def _is_joined_by(self, mine: _Put) -> bool:
        """Let a put wait with the others, unless it is to be sent alone: a transaction writes no item twice."""
        key = mine.put["Item"]["id"]["S"]
        with self._lock:
            mine.is_alone = not self._is_grouping or key in self._waiting
            if not mine.is_alone:
                self._waiting[key] = mine
        return not mine.is_alone

    def _send(self) -> None:
        """Send what has waited longest."""
        with self._lock:
            puts = [self._waiting.pop(key) for key in list(islice(self._waiting, _PUTS_IN_A_CALL))]
            is_grouping = self._is_grouping
        if not is_grouping:
            _answer(puts, is_alone=True)
            return
        try:
            self._write([each.put for each in puts])
        except self._client.exceptions.ConditionalCheckFailedException as error:
            _answer(puts, error=error)
        except self._client.exceptions.TransactionCanceledException:
            self._is_grouping = False
            _answer(puts, is_alone=True)
        except (BotoCoreError, ClientError) as error:
            with self._lock:
                # They would wait for the same failure, one call after the other.
                puts += self._waiting.values()
                self._waiting = {}
            _answer(puts, error=error)
        else:
            _answer(puts)

    def _write(self, puts: list[Any]) -> None:
        if len(puts) == 1:
            self._client.put_item(**puts[0])
        else:
            self._client.transact_write_items(TransactItems=[{"Put": put} for put in puts])


def _answer(puts: list[_Put], *, is_alone: bool = False, error: Exception | None = None) -> None:
    for each in puts:
        each.is_alone, each.error = is_alone, error
        each.is_answered = True
