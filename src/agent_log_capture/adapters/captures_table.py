"""The table: who has claimed which agent, and what became of each job; docs/architecture.md shows its items."""

import hashlib
import json
import random
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import batched
from math import ceil
from typing import TYPE_CHECKING, Any

from boto3.dynamodb.types import TypeDeserializer, TypeSerializer
from botocore.exceptions import BotoCoreError, ClientError

from agent_log_capture.domain.claim import Claim
from agent_log_capture.domain.job import Counts, Fact, JobItems, Report, TriggerPart
from agent_log_capture.domain.outcome import LogFile, Reason, Status, Trigger, TriggerType, timestamp

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

CLAIMS_IN_A_TRANSACTION = 100  # the most that TransactWriteItems takes
ITEMS_IN_A_BATCH = 25  # the most that BatchWriteItem takes
# Before each try, multiplied by a random number. botocore has retried what it retries; a conflict with a transaction
# and an item that was not processed are left to the caller.
_PAUSES_SECONDS = (0, 0.1, 0.2, 0.4, 0.8)
_CONFLICTS = {
    *("TransactionConflict", "TransactionConflictException", "TransactionInProgressException"),
    *("ThrottlingError", "ThrottlingException", "RequestLimitExceeded"),
    *("ProvisionedThroughputExceeded", "ProvisionedThroughputExceededException"),
}
_CONDITION_FAILED = {"ConditionalCheckFailed", "ConditionalCheckFailedException"}
_A_DAY = timedelta(days=1)
_JOB_ID_BYTES = 600  # with it, the longest fact is smaller than 1 KB: one write unit
_PENDING = "pending"  # in place of the status of an agent that waits after a replay
_TIMES = {"since", "claimed_until", "accepted_at", "asked_at", "done_at"}
_SERIALIZER, _DESERIALIZER = TypeSerializer(), TypeDeserializer()


class TableError(Exception):
    """The table cannot be read or written now, or it is not known whether it was; both may be repeated safely."""


def wait_at_random(seconds: float) -> None:
    """Wait for a random part of a time, so that those who met a conflict do not meet again."""
    time.sleep(seconds * random.random())


