"""The dead-letter queue: how many messages it has, and why they are there."""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import batched
from typing import TYPE_CHECKING, Any

from agent_log_capture.domain.events.agent_ids import parse_json
from agent_log_capture.domain.printable import printable

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient
    from mypy_boto3_sqs.type_defs import MessageTypeDef

SAMPLE_SIZE = 100
_MESSAGES_A_CALL = 10
# Longer than reading the sample takes, so that no message is read twice; all are released right after.
_HIDDEN_SECONDS = 30
_SHOWN_CHARACTERS = 60
_COUNTS = {
    "visible": "ApproximateNumberOfMessages",
    "in flight": "ApproximateNumberOfMessagesNotVisible",
    "delayed": "ApproximateNumberOfMessagesDelayed",
}


def message_counts(sqs: "SQSClient", queue_url: str) -> dict[str, int]:
    """Return a queue's approximate number of messages in each state."""
    names: Any = list(_COUNTS.values())
    attributes: Mapping[Any, str] = sqs.get_queue_attributes(QueueUrl=queue_url, AttributeNames=names)["Attributes"]
    return {state: int(attributes[name]) for state, name in _COUNTS.items()}


def describe(sqs: "SQSClient", queue_url: str) -> tuple[int, list[str]]:
    """Return the number of dead letters, and lines with the causes of a sample; all of them stay in the queue."""
    counts = message_counts(sqs, queue_url)
    messages: list[MessageTypeDef] = []
    try:
        while len(messages) < min(counts["visible"], SAMPLE_SIZE) and (more := _receive(sqs, queue_url)):
            messages += more
    finally:
        _release(sqs, queue_url, messages)
    total = max(sum(counts.values()), len(messages))
    causes = Counter(cause_of(message) for message in messages).most_common()
    lines = [f"  {count:>6,}  {cause}" for cause, count in causes]
    if len(messages) < total:
        lines.append(f"  (a sample of {len(messages):,} from about {total:,})")
    return total, lines


def cause_of(message: Mapping[str, Any]) -> str:
    """Return why a message is a dead letter: its reason and status, or the part of AWS that moved it."""
    attributes = {name: value.get("StringValue", "") for name, value in message.get("MessageAttributes", {}).items()}
    if "reason" in attributes:
        cause = f"{attributes['reason']} ({attributes.get('status', 'no status')})"
    elif "ERROR_CODE" in attributes:
        cause = f"EventBridge could not deliver it: {attributes['ERROR_CODE']}"
    elif (condition := _failed_invocation(message["Body"])) is not None:
        cause = f"Lambda's invocation failed: {condition}"
    elif "DeadLetterQueueSourceArn" in message.get("Attributes", {}):
        cause = "SQS moved it: invocations with it crashed too often"
    else:
        cause = "no reason given"
    return printable(cause, _SHOWN_CHARACTERS)


def _failed_invocation(body: str) -> object | None:
    """Return the condition in Lambda's record of a failed invocation; None for any other body."""
    record = parse_json(body)
    if not isinstance(record, dict) or "requestPayload" not in record:
        return None
    context = record.get("requestContext")
    return context.get("condition", "unknown") if isinstance(context, dict) else "unknown"


def _receive(sqs: "SQSClient", queue_url: str) -> "list[MessageTypeDef]":
    return sqs.receive_message(
        QueueUrl=queue_url,
        MaxNumberOfMessages=_MESSAGES_A_CALL,
        VisibilityTimeout=_HIDDEN_SECONDS,
        WaitTimeSeconds=1,
        MessageAttributeNames=["All"],
        MessageSystemAttributeNames=["All"],
    ).get("Messages", [])


def _release(sqs: "SQSClient", queue_url: str, messages: "Sequence[MessageTypeDef]") -> None:
    for batch in batched(messages, _MESSAGES_A_CALL, strict=False):
        entries: Any = [
            {"Id": str(index), "ReceiptHandle": message["ReceiptHandle"], "VisibilityTimeout": 0}
            for index, message in enumerate(batch)
        ]
        sqs.change_message_visibility_batch(QueueUrl=queue_url, Entries=entries)
