"""Saves what the visits of one invocation resulted in: dead letters, notifications, the table, then the queue."""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from agent_log_capture.adapters.batches import MAX_ENTRIES, HasTime
from agent_log_capture.adapters.capture_queue import CaptureQueue, DeadLetter
from agent_log_capture.adapters.captures_table import TableError
from agent_log_capture.adapters.outcome_topic import OutcomeTopic
from agent_log_capture.domain.capture import Capture, Polling, Recorded, Step
from agent_log_capture.domain.events.parser import ParsedRecord
from agent_log_capture.domain.job import JobSummary
from agent_log_capture.domain.notifications.notification import to_json
from agent_log_capture.domain.outcome import Outcome, Reason, Status
from agent_log_capture.domain.queue_message import to_dead_letter
from agent_log_capture.domain.responses import Failure
from agent_log_capture.service.job_tracker import JobTracker

if TYPE_CHECKING:
    from aws_lambda_powertools import Logger

DEFERRED = "deferred"
# Returns when the agents of a region were activated, None when they were not.
type Activate = Callable[[str], datetime | None]
_UNPUBLISHED_DELAY_SECONDS = 300  # the retries of each call have outlasted a short failure already


@dataclass(kw_only=True)
class InvocationResult:
    """What one invocation resulted in.

    `counts` has each `Status` and `deferred`, and adds up to `asked`. `unsaved` says, by the ID of the SQS record
    (None for any other event), why something could be saved nowhere: its source must remain. `new` is how many were
    asked for the first time, `responses` counts the API's responses by class, `activations_failed` failed
    activations, and `failure` is why the circuit breaker opened. Captures that were only recorded are not in
    `asked` and `counts`: an earlier result has them. `not_counted` is how many have to be recorded later, `jobs_done`
    are the summaries that were published.
    """

    asked: int
    ignored: str | None
    new: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    outcomes: list[Outcome] = field(default_factory=list)
    notifications_published: int = 0
    notifications_failed: int = 0
    responses: Counter[str] = field(default_factory=Counter)
    activations_failed: int = 0
    failure: Failure | None = None
    jobs_done: list[JobSummary] = field(default_factory=list)
    not_counted: int = 0
    unsaved: dict[str | None, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the function's response to an event that is not from the queue."""
        return {
            "asked": self.asked,
            **{status.value: self.counts[status] for status in Status},
            DEFERRED: self.counts[DEFERRED],
            "outcomes": [to_json(outcome) for outcome in self.outcomes],
            "ignored": self.ignored,
        }


@dataclass(slots=True, kw_only=True)
class ResultWriter:
    """Saves steps. What cannot be saved is requeued; what cannot be requeued keeps its source."""

    queue: CaptureQueue
    topic: OutcomeTopic
    logger: "Logger"
    tracker: JobTracker
    result: InvocationResult
    has_time: HasTime
    _to_publish: list[Step] = field(default_factory=list)
    _waiting: list[Step] = field(default_factory=list)
    _recorded: list[Capture] = field(default_factory=list)
    _not_tried: Counter[Failure] = field(default_factory=Counter)

    def reject(self, records: Iterable[ParsedRecord]) -> None:
        """Send what cannot be read to the dead-letter queue, and publish its rejections."""
        invalid = [record for record in records if record.rejections]
        if not invalid:
            return
        letters = [DeadLetter(record.dead_letter or "", record.rejections[0].outcome) for record in invalid]
        not_sent = self.queue.send_dead_letters(letters, self.has_time)
        for index, why in not_sent.items():
            self._keep_source(invalid[index].record_id, f"the dead letter was not sent: {why}")
            self.result.counts[DEFERRED] += sum(rejection.count for rejection in invalid[index].rejections)
        sent = [record for index, record in enumerate(invalid) if index not in not_sent]
        rejections = [rejection for record in sent for rejection in record.rejections]
        self._publish_outcomes([rejection.outcome for rejection in rejections])
        for rejection in rejections:
            self._count(rejection.outcome, rejection.count)

    def requeue_now(self, captures: Sequence[Capture]) -> None:
        """Requeue captures at once, for other instances."""
        self.result.counts[DEFERRED] += len(captures)
        self._requeue([Step(capture=capture, next=capture) for capture in captures])

    def lose(self, capture: Capture, why: str) -> None:
        """Note that nothing is known of a capture: its source must deliver it again."""
        self.result.counts[DEFERRED] += not capture.is_recorded
        self._keep_source(capture.record_id, why)

    def add(self, step: Step) -> None:
        """Take a step; outcomes are published ten at a time."""
        try:
            is_gone = step.outcome is not None and step.outcome.reason is Reason.GONE
            captured = self.tracker.captured_before(step.capture) if is_gone else None
        except TableError:
            self._defer(_again(step.capture))
            return
        if captured:
            self.result.counts[Status.CAPTURED] += 1
            self._recorded.append(captured)
        elif step.outcome:
            self._to_publish.append(step)
            if len(self._to_publish) == MAX_ENTRIES:
                self._publish()
        elif step.next:
            self._defer(step)
        else:
            self._recorded.append(step.capture)

    def finish(self, activate: Activate) -> None:
        """Save what is left. Captures are requeued last: nothing else may be lost with them."""
        self._publish()
        self._record()
        # What a kept source delivers again must not wait in the queue as well.
        waiting = [step for step in self._waiting if step.capture.record_id not in self.result.unsaved]
        self._requeue(_activated(waiting, activate))
        for failure, count in self._not_tried.items():
            self.logger.info("not tried", count=count, reason=failure.reason, detail=failure.message)

    def _keep_source(self, record_id: str | None, why: str) -> None:
        if record_id not in self.result.unsaved:
            self.result.unsaved[record_id] = why
            self.logger.error("not saved: the source is kept, and delivers it again", reason=why, record_id=record_id)

    def _defer(self, step: Step) -> None:
        self.result.counts[DEFERRED] += not step.capture.is_recorded
        self._waiting.append(step)
        if step.failure and step.is_tried:
            self._log("deferred", step.next or step.capture, step.failure, delay_seconds=step.delay_seconds)
        elif step.failure:
            self._not_tried[step.failure] += 1

    def _sent(self, dead: Sequence[Step]) -> Sequence[Step]:
        """Send captures whose retry window is over to the dead-letter queue; those that are not sent are requeued."""
        letters = [DeadLetter(_body(step.capture), step.outcome) for step in dead if step.outcome]
        not_sent = self.queue.send_dead_letters(letters, self.has_time)
        for index in not_sent:
            self._defer(_again(dead[index].capture))
        return [step for index, step in enumerate(dead) if index not in not_sent]

    def _publish(self) -> None:
        """Publish the outcomes of steps; a capture whose outcome is not published is requeued."""
        steps, self._to_publish = self._to_publish, []
        if dead := [step for step in steps if step.is_dead_letter]:
            steps = [*self._sent(dead), *(step for step in steps if not step.is_dead_letter)]
        failed = self._publish_outcomes([step.outcome for step in steps if step.outcome])
        for index, step in enumerate(steps):
            if index in failed and not step.is_dead_letter:
                self._defer(_again(step.capture))
            elif step.outcome:
                self._count(step.outcome)
                if step.next:
                    self._waiting.append(step)
                if recorded := step.recorded:
                    self._recorded.append(recorded)

    def _publish_outcomes(self, outcomes: Sequence[Outcome]) -> set[int]:
        failed = self.topic.publish(outcomes, self.has_time)
        self.result.notifications_published += len(outcomes) - len(failed)
        self.result.notifications_failed += len(failed)
        if failed:
            why = next(iter(failed.values()))
            self.logger.error("notifications were not published", count=len(failed), reason=why)
        return set(failed)

    def _count(self, outcome: Outcome, count: int = 1) -> None:
        self.result.counts[outcome.status.value] += count
        self.result.outcomes.append(outcome)
        seconds = (outcome.at - outcome.asked_at).total_seconds()
        self._log("outcome", outcome, outcome, status=outcome.status, outcome_id=outcome.outcome_id, seconds=seconds)

    def _record(self) -> None:
        """Record what has ended in its jobs; what is not recorded is requeued or, late, a dead letter."""
        works = self.tracker.track(self._recorded, [step.next for step in self._waiting if step.next])
        self.result.jobs_done += [work.summary for work in works if work.summary]
        self.result.notifications_published += len(self.result.jobs_done)
        self.result.notifications_failed += sum(work.is_unpublished for work in works)
        why = next((work.error for work in works if work.error), None)
        if why:
            self.result.not_counted = sum(len(work.unrecorded) for work in works if work.error)
            self.logger.error("jobs were not recorded", count=self.result.not_counted, reason=why)
        unrecorded = [capture for work in works for capture in work.unrecorded]
        left = [capture for capture in unrecorded if capture.record_id not in self.result.unsaved]
        late = [capture for capture in left if self.tracker.is_too_late(capture)]
        letters = [DeadLetter(_body(capture), _not_counted(capture, why)) for capture in late]
        not_sent = self.queue.send_dead_letters(letters, self.has_time)
        again = [capture for capture in left if capture not in late] + [late[index] for index in not_sent]
        open_jobs = {work.job_id for work in works if not work.error}
        self._waiting = [_opened(step, open_jobs) for step in (*self._waiting, *map(_again, again))]

    def _requeue(self, steps: Sequence[Step]) -> None:
        delayed = [(step.next, step.delay_seconds) for step in steps if step.next]
        for index, why in self.queue.requeue(delayed, self.has_time).items():
            self._keep_source(steps[index].capture.record_id, f"the capture was not requeued: {why}")

    def _log(self, message: str, about: Outcome | Capture, why: Outcome | Failure, **details: Any) -> None:  # noqa: ANN401 (as the logger takes them)
        self.logger.info(
            message,
            correlation_id=about.trigger.id,
            job_id=about.job_id,
            trigger_type=about.trigger.type,
            trigger_name=about.trigger.name,
            agent_id=about.agent_id,
            region=about.region,
            attempts=about.attempts,
            reason=why.reason,
            detail=why.message,
            http_status=why.http_status,
            **details,
        )


def _again(capture: Capture) -> Step:
    """Return the step of a capture whose step could not be saved: it is repeated later."""
    return Step(capture=capture, next=capture, delay_seconds=_UNPUBLISHED_DELAY_SECONDS)


def _body(capture: Capture) -> str:
    return json.dumps({"captures": [to_dead_letter(capture)]})


def _opened(step: Step, open_jobs: Iterable[str]) -> Step:
    """Return a step whose capture need not open its job again."""
    capture = step.next
    if capture is None or capture.job is None or capture.job.is_open or capture.job_id not in open_jobs:
        return step
    return replace(step, next=replace(capture, job=replace(capture.job, is_open=True)))


def _activated(steps: Sequence[Step], activate: Activate) -> Sequence[Step]:
    """Activate the agents that need it, once for each region, and note in their captures when."""
    regions = {step.capture.region for step in steps if step.needs_activation}
    activated_at = {region: activate(region) for region in sorted(regions)}
    noted = []
    for step in steps:
        at, capture = activated_at.get(step.capture.region), step.next
        if step.needs_activation and at and capture and isinstance(capture.phase, Polling):
            phase = replace(capture.phase, activated_at=at, activations=capture.phase.activations + 1)
            noted.append(replace(step, next=replace(capture, phase=phase)))
        else:
            noted.append(step)
    return noted


def _not_counted(capture: Capture, why: str | None) -> Outcome:
    """Return what a dead letter says that is only recorded when it is replayed."""
    status = capture.phase.status if isinstance(capture.phase, Recorded) else Status.FAILED
    outcome = capture.outcome(status, at=capture.retry_from, project_id=None)
    return replace(outcome, reason=Reason.NOT_COUNTED, message=why)
