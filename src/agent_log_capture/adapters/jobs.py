"""The jobs: what was asked for together, what has ended of it, and who tells its sum."""

import hashlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import batched
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from agent_log_capture.adapters.batches import HasTime
from agent_log_capture.domain.capture import Capture, Job, Status, timestamp
from agent_log_capture.domain.job import COUNTED, OPEN, JobSummary, Remembered, asking_again, counting

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

AGENTS_IN_A_TRANSACTION = 99  # it takes 100 actions, and one is for the job
# Before each try, multiplied by a random number: whoever else writes to the job is done after a moment.
_PAUSES_SECONDS = (0, 0.1, 0.2, 0.4, 0.8, 1.6)
# Agents of which something else was remembered than was thought are tried again so often, with what is there.
_MOST_CORRECTIONS = 10
_CONDITION_FAILED = "ConditionalCheckFailed"
_PASSING = frozenset(
    {
        *("TransactionConflict", "TransactionConflictException", "TransactionInProgressException"),
        # Of one item in a transaction; when a whole call is throttled, the client has tried it again.
        *("ThrottlingError", "ProvisionedThroughputExceeded"),
    }
)

type Item = Mapping[str, Any]
type Ending = tuple[Capture, Status]
type Decide = Callable[[Remembered | None], Mapping[str, int] | None]


class JobsError(Exception):
    """What was to be remembered of a job is not, or not for certain: it is done again later, which is safe.

    `is_about_one_job` tells that others may fare better.
    """

    def __init__(self, message: str, *, is_about_one_job: bool) -> None:
        super().__init__(message)
        self.is_about_one_job = is_about_one_job


class _NotAsThoughtError(Exception):
    """Nothing was written, for something else is remembered; `found` has what, by the place in the transaction."""

    def __init__(self, found: Mapping[int, Item]) -> None:
        super().__init__()
        self.found = found


