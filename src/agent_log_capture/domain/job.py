"""What is remembered of a job, and the sum of what came of everything that it asked for."""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from agent_log_capture.domain.capture import Status, Trigger

# What a capture may end in, in the order in which the sum names it; `requested` ends one that is not followed.
COUNTED = (
    Status.CAPTURED,
    Status.EXPIRED,
    Status.REJECTED,
    Status.FAILED,
    Status.DUPLICATE,
    Status.REQUESTED,
)
OPEN = "open"
_OUTCOME_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "https://agent-log-capture/job")
# The longest that SQS keeps a message, and MessageRetentionPeriod of the template: until then, a dead letter may be
# replayed.
_IN_A_QUEUE_SECONDS = 14 * 86_400


@dataclass(frozen=True, slots=True)
class Remembered:
    """What is remembered of one agent of a job; `status` is None for one that is asked again after a replay."""

    status: Status | None
    replays: int


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSummary:
    """The sum of a job, as it was when the last of its agents had ended.

    `revision` counts such moments: what is replayed, or added under the same name, makes another one. `trigger` is
    that of the agent with which it was complete.
    """

    job_id: str
    revision: int
    counts: Mapping[Status, int]
    trigger: Trigger
    asked_at: datetime
    at: datetime

    @property
    def asked(self) -> int:
        """How many agents, and values that are none, were asked for: what is counted adds up to it."""
        return sum(self.counts.values())

    @property
    def outcome_id(self) -> str:
        """The same whenever the same sum is told again."""
        return str(uuid.uuid5(_OUTCOME_NAMESPACE, repr((self.job_id, self.revision))))


def counting(status: Status, replays: int, remembered: Remembered | None) -> Mapping[str, int] | None:
    """Return how an ending changes the counts of its job; None when it is counted, or something newer is.

    The first ending of an agent counts, but for `failed`: what comes of its replay takes the place of that.
    """
    if remembered is None or (remembered.status is None and remembered.replays <= replays):
        return {status.value: 1, OPEN: -1}
    if remembered.status is Status.FAILED and remembered.replays < replays and status is not Status.FAILED:
        return {Status.FAILED.value: -1, status.value: 1}
    return None


def asking_again(replays: int, remembered: Remembered | None) -> Mapping[str, int] | None:
    """Return how a replay changes the counts of its job; None when there is nothing to ask for again.

    An agent whose failure has not been counted yet is open already. It is remembered that this must not happen later.
    """
    if remembered is None:
        return {}
    if remembered.status is Status.FAILED and remembered.replays < replays:
        return {Status.FAILED.value: -1, OPEN: 1}
    return None


def keep_seconds(*, retry_window_seconds: int, deadline_seconds: int) -> int:
    """Return for how long a job is remembered after the last that came of it.

    A capture may be asked for a retry window, watched until the deadline, looked for once more as long when the API
    cannot be asked, wait as long to be counted, and then lie in the dead-letter queue until it is replayed.
    """
    return 3 * retry_window_seconds + deadline_seconds + _IN_A_QUEUE_SECONDS