@dataclass(frozen=True, slots=True, kw_only=True)
class CapturesTable:
    """Keeps claims for the cool-down, and jobs for `keep` after they were asked for.

    Every method may be repeated, and called by several invocations at a time. TableError where a call fails.
    """

    client: "DynamoDBClient"
    table: str
    keep: timedelta
    now: Callable[[], datetime]
    wait: Callable[[float], None] = wait_at_random

    def claim(self, claims: Sequence[tuple[Claim, Claim | None]]) -> Mapping[int, Claim] | None:
        """Write up to 100 claims, all or none; each may take over the lapsed claim beside it.

        Return None when they are written, otherwise by index those that were there. Without any, try again later.
        """
        puts: list[Any] = []
        for claim, lapsed in claims:
            values: dict[str, Any] = {":now": ceil(self.now().timestamp())}
            condition = "attribute_not_exists(pk) OR expires <= :now"
            if lapsed:
                condition = "claim = :claim AND claimed_until = :until AND attribute_not_exists(accepted_at)"
                values = {":claim": lapsed.claim_id, ":until": lapsed.claimed_until}
            put = {"TableName": self.table, "Item": _claim_item(claim), "ConditionExpression": condition}
            put |= {"ExpressionAttributeValues": _item(values), "ReturnValuesOnConditionCheckFailure": "ALL_OLD"}
            puts.append(put)
        try:
            if len(puts) == 1:
                self.client.put_item(**puts[0])
            else:
                # The client gives the transaction a token: its own retry of one that was served is the same one.
                self.client.transact_write_items(TransactItems=[{"Put": put} for put in puts])
        except (BotoCoreError, ClientError) as error:
            return _claims_there(error)
        return None

    def settle(self, kept: Iterable[Claim], deleted: Iterable[Claim]) -> None:
        """Replace claims by what is left of them, and delete those of which nothing is left."""
        puts = [{"PutRequest": {"Item": _claim_item(claim)}} for claim in kept]
        keys = [{"pk": item["pk"], "sk": item["sk"]} for item in map(_claim_item, deleted)]
        self._write(puts + [{"DeleteRequest": {"Key": key}} for key in keys])

    def write_facts(self, job_id: str, shards: int, facts: Iterable[Fact]) -> None:
        """Write what happened to agents; a fact that is there already stays as it is."""
        expires = self._expires()
        items = [_fact_values(job_id, shards, fact) | {"expires": expires} for fact in facts]
        by_key = {(item["pk"], item["sk"]): item for item in items}
        self._write([{"PutRequest": {"Item": _item(item)}} for item in by_key.values()])

    def has_fact(self, job_id: str, shards: int, fact: Fact) -> bool:
        """Return whether a fact was written."""
        item = _fact_values(job_id, shards, fact)
        return bool(self._query(item["pk"], item["sk"]))

    def add_ended(self, job_id: str, part: TriggerPart, ended: int) -> bool:
        """Count final statuses of a trigger, which is kept when it is new; return whether to read the facts."""
        names = ("asked", "rejected", "asked_at", "shards")
        kept = _trigger_values(part.trigger) | {name: getattr(part, name) for name in names}
        kept |= {"look_at": part.asked - part.rejected, "expires": self._expires(timedelta(0))}
        sets = ", ".join(f"#{name} = if_not_exists(#{name}, :{name})" for name in kept)
        item = self._update(job_id, f"TRIGGER#{part.key}", f"SET {sets} ADD #ended :ended", **kept, ended=ended)
        return bool(item["ended"] >= item["look_at"])

    def look_again(self, job_id: str, part: TriggerPart, lacking: int) -> None:
        """Have the facts read again when as many as are lacking have ended, unless something has ended since."""
        values = {"look_at": part.ended + lacking, "ended": part.ended}
        self._update(job_id, f"TRIGGER#{part.key}", "SET #look_at = :look_at", "#ended = :ended", **values)

    def change_version(self, job_id: str) -> None:
        """Note that a summary that is being counted now may be out of date."""
        update = "SET #expires = :expires ADD #version :one"
        self._update(job_id, "REPORT", update, expires=self._expires(), one=1)

    def read_job(self, job_id: str) -> JobItems:
        """Return a job's report and triggers. The report is read first: it is no newer than the triggers."""
        items = self._query(_partition(job_id))
        report = next((_report(item) for item in items if item["sk"] == "REPORT"), Report())
        now = ceil(self.now().timestamp())
        parts = [_read(TriggerPart, item) for item in items if item["sk"] != "REPORT" and item["expires"] > now]
        return JobItems(job_id=job_id, report=report, parts=parts)

    def read_facts(self, items: JobItems) -> list[Fact]:
        """Return all facts of a job."""
        keys = [f"{_partition(items.job_id)}#{shard}" for shard in range(items.shards)]
        return [_fact(item) for key in keys for item in self._query(key)]

    def update_report(self, items: JobItems, counts: Counts) -> Report | None:
        """Note what a job came out as; return the report as it is now, None when it has changed since it was read."""
        values: dict[str, Any] = {"one": 1, "expires": self._expires()}
        sets, adds, condition = "SET #expires = :expires", "ADD #version :one", "attribute_not_exists(#version)"
        if counts != items.report.counts:
            sets += ", #counts = :counts, #is_reported = :false, #done_at = :now"
            adds += ", #revision :one"
            values |= {"counts": counts, "false": False, "now": self.now()}
        if items.report.version:
            condition = "#version = :read"
            values |= {"read": items.report.version}
        item = self._update(items.job_id, "REPORT", f"{sets} {adds}", condition, **values)
        return _report(item) if item else None

    def mark_reported(self, job_id: str, revision: int) -> None:
        """Note that a summary was published, unless there is a newer one."""
        values = {"true": True, "revision": revision}
        self._update(job_id, "REPORT", "SET #is_reported = :true", "#revision = :revision", **values)

    def _expires(self, later: timedelta = _A_DAY) -> int:
        return ceil((self.now() + self.keep + later).timestamp())

    def _update(
        self, job_id: str, sort_key: str, update: str, condition: str = "", **values: object
    ) -> dict[str, Any]:
        """Update an item of a job; return it as it is afterwards, empty when the condition does not hold."""
        parameters: dict[str, Any] = {
            "TableName": self.table,
            "Key": _item({"pk": _partition(job_id), "sk": sort_key}),
            "UpdateExpression": update,
            "ExpressionAttributeNames": {name: name[1:] for name in re.findall(r"#\w+", f"{update} {condition}")},
            "ExpressionAttributeValues": _item({f":{name}": value for name, value in values.items()}),
            "ReturnValues": "ALL_NEW",
        }
        if condition:
            parameters["ConditionExpression"] = condition
        return _plain(self._retried(self.client.update_item, **parameters).get("Attributes", {}))

    def _query(self, partition: str, sort_key: str | None = None) -> list[dict[str, Any]]:
        parameters: dict[str, Any] = {"TableName": self.table, "ConsistentRead": True}
        parameters["KeyConditionExpression"] = "pk = :pk AND sk = :sk" if sort_key else "pk = :pk"
        parameters["ExpressionAttributeValues"] = _item({":pk": partition, ":sk": sort_key})
        found: list[dict[str, Any]] = []
        # Not by a paginator: what botocore needs for one is not packed (src/pack.py).
        while True:
            page = self._retried(self.client.query, **parameters)
            found += map(_plain, page["Items"])
            if "LastEvaluatedKey" not in page:
                return found
            parameters["ExclusiveStartKey"] = page["LastEvaluatedKey"]

    def _write(self, requests: Sequence[Any]) -> None:
        """Put and delete items, 25 at a time, until nothing is left."""
        for batch in batched(requests, ITEMS_IN_A_BATCH, strict=False):
            left = list(batch)
            for seconds in _PAUSES_SECONDS:
                self.wait(seconds)
                answer = self._retried(self.client.batch_write_item, RequestItems={self.table: left})
                left = answer["UnprocessedItems"].get(self.table, [])
                if not left:
                    break
            if left:
                raise TableError(f"{len(left)} items were not processed")

    def _retried(self, call: Callable[..., Any], **parameters: object) -> dict[str, Any]:
        """Make a call, and again where it met a transaction; return an empty response where a condition fails."""
        why: BotoCoreError | ClientError | None = None
        for seconds in _PAUSES_SECONDS:
            self.wait(seconds)
            try:
                return dict(call(**parameters))
            except (BotoCoreError, ClientError) as error:
                why = error
                if _code(error) in _CONDITION_FAILED:
                    return {}
                if _code(error) not in _CONFLICTS:
                    break
        raise TableError(f"{type(why).__name__}: {why}") from why


