"""The queue that remembers work which is not done, and the dead-letter queue behind it."""

import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import batched
from typing import TYPE_CHECKING, Any

from agent_log_capture.adapters.batches import Entry, HasTime, always, send_in_batches
from agent_log_capture.domain.capture import Capture
from agent_log_capture.domain.outcome import Outcome
from agent_log_capture.domain.queue_message import to_json

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

# Few enough that a batch of messages holds no more captures than one invocation processes.
CAPTURES_IN_A_MESSAGE = 10
# No more messages than this are in memory at once.
_MESSAGES_AT_ONCE = 50
MAX_BYTES = 1024 * 1024  # of a message, and of a batch of ten
# What SQS takes is what XML 1.0 takes. Compiling it takes 4 ms, which a start does without.
_NOT_IN_A_MESSAGE = "[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]"


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A body that can be replayed as it is, and the outcome that tells why it lies here."""

    body: str
    outcome: Outcome

    @property
    def attributes(self) -> dict[str, Any]:
        """The message attributes that tell a person, or a script, why it lies in the dead-letter queue."""
        outcome = self.outcome
        texts = {"reason": outcome.reason, "status": outcome.status, "trigger_type": outcome.trigger.type}
        attributes = {name: {"DataType": "String", "StringValue": text.value} for name, text in texts.items() if text}
        return attributes | {"attempts": {"DataType": "Number", "StringValue": str(outcome.attempts)}}


class CaptureQueue:
    """Puts captures back with a delay, and gives up what cannot be done.

    `has_time` tells before each call whether there is still time for it.
    """

    def __init__(self, client: "SQSClient", queue_url: str, dead_letter_queue_url: str) -> None:
        self._client = client
        self._queue_url = queue_url
        self._dead_letter_queue_url = dead_letter_queue_url

    def requeue(self, delayed: Sequence[tuple[Capture, int]], has_time: HasTime = always) -> Mapping[int, str]:
        """Send captures, each with its delay in seconds; return why by index, for those that could not be sent."""
        not_sent: dict[int, str] = {}
        for messages in batched(_grouped(delayed), _MESSAGES_AT_ONCE, strict=False):
            entries = [_entry(delay, [delayed[index][0] for index in indexes]) for delay, indexes in messages]
            failed = self._send(self._queue_url, entries, has_time)
            not_sent |= {index: why for message, why in failed.items() for index in messages[message][1]}
        return not_sent

    def send_dead_letters(self, letters: Sequence[DeadLetter], has_time: HasTime = always) -> Mapping[int, str]:
        """Send dead letters; return why by index, for those that could not be sent."""
        return self._send(self._dead_letter_queue_url, [_dead_entry(letter) for letter in letters], has_time)

    def _send(self, queue_url: str, entries: Sequence[Entry], has_time: HasTime) -> Mapping[int, str]:
        def send(batch: list[Entry]) -> Mapping[str, Any]:
            return self._client.send_message_batch(QueueUrl=queue_url, Entries=batch)  # type: ignore[arg-type]

        return send_in_batches(entries, send, max_bytes=MAX_BYTES, has_time=has_time)


def _grouped(delayed: Sequence[tuple[Capture, int]]) -> Iterator[tuple[int, Sequence[int]]]:
    """Gather the indexes of captures that wait equally long, as many as one message holds."""
    by_delay: defaultdict[int, list[int]] = defaultdict(list)
    for index, (_, delay_seconds) in enumerate(delayed):
        by_delay[delay_seconds].append(index)
    for delay_seconds, indexes in by_delay.items():
        for group in batched(indexes, CAPTURES_IN_A_MESSAGE, strict=False):
            yield delay_seconds, group


def _entry(delay_seconds: int, captures: Sequence[Capture]) -> Entry:
    # Nothing is escaped: names of triggers and jobs are printable, and six bytes for a character could be too many.
    waiting = {"captures": [to_json(capture) for capture in captures]}
    body = json.dumps(waiting, ensure_ascii=False, separators=(",", ":"))
    return {"MessageBody": body, "DelaySeconds": delay_seconds}


def _dead_entry(letter: DeadLetter) -> Entry:
    body = re.sub(_NOT_IN_A_MESSAGE, "\ufffd", letter.body)
    has_room = len(body.encode()) + len(json.dumps(letter.attributes)) <= MAX_BYTES
    # A message that came with all of the 1 MiB has no room for attributes: then it goes without.
    return {"MessageBody": body, "MessageAttributes": letter.attributes} if has_room else {"MessageBody": body}
