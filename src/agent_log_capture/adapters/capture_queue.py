"""The queue of unfinished captures, and its dead-letter queue."""

import json
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import batched
from typing import TYPE_CHECKING, Any

from agent_log_capture.adapters.batches import Entry, HasTime, always, send_in_batches
from agent_log_capture.domain.capture import Capture
from agent_log_capture.domain.outcome import Outcome
from agent_log_capture.domain.queue_message import to_json

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

CAPTURES_IN_A_MESSAGE = 10  # a batch of messages holds no more captures than one invocation processes
_MESSAGES_AT_ONCE = 50  # in memory
MAX_BYTES = 1024 * 1024  # of a message, and of a batch of ten
# SQS takes the characters of XML 1.0. Compiling this takes 4 ms, which a cold start saves.
_NOT_IN_A_MESSAGE = "[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]"


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A body that can be replayed as it is, and the outcome that says why it is in the dead-letter queue."""

    body: str
    outcome: Outcome


class CaptureQueue:
    """Requeues captures with a delay, and sends dead letters; `has_time` is asked before each call."""

    def __init__(self, client: "SQSClient", queue_url: str, dead_letter_queue_url: str) -> None:
        self._client = client
        self._queue_url, self._dead_letter_queue_url = queue_url, dead_letter_queue_url

    def requeue(self, delayed: Sequence[tuple[Capture, int]], has_time: HasTime = always) -> Mapping[int, str]:
        """Send captures, each with its delay in seconds; return the error of each that failed, by its index."""
        by_delay: defaultdict[int, list[int]] = defaultdict(list)
        for index, (_, delay_seconds) in enumerate(delayed):
            by_delay[delay_seconds].append(index)
        messages = (
            (delay, group)
            for delay, indexes in by_delay.items()
            for group in batched(indexes, CAPTURES_IN_A_MESSAGE, strict=False)
        )
        not_sent: dict[int, str] = {}
        for some in batched(messages, _MESSAGES_AT_ONCE, strict=False):
            entries = [_entry(delay, [delayed[index][0] for index in indexes]) for delay, indexes in some]
            failed = self._send(self._queue_url, entries, has_time)
            not_sent |= {index: why for message, why in failed.items() for index in some[message][1]}
        return not_sent

    def send_dead_letters(self, letters: Sequence[DeadLetter], has_time: HasTime = always) -> Mapping[int, str]:
        """Send dead letters; return the error of each that failed, by its index."""
        return self._send(self._dead_letter_queue_url, [_dead_entry(letter) for letter in letters], has_time)

    def _send(self, queue_url: str, entries: Sequence[Entry], has_time: HasTime) -> Mapping[int, str]:
        def send(batch: list[Entry]) -> Mapping[str, Any]:
            return self._client.send_message_batch(QueueUrl=queue_url, Entries=batch)  # type: ignore[arg-type]

        return send_in_batches(entries, send, max_bytes=MAX_BYTES, has_time=has_time)


def _entry(delay_seconds: int, captures: Sequence[Capture]) -> Entry:
    # Not escaped: names of triggers and jobs are printable, and six bytes for a character could be too many.
    body = {"captures": [to_json(capture) for capture in captures]}
    text = json.dumps(body, ensure_ascii=False, separators=(",", ":"))
    return {"MessageBody": text, "DelaySeconds": delay_seconds}


def _dead_entry(letter: DeadLetter) -> Entry:
    """Return a dead letter with the attributes that say why it is one, if a message has room for them."""
    outcome, body = letter.outcome, re.sub(_NOT_IN_A_MESSAGE, "\ufffd", letter.body)
    texts = {"reason": outcome.reason, "status": outcome.status, "trigger_type": outcome.trigger.type}
    attributes = {name: {"DataType": "String", "StringValue": text.value} for name, text in texts.items() if text}
    attributes["attempts"] = {"DataType": "Number", "StringValue": str(outcome.attempts)}
    has_room = len(body.encode()) + len(json.dumps(attributes)) <= MAX_BYTES
    return {"MessageBody": body} | ({"MessageAttributes": attributes} if has_room else {})
