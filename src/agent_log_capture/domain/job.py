"""What a job's items in the table say, by the rules of docs/architecture.md: every number is read from the facts."""

import hashlib
import uuid
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from agent_log_capture.domain.capture import Capture, Job, Recorded
from agent_log_capture.domain.outcome import FINAL_STATUSES, Reason, Status, Trigger

SHARDS = 10
_AGENTS_IN_ONE_SHARD = 500
# Of two statuses after as many replays, the one further to the right counts.
_RANK = (None, *reversed(FINAL_STATUSES))
_OUTCOME_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "https://agent-log-capture/job")
# The longest that SQS keeps a message, and MessageRetentionPeriod of the template: so long, it may be replayed.
_IN_A_QUEUE_SECONDS = 14 * 86_400

type Counts = Mapping[Status, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """What happened to one agent for one trigger; `status` is None while it waits after a replay."""

    agent_id: str
    region: str
    trigger_key: str
    replays: int
    status: Status | None
    reason: Reason | None = None
    log_file_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TriggerPart:
    """What one trigger asked for in a job; `rejected` counts the values among them that could not be read.

    `ended` counts recorded final statuses, and may run ahead, never behind. At `look_at` of them the facts are read.
    """

    trigger: Trigger
    asked: int
    rejected: int
    asked_at: datetime
    shards: int
    ended: int = 0
    look_at: int = 0

    @property
    def key(self) -> str:
        """The same for the same trigger, and short."""
        return trigger_key(self.trigger)


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The summary that a job has got so far; `version` changes with everything that may change the summary."""

    version: int = 0
    revision: int = 0
    counts: Counts | None = None
    is_reported: bool = True
    done_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobItems:
    """A job's report and its triggers."""

    job_id: str
    report: Report
    parts: Sequence[TriggerPart]

    @property
    def shards(self) -> int:
        """How many partitions its facts are spread over."""
        return max((part.shards for part in self.parts), default=1)

    @property
    def may_be_done(self) -> bool:
        """Whether every trigger has reached its `look_at`."""
        return bool(self.parts) and all(part.ended >= part.look_at for part in self.parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """What the facts of a job say: the fact that counts for each agent and trigger, and what each trigger lacks."""

    facts: Sequence[Fact]
    lacking: Mapping[str, int]
    counts: Counts


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSummary:
    """The summary of a job in which everything has ended.

    `revision` counts its summaries: a replay or an addition makes another one. `trigger` is the first of the job.
    """

    job_id: str
    revision: int
    counts: Counts
    trigger: Trigger
    asked_at: datetime
    at: datetime

    @property
    def asked(self) -> int:
        """How many agents, and values that could not be read, were asked for: what is counted adds up to it."""
        return sum(self.counts.values())

    @property
    def outcome_id(self) -> str:
        """The same when the same summary is published twice."""
        return str(uuid.uuid5(_OUTCOME_NAMESPACE, repr((self.job_id, self.revision))))


def trigger_part(capture: Capture, job: Job) -> TriggerPart:
    """Return what a capture's trigger asked for in its job."""
    is_small = job.name is None and job.asked <= _AGENTS_IN_ONE_SHARD
    shards = 1 if is_small else SHARDS
    return TriggerPart(
        trigger=capture.trigger, asked=job.asked, rejected=job.rejected, asked_at=capture.asked_at, shards=shards
    )


def trigger_key(trigger: Trigger) -> str:
    """Return a short key of a trigger, whose ID may be too long for a sort key."""
    return hashlib.sha256(f"{trigger.type}:{trigger.id}".encode()).hexdigest()[:24]


def fact_of(capture: Capture) -> Fact:
    """Return the fact that a recorded capture is, or that a waiting one is pending."""
    key, replays, phase = trigger_key(capture.trigger), capture.replays, capture.phase
    fact = Fact(agent_id=capture.agent_id, region=capture.region, trigger_key=key, replays=replays, status=None)
    if isinstance(phase, Recorded):
        return replace(fact, status=phase.status, reason=phase.reason, log_file_id=phase.log_file_id)
    return fact


def progress(parts: Iterable[TriggerPart], facts: Iterable[Fact]) -> Progress:
    """Return what the facts say: of an agent and trigger, the highest replays count, then the rank of the status."""
    latest: defaultdict[str, dict[tuple[str, str], Fact]] = defaultdict(dict)
    for fact in sorted(facts, key=lambda fact: (fact.replays, _RANK.index(fact.status))):
        latest[fact.trigger_key][fact.region, fact.agent_id] = fact
    counts: Counter[Status] = Counter()
    lacking, counted = {}, []
    for part in parts:
        of_part = list(latest[part.key].values())
        final = Counter(fact.status for fact in of_part if fact.status)
        pending = len(of_part) - final.total()
        lacking[part.key] = max(part.asked - part.rejected - final.total(), pending)
        counts += final + Counter({Status.REJECTED: part.rejected})
        counted += of_part
    return Progress(facts=counted, lacking=lacking, counts={status: counts[status] for status in FINAL_STATUSES})


def summary(items: JobItems, report: Report) -> JobSummary:
    """Return the summary that a report is about."""
    first = min(items.parts, key=lambda part: (part.asked_at, part.key))
    return JobSummary(
        job_id=items.job_id,
        revision=report.revision,
        counts=report.counts or {},
        trigger=first.trigger,
        asked_at=first.asked_at,
        at=report.done_at or first.asked_at,
    )


def keep_seconds(*, retry_window_seconds: int, deadline_seconds: int) -> int:
    """Return for how long a job is kept after it was asked for."""
    # A capture may be retried for a retry window, polled until the deadline and for a grace period as long as the
    # window, wait as long to be recorded, and then lie in the dead-letter queue until it is replayed.
    return 3 * retry_window_seconds + deadline_seconds + _IN_A_QUEUE_SECONDS
