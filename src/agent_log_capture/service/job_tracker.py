"""Records in each job what has ended, and publishes a summary of each job in which nothing is left.

The order of the writes matters; docs/architecture.md gives the rules.
"""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING

from agent_log_capture.adapters.captures_table import CapturesTable, TableError
from agent_log_capture.adapters.outcome_topic import OutcomeTopic
from agent_log_capture.domain.capture import Capture, Recorded
from agent_log_capture.domain.job import JobSummary, TriggerPart, fact_of, progress, summary, trigger_part
from agent_log_capture.domain.outcome import Status

if TYPE_CHECKING:
    from aws_lambda_powertools import Logger

    from agent_log_capture.domain.outcome import Trigger

# This many jobs are recorded at the same time: one after the other, the alarms of one invocation would take half a
# minute.
JOBS_AT_ONCE = 8
_TRIES = 5
# So recording is retried once at least.
_AT_LEAST = timedelta(minutes=5)


@dataclass(slots=True)
class JobWork:
    """What there is to record in one job, and what resulted from it.

    `summary` is published if there is one. `unrecorded` are captures that have to be recorded once more: because of
    an `error`, before which the job's triggers may not be in the table, or because the summary `is_unpublished`.
    """

    job_id: str
    waiting: list[Capture] = field(default_factory=list)
    recorded: list[Capture] = field(default_factory=list)
    unrecorded: Sequence[Capture] = ()
    summary: JobSummary | None = None
    is_unpublished: bool = False
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobTracker:
    """Records for one invocation. `has_time` says before each call whether there is time for it, and for requeuing.

    `window` is for how long recording is retried.
    """

    table: CapturesTable
    topic: OutcomeTopic
    logger: "Logger"
    window: timedelta
    now: Callable[[], datetime]
    has_time: Callable[[], bool]

    def track(self, recorded: Iterable[Capture], waiting: Iterable[Capture]) -> Sequence[JobWork]:
        """Record captures that have ended, keep the triggers of those that wait, and publish summaries."""
        works = _by_job(recorded, waiting)
        failures: list[str] = []
        if len(works) == 1:  # on this thread: an alarm waits for no pool
            self._record(works[0], failures)
        elif works:
            with ThreadPoolExecutor(min(JOBS_AT_ONCE, len(works)), thread_name_prefix="jobs") as pool:
                list(pool.map(partial(self._record, failures=failures), works))
        self._publish([work for work in works if work.summary])
        return works

    def captured_before(self, capture: Capture) -> Capture | None:
        """Return a capture as recorded if its log file, which is gone, was captured before, and then deleted.

        An earlier message is delivered once more when the invocation that published `captured` was killed.
        """
        if capture.job is None:
            return None
        captured = replace(capture, phase=Recorded(status=Status.CAPTURED))
        shards = trigger_part(capture, capture.job).shards
        was_captured = self._table_in_time().has_fact(capture.job_id, shards, fact_of(captured))
        return captured if was_captured else None

    def is_too_late(self, capture: Capture) -> bool:
        """Return whether recording a capture was retried for the whole window."""
        return self.now() - capture.retry_from >= max(self.window, _AT_LEAST)

    def _record(self, work: JobWork, failures: list[str]) -> None:
        """Record what there is to record in one job; what was not, and may be repeated, is `unrecorded`.

        Once the table has failed for one job, it is not tried for the others.
        """
        work.unrecorded = work.recorded
        if failures:
            work.error = failures[0]
            return
        try:
            self._open(work)
            self._write_facts(work.job_id, work.recorded)
            is_to_be_read = [
                self._table_in_time().add_ended(work.job_id, part, len(captures))
                for part, captures in _by_trigger(work.recorded)
            ]
            # From here on one of them is enough to have the job read again.
            work.unrecorded = work.recorded[:1]
            work.summary = self._summary(work.job_id) if any(is_to_be_read) else None
        except TableError as error:
            work.error = f"{error}"
            failures.append(work.error)
        else:
            work.unrecorded = ()

    def _open(self, work: JobWork) -> None:
        """Keep the triggers of captures that wait, and note agents whose capture returned by a replay."""
        ended = {capture.trigger for capture in work.recorded}
        for part, _ in _by_trigger(work.waiting):
            if part.trigger not in ended:  # otherwise counting what has ended keeps it
                self._table_in_time().add_ended(work.job_id, part, 0)
        if replayed := [capture for capture in work.waiting if capture.replays]:
            self._write_facts(work.job_id, replayed)
            self._table_in_time().change_version(work.job_id)

    def _write_facts(self, job_id: str, captures: Iterable[Capture]) -> None:
        for part, of_part in _by_trigger(captures):
            self._table_in_time().write_facts(job_id, part.shards, map(fact_of, of_part))

    def _summary(self, job_id: str) -> JobSummary | None:
        """Read a job; return the summary to publish, None when something is lacking or it was published."""
        for number in range(_TRIES):
            self.table.wait(number / 10)
            items = self._table_in_time().read_job(job_id)
            if not items.may_be_done:
                return None
            state = progress(items.parts, self.table.read_facts(items))
            table = self._table_in_time()
            if any(state.lacking.values()):
                for part in items.parts:
                    if lacking := state.lacking[part.key]:
                        table.look_again(job_id, part, lacking)
                return None
            if report := table.update_report(items, state.counts):
                return None if report.is_reported else summary(items, report)
        raise TableError("the job's report changes all the time")

    def _publish(self, works: Sequence[JobWork]) -> None:
        """Publish summaries; a capture of a job whose summary is not published has to be recorded again."""
        failed = self.topic.publish_summaries([work.summary for work in works if work.summary], self.has_time)
        if failed:
            why = next(iter(failed.values()))
            self.logger.error("job summaries were not published", count=len(failed), reason=why)
        for index, work in enumerate(works):
            if index in failed:
                work.unrecorded, work.summary, work.is_unpublished = work.recorded[:1], None, True
            elif work.summary:
                self._mark(work.summary)

    def _mark(self, published: JobSummary) -> None:
        self.logger.info(
            "job done",
            correlation_id=published.trigger.id,
            job_id=published.job_id,
            revision=published.revision,
            asked=published.asked,
            counts=published.counts,
            outcome_id=published.outcome_id,
            seconds=(published.at - published.asked_at).total_seconds(),
        )
        try:
            self._table_in_time().mark_reported(published.job_id, published.revision)
        except TableError as error:
            # The same summary may be published once more, with the same outcome ID.
            self.logger.warning("a job summary was not marked", job_id=published.job_id, reason=f"{error}")

    def _table_in_time(self) -> CapturesTable:
        """Return the table for another call; TableError when there is no time for it."""
        if not self.has_time():
            raise TableError("the invocation has no time left for it")
        return self.table


def _by_job(recorded: Iterable[Capture], waiting: Iterable[Capture]) -> Sequence[JobWork]:
    """Group what there is to record; captures without a job, and waiting ones of an open trigger, need nothing."""
    works: dict[str, JobWork] = {}
    for capture in recorded:
        if capture.job:
            works.setdefault(capture.job_id, JobWork(capture.job_id)).recorded.append(capture)
    for capture in waiting:
        if capture.job and not capture.job.is_open:
            works.setdefault(capture.job_id, JobWork(capture.job_id)).waiting.append(capture)
    return list(works.values())


def _by_trigger(captures: Iterable[Capture]) -> Sequence[tuple[TriggerPart, Sequence[Capture]]]:
    by_trigger: dict[Trigger, list[Capture]] = {}
    for capture in captures:
        by_trigger.setdefault(capture.trigger, []).append(capture)
    return [(trigger_part(each[0], each[0].job), each) for each in by_trigger.values() if each[0].job]
