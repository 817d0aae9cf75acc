"""Sends to SQS and SNS ten at a time, and sees entries that fail in a successful response."""

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from agent_log_capture.domain.printable import printable

MAX_ENTRIES = 10
_PAUSES_SECONDS = (0, 0.2, 0.6)  # before each try; throttling of an entry is short
_REASON_CHARACTERS = 500
_OUT_OF_TIME = {"Code": "OutOfTime", "Message": "the invocation has no time left for it"}

type Entry = dict[str, Any]
type HasTime = Callable[[], bool]


def send_in_batches(
    entries: Sequence[Entry],
    send: Callable[[list[Entry]], Mapping[str, Any]],
    *,
    max_bytes: int,
    has_time: HasTime,
    pause: Callable[[float], None] = time.sleep,
) -> dict[int, str]:
    """Send all entries, and retry those that fail by the service's fault; return the error of each failure by index.

    `send` takes at most ten entries with an `Id`, and at most `max_bytes`, and returns the response of
    `SendMessageBatch` or `PublishBatch`. It is only called while `has_time`.
    """
    waiting = {str(index): entry | {"Id": str(index)} for index, entry in enumerate(entries)}
    failed: dict[str, str] = {}
    for pause_seconds in _PAUSES_SECONDS:
        if pause_seconds and waiting:
            pause(pause_seconds)
        failed = {entry_id: why for entry_id, why in failed.items() if entry_id not in waiting}
        tried, waiting = waiting, {}
        for batch in _batches(tried.values(), max_bytes):
            whole = [{"Id": entry["Id"], "SenderFault": True} for entry in batch]
            try:
                failures = send(batch).get("Failed", []) if has_time() else [each | _OUT_OF_TIME for each in whole]
            except (BotoCoreError, ClientError) as error:  # botocore has retried it
                failures = [each | {"Code": type(error).__name__, "Message": str(error)} for each in whole]
            for failure in failures:
                why = f"{failure['Code']}: {failure.get('Message', '')}"
                failed[failure["Id"]] = printable(why, _REASON_CHARACTERS)  # it may quote text from outside
                if not failure["SenderFault"]:
                    waiting[failure["Id"]] = tried[failure["Id"]]
    return {int(entry_id): why for entry_id, why in failed.items()}


def always() -> bool:
    """Return that there is time, for callers without a deadline."""
    return True


def _batches(entries: Iterable[Entry], max_bytes: int) -> Iterator[list[Entry]]:
    batch: list[Entry] = []
    size = 0
    for entry in entries:
        # The JSON of an entry is a little longer than what the service counts.
        entry_size = len(json.dumps(entry, ensure_ascii=False).encode())
        if batch and (len(batch) == MAX_ENTRIES or size + entry_size > max_bytes):
            yield batch
            batch, size = [], 0
        batch, size = [*batch, entry], size + entry_size
    if batch:
        yield batch
