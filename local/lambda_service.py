"""What Lambda does to invoke a handler, in this process."""

import json
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import batched
from typing import TYPE_CHECKING, Any

from agent_log_capture.domain.outcome import timestamp
from local.lineage import MOST_INVOCATIONS, invocation_number

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient
    from mypy_boto3_sqs.type_defs import MessageTypeDef

_BATCH_SIZE = 10  # SQS's limit for one call


@dataclass(frozen=True, slots=True)
class Context:
    """The part of a handler's context that the functions read."""

    function_name: str
    timeout_seconds: float
    aws_request_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    started_at: float = field(default_factory=time.monotonic)

    def get_remaining_time_in_millis(self) -> int:
        """Return the time until Lambda would kill the invocation, which is not done here."""
        return round(1000 * (self.timeout_seconds - (time.monotonic() - self.started_at)))


@dataclass(frozen=True, slots=True, kw_only=True)
class EventSourceMapping:
    """Invokes a handler with batches from a queue, as `AWS::Lambda::EventSourceMapping` does."""

    sqs: "SQSClient"
    queue_url: str
    queue_arn: str
    batch_size: int

    def poll(self, handler: Callable[[Any], Any], *, is_loop_allowed: bool) -> int:
        """Invoke `handler` with one batch and delete the messages that did not fail; return the size of the batch.

        The others become visible again after the queue's visibility timeout, and move to the dead-letter queue once
        they were received too often. So do messages of a recursive loop, unless it is allowed.
        """
        messages = [each for each in self.receive() if is_loop_allowed or not _is_stopped(each)]
        if not messages:
            return 0
        try:
            answer = handler({"Records": [_record(message, self.queue_arn) for message in messages]})
        except Exception:  # noqa: BLE001 (after any error Lambda keeps the whole batch)
            return len(messages)
        failed = {item["itemIdentifier"] for item in answer["batchItemFailures"]}
        self.delete([message for message in messages if message["MessageId"] not in failed])
        return len(messages)

    def receive(self) -> Sequence["MessageTypeDef"]:
        """Receive the next batch."""
        return receive(self.sqs, self.queue_url, self.batch_size)

    def delete(self, messages: Sequence["MessageTypeDef"]) -> None:
        """Delete messages."""
        delete(self.sqs, self.queue_url, messages)


@dataclass(frozen=True, slots=True, kw_only=True)
class AsynchronousInvocations:
    """Invokes a handler as EventBridge, SNS and alarms do: with retries, then the on-failure destination."""

    sqs: "SQSClient"
    destination_url: str
    retries: int
    function_name: str

    def invoke(self, handler: Callable[[Any, str], Any], event: object) -> str:
        """Invoke `handler` with `event` and a request ID, which is returned and the same for every try.

        After an error it is invoked up to `retries` more times, without Lambda's delays.
        """
        request_id = str(uuid.uuid4())
        for _ in range(1 + self.retries):
            try:
                handler(event, request_id)
            except Exception as error:  # noqa: BLE001 (Lambda retries after any error)
                failure = error
            else:
                return request_id
        self._send_to_destination(event, request_id, failure)
        return request_id

    def _send_to_destination(self, event: object, request_id: str, error: Exception) -> None:
        record = {
            "version": "1.0",
            "timestamp": timestamp(datetime.now(UTC)),
            "requestContext": {
                "requestId": request_id,
                "functionArn": f"arn:aws:lambda:us-east-1:123456789012:function:{self.function_name}:$LATEST",
                "condition": "RetriesExhausted",
                "approximateInvokeCount": 1 + self.retries,
            },
            "requestPayload": event,
            "responseContext": {"statusCode": 200, "executedVersion": "$LATEST", "functionError": "Unhandled"},
            "responsePayload": {"errorMessage": str(error), "errorType": type(error).__name__},
        }
        self.sqs.send_message(QueueUrl=self.destination_url, MessageBody=json.dumps(record))


def receive(sqs: "SQSClient", queue_url: str, most: int) -> Sequence["MessageTypeDef"]:
    """Receive up to `most` messages, ten at a time."""
    received: list[MessageTypeDef] = []
    while len(received) < most:
        answer = sqs.receive_message(
            QueueUrl=queue_url,
            MaxNumberOfMessages=min(_BATCH_SIZE, most - len(received)),
            WaitTimeSeconds=0,
            MessageSystemAttributeNames=["All"],
            MessageAttributeNames=["All"],
        )
        if not answer.get("Messages"):
            break
        received += answer["Messages"]
    return received


def delete(sqs: "SQSClient", queue_url: str, messages: Sequence["MessageTypeDef"]) -> None:
    """Delete messages, ten at a time."""
    for batch in batched(messages, _BATCH_SIZE, strict=False):
        entries = [{"Id": f"{place}", "ReceiptHandle": item["ReceiptHandle"]} for place, item in enumerate(batch)]
        sqs.delete_message_batch(QueueUrl=queue_url, Entries=entries)  # type: ignore[arg-type]


def _is_stopped(message: "MessageTypeDef") -> bool:
    """Return whether a message comes from a recursive loop that Lambda stops."""
    return invocation_number(f"{message['Attributes']}") > MOST_INVOCATIONS


def _record(message: "MessageTypeDef", queue_arn: str) -> Mapping[str, object]:
    return {
        "messageId": message["MessageId"],
        "receiptHandle": message["ReceiptHandle"],
        "body": message["Body"],
        "attributes": message["Attributes"],
        "messageAttributes": {
            name: {"stringValue": attribute.get("StringValue"), "dataType": attribute["DataType"]}
            for name, attribute in message.get("MessageAttributes", {}).items()
        },
        "md5OfBody": message["MD5OfBody"],
        "eventSource": "aws:sqs",
        "eventSourceARN": queue_arn,
        "awsRegion": "us-east-1",
    }