@dataclass(frozen=True, slots=True, kw_only=True)
class Jobs:
    """Remembers jobs in a table, for `keep_seconds` after the last that came of each.

    Everything may be done twice, and by several at once: it counts once. JobsError wherever it cannot be done now.
    `has_time` tells before each call whether there is still time for it.
    """

    client: "DynamoDBClient"
    table: str
    keep_seconds: int
    now: Callable[[], datetime]
    random: Callable[[], float]
    pause: Callable[[float], None] = time.sleep

    def open(self, captures: Iterable[Capture], has_time: HasTime) -> None:
        """Remember how much the triggers of captures of one job ask for in it, unless that is known."""
        for capture in {capture.trigger: capture for capture in captures}.values():
            trigger = self._update(_trigger_key(capture), "attribute_not_exists(id)", {})
            try:
                self._write([trigger, self._job_update(capture, _opening(capture.job))], has_time)
            except _NotAsThoughtError:
                if capture.replays:
                    # A trigger that is forgotten before its dead letters would be asked for twice.
                    self._update_one(self._update(_trigger_key(capture), None, {}), has_time)

    def ask_again(self, captures: Sequence[Capture], has_time: HasTime) -> None:
        """Open agents of one job whose failure was counted: they came back from the dead-letter queue."""
        self._count([(capture, None) for capture in captures], has_time)

    def count(self, endings: Sequence[Ending], has_time: HasTime) -> None:
        """Count what agents of one job have come to, each once; the job must be open."""
        self._count(endings, has_time)

    def claim(self, endings: Sequence[Ending], has_time: HasTime) -> tuple[Capture, JobSummary] | None:
        """Return the sum of the job of these endings, and for which of them, when it is for this caller to tell.

        None when something is not ended, or the sum is for somebody else. Whoever comes again with one of the same
        captures, because it may have broken off before it could tell, gets the same sum.
        """
        captures = {_claim_key(capture): capture for capture, _ in endings}
        teller, first = next(iter(captures.items()))
        update: dict[str, Any] = {
            "TableName": self.table,
            "Key": {"id": {"S": _job_key(first)}},
            "ConditionExpression": "#open <= :none AND attribute_not_exists(teller)",
            "UpdateExpression": "SET teller = :me, done_at = :now ADD revision :one",
            "ExpressionAttributeNames": {"#open": OPEN},
            "ExpressionAttributeValues": {
                ":none": {"N": "0"},
                ":one": {"N": "1"},
                ":me": {"S": teller},
                ":now": {"S": timestamp(self.now())},
            },
            "ReturnValues": "ALL_NEW",
            "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
        }
        try:
            item = self._update_one(update, has_time)["Attributes"]
        except _NotAsThoughtError as error:
            item = error.found.get(0, {})
        told_by = captures.get(_text(item, "teller"))
        return (told_by, _sum(item, told_by)) if told_by and "is_told" not in item else None

    def told(self, teller: Capture, has_time: HasTime) -> None:
        """Remember that the sum that `claim` gave for a capture has been told."""
        update: dict[str, Any] = {
            "TableName": self.table,
            "Key": {"id": {"S": _job_key(teller)}},
            "ConditionExpression": "teller = :me",
            "UpdateExpression": "SET is_told = :true",
            "ExpressionAttributeValues": {":me": {"S": _claim_key(teller)}, ":true": {"BOOL": True}},
        }
        try:
            self._update_one(update, has_time)
        except _NotAsThoughtError:
            return  # there is a newer sum

    def _count(self, endings: Sequence[tuple[Capture, Status | None]], has_time: HasTime) -> None:
        """Count endings; without a status, that an agent is asked again."""
        # A doubled message may bring an agent twice, and a transaction takes it once.
        rounds: list[dict[str, tuple[Capture, Status | None]]] = []
        for capture, status in sorted(endings, key=lambda ending: ending[0].replays):
            key = _agent_key(capture)
            free = next((each for each in rounds if key not in each), None)
            if free is None:
                rounds.append(free := {})
            free[key] = capture, status
        for each in rounds:
            for chunk in batched(each.values(), AGENTS_IN_A_TRANSACTION, strict=False):
                self._count_chunk(chunk, has_time)

    def _count_chunk(self, endings: Sequence[tuple[Capture, Status | None]], has_time: HasTime) -> None:
        thought = {ending: _expected(*ending) for ending in endings}
        for _ in range(_MOST_CORRECTIONS):
            changes = {ending: _decision(*ending)(remembered) for ending, remembered in thought.items()}
            # What changes nothing is counted already.
            thought = {ending: thought[ending] for ending, change in changes.items() if change is not None}
            if not thought:
                return
            try:
                self._write(self._counting(thought, changes), has_time)
            except _NotAsThoughtError as error:
                left = list(thought)
                thought |= {left[place]: _remembered(item) for place, item in error.found.items()}
            else:
                return
        raise JobsError("others count the same agents all the time", is_about_one_job=True)

    def _counting(
        self,
        thought: Mapping[tuple[Capture, Status | None], Remembered | None],
        changes: Mapping[tuple[Capture, Status | None], Mapping[str, int] | None],
    ) -> list[dict[str, Any]]:
        total: dict[str, int] = {}
        for ending in thought:
            for name, count in (changes[ending] or {}).items():
                total[name] = total.get(name, 0) + count
        agents = [self._agent_update(*ending, remembered) for ending, remembered in thought.items()]
        first, _ = next(iter(thought))
        return [*agents, self._job_update(first, total)]

    def _agent_update(self, capture: Capture, status: Status | None, thought: Remembered | None) -> dict[str, Any]:
        sets: dict[str, Any] = {"replays": {"N": str(capture.replays)}}
        if status:
            sets["status"] = {"S": status.value}
        update = self._update(_agent_key(capture), _as_thought(thought), sets, remove=() if status else ("status",))
        if thought:
            update["ExpressionAttributeValues"][":was_replays"] = {"N": str(thought.replays)}
            if thought.status:
                update["ExpressionAttributeValues"][":was_status"] = {"S": thought.status.value}
        return update

    def _job_update(self, capture: Capture, changes: Mapping[str, int]) -> dict[str, Any]:
        changed = {name: count for name, count in changes.items() if count}
        # Whatever changes the sum makes the last one that was told, or is being told, out of date.
        out_of_date = ("teller", "is_told") if changed else ()
        update = self._update(_job_key(capture), None, {"job_id": {"S": capture.job_id}}, changed, remove=out_of_date)
        update["UpdateExpression"] = update["UpdateExpression"].replace(
            "SET ", "SET asked_at = if_not_exists(asked_at, :asked_at), ", 1
        )
        update["ExpressionAttributeValues"][":asked_at"] = {"S": timestamp(capture.asked_at)}
        return update

    def _update(
        self,
        key: str,
        condition: str | None,
        sets: Mapping[str, Any],
        adds: Mapping[str, int] | None = None,
        *,
        remove: Sequence[str] = (),
    ) -> dict[str, Any]:
        """Return an update of one item, which lives on from now for as long as a job is remembered."""
        expires = int(self.now().timestamp()) + self.keep_seconds
        sets = {**sets, "expires": {"N": str(expires)}}
        adds = adds or {}
        parts = [
            "SET " + ", ".join(f"#{name} = :{name}" for name in sets),
            "ADD " + ", ".join(f"#{name} :{name}" for name in adds) if adds else "",
            "REMOVE " + ", ".join(f"#{name}" for name in remove) if remove else "",
        ]
        update: dict[str, Any] = {
            "TableName": self.table,
            "Key": {"id": {"S": key}},
            "UpdateExpression": " ".join(filter(None, parts)),
            "ExpressionAttributeNames": {f"#{name}": name for name in (*sets, *adds, *remove)},
            "ExpressionAttributeValues": {
                **{f":{name}": value for name, value in sets.items()},
                **{f":{name}": {"N": str(count)} for name, count in adds.items()},
            },
        }
        if condition:
            update |= {"ConditionExpression": condition, "ReturnValuesOnConditionCheckFailure": "ALL_OLD"}
            if "#status" in condition:
                update["ExpressionAttributeNames"]["#status"] = "status"
        return update

    def _write(self, updates: Sequence[dict[str, Any]], has_time: HasTime) -> None:
        """Write all of them or none; _NotAsThoughtError when a condition does not hold."""
        items: Any = [{"Update": update} for update in updates]
        # The client gives a transaction a token: its own second try of one that was served is the same one.
        self._try(lambda: self.client.transact_write_items(TransactItems=items), has_time)

    def _update_one(self, update: Mapping[str, Any], has_time: HasTime) -> Mapping[str, Any]:
        return self._try(lambda: self.client.update_item(**update), has_time)

    def _try[T](self, call: Callable[[], T], has_time: HasTime) -> T:
        """Make a call, and again while others are writing to the same item."""
        why = ""
        for seconds in _PAUSES_SECONDS:
            if seconds:
                self.pause(seconds * self.random())
            if not has_time():
                raise JobsError("the invocation has no time left for it", is_about_one_job=False)
            try:
                return call()
            except ClientError as error:
                if found := _found(error):
                    raise _NotAsThoughtError(found) from error
                if not _codes(error) <= _PASSING:
                    raise JobsError(f"{error}", is_about_one_job=False) from error
                why = f"{error}"
            except BotoCoreError as error:
                raise JobsError(f"{error}", is_about_one_job=False) from error
        raise JobsError(why, is_about_one_job=True)


