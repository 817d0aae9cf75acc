"""`send`: send a list of agents to CaptureQueue, in a way that can be interrupted and continued."""

import hashlib
import json
import os
import sys
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import batched
from pathlib import Path
from typing import Self

from agent_log_capture.adapters.batches import MAX_ENTRIES, always, send_in_batches
from agent_log_capture.adapters.capture_queue import MAX_BYTES
from agent_log_capture.domain.capture import is_agent_id
from agent_log_capture.domain.events.agent_ids import begins_like_json, has_digit, shown, split
from ops.errors import WELL, OperatorError
from ops.stack import Stack

# What one invocation processes: it would requeue the rest of a longer message. Ten such messages always fit into one
# batch: 500 IDs of 128 characters are 64 KiB, and a batch may have 1 MiB.
IDS_IN_A_MESSAGE = 500
_BAD_SHOWN = 20


@dataclass
class Progress:
    """The messages of a list that are sent, in a file that outlives the command.

    `run` is part of each message's trigger ID. A message that is sent again because its response was lost has the
    same trigger ID, so that the function requests no agent twice within the cool-down.
    """

    path: Path
    run: str = field(default_factory=lambda: uuid.uuid4().hex)
    sent: set[int] = field(default_factory=set)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read the file of an interrupted run, or start a new run."""
        try:
            saved = json.loads(path.read_text(encoding="utf-8"))
            return cls(path, saved["run"], set(saved["sent"]))
        except FileNotFoundError:
            return cls(path)
        except (OSError, ValueError) as error:
            raise OperatorError(f"{path} cannot be read: {error}. Remove it to send the whole list again.") from error

    def save(self) -> None:
        """Write the file in one step: an interruption leaves the old or the new one."""
        temporary = self.path.with_suffix(f".{os.getpid()}")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_text(json.dumps({"run": self.run, "sent": sorted(self.sent)}), encoding="utf-8")
            temporary.replace(self.path)
        except OSError as error:
            raise OperatorError(f"{self.path} cannot be written, and nothing is sent without it: {error}") from error


def send(stack: Stack, file: str, *, skip_bad: bool, backup_region: str | None) -> int:
    """Send the list in `file`, or the rest of it; return the exit code."""
    try:
        content = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    except OSError as error:
        raise OperatorError(f"FILE={file} cannot be read: {error.strerror}") from error
    ids = read_list(content, skip_bad=skip_bad)
    queue_url = stack.output("CaptureQueueUrl")
    bodies = [_body(group, backup_region) for group in batched(ids, IDS_IN_A_MESSAGE, strict=False)]
    options = f"{queue_url}\0{backup_region}\0{IDS_IN_A_MESSAGE}\0"
    key = hashlib.sha256(options.encode() + content).hexdigest()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "agent-log-capture"
    progress = Progress.load(cache / f"send-{key[:32]}.json")
    if progress.sent:
        print(f"Continuing an interrupted list: {len(progress.sent)} of {len(bodies)} messages were sent.")
    print(f"{len(ids):,} agents in {len(bodies):,} messages to {queue_url}")
    print(f"Progress is saved in {progress.path} until all are sent.")
    try:
        _send(stack, queue_url, bodies, progress)
    except KeyboardInterrupt:
        raise OperatorError("interrupted: run the same command again to send the rest") from None
    progress.path.unlink()
    print(f"Sent. The outcome of each agent is published on {stack.output('OutcomeTopicArn')}.")
    return WELL


def read_list(content: bytes, *, skip_bad: bool) -> list[str]:
    """Return each agent ID of a list once, and print what is skipped; OperatorError when the list cannot be sent."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise OperatorError("the list is not a text in UTF-8") from error
    if begins_like_json(text):
        raise OperatorError("the list is JSON, not plain text: send it with aws sqs send-message")
    words = [(number, word) for number, line in enumerate(text.split("\n"), 1) for word in split(line)]
    # The function's own rule for plain text.
    good = [word for _, word in words if is_agent_id(word) and has_digit(word)]
    bad = [(number, word) for number, word in words if not (is_agent_id(word) and has_digit(word))]
    for number, word in bad[:_BAD_SHOWN]:
        print(f"line {number}: {shown(word)} is not an agent ID", file=sys.stderr)
    if bad[_BAD_SHOWN:]:
        print(f"and {len(bad) - _BAD_SHOWN:,} more", file=sys.stderr)
    if bad and not skip_bad:
        raise OperatorError(
            "nothing was sent. An agent ID is 1 to 128 characters of A-Z a-z 0-9 _ -, with a digit; fix the list, "
            "or use SKIP_BAD=1 (--skip-bad) to send the rest."
        )
    if not good:
        raise OperatorError("nothing was sent: there is no agent ID in the list")
    ids = list(dict.fromkeys(good))
    if len(ids) < len(good):
        print(f"{len(good) - len(ids):,} IDs are repeated, and are sent once.")
    return ids


def _body(ids: Sequence[str], backup_region: str | None) -> str:
    return json.dumps({"agent_ids": ids, "region": backup_region}) if backup_region else ",".join(ids)


def _send(stack: Stack, queue_url: str, bodies: Sequence[str], progress: Progress) -> None:
    sqs = stack.client("sqs")
    # Before the first message: its trigger ID must be known even if the response is lost.
    progress.save()
    unsent = [number for number in range(len(bodies)) if number not in progress.sent]
    for numbers in batched(unsent, MAX_ENTRIES, strict=False):
        failed = send_in_batches(
            [{"MessageBody": _record(bodies[number], f"list-{progress.run}-{number}")} for number in numbers],
            lambda batch: sqs.send_message_batch(QueueUrl=queue_url, Entries=batch),
            max_bytes=MAX_BYTES,
            has_time=always,
        )
        progress.sent.update(number for index, number in enumerate(numbers) if index not in failed)
        progress.save()
        print(f"  {len(progress.sent):,} of {len(bodies):,} messages sent", flush=True)
        if failed:
            raise OperatorError(f"{next(iter(failed.values()))}. Run the same command again to send the rest.")


def _record(body: str, trigger_id: str) -> str:
    """Wrap a body as an SQS record, whose `messageId` the function uses as the trigger's ID.

    SQS gives two IDs to a message that is sent twice: the function could not recognize it.
    """
    return json.dumps({"Records": [{"eventSource": "aws:sqs", "messageId": trigger_id, "body": body}]})
