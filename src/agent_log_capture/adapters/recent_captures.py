"""The cool-down: which agents were asked a short while ago, and what the API answered."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import batched
from threading import Lock
from typing import TYPE_CHECKING, Any, override

from aws_lambda_powertools.utilities.idempotency import (
    DynamoDBPersistenceLayer,
    IdempotencyConfig,
    idempotent_function,
)
from aws_lambda_powertools.utilities.idempotency.exceptions import (
    BaseError,
    IdempotencyAlreadyInProgressError,
    IdempotencyItemAlreadyExistsError,
)
from botocore.exceptions import BotoCoreError, ClientError

from agent_log_capture.adapters.grouped_puts import GroupedPuts
from agent_log_capture.domain.capture import Reason
from agent_log_capture.domain.responses import Accepted, Failure, RetryableError

if TYPE_CHECKING:
    from aws_lambda_powertools import Logger
    from aws_lambda_powertools.utilities.idempotency.persistence.datarecord import DataRecord
    from mypy_boto3_dynamodb import DynamoDBClient

_KEY_PREFIX = "capture"
_RECORDS_IN_A_BATCH = 25  # the most that BatchWriteItem takes

type RemainingMillis = Callable[[], int]


class RecentCaptures:
    """Lets one request for an agent through in so many seconds, and remembers the answer when it was accepted.

    When the table cannot be reached, requests go through all the same: an alarm is worth a second log file.
    """

    def __init__(
        self,
        client: "DynamoDBClient",
        table: str,
        *,
        cool_down_seconds: int,
        now: Callable[[], datetime],
        logger: "Logger",
    ) -> None:
        self._now = now
        self._logger = logger
        self._is_reachable = True
        self._invocation_millis = 0
        self._config = IdempotencyConfig(expires_after_seconds=cool_down_seconds)
        self._puts = GroupedPuts(client)
        self._layer = layer = _Layer(table_name=table, boto3_client=self._puts)
        # The first call would do it, and let others in while it does: those would remember for an hour.
        layer.configure(self._config, key_prefix=_KEY_PREFIX)
        # The one function on this layer: with a second one, threads would mix up their records.
        self._remembered = idempotent_function(
            _request,
            data_keyword_argument="key",
            persistence_store=layer,
            config=self._config,
            key_prefix=_KEY_PREFIX,
        )

    def begin(self, remaining_millis: RemainingMillis) -> None:
        """Begin an invocation; `remaining_millis` tells how much time it has left."""
        self._is_reachable = True
        self._puts.begin()
        self._layer.forget()
        self._invocation_millis = remaining_millis()
        self._config.register_lambda_context(_Context(remaining_millis))  # type: ignore[arg-type]

    def end(self) -> None:
        """End an invocation: remember what it has not remembered yet."""
        try:
            self._layer.flush()
        except (BotoCoreError, ClientError) as error:
            self._bypass(error)

    def once(self, key: str, request: Callable[[], Accepted]) -> Accepted:
        """Return what `request` returns, or what it returned to whoever was the first with this key.

        What `request` raises is raised, and nothing is remembered. RetryableError when somebody else is asking now.
        """
        if not self._is_reachable:
            return request()
        observed = _Observed(request)
        try:
            return Accepted.from_json(self._remembered(key=key, request=observed))
        except IdempotencyAlreadyInProgressError as error:
            raise RetryableError(self._in_progress()) from error
        except BaseError as error:
            self._bypass(error)
        return observed.result()

    def _in_progress(self) -> Failure:
        """Somebody is asking, or was killed while asking: then the agent's log files tell whether it was asked."""
        return Failure(
            reason=Reason.IN_PROGRESS,
            message="another invocation is asking this agent right now",
            unconfirmed_since=self._now() - timedelta(milliseconds=self._invocation_millis),
        )

    def _bypass(self, error: Exception) -> None:
        if self._is_reachable:
            self._is_reachable = False
            self._logger.warning(
                "the cool-down table cannot be reached: agents are asked without it", reason=f"{error}"
            )


class _Layer(DynamoDBPersistenceLayer):
    """Powertools' table, but for accepted requests: they are written 25 at a time; one by one, they cost too much.

    Until they are written, they are in progress to everybody else: whoever finds an invocation that has ended before
    looks among the agent's log files, as after one that has ended before it could write a single record.
    """

    @override
    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._lock = Lock()
        self._accepted: dict[str, DataRecord] = {}

    def forget(self) -> None:
        """Drop what an earlier invocation has left: a record that is written too late may hide a newer one."""
        with self._lock:
            self._accepted = {}

    def flush(self) -> None:
        """Write what is left; the client's own errors."""
        with self._lock:
            records, self._accepted = list(self._accepted.values()), {}
        self._write(records)

    @override
    def _put_record(self, data_record: "DataRecord") -> None:
        with self._lock:
            accepted = self._accepted.get(data_record.idempotency_key)
        if accepted:
            raise IdempotencyItemAlreadyExistsError(old_data_record=accepted)
        try:
            super()._put_record(data_record)
        except self.client.exceptions.TransactionConflictException as error:
            # Somebody else is writing this record, which will then be as this one would have been.
            raise IdempotencyItemAlreadyExistsError(old_data_record=data_record) from error

    @override
    def _update_record(self, data_record: "DataRecord") -> None:
        with self._lock:
            self._accepted[data_record.idempotency_key] = data_record
            is_full = len(self._accepted) >= _RECORDS_IN_A_BATCH
        if is_full:
            self.flush()

    def _write(self, records: Sequence["DataRecord"]) -> None:
        for batch in batched(records, _RECORDS_IN_A_BATCH, strict=False):
            requests: Any = {self.table_name: [{"PutRequest": {"Item": self._item(record)}} for record in batch]}
            left = self.client.batch_write_item(RequestItems=requests)["UnprocessedItems"]
            if left:
                # What is throttled once more stays in progress, until it expires.
                self.client.batch_write_item(RequestItems=left)

    def _item(self, record: "DataRecord") -> dict[str, Any]:
        return {
            **self._get_key(record.idempotency_key),
            self.expiry_attr: {"N": str(record.expiry_timestamp)},
            self.status_attr: {"S": record.status},
            self.data_attr: {"S": record.response_data},
        }


@dataclass(frozen=True, slots=True)
class _Context:
    """As much of Lambda's context as Powertools reads."""

    get_remaining_time_in_millis: RemainingMillis


class _Observed:
    """A request that is not lost when what was to remember it fails: it is made once, before or after."""

    def __init__(self, request: Callable[[], Accepted]) -> None:
        self._request = request
        self._accepted: Accepted | None = None
        self._error: Exception | None = None

    def __call__(self) -> Accepted:
        try:
            self._accepted = self._request()
        except Exception as error:
            self._error = error
            raise
        return self._accepted

    def result(self) -> Accepted:
        """Return or raise what the request came to; make it when it was not made yet."""
        if self._error:
            raise self._error
        return self._accepted or self._request()


def _request(*, key: str, request: _Observed) -> dict[str, Any]:  # noqa: ARG001 (Powertools reads the key)
    return request().to_json()