def _found(error: ClientError) -> Mapping[int, Item]:
    """Return what was there in place of what was thought, by its place; empty when that was not the failure."""
    answer: Mapping[str, Any] = error.response
    if error.response["Error"]["Code"] == "ConditionalCheckFailedException":
        return {0: answer.get("Item", {})}
    reasons = answer.get("CancellationReasons", [])
    return {place: each.get("Item", {}) for place, each in enumerate(reasons) if each["Code"] == _CONDITION_FAILED}


def _codes(error: ClientError) -> set[str]:
    answer: Mapping[str, Any] = error.response
    reasons = {each["Code"] for each in answer.get("CancellationReasons", [])} - {"None"}
    return reasons or {error.response["Error"]["Code"]}


def _opening(job: Job | None) -> Mapping[str, int]:
    assert job  # noqa: S101 (none else is opened)
    return {OPEN: job.asked - job.rejected, Status.REJECTED.value: job.rejected}


def _expected(capture: Capture, status: Status | None) -> Remembered | None:
    """Return what is mostly remembered of an agent before."""
    if not capture.replays:
        return None
    return Remembered(None, capture.replays) if status else Remembered(Status.FAILED, capture.replays - 1)


def _decision(capture: Capture, status: Status | None) -> Decide:
    if status is None:
        return lambda remembered: asking_again(capture.replays, remembered)
    return lambda remembered: counting(status, capture.replays, remembered)


def _as_thought(thought: Remembered | None) -> str:
    if thought is None:
        return "attribute_not_exists(id)"
    status = "#status = :was_status" if thought.status else "attribute_not_exists(#status)"
    return f"#replays = :was_replays AND {status}"


def _remembered(item: Item) -> Remembered | None:
    if not item:
        return None
    status = _text(item, "status")
    return Remembered(Status(status) if status else None, _number(item, "replays"))


def _sum(item: Item, teller: Capture) -> JobSummary:
    return JobSummary(
        job_id=teller.job_id,
        revision=_number(item, "revision"),
        counts={status: _number(item, status.value) for status in COUNTED},
        trigger=teller.trigger,
        asked_at=_moment(item, "asked_at", teller.asked_at),
        at=_moment(item, "done_at", datetime.now(UTC)),
    )


def _text(item: Item, name: str) -> str:
    return str(item[name]["S"]) if name in item else ""


def _number(item: Item, name: str) -> int:
    return int(item[name]["N"]) if name in item else 0


def _moment(item: Item, name: str, otherwise: datetime) -> datetime:
    return datetime.fromisoformat(_text(item, name)) if name in item else otherwise


def _job_key(capture: Capture) -> str:
    return f"job#{_digest(capture.job_id)}"


def _trigger_key(capture: Capture) -> str:
    return f"trigger#{_digest(capture.job_id, capture.trigger.type.value, capture.trigger.id)}"


def _agent_key(capture: Capture) -> str:
    return f"agent#{_trigger_key(capture)}#{capture.region}#{capture.agent_id}"


def _claim_key(capture: Capture) -> str:
    return f"{_agent_key(capture)}#{capture.replays}"


def _digest(*parts: str) -> str:
    """Return a key of one length: what it stands for may be longer than a key of DynamoDB."""
    return hashlib.sha256(repr(parts).encode("utf-8", "backslashreplace")).hexdigest()[:32]
