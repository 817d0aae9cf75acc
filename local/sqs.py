"""What SQS does and moto does not: trace headers that stay with messages, and redrives of a dead-letter queue."""

import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

from moto.core.responses import ActionResult
from moto.sqs.exceptions import SQSException
from moto.sqs.models import Message
from moto.sqs.responses import SQSResponse

_MOVED_AT_ONCE = 10

_send_message_batch = SQSResponse.send_message_batch


@dataclass
class MoveTasks:
    """`StartMessageMoveTask` and `ListMessageMoveTasks`.

    A task moves ten messages at each `ListMessageMoveTasks`, so that its progress can be seen. With `failure`, it
    fails with this reason instead. A moved message is a new one, with a new ID. Sources: the SQS developer guide,
    "Learn how to configure a dead-letter queue redrive"; the API reference of both calls.
    """

    failure: str | None = None
    _tasks: list[dict[str, Any]] = field(default_factory=list)

    def start_task(self, response: SQSResponse) -> ActionResult:
        """Serve `StartMessageMoveTask`."""
        queues, source_arn = response.sqs_backend.queues, response.params["SourceArn"]
        source = _queue(response, source_arn)
        if not any(queue.dead_letter_queue is source for queue in queues.values()):
            raise SQSException("InvalidParameterValue", "Source queue must be configured as a Dead Letter Queue.")
        if any(task["Status"] == "RUNNING" for task in self._of(source_arn)):
            message = "There is already a task running. Only one is allowed at a time."
            raise SQSException("InvalidParameterValue", message)
        task = {
            "TaskHandle": f"task-{len(self._tasks)}",
            "Status": "RUNNING",
            "SourceArn": source_arn,
            "DestinationArn": response.params["DestinationArn"],
            "ApproximateNumberOfMessagesMoved": 0,
            "ApproximateNumberOfMessagesToMove": len(source.messages),
        }
        self._tasks.insert(0, task)
        return ActionResult({"TaskHandle": task["TaskHandle"]})

    def list_tasks(self, response: SQSResponse) -> ActionResult:
        """Serve `ListMessageMoveTasks`."""
        tasks = self._of(response.params["SourceArn"])
        for task in tasks:
            if task["Status"] == "RUNNING":
                self._move(response, task)
        return ActionResult({"Results": [dict(task) for task in tasks[: response.params.get("MaxResults", 1)]]})

    def _of(self, source_arn: str) -> list[dict[str, Any]]:
        return [task for task in self._tasks if task["SourceArn"] == source_arn]

    def _move(self, response: SQSResponse, task: dict[str, Any]) -> None:
        if self.failure:
            task |= {"Status": "FAILED", "FailureReason": self.failure}
            return
        source, destination = (_queue(response, task[name]) for name in ("SourceArn", "DestinationArn"))
        for message in source.messages[:_MOVED_AT_ONCE]:
            source._messages.remove(message)  # noqa: SLF001 (moto removes messages by receipt only)
            moved = Message(str(uuid.uuid4()), message.body, message.system_attributes)
            moved.message_attributes = message.message_attributes
            moved.mark_sent()
            destination.add_message(moved)
            task["ApproximateNumberOfMessagesMoved"] += 1
        if not source.messages:
            task["Status"] = "COMPLETED"


@contextmanager
def complete_sqs(time: Callable[[], float], move_tasks: MoveTasks) -> Iterator[None]:
    """Let moto's SQS use a clock, keep trace headers and move messages, for the duration of the `with` block."""
    with ExitStack() as exits:
        # moto has no setting for the time, and no other place from which its delays and timeouts take it.
        exits.enter_context(patch("moto.sqs.models.unix_time_millis", lambda: time() * 1000))
        # moto keeps a trace header that is a parameter of SendMessage, but not the header of a SendMessageBatch.
        exits.enter_context(patch.object(SQSResponse, "send_message_batch", _send_with_trace_header))
        # moto finds the method for a call by its name, and has none for these two.
        start, list_ = _as_method(move_tasks.start_task), _as_method(move_tasks.list_tasks)
        exits.enter_context(patch.object(SQSResponse, "start_message_move_task", start, create=True))
        exits.enter_context(patch.object(SQSResponse, "list_message_move_tasks", list_, create=True))
        yield


def _as_method(serve: Callable[[SQSResponse], ActionResult]) -> Callable[[SQSResponse], ActionResult]:
    def method(response: SQSResponse) -> ActionResult:
        return serve(response)

    return method


def _send_with_trace_header(response: SQSResponse) -> ActionResult:
    queue = response.sqs_backend.get_queue(response._get_queue_name())  # noqa: SLF001 (moto's own)
    count = len(queue._messages)  # noqa: SLF001 (its public list leaves out delayed messages)
    result = _send_message_batch(response)
    if header := response.headers.get("X-Amzn-Trace-Id"):
        for message in queue._messages[count:]:  # noqa: SLF001
            message.system_attributes["AWSTraceHeader"] = {"StringValue": header}
    return result


def _queue(response: SQSResponse, arn: str) -> Any:  # noqa: ANN401 (moto's own)
    return response.sqs_backend.queues[arn.rsplit(":", 1)[1]]
