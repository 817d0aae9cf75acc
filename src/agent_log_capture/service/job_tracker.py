"""Counts what has ended in one invocation, job by job, and tells the sum of each job in which nothing is left."""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from agent_log_capture.adapters.batches import HasTime
from agent_log_capture.adapters.jobs import Jobs, JobsError
from agent_log_capture.adapters.outcome_topic import OutcomeTopic
from agent_log_capture.domain.capture import Capture, Status
from agent_log_capture.domain.events.parser import ParsedRecord
from agent_log_capture.domain.job import JobSummary

if TYPE_CHECKING:
    from aws_lambda_powertools import Logger

# So many jobs are written to at the same time: as many single alarms as one invocation takes, one after the other,
# would take it half a minute.
JOBS_AT_ONCE = 8


@dataclass(frozen=True, slots=True)
class Ended:
    """A capture, what it has come to, and whose source it came from."""

    parsed: ParsedRecord
    capture: Capture
    status: Status


@dataclass(frozen=True, slots=True)
class Counted:
    """What came of counting.

    `open_jobs` has the IDs of the jobs in which captures wait from now on. `again` are the endings that have to be
    counted once more, because they were not or because the sum was not told; `error` says why.
    """

    open_jobs: frozenset[str] = frozenset()
    again: Sequence[Ended] = ()
    told: Sequence[JobSummary] = ()
    not_told: int = 0
    error: str | None = None


@dataclass(slots=True)
class _Work:
    """What there is to do about one job."""

    waiting: list[Capture] = field(default_factory=list)
    ended: list[Ended] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Result:
    """What came of one job: a sum to be told with the ending that it is told for, or why it could not be counted."""

    job_id: str
    work: _Work
    claimed: tuple[Capture, JobSummary] | None = None
    error: str | None = None


@dataclass(slots=True, kw_only=True)
class Counting:
    """Counts for one invocation; what cannot be counted is for the caller to keep.

    `has_time` tells before each call whether there is still time for it, and for the caller's own calls after it.
    `window_seconds` is for how long counting is tried.
    """

    jobs: Jobs
    topic: OutcomeTopic
    logger: "Logger"
    has_time: HasTime
    now: Callable[[], datetime]
    window_seconds: int
    _failure: str | None = None

    def count(self, ended: Iterable[Ended], waiting: Iterable[Capture]) -> Counted:
        """Open the jobs of captures that wait or have ended, count those that have, and tell sums."""
        work = _by_job(ended, waiting)
        if not work:
            return Counted()
        # On this thread where there is but one: an alarm's agent waits for no pool.
        if len(work) == 1:
            results = [self._settle(*item) for item in work.items()]
        else:
            with ThreadPoolExecutor(min(JOBS_AT_ONCE, len(work)), thread_name_prefix="jobs") as pool:
                results = list(pool.map(self._settle, *zip(*work.items(), strict=True)))
        claimed = [(result, *result.claimed) for result in results if result.claimed]
        not_told = self._tell(claimed)
        not_counted = [each for result in results if result.error for each in result.work.ended]
        why = next((result.error for result in results if result.error), None)
        return Counted(
            open_jobs=frozenset(result.job_id for result in results if not result.error),
            again=[*not_counted, *not_told],
            told=[done for result, teller, done in claimed if _ending_of(result, teller) not in not_told],
            not_told=len(not_told),
            error=why,
        )

    def is_too_late(self, ended: Ended) -> bool:
        """Tell whether an ending was tried to be counted for the whole of the retry window."""
        is_again = ended.capture.ended is not None
        return is_again and self.now() - ended.capture.retry_from >= timedelta(seconds=self.window_seconds)

    def to_be_counted(self, ended: Ended) -> Capture:
        """Return the capture that waits to be counted, and for nothing else."""
        if ended.capture.ended:
            return ended.capture
        return replace(ended.capture, ended=ended.status, retry_from=self.now())

    def _settle(self, job_id: str, work: _Work) -> _Result:
        """Do what there is to do about one job; when the table is out of reach, the others are not tried."""
        if self._failure:
            return _Result(job_id, work, error=self._failure)
        try:
            return _Result(job_id, work, self._counted(work))
        except JobsError as error:
            if not error.is_about_one_job:
                self._failure = f"{error}"
            return _Result(job_id, work, error=f"{error}")

    def _counted(self, work: _Work) -> tuple[Capture, JobSummary] | None:
        captures = [*work.waiting, *(each.capture for each in work.ended)]
        self.jobs.open((each for each in captures if not _is_open(each)), self.has_time)
        replayed = [each for each in work.waiting if each.replays and not _is_open(each)]
        self.jobs.ask_again(replayed, self.has_time)
        endings = [(each.capture, each.status) for each in work.ended]
        if not endings:
            return None
        self.jobs.count(endings, self.has_time)
        return self.jobs.claim(endings, self.has_time)

    def _tell(self, claimed: Sequence[tuple[_Result, Capture, JobSummary]]) -> list[Ended]:
        """Tell sums; return the endings that are to come again because theirs could not be told."""
        failed = self.topic.publish_summaries([done for _, _, done in claimed], self.has_time)
        for index, (_, teller, done) in enumerate(claimed):
            if index not in failed:
                self._log(done)
                self._remember(teller)
        if failed:
            why = next(iter(failed.values()))
            self.logger.error("sums of jobs were not published", count=len(failed), reason=why)
        return [_ending_of(result, teller) for index, (result, teller, _) in enumerate(claimed) if index in failed]

    def _remember(self, teller: Capture) -> None:
        try:
            self.jobs.told(teller, self.has_time)
        except JobsError as error:
            # Then it may be told once more, as the same outcome.
            self.logger.warning("it is not remembered that a sum was told", job_id=teller.job_id, reason=f"{error}")

    def _log(self, done: JobSummary) -> None:
        self.logger.info(
            "job done",
            correlation_id=done.trigger.id,
            job_id=done.job_id,
            revision=done.revision,
            asked=done.asked,
            counts=done.counts,
            outcome_id=done.outcome_id,
            seconds=(done.at - done.asked_at).total_seconds(),
        )


def _by_job(ended: Iterable[Ended], waiting: Iterable[Capture]) -> dict[str, _Work]:
    """Gather what there is to do; captures without a job, and waiting ones whose job is open, need nothing."""
    work: dict[str, _Work] = {}
    for each in ended:
        if each.capture.job:
            work.setdefault(each.capture.job_id, _Work()).ended.append(each)
    for capture in waiting:
        if capture.job and not capture.job.is_open:
            work.setdefault(capture.job_id, _Work()).waiting.append(capture)
    return work


def _is_open(capture: Capture) -> bool:
    return capture.job is None or capture.job.is_open


def _ending_of(result: _Result, teller: Capture) -> Ended:
    return next(each for each in result.work.ended if each.capture is teller)
