"""What lies in the dead-letter queue, and who put it there for which reason."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import batched
from typing import TYPE_CHECKING, Any

from agent_log_capture.domain.events.agent_ids import parse_json
from agent_log_capture.domain.printable import printable

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient
    from mypy_boto3_sqs.type_defs import MessageTypeDef

MOST_LOOKED_AT = 100
_AT_ONCE = 10
# As long as looking at all of them may take: none is looked at twice, and each is put back right after.
_HIDDEN_SECONDS = 30
_SHOWN_CHARACTERS = 60
_DEPTHS = {
    "visible": "ApproximateNumberOfMessages",
    "in flight": "ApproximateNumberOfMessagesNotVisible",
    "delayed": "ApproximateNumberOfMessagesDelayed",
}


@dataclass(frozen=True, slots=True)
class DeadLetters:
    """How many there are, and the causes of those that were looked at."""

    total: int
    causes: Counter[str]

    def lines(self) -> Iterator[str]:
        """Say it, for a person."""
        for cause, count in self.causes.most_common():
            yield f"  {count:>6,}  {cause}"
        if (looked_at := self.causes.total()) < self.total:
            yield f"  a sample: {looked_at:,} of about {self.total:,} were looked at"


def depths(sqs: "SQSClient", queue_url: str) -> dict[str, int]:
    """Return how many messages of a queue are in which state, as SQS counts them: approximately."""
    names: Any = list(_DEPTHS.values())
    attributes: Mapping[str, str]
    attributes = sqs.get_queue_attributes(QueueUrl=queue_url, AttributeNames=names)["Attributes"]  # type: ignore[assignment]
    return {state: int(attributes[name]) for state, name in _DEPTHS.items()}


def look(sqs: "SQSClient", queue_url: str) -> DeadLetters:
    """Poll at what lies there, without taking anything away."""
    counted = depths(sqs, queue_url)
    seen: list[MessageTypeDef] = []
    try:
        while len(seen) < min(counted["visible"], MOST_LOOKED_AT) and (more := _receive(sqs, queue_url)):
            seen += more
    finally:
        _put_back(sqs, queue_url, seen)
    return DeadLetters(max(sum(counted.values()), len(seen)), Counter(cause_of(message) for message in seen))


def cause_of(message: Mapping[str, Any]) -> str:
    """Return why a message lies there: its reason and status, or what of AWS put it there."""
    attributes = {name: value.get("StringValue", "") for name, value in message.get("MessageAttributes", {}).items()}
    if "reason" in attributes:
        return _shown(f"{attributes['reason']} ({attributes.get('status', 'no status')})")
    if "ERROR_CODE" in attributes:
        return _shown(f"EventBridge could not deliver it: {attributes['ERROR_CODE']}")
    body = parse_json(message["Body"])
    if isinstance(body, dict) and "requestPayload" in body:
        context = body.get("requestContext")
        condition = context.get("condition") if isinstance(context, dict) else None
        return _shown(f"Lambda gave up an invocation: {condition}")
    if "DeadLetterQueueSourceArn" in message.get("Attributes", {}):
        return "SQS moved it here: invocations with it crashed too often"
    return "no reason on it"


def _shown(text: str) -> str:
    return printable(text, _SHOWN_CHARACTERS)


def _receive(sqs: "SQSClient", queue_url: str) -> "list[MessageTypeDef]":
    return sqs.receive_message(
        QueueUrl=queue_url,
        MaxNumberOfMessages=_AT_ONCE,
        VisibilityTimeout=_HIDDEN_SECONDS,
        WaitTimeSeconds=1,
        MessageAttributeNames=["All"],
        MessageSystemAttributeNames=["All"],
    ).get("Messages", [])


def _put_back(sqs: "SQSClient", queue_url: str, messages: "Sequence[MessageTypeDef]") -> None:
    for batch in batched(messages, _AT_ONCE, strict=False):
        entries: Any = [
            {"Id": str(place), "ReceiptHandle": message["ReceiptHandle"], "VisibilityTimeout": 0}
            for place, message in enumerate(batch)
        ]
        sqs.change_message_visibility_batch(QueueUrl=queue_url, Entries=entries)
