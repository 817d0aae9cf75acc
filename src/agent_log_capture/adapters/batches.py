"""Sends to SQS and SNS ten at a time, and sees what fails inside an answer that is itself a success."""

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from agent_log_capture.domain.printable import printable

MAX_ENTRIES = 10
_PAUSES_SECONDS = (0, 0.2, 0.6)  # before each try: what a throttled entry needs is a moment
_REASON_CHARACTERS = 500

type Entry = dict[str, Any]
type ApiResponse = Mapping[str, Any]
type HasTime = Callable[[], bool]


def send_in_batches(
    entries: Sequence[Entry],
    send: Callable[[list[Entry]], ApiResponse],
    *,
    max_bytes: int,
    has_time: HasTime,
    pause: Callable[[float], None] = time.sleep,
) -> dict[int, str]:
    """Send every entry, and again those that failed by the service's own fault; return by index why the rest failed.

    `send` gets entries with an `Id` and returns the answer of `SendMessageBatch` or `PublishBatch`; what it gets is
    at most ten entries and `max_bytes`. It is not called when `has_time` says that there is no time for it.
    """
    waiting = {str(index): entry | {"Id": str(index)} for index, entry in enumerate(entries)}
    refused: dict[str, str] = {}
    failed: dict[str, str] = {}
    for pause_seconds in _PAUSES_SECONDS:
        if pause_seconds:
            pause(pause_seconds)
        batches = _batches(waiting.values(), max_bytes)
        failures = [failure for batch in batches for failure in _send(batch, send, has_time)]
        refused |= {failure["Id"]: _why(failure) for failure in failures if failure["SenderFault"]}
        failed = {failure["Id"]: _why(failure) for failure in failures if not failure["SenderFault"]}
        waiting = {entry_id: waiting[entry_id] for entry_id in failed}
        if not waiting:
            break
    return {int(entry_id): why for entry_id, why in (refused | failed).items()}


def always() -> bool:
    """Say that there is time, for whoever is not ended by anybody."""
    return True


def _send(batch: list[Entry], send: Callable[[list[Entry]], ApiResponse], has_time: HasTime) -> Sequence[ApiResponse]:
    if not has_time():
        return _failures(batch, "OutOfTime", "the invocation has no time left for it")
    try:
        failures: Sequence[ApiResponse] = send(batch).get("Failed", [])
    except (BotoCoreError, ClientError) as error:
        # botocore has tried again whatever may be tried again.
        return _failures(batch, type(error).__name__, str(error))
    return failures


def _failures(batch: list[Entry], code: str, message: str) -> Sequence[ApiResponse]:
    """Return what says that a whole batch failed, and that there is no use in sending it again now."""
    return [{"Id": entry["Id"], "Code": code, "Message": message, "SenderFault": True} for entry in batch]


def _why(failure: ApiResponse) -> str:
    # The service may quote what it refuses, and that is what outsiders wrote.
    return printable(f"{failure['Code']}: {failure.get('Message', '')}", _REASON_CHARACTERS)


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
