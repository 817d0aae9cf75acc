"""`replay`: everything in the dead-letter queue back into CaptureQueue."""

from collections.abc import Callable, Mapping
from typing import Any

from ops import dead_letters
from ops.errors import NEEDS_A_PERSON, WELL, OperatorError
from ops.stack import Stack

_POLL_SECONDS = 5


def replay(stack: Stack, *, yes: bool, ask: Callable[[str], str], pause: Callable[[float], None]) -> int:
    """Show what lies there, move it once a person has said yes, and watch until it has ended."""
    source, destination = stack.output("CaptureDeadLetterQueueArn"), stack.output("CaptureQueueArn")
    if _newest(stack, source).get("Status") == "RUNNING":
        print("A replay is at work already.")
        return _watch(stack, source, pause)
    letters = dead_letters.look(stack.sqs, stack.output("CaptureDeadLetterQueueUrl"))
    print(f"In the dead-letter queue of {stack.name}: {letters.total:,}")
    print(*letters.lines(), sep="\n")
    if not letters.total:
        return WELL
    if not yes and not _agreed(ask, f"Move them back into {destination.rsplit(':', 1)[1]}? [y/N] "):
        print("Nothing was moved.")
        return NEEDS_A_PERSON
    stack.sqs.start_message_move_task(SourceArn=source, DestinationArn=destination)
    return _watch(stack, source, pause)


def _agreed(ask: Callable[[str], str], question: str) -> bool:
    try:
        return ask(question).strip().lower() in {"y", "yes"}
    except EOFError:
        raise OperatorError("nobody is there to be asked: say YES=1 (--yes)") from None


def _watch(stack: Stack, source: str, pause: Callable[[float], None]) -> int:
    """Tell how far the newest task is, until it has ended."""
    try:
        while True:
            task = _newest(stack, source)
            moved, to_move = (task.get(f"ApproximateNumberOfMessages{what}", 0) for what in ("Moved", "ToMove"))
            status = task.get("Status", "unknown to SQS")
            print(f"  {moved:,} of about {to_move:,} moved: {status.lower()}", flush=True)
            if status not in {"RUNNING", "CANCELLING"}:
                break
            pause(_POLL_SECONDS)
    except KeyboardInterrupt:
        raise OperatorError("no longer watched, but SQS goes on moving: make replay shows how far it is") from None
    if status == "COMPLETED":
        return WELL
    print(f"The replay has not ended well: {task.get('FailureReason', status.lower())}")
    return NEEDS_A_PERSON


def _newest(stack: Stack, source: str) -> Mapping[str, Any]:
    tasks = stack.sqs.list_message_move_tasks(SourceArn=source, MaxResults=1).get("Results", [])
    return dict(tasks[0]) if tasks else {}
