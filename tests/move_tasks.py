"""What SQS does and moto does not: redrives of a dead-letter queue."""

import uuid
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from unittest.mock import patch

from moto.core.responses import ActionResult
from moto.sqs.exceptions import SQSException
from moto.sqs.models import Message
from moto.sqs.responses import SQSResponse

_MOVED_AT_ONCE = 10


@dataclass
class MoveTasks:
    """`StartMessageMoveTask` and `ListMessageMoveTasks`.

    A task moves ten messages at each `ListMessageMoveTasks`, so that its progress can be seen. With `failure`, it
    fails with this reason instead. A moved message is a new one, with a new ID. Sources: the SQS developer guide,
    "Learn how to configure a dead-letter queue redrive"; the API reference of both calls.
    """

    failure: str | None = None
    _tasks: list = field(default_factory=list)

    def start_task(self, response):
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

    def list_tasks(self, response):
        """Serve `ListMessageMoveTasks`."""
        tasks = self._of(response.params["SourceArn"])
        for task in tasks:
            if task["Status"] == "RUNNING":
                self._move(response, task)
        return ActionResult({"Results": [dict(task) for task in tasks[: response.params.get("MaxResults", 1)]]})

    def _of(self, source_arn):
        return [task for task in self._tasks if task["SourceArn"] == source_arn]

    def _move(self, response, task):
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
    def installed(self):
        """Let moto serve both calls for the duration of the `with` block."""
        # moto finds the method for a call by its name, and has none for these two.
        calls = {"start_message_move_task": self.start_task, "list_message_move_tasks": self.list_tasks}
        with ExitStack() as exits:
            for name, serve in calls.items():
                method = _as_method(serve)
                exits.enter_context(patch.object(SQSResponse, name, method, create=True))
            yield self


def _as_method(serve):
    def method(response):
        return serve(response)

    return method


def _queue(response, arn):
    return response.sqs_backend.queues[arn.rsplit(":", 1)[1]]
