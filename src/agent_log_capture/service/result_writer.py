"""Tells and keeps what came of the captures of one invocation."""

import json
from collections import Counter
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from agent_log_capture.adapters.batches import MAX_ENTRIES, HasTime
from agent_log_capture.adapters.capture_queue import CaptureQueue, DeadLetter
from agent_log_capture.adapters.outcome_topic import OutcomeTopic
from agent_log_capture.domain.capture import Capture, Outcome, Reason, Status
from agent_log_capture.domain.events.parser import ParsedRecord
from agent_log_capture.domain.job import JobSummary
from agent_log_capture.domain.notifications.notification import to_json
from agent_log_capture.domain.responses import Deferred, Failure, GivenUp, NotTried, Result, Told, outcome
from agent_log_capture.service.job_tracker import Counting, Ended

if TYPE_CHECKING:
    from aws_lambda_powertools import Logger

_DEFERRED = "deferred"
# Returns when the agents of a region were activated, None when they were not.
type Activate = Callable[[str], datetime | None]
_UNTOLD_DELAY_SECONDS = 300  # a moment's failure was outlasted by the tries before it


@dataclass(kw_only=True)
class Report:
    """What one invocation came to.

    `counts` has each `Status` and `deferred`, and adds up to `asked`. `unsaved` tells, by the ID of the SQS record
    (None for any other event), why something could be put nowhere else: its source must stay. `new` is how many were
    asked for the first time, `answers` how the API answered, `activations_failed` how often agents could not be
    activated, and `failure` why the API was called no further. Captures that came only to be counted in their jobs
    are in neither `asked` nor `counts`: an earlier report has their endings. `not_counted` is how many endings have
    to come so, and `jobs_done` are the sums that were told.
    """

    asked: int
    ignored: str | None
    new: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    outcomes: list[Outcome] = field(default_factory=list)
    notifications_published: int = 0
    notifications_failed: int = 0
    answers: Counter[str] = field(default_factory=Counter)
    activations_failed: int = 0
    failure: Failure | None = None
    jobs_done: list[JobSummary] = field(default_factory=list)
    not_counted: int = 0
    unsaved: dict[str | None, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the function's answer to an event that did not come from the queue."""
        names = [*(status.value for status in Status), _DEFERRED]
        return {
            "asked": self.asked,
            **{name: self.counts[name] for name in names},
            "outcomes": [to_json(outcome) for outcome in self.outcomes],
            "ignored": self.ignored,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class _Telling:
    """An outcome on its way to the topic.

    `again` is the capture that goes back into the queue when it cannot be told; None for what lies in the
    dead-letter queue by then. `then` is how the log file is watched once it is told. `capture` is what it is an
    outcome of; None where an event could not be read.
    """

    parsed: ParsedRecord
    outcome: Outcome
    count: int = 1
    again: Capture | None = None
    then: Deferred | None = None
    capture: Capture | None = None


class ResultWriter:
    """Tells and keeps what the workers come to.

    What cannot be told, or counted in its job, goes back into the queue. What cannot be put there either keeps its
    source alive.
    """

    def __init__(
        self, queue: CaptureQueue, topic: OutcomeTopic, logger: "Logger", report: Report, has_time: HasTime
    ) -> None:
        self._queue = queue
        self._topic = topic
        self._logger = logger
        self._report = report
        self._has_time = has_time
        self._ended: list[Ended] = []
        self._told: list[_Telling] = []
        self._given_up: list[tuple[ParsedRecord, GivenUp]] = []
        self._waiting: list[tuple[ParsedRecord, Capture, int]] = []
        self._to_activate: set[object] = set()
        self._not_tried: Counter[Failure] = Counter()

    def refuse(self, parsed_records: Sequence[ParsedRecord]) -> None:
        """Keep what cannot be read in the dead-letter queue, and tell it."""
        unreadable = [parsed for parsed in parsed_records if parsed.rejections]
        letters = [DeadLetter(parsed.dead_letter or "", parsed.rejections[0].outcome) for parsed in unreadable]
        not_kept = self._queue.give_up(letters, self._has_time)
        for index, parsed in enumerate(unreadable):
            if why := not_kept.get(index):
                self._keep(parsed, f"the dead letter was not sent: {why}")
                self._report.counts[_DEFERRED] += sum(refused.count for refused in parsed.rejections)
                continue
            for refused in parsed.rejections:
                self._tell(_Telling(parsed=parsed, outcome=refused.outcome, count=refused.count))
        self._publish()

    def fan_out(self, work: Sequence[tuple[ParsedRecord, Capture]]) -> None:
        """Put captures into the queue at once, for other instances."""
        self._report.counts[_DEFERRED] += len(work)
        self._put_back([(parsed, capture, 0) for parsed, capture in work])

    def is_kept(self, parsed: ParsedRecord) -> bool:
        """Tell whether an parsed comes again, with all that it holds."""
        return parsed.record_id in self._report.unsaved

    def leave(self, count: int) -> None:
        """Note that so many captures are not worked on, because their source brings them again."""
        self._report.counts[_DEFERRED] += count

    def add_ended(self, parsed: ParsedRecord, capture: Capture, status: Status) -> None:
        """Take a capture that was told to have ended, and has yet to be counted in its job."""
        self._ended.append(Ended(parsed, capture, status))

    def add(self, parsed: ParsedRecord, result: Result) -> None:
        """Take what came of one capture."""
        match result:
            case Told(told, again, then):
                self._tell(_Telling(parsed=parsed, outcome=told, again=again, then=then, capture=again))
            case GivenUp():
                self._given_up.append((parsed, result))
                if len(self._given_up) == MAX_ENTRIES:
                    self._give_up()
            case Deferred(capture, delay_seconds):
                self._log_deferred(result)
                self._defer(parsed, capture, delay_seconds)
                if result.needs_activation:
                    self._to_activate.add(capture.key)
            case NotTried(capture, delay_seconds, failure):
                self._not_tried[failure] += 1
                self._defer(parsed, capture, delay_seconds)

    def finish(self, counting: Counting | None = None, activate: Activate = lambda _: None) -> None:
        """Save what has gathered; without `counting`, no sums of jobs are told."""
        self._give_up()
        self._publish()
        if counting:
            self._count(counting)
        # What a kept source brings again must not wait in the queue as well.
        waiting = [item for item in self._waiting if not self.is_kept(item[0])]
        self._put_back(self._activated(waiting, activate))
        for failure, count in self._not_tried.items():
            self._logger.info("not tried", count=count, reason=failure.reason, detail=failure.message)

    def lose(self, parsed: ParsedRecord, why: str) -> None:
        """Note that nothing is known of a capture, which its source must bring again."""
        self._report.counts[_DEFERRED] += 1
        self._keep(parsed, why)

    def _keep(self, parsed: ParsedRecord, why: str) -> None:
        """Note that an parsed must come again."""
        if not self.is_kept(parsed):
            self._report.unsaved[parsed.record_id] = why
            self._logger.error("not saved: its source brings it again", reason=why, correlation_id=parsed.trigger.id)

    def _defer(self, parsed: ParsedRecord, capture: Capture, delay_seconds: int) -> None:
        self._report.counts[_DEFERRED] += 1
        self._waiting.append((parsed, capture, delay_seconds))

    def _tell(self, told: _Telling) -> None:
        self._told.append(told)
        if len(self._told) == MAX_ENTRIES:
            self._publish()

    def _publish(self) -> None:
        """Publish what has gathered."""
        told, self._told = self._told, []
        if not told:
            return
        failed = self._topic.publish([item.outcome for item in told], self._has_time)
        for index, item in enumerate(told):
            if index in failed and item.again:
                self._defer(item.parsed, item.again, _UNTOLD_DELAY_SECONDS)
            else:
                self._end(item)
        self._report.notifications_published += len(told) - len(failed)
        self._report.notifications_failed += len(failed)
        if failed:
            why = next(iter(failed.values()))
            self._logger.error("notifications were not published", count=len(failed), reason=why)

    def _end(self, item: _Telling) -> None:
        """Note an outcome that is told or, if not, lies in the dead-letter queue."""
        self._report.counts[item.outcome.status.value] += item.count
        self._report.outcomes.append(item.outcome)
        self._log_outcome(item.outcome)
        if item.then:
            self._waiting.append((item.parsed, item.then.capture, item.then.delay_seconds))
        elif item.capture:
            self.add_ended(item.parsed, item.capture, item.outcome.status)

    def _count(self, counting: Counting) -> None:
        """Count endings in their jobs; those that cannot be counted come again for nothing else."""
        counted = counting.count(self._ended, [capture for _, capture, _ in self._waiting])
        self._report.jobs_done += counted.told
        self._report.notifications_published += len(counted.told)
        self._report.notifications_failed += counted.not_told
        self._waiting = [
            (parsed, _opened(capture, counted.open_jobs), delay_seconds)
            for parsed, capture, delay_seconds in self._waiting
        ]
        if counted.error:
            self._report.not_counted += len(counted.again) - counted.not_told
            self._logger.error("jobs were not counted", count=self._report.not_counted, reason=counted.error)
        again = [each for each in counted.again if not self.is_kept(each.parsed)]
        late = [each for each in again if counting.is_too_late(each)]
        not_kept = self._queue.give_up([_uncounted_letter(each, counted.error) for each in late], self._has_time)
        again = [each for each in again if not counting.is_too_late(each)] + [late[index] for index in not_kept]
        self._waiting += [
            (each.parsed, _opened(counting.to_be_counted(each), counted.open_jobs), _UNTOLD_DELAY_SECONDS)
            for each in again
        ]

    def _give_up(self) -> None:
        """Keep what is given up in the dead-letter queue; what lies there is told."""
        given_up, self._given_up = self._given_up, []
        not_kept = self._queue.give_up([_dead_letter(result) for _, result in given_up], self._has_time)
        for index, (parsed, result) in enumerate(given_up):
            if index in not_kept:
                self._defer(parsed, result.capture, _UNTOLD_DELAY_SECONDS)
            else:
                self._tell(_Telling(parsed=parsed, outcome=result.outcome, capture=result.capture))

    def _activated(
        self, waiting: Sequence[tuple[ParsedRecord, Capture, int]], activate: Activate
    ) -> Sequence[tuple[ParsedRecord, Capture, int]]:
        """Activate the agents that need it, once for each region, and note in their captures when."""
        regions = {capture.region for _, capture, _ in waiting if capture.key in self._to_activate}
        activated_at = {region: activate(region) for region in sorted(regions)}
        return [
            (parsed, self._noted(capture, activated_at.get(capture.region)), delay_seconds)
            for parsed, capture, delay_seconds in waiting
        ]

    def _noted(self, capture: Capture, activated_at: datetime | None) -> Capture:
        if activated_at is None or capture.polling is None or capture.key not in self._to_activate:
            return capture
        return replace(capture, polling=capture.polling.activated(activated_at))

    def _put_back(self, waiting: Sequence[tuple[ParsedRecord, Capture, int]]) -> None:
        delayed = [(capture, delay_seconds) for _, capture, delay_seconds in waiting]
        failed = self._queue.requeue(delayed, self._has_time)
        for index, why in failed.items():
            self._keep(waiting[index][0], f"the capture was not put back: {why}")

    def _log_outcome(self, outcome: Outcome) -> None:
        self._logger.info(
            "outcome",
            correlation_id=outcome.trigger.id,
            job_id=outcome.job_id,
            trigger_type=outcome.trigger.type,
            trigger_name=outcome.trigger.name,
            status=outcome.status,
            agent_id=outcome.agent_id,
            region=outcome.region,
            reason=outcome.reason,
            detail=outcome.message,
            http_status=outcome.http_status,
            attempts=outcome.attempts,
            outcome_id=outcome.outcome_id,
            seconds=(outcome.at - outcome.asked_at).total_seconds(),
        )

    def _log_deferred(self, deferred: Deferred) -> None:
        capture, failure = deferred.capture, deferred.failure
        self._logger.info(
            "deferred",
            correlation_id=capture.trigger.id,
            trigger_type=capture.trigger.type,
            trigger_name=capture.trigger.name,
            agent_id=capture.agent_id,
            region=capture.region,
            reason=failure.reason,
            detail=failure.message,
            http_status=failure.http_status,
            attempts=capture.attempts,
            delay_seconds=deferred.delay_seconds,
        )


def _dead_letter(given_up: GivenUp) -> DeadLetter:
    return DeadLetter(json.dumps({"captures": [given_up.capture.to_dead_letter()]}), given_up.outcome)


def _opened(capture: Capture, open_jobs: AbstractSet[str]) -> Capture:
    """Return a capture that need not open its job again."""
    if capture.job is None or capture.job.is_open or capture.job_id not in open_jobs:
        return capture
    return replace(capture, job=replace(capture.job, is_open=True))


def _uncounted_letter(ended: Ended, why: str | None) -> DeadLetter:
    """Return a dead letter that is only counted when it is replayed."""
    told = outcome(ended.capture, ended.status, now=ended.capture.retry_from, project_id=None)
    body = json.dumps({"captures": [ended.capture.to_dead_letter()]})
    return DeadLetter(body, replace(told, reason=Reason.NOT_COUNTED, message=why))
