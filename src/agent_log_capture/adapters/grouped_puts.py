"""Conditional writes of DynamoDB that wait at the same time, sent as one call: one by one, they cost too much CPU."""

from itertools import islice
from threading import Lock
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

# A quarter of what a transaction takes: those who wait for it must not wait for the API's answers all together.
_PUTS_IN_A_CALL = 25
_LONGEST_WAIT_SECONDS = 20  # what a call takes with its second try


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
    """A put, and what became of it: written, failed with `error`, or to be sent `is_alone`."""

    def __init__(self, put: dict[str, Any]) -> None:
        self.put = put
        self.key: str = put["Item"]["id"]["S"]
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
            self._wait_for(mine)
        if mine.error:
            raise mine.error
        if mine.is_alone:
            self._client.put_item(**put)

    def _is_joined_by(self, mine: _Put) -> bool:
        """Let a put wait with the others, unless it is to be sent alone: a transaction writes no item twice."""
        with self._lock:
            mine.is_alone = not self._is_grouping or mine.key in self._waiting
            if not mine.is_alone:
                self._waiting[mine.key] = mine
        return not mine.is_alone

    def _wait_for(self, mine: _Put) -> None:
        """Return when a put has been sent, by this thread or by the one that was sending before."""
        if not self._sending.acquire(timeout=_LONGEST_WAIT_SECONDS):
            with self._lock:
                self._waiting.pop(mine.key, None)
            raise TimeoutError("another thread's call to DynamoDB does not come back")
        try:
            while mine.key in self._waiting and not self.is_over:
                self._send()
        finally:
            self._sending.release()

    def _send(self) -> None:
        """Send what has waited longest; each of them is answered, whatever becomes of the call."""
        is_alone = True
        error: Exception | None = None
        puts = self._take(_PUTS_IN_A_CALL)
        try:
            if self._is_grouping:
                self._write([each.put for each in puts])
                is_alone = False
        except self._client.exceptions.ConditionalCheckFailedException as failure:
            is_alone, error = False, failure
        except self._client.exceptions.TransactionCanceledException:
            self._is_grouping = False
        except (BotoCoreError, ClientError) as failure:
            is_alone, error = False, failure
            # They would wait for the same failure, one call after the other.
            puts += self._take()
        finally:
            for each in puts:
                each.is_alone, each.error = is_alone, error

    def _take(self, most: int | None = None) -> list[_Put]:
        with self._lock:
            return [self._waiting.pop(key) for key in list(islice(self._waiting, most))]

    def _write(self, puts: list[Any]) -> None:
        if len(puts) == 1:
            self._client.put_item(**puts[0])
        else:
            self._client.transact_write_items(TransactItems=[{"Put": put} for put in puts])
