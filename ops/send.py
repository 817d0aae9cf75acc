"""`send`: a list of agents into CaptureQueue, so that it can be broken off and taken up again."""

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

from agent_log_capture.adapters.batches import MAX_ENTRIES, Entry, always, send_in_batches
from agent_log_capture.adapters.capture_queue import MAX_BYTES
from ops.agent_list import AgentList, read_list
from ops.errors import USAGE, WELL, OperatorError
from ops.stack import Stack

# What one invocation works on. Of a longer message it would put the rest back first, as messages of its own; shorter
# ones are more calls for the same work. Ten such messages always fit into one batch: 500 IDs of 128 characters are
# 64 KiB, and a batch may have 1 MiB.
IDS_IN_A_MESSAGE = 500
_BAD_SHOWN = 20


@dataclass
class Progress:
    """What of a list has been sent, in a file that outlives the command.

    `run` is the same for as long as the list is not sent as a whole. It is in the ID of each message's trigger, so
    that a message which is sent again because its answer was lost is the same trigger to the function, which then
    asks no agent twice within the cool-down.
    """

    path: Path
    run: str = field(default_factory=lambda: uuid.uuid4().hex)
    sent: set[int] = field(default_factory=set)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what an earlier run has left, or begin."""
        try:
            kept = json.loads(path.read_text(encoding="utf-8"))
            return cls(path, str(kept["run"]), {int(number) for number in kept["sent"]})
        except FileNotFoundError:
            return cls(path)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise OperatorError(f"{path} cannot be read: {error}. Remove it to send the whole list anew.") from error

    def save(self) -> None:
        """Write it in one step: whoever is interrupted has the old file or the new one."""
        written = self.path.with_suffix(f".{os.getpid()}")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            written.write_text(json.dumps({"run": self.run, "sent": sorted(self.sent)}), encoding="utf-8")
            written.replace(self.path)
        except OSError as error:
            raise OperatorError(f"{self.path} cannot be written, and without it nothing is sent: {error}") from error

    def remove(self) -> None:
        """Forget a list that was sent as a whole."""
        self.path.unlink(missing_ok=True)


def send(stack: Stack, file: str, *, skip_bad: bool, backup_region: str | None, cache: Path) -> int:
    """Send the list in `file`, or what is left of it; return the exit code."""
    content = _content(file)
    agents = read_list(content)
    if not _is_fit(agents, skip_bad=skip_bad):
        return USAGE
    queue_url = stack.output("CaptureQueueUrl")
    bodies = [_body(ids, backup_region) for ids in batched(agents.ids, IDS_IN_A_MESSAGE, strict=False)]
    sent_how = f"{queue_url}\0{backup_region}\0{IDS_IN_A_MESSAGE}\0"
    key = hashlib.sha256(sent_how.encode() + content).hexdigest()
    progress = Progress.load(cache / f"send-{key[:32]}.json")
    if progress.sent:
        print(f"Taking up a list that was broken off: {len(progress.sent)} of {len(bodies)} messages were sent.")
    print(f"{len(agents.ids):,} agents in {len(bodies):,} messages to {queue_url}")
    print(f"Until all is sent, {progress.path} remembers how far it is.")
    try:
        _send(stack, queue_url, bodies, progress)
    except KeyboardInterrupt:
        raise OperatorError("broken off: run the same command again, and it sends the rest") from None
    progress.remove()
    print(f"Sent. What becomes of each agent is told on {stack.outputs.get('OutcomeTopicArn', 'OutcomeTopic')}.")
    return WELL


def default_cache() -> Path:
    """Return the folder in which the person who runs the command keeps such files."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "agent-log-capture"


def _content(file: str) -> bytes:
    try:
        return sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    except OSError as error:
        raise OperatorError(f"FILE={file} cannot be read: {error.strerror}") from error


def _is_fit(agents: AgentList, *, skip_bad: bool) -> bool:
    """Say what is wrong with a list; tell whether it is to be sent."""
    for bad in agents.bad[:_BAD_SHOWN]:
        print(f"line {bad.line}: {bad.shown} is no agent ID", file=sys.stderr)
    if agents.bad[_BAD_SHOWN:]:
        print(f"and {len(agents.bad) - _BAD_SHOWN:,} further ones", file=sys.stderr)
    if agents.bad and not skip_bad:
        print(
            "Nothing was sent. An agent ID is 1 to 128 characters of A-Z a-z 0-9 _ -, with a digit; fix the list, "
            "or say SKIP_BAD=1 (--skip-bad) to send the rest.",
            file=sys.stderr,
        )
        return False
    if not agents.ids:
        print("Nothing was sent: there is no agent ID in the list.", file=sys.stderr)
        return False
    if agents.repeated:
        print(f"{agents.repeated:,} IDs stand in the list more than once, and are sent once.")
    return True


def _body(ids: Sequence[str], backup_region: str | None) -> str:
    if backup_region is None:
        return ",".join(ids)
    return json.dumps({"agent_ids": ids, "region": backup_region}, separators=(",", ":"))


def _enveloped(body: str, trigger_id: str) -> str:
    """Wrap a body as a record of a queue, whose `messageId` the function takes for the ID of the trigger.

    SQS gives a message that is sent twice two IDs: the function could not tell that it is the same one.
    """
    record = {"eventSource": "aws:sqs", "messageId": trigger_id, "body": body}
    return json.dumps({"Records": [record]}, separators=(",", ":"))


def _send(stack: Stack, queue_url: str, bodies: Sequence[str], progress: Progress) -> None:
    def call(batch: list[Entry]) -> Mapping[str, Any]:
        return stack.sqs.send_message_batch(QueueUrl=queue_url, Entries=batch)  # type: ignore[arg-type]

    # Before the first message: its trigger's ID must be known when its answer never comes.
    progress.save()
    left = [number for number in range(len(bodies)) if number not in progress.sent]
    for numbers in batched(left, MAX_ENTRIES, strict=False):
        entries = [{"MessageBody": _enveloped(bodies[each], f"list-{progress.run}-{each}")} for each in numbers]
        failed = send_in_batches(entries, call, max_bytes=MAX_BYTES, has_time=always)
        progress.sent.update(each for place, each in enumerate(numbers) if place not in failed)
        progress.save()
        print(f"  {len(progress.sent):,} of {len(bodies):,} messages sent", flush=True)
        if failed:
            why = next(iter(failed.values()))
            raise OperatorError(f"{why}. Run the same command again, and it sends the rest.")