def _code(error: Exception) -> str:
    return error.response["Error"]["Code"] if isinstance(error, ClientError) else type(error).__name__


def _claims_there(error: BotoCoreError | ClientError) -> dict[int, Claim]:
    """Return by index the claims because of which others were not written; TableError where that is not why."""
    answer: Any = error.response if isinstance(error, ClientError) else {}
    # A transaction has a reason for each of its items, a single put is its only one.
    reasons = answer.get("CancellationReasons") or [answer | {"Code": _code(error)}]
    if not {reason["Code"] for reason in reasons} <= {"None", *_CONDITION_FAILED, *_CONFLICTS}:
        raise TableError(f"{type(error).__name__}: {error}") from error
    return {index: _claim(reason["Item"]) for index, reason in enumerate(reasons) if reason.get("Item")}


def _claim_item(claim: Claim) -> dict[str, Any]:
    names = ("replays", "since", "claimed_until", "accepted_at", "http_status")
    values = _trigger_values(claim.trigger) | {name: getattr(claim, name) for name in names}
    values |= {"pk": f"AGENT#{claim.project_id}#{claim.region}#{claim.agent_id}", "sk": "CLAIM"}
    values |= {"state": "accepted" if claim.accepted_at else "claimed", "claim": claim.claim_id}
    values["log_file"] = claim.log_file and json.dumps(claim.log_file.to_json())
    return _item(values | {"expires": ceil(claim.expires.timestamp())})


