"""Sends to SQS and SNS ten at a time, and sees what fails inside an answer that is itself a success."""

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

MAX_ENTRIES = 10
_PAUSES_SECONDS = (0, 0.2, 0.6)  # before each try: what a throttled entry needs is a moment

type Entry = dict[str, Any]
type Answer = Mapping[str, Any]


def send_in_batches(
    entries: Sequence[Entry],
    send: Callable[[list[Entry]], Answer],
    *,
    max_bytes: int,
    pause: Callable[[float], None] = time.sleep,
) -> dict[int, str]:
    """Send every entry, and again those that failed by the service's own fault; return by index why the rest failed.

    `send` gets entries with an `Id` and returns the answer of `SendMessageBatch` or `PublishBatch`; what it gets is
    at most ten entries and `max_bytes`.
    """
    waiting = {str(index): entry | {"Id": str(index)} for index, entry in enumerate(entries)}
    refused: dict[str, str] = {}
    failed: dict[str, str] = {}
    for pause_seconds in _PAUSES_SECONDS:
        if pause_seconds:
            pause(pause_seconds)
        failures = [failure for batch in _batches(waiting.values(), max_bytes) for failure in _send(batch, send)]
        refused |= {failure["Id"]: _why(failure) for failure in failures if failure["SenderFault"]}
        failed = {failure["Id"]: _why(failure) for failure in failures if not failure["SenderFault"]}
        waiting = {entry_id: waiting[entry_id] for entry_id in failed}
        if not waiting:
            break
    return {int(entry_id): why for entry_id, why in (refused | failed).items()}


def _send(batch: list[Entry], send: Callable[[list[Entry]], Answer]) -> Sequence[Answer]:
    try:
        failures: Sequence[Answer] = send(batch).get("Failed", [])
    except (BotoCoreError, ClientError) as error:
        # botocore has tried again whatever may be tried again.
        failure = {"Code": type(error).__name__, "Message": str(error), "SenderFault": True}
        return [failure | {"Id": entry["Id"]} for entry in batch]
    return failures


def _why(failure: Answer) -> str:
    return f"{failure['Code']}: {failure.get('Message', '')}"


def _batches(entries: Iterable[Entry], max_bytes: int) -> Iterator[list[Entry]]:
    batch: list[Entry] = []
    size = 0
    for entry in entries:
        # The JSON of an entry is a little longer than what the service counts.
        entry_size = len(json.dumps(entry, ensure_ascii=False).encode())
        if batch and (len(batch) == MAX_ENTRIES or size + entry_size > max_bytes):
            yield batch
            batch, size = [], 0
        batch.append(entry)
        size += entry_size
    if batch:
        yield batch
