"""What SQS does to move messages from a dead-letter queue, which moto does not know."""

import contextlib
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

from moto.core.responses import ActionResult
from moto.sqs.exceptions import SQSException
from moto.sqs.models import Message, SQSBackend
from moto.sqs.responses import SQSResponse

_AT_ONCE = 10


@dataclass
class MoveTasks:
    """Adds `StartMessageMoveTask` and `ListMessageMoveTasks` to moto.

    A task moves ten messages each time that it is asked for, so that it is seen at work; `failure` is what the next
    one ends with, in place of moving anything. What is moved is a new message, with a new ID. Sources: the SQS
    developer guide, "Learn how to configure a dead-letter queue redrive"; the API reference of both calls.
    """

    failure: str | None = None
    _tasks: list[dict[str, Any]] = field(default_factory=list)

    @contextlib.contextmanager
    def installed(self) -> Iterator[None]:
        """Let moto serve the two calls for as long as the `with` block lasts."""

        def start(response: Any) -> ActionResult:  # noqa: ANN401 (moto's own)
            return ActionResult(self._start(response.sqs_backend, response.params))

        def tell(response: Any) -> ActionResult:  # noqa: ANN401 (moto's own)
            return ActionResult(self._list(response.sqs_backend, response.params))

        with (
            patch.object(SQSResponse, "start_message_move_task", start, create=True),
            patch.object(SQSResponse, "list_message_move_tasks", tell, create=True),
        ):
            yield

    def _start(self, backend: SQSBackend, parameters: dict[str, Any]) -> dict[str, Any]:
        source = _queue(backend, parameters["SourceArn"])
        if not any(queue.dead_letter_queue is source for queue in backend.queues.values()):
            raise SQSException("InvalidParameterValue", "Source queue must be configured as a Dead Letter Queue.")
        if any(task["Status"] == "RUNNING" for task in self._of(parameters["SourceArn"])):
            raise SQSException(
                "InvalidParameterValue", "There is already a task running. Only one is allowed at a time."
            )
        self._tasks.insert(
            0,
            {
                "TaskHandle": f"task-{len(self._tasks)}",
                "Status": "RUNNING",
                "SourceArn": parameters["SourceArn"],
                "DestinationArn": parameters["DestinationArn"],
                "ApproximateNumberOfMessagesMoved": 0,
                "ApproximateNumberOfMessagesToMove": len(source.messages),
            },
        )
        return {"TaskHandle": self._tasks[0]["TaskHandle"]}

    def _list(self, backend: SQSBackend, parameters: dict[str, Any]) -> dict[str, Any]:
        tasks = self._of(parameters["SourceArn"])
        for task in tasks:
            if task["Status"] == "RUNNING":
                self._step(backend, task)
        return {"Results": [dict(task) for task in tasks[: parameters.get("MaxResults", 1)]]}

    def _of(self, source_arn: str) -> list[dict[str, Any]]:
        return [task for task in self._tasks if task["SourceArn"] == source_arn]

    def _step(self, backend: SQSBackend, task: dict[str, Any]) -> None:
        if self.failure:
            task |= {"Status": "FAILED", "FailureReason": self.failure}
            return
        source, destination = (_queue(backend, task[name]) for name in ("SourceArn", "DestinationArn"))
        moving = source.messages[:_AT_ONCE]
        for message in moving:
            source._messages.remove(message)  # noqa: SLF001 (moto has no way to take one out but a receipt)
            destination.add_message(_moved(message))
        task["ApproximateNumberOfMessagesMoved"] += len(moving)
        if not source.messages:
            task["Status"] = "COMPLETED"


def _moved(message: Message) -> Message:
    """Return what a message becomes when it is moved: one that is sent now and was never received."""
    moved = Message(str(uuid.uuid4()), message.body, message.system_attributes)
    moved.message_attributes = message.message_attributes
    moved.mark_sent()
    return moved


def _queue(backend: SQSBackend, arn: str) -> Any:  # noqa: ANN401 (moto's own)
    return backend.queues[arn.rsplit(":", 1)[1]]
