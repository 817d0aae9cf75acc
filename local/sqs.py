"""What SQS does and moto does not: its delays use a clock, and trace headers stay with messages."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from unittest.mock import patch

from moto.core.responses import ActionResult
from moto.sqs.responses import SQSResponse

_send_message_batch = SQSResponse.send_message_batch


@contextmanager
def complete_sqs(time: Callable[[], float]) -> Iterator[None]:
    """Let moto's SQS use a clock and keep trace headers, for the duration of the `with` block."""
    with (
        # moto has no setting for the time, and no other place from which its delays and timeouts take it.
        patch("moto.sqs.models.unix_time_millis", lambda: time() * 1000),
        # moto keeps a trace header that is a parameter of SendMessage, but not the header of a SendMessageBatch.
        patch.object(SQSResponse, "send_message_batch", _send_with_trace_header),
    ):
        yield


def _send_with_trace_header(response: SQSResponse) -> ActionResult:
    queue = response.sqs_backend.get_queue(response._get_queue_name())  # noqa: SLF001 (moto's own)
    count = len(queue._messages)  # noqa: SLF001 (its public list leaves out delayed messages)
    result = _send_message_batch(response)
    if header := response.headers.get("X-Amzn-Trace-Id"):
        for message in queue._messages[count:]:  # noqa: SLF001
            message.system_attributes["AWSTraceHeader"] = {"StringValue": header}
    return result
