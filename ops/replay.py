"""`replay`: move all dead letters to CaptureQueue."""

import time
from collections.abc import Mapping
from typing import Any

from ops import dead_letters
from ops.errors import NEEDS_A_PERSON, WELL, OperatorError
from ops.stack import Stack

_POLL_SECONDS = 5


def replay(stack: Stack, *, yes: bool) -> int:
    """Show the dead letters, move them once confirmed, and follow the move to its end; return the exit code."""
    source, destination = stack.output("CaptureDeadLetterQueueArn"), stack.output("CaptureQueueArn")
    if _last_move(stack, source).get("Status") == "RUNNING":
        print("A replay is running already.")
        return _follow(stack, source)
    total, causes = dead_letters.describe(stack.client("sqs"), stack.output("CaptureDeadLetterQueueUrl"))
    print(f"In the dead-letter queue of {stack.name}: {total:,}", *causes, sep="\n")
    if not total:
        return WELL
    if not yes and not _is_confirmed(f"Move them to {destination.rsplit(':', 1)[1]}? [y/N] "):
        print("Nothing was moved.")
        return NEEDS_A_PERSON
    stack.client("sqs").start_message_move_task(SourceArn=source, DestinationArn=destination)
    return _follow(stack, source)


def _is_confirmed(question: str) -> bool:
    try:
        return input(question).strip().lower() in {"y", "yes"}
    except EOFError:
        raise OperatorError("there is no input to confirm it: use YES=1 (--yes)") from None


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
