"""The event that asked for captures."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

# With these limits, a queue message of ten captures stays below the 1 MiB that SQS carries, whatever is in it.
TRIGGER_ID_CHARACTERS = 512
TRIGGER_NAME_CHARACTERS = 256


class TriggerType(StrEnum):
    """The kind of event that asked for a capture, by whichever route it arrived."""

    SQS = "sqs"
    EVENTBRIDGE = "eventbridge"
    ALARM = "alarm"
    SNS = "sns"
    MANUAL = "manual"


@dataclass(frozen=True, slots=True)
class Trigger:
    """The event that asked for a capture.

    `id` is the message ID, the event ID, the alarm's ARN and the time of its state, or the request ID; `name` is
    the alarm's name, where there is one.
    """

    type: TriggerType
    id: str
    name: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return `{"type": "alarm", "id": "…", "name": "…"}`, as notifications and the queue carry it."""
        return {"type": self.type.value, "id": self.id, "name": self.name}