def _claim(item: Mapping[str, Any]) -> Claim:
    values = _plain(item)
    _, project_id, region, agent_id = values["pk"].split("#")
    values |= {"project_id": project_id, "region": region, "agent_id": agent_id, "claim_id": values["claim"]}
    values["expires"] = datetime.fromtimestamp(values["expires"], UTC)
    if "log_file" in values:
        log_file = json.loads(values["log_file"])
        values["log_file"] = _read(LogFile, log_file | {"links": tuple(log_file["links"])})
    return _read(Claim, values)


def _fact_values(job_id: str, shards: int, fact: Fact) -> dict[str, Any]:
    # The same agent is always in the same shard; hash() differs from one process to the next.
    shard = sum(fact.agent_id.encode()) % shards
    sort_key = (fact.region, fact.agent_id, fact.trigger_key, str(fact.replays), fact.status or _PENDING)
    key = {"pk": f"{_partition(job_id)}#{shard}", "sk": "#".join(sort_key)}
    return key | {"reason": fact.reason, "log_file_id": fact.log_file_id}


def _fact(values: Mapping[str, Any]) -> Fact:
    names = ("region", "agent_id", "trigger_key", "replays", "status")
    read = {**values, **dict(zip(names, values["sk"].split("#"), strict=True))}
    read["replays"] = int(read["replays"])
    read["status"] = None if read["status"] == _PENDING else Status(read["status"])
    read["reason"] = Reason(read["reason"]) if "reason" in read else None
    return _read(Fact, read)


def _report(values: Mapping[str, Any]) -> Report:
    counts = {Status(name): int(count) for name, count in values.get("counts", {}).items()}
    return _read(Report, {**values, "counts": counts or None})


def _trigger_values(trigger: Trigger) -> dict[str, Any]:
    return {f"trigger_{name}": value for name, value in trigger.to_json().items() if value is not None}


def _partition(job_id: str) -> str:
    """Return the key of a job: it cannot be taken for that of another job's shard, and is not too long."""
    escaped = job_id.replace("%", "%25").replace("#", "%23")
    if len(escaped.encode()) > _JOB_ID_BYTES:
        # No ID that is escaped starts like this: a job cannot be named after the hash of another.
        escaped = f"%sha256-{hashlib.sha256(job_id.encode()).hexdigest()}"
    return f"JOB#{escaped}"


def _item(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values as DynamoDB's attributes: times as texts, None left out."""
    texts = {name: timestamp(value) if isinstance(value, datetime) else value for name, value in values.items()}
    return {name: _SERIALIZER.serialize(value) for name, value in texts.items() if value is not None}


def _plain(item: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of an item by name; the fields of a trigger are one, `trigger`."""
    values = {name: _DESERIALIZER.deserialize(attribute) for name, attribute in item.items()}
    for name, value in values.items():
        if name in _TIMES:
            values[name] = datetime.fromisoformat(value)
        elif isinstance(value, Decimal):
            values[name] = int(value)
    if "trigger_id" in values:
        trigger_type = TriggerType(values["trigger_type"])
        values["trigger"] = Trigger(trigger_type, values["trigger_id"], values.get("trigger_name"))
    return values


def _read[T](kind: type[T], values: Mapping[str, Any]) -> T:
    """Return a dataclass whose fields are the values of the same names; those that are missing have their default."""
    names = [each.name for each in fields(kind)]  # type: ignore[arg-type]  # a dataclass
    return kind(**{name: values[name] for name in names if name in values})
