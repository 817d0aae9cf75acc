"""`send`: send a list of agents to CaptureQueue, in a way that can be interrupted and continued."""

import hashlib
import json
import os
import sys
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import batched
from pathlib import Path
from typing import Any, Self

from agent_log_capture.adapters.batches import MAX_ENTRIES, always, send_in_batches
from agent_log_capture.adapters.capture_queue import MAX_BYTES
from ops.agent_list import AgentList, read_list
from ops.errors import USAGE, WELL, OperatorError
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
            return cls(path, str(saved["run"]), {int(number) for number in saved["sent"]})
        except FileNotFoundError:
            return cls(path)
        except (OSError, ValueError, KeyError, TypeError) as error:
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


def send(stack: Stack, file: str, *, skip_bad: bool, backup_region: str | None, cache: Path) -> int:
    """Send the list in `file`, or the rest of it; return the exit code."""
    content = _content(file)
    agents = read_list(content)
    if not _is_sendable(agents, skip_bad=skip_bad):
        return USAGE
    queue_url = stack.output("CaptureQueueUrl")
    bodies = [_body(ids, backup_region) for ids in batched(agents.ids, IDS_IN_A_MESSAGE, strict=False)]
    options = f"{queue_url}\0{backup_region}\0{IDS_IN_A_MESSAGE}\0"
    key = hashlib.sha256(options.encode() + content).hexdigest()
    progress = Progress.load(cache / f"send-{key[:32]}.json")
    if progress.sent:
        print(f"Continuing an interrupted list: {len(progress.sent)} of {len(bodies)} messages were sent.")
    print(f"{len(agents.ids):,} agents in {len(bodies):,} messages to {queue_url}")
    print(f"Progress is saved in {progress.path} until all are sent.")
    try:
        _send(stack, queue_url, bodies, progress)
    except KeyboardInterrupt:
        raise OperatorError("interrupted: run the same command again to send the rest") from None
    progress.path.unlink(missing_ok=True)
    print(f"Sent. The outcome of each agent is published on {stack.outputs.get('OutcomeTopicArn', 'OutcomeTopic')}.")
    return WELL


def default_cache() -> Path:
    """Return the user's cache folder of this project."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "agent-log-capture"


def _content(file: str) -> bytes:
    try:
        return sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    except OSError as error:
        raise OperatorError(f"FILE={file} cannot be read: {error.strerror}") from error


def _is_sendable(agents: AgentList, *, skip_bad: bool) -> bool:
    """Print the faults of a list; return whether it can be sent."""
    for bad in agents.bad[:_BAD_SHOWN]:
        print(f"line {bad.line}: {bad.shown} is not an agent ID", file=sys.stderr)
    if agents.bad[_BAD_SHOWN:]:
        print(f"and {len(agents.bad) - _BAD_SHOWN:,} more", file=sys.stderr)
    if agents.bad and not skip_bad:
        print(
            "Nothing was sent. An agent ID is 1 to 128 characters of A-Z a-z 0-9 _ -, with a digit; fix the list, "
            "or use SKIP_BAD=1 (--skip-bad) to send the rest.",
            file=sys.stderr,
        )
        return False
    if not agents.ids:
        print("Nothing was sent: there is no agent ID in the list.", file=sys.stderr)
        return False
    if agents.repeated:
        print(f"{agents.repeated:,} IDs are repeated, and are sent once.")
    return True


def _body(ids: Sequence[str], backup_region: str | None) -> str:
    if backup_region is None:
        return ",".join(ids)
    return json.dumps({"agent_ids": ids, "region": backup_region}, separators=(",", ":"))


def _record(body: str, trigger_id: str) -> str:
    """Wrap a body as an SQS record, whose `messageId` the function uses as the trigger's ID.

    SQS gives two IDs to a message that is sent twice: the function could not recognize it.
    """
    record = {"eventSource": "aws:sqs", "messageId": trigger_id, "body": body}
    return json.dumps({"Records": [record]}, separators=(",", ":"))


def _send(stack: Stack, queue_url: str, bodies: Sequence[str], progress: Progress) -> None:
    def call(batch: list[dict[str, Any]]) -> Mapping[str, Any]:
        return stack.sqs.send_message_batch(QueueUrl=queue_url, Entries=batch)  # type: ignore[arg-type]

    # Before the first message: its trigger ID must be known even if the response is lost.
    progress.save()
    unsent = [number for number in range(len(bodies)) if number not in progress.sent]
    for numbers in batched(unsent, MAX_ENTRIES, strict=False):
        entries = [{"MessageBody": _record(bodies[number], f"list-{progress.run}-{number}")} for number in numbers]
        failed = send_in_batches(entries, call, max_bytes=MAX_BYTES, has_time=always)
        progress.sent.update(number for index, number in enumerate(numbers) if index not in failed)
        progress.save()
        print(f"  {len(progress.sent):,} of {len(bodies):,} messages sent", flush=True)
        if failed:
            raise OperatorError(f"{next(iter(failed.values()))}. Run the same command again to send the rest.")
