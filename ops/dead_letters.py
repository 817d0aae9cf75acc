"""The dead-letter queue: how many messages it has, why they are there, and `replay`, which moves them all."""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import batched
from typing import Any

from agent_log_capture.domain.events.agent_ids import parse_json
from agent_log_capture.domain.printable import printable
from ops.errors import NEEDS_A_PERSON, WELL, OperatorError
from ops.stack import Stack

SAMPLE_SIZE = 100
_MESSAGES_A_CALL = 10
# Longer than reading the sample takes, so that no message is read twice; all are released right after.
_HIDDEN_SECONDS = 30
_POLL_SECONDS = 5
_SHOWN_CHARACTERS = 60
_STATES = {"visible": "", "in flight": "NotVisible", "delayed": "Delayed"}


def replay(stack: Stack, *, yes: bool) -> int:
    """Show the dead letters, move them to CaptureQueue once confirmed, and follow the move; return the exit code."""
    source, destination = stack.output("CaptureDeadLetterQueueArn"), stack.output("CaptureQueueArn")
    if _last_move(stack, source).get("Status") == "RUNNING":
        print("A replay is running already.")
        return _follow(stack, source)
    total, causes = describe(stack)
    print(f"In the dead-letter queue of {stack.name}: {total:,}", *causes, sep="\n")
    if not total:
        return WELL
    try:
        answer = "y" if yes else input(f"Move them to {destination.rsplit(':', 1)[1]}? [y/N] ")
    except EOFError:
        raise OperatorError("there is no input to confirm it: use YES=1 (--yes)") from None
    if answer.strip().lower() not in {"y", "yes"}:
        print("Nothing was moved.")
        return NEEDS_A_PERSON
    stack.client("sqs").start_message_move_task(SourceArn=source, DestinationArn=destination)
    return _follow(stack, source)


def _follow(stack: Stack, source: str) -> int:
    """Print the progress of the last move until it ends."""
    try:
        while True:
            move = _last_move(stack, source)
            moved, to_move = (move.get(f"ApproximateNumberOfMessages{what}", 0) for what in ("Moved", "ToMove"))
            status = move.get("Status", "unknown to SQS")
            print(f"  {moved:,} of about {to_move:,} moved: {status.lower()}", flush=True)
            if status not in {"RUNNING", "CANCELLING"}:
                break
            time.sleep(_POLL_SECONDS)
    except KeyboardInterrupt:
        raise OperatorError("interrupted; SQS continues to move: make replay shows its progress") from None
    if status == "COMPLETED":
        return WELL
    print(f"The replay failed: {move.get('FailureReason', status.lower())}")
    return NEEDS_A_PERSON


def _last_move(stack: Stack, source: str) -> Mapping[str, Any]:
    moves = stack.client("sqs").list_message_move_tasks(SourceArn=source, MaxResults=1).get("Results", [])
    return dict(moves[0]) if moves else {}


def message_counts(stack: Stack, queue_url: str) -> Mapping[str, int]:
    """Return a queue's approximate number of messages in each state."""
    names = {state: f"ApproximateNumberOfMessages{suffix}" for state, suffix in _STATES.items()}
    answer = stack.client("sqs").get_queue_attributes(QueueUrl=queue_url, AttributeNames=list(names.values()))
    return {state: int(answer["Attributes"][name]) for state, name in names.items()}


def describe(stack: Stack) -> tuple[int, list[str]]:
    """Return the number of dead letters, and lines with the causes of a sample; all of them stay in the queue."""
    queue_url = stack.output("CaptureDeadLetterQueueUrl")
    counts = message_counts(stack, queue_url)
    messages = _sample(stack, queue_url, min(counts["visible"], SAMPLE_SIZE))
    total = max(sum(counts.values()), len(messages))
    causes = Counter(cause_of(message) for message in messages).most_common()
    lines = [f"  {count:>6,}  {cause}" for cause, count in causes]
    if len(messages) < total:
        lines.append(f"  (a sample of {len(messages):,} from about {total:,})")
    return total, lines


def _sample(stack: Stack, queue_url: str, size: int) -> Sequence[Mapping[str, Any]]:
    """Receive as many messages as `size` says, or a few more or less, and release them."""
    sqs = stack.client("sqs")
    messages: list[Mapping[str, Any]] = []
    while len(messages) < size:
        received = sqs.receive_message(
            QueueUrl=queue_url,
            MaxNumberOfMessages=_MESSAGES_A_CALL,
            VisibilityTimeout=_HIDDEN_SECONDS,
            WaitTimeSeconds=1,
            MessageAttributeNames=["All"],
            MessageSystemAttributeNames=["All"],
        ).get("Messages", [])
        if not received:
            break
        messages += received
    for batch in batched(messages, _MESSAGES_A_CALL, strict=False):
        handles = enumerate(message["ReceiptHandle"] for message in batch)
        entries = [{"Id": f"{index}", "ReceiptHandle": handle, "VisibilityTimeout": 0} for index, handle in handles]
        sqs.change_message_visibility_batch(QueueUrl=queue_url, Entries=entries)
    return messages


def cause_of(message: Mapping[str, Any]) -> str:
    """Return why a message is a dead letter: its reason and status, or the part of AWS that moved it."""
    attributes = {name: value.get("StringValue", "") for name, value in message.get("MessageAttributes", {}).items()}
    match attributes, parse_json(message["Body"]):
        case {"reason": reason, "status": status}, _:
            cause = f"{reason} ({status})"
        case {"ERROR_CODE": code}, _:
            cause = f"EventBridge could not deliver it: {code}"
        case _, {"requestPayload": _, "requestContext": {"condition": condition}}:
            cause = f"Lambda's invocation failed: {condition}"
        case _ if "DeadLetterQueueSourceArn" in message.get("Attributes", {}):
            cause = "SQS moved it: invocations with it crashed too often"
        case _:
            cause = "no reason given"
    return printable(cause, _SHOWN_CHARACTERS)
