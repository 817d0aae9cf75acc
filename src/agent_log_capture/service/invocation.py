"""One invocation: read what arrived, ask every agent, tell and keep what came of it."""

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from threading import Semaphore
from typing import TYPE_CHECKING

from agent_log_capture.adapters.capture_queue import CaptureQueue
from agent_log_capture.adapters.cloud_backup import CloudBackup
from agent_log_capture.adapters.jobs import Jobs
from agent_log_capture.adapters.outcome_topic import OutcomeTopic
from agent_log_capture.adapters.recent_captures import RecentCaptures
from agent_log_capture.adapters.token_secret import InvocationToken, TokenSecret
from agent_log_capture.domain.circuit_breaker import CircuitBreaker
from agent_log_capture.domain.events.parser import EventParser
from agent_log_capture.domain.polling import PollPolicy
from agent_log_capture.domain.responses import RetryPolicy
from agent_log_capture.service.job_tracker import Counting
from agent_log_capture.service.processor import Processor
from agent_log_capture.service.result_writer import Report, ResultWriter
from agent_log_capture.service.worker_pool import RemainingMillis, Task, TimeLeft, run_tasks

if TYPE_CHECKING:
    from aws_lambda_powertools import Logger

# What one invocation works on; the rest goes back into the queue at once, so that other instances work beside it.
CAPTURES_IN_AN_INVOCATION = 500
# One more enters agents in the cool-down for so many that may call the API, while all of these do so.
_WORKERS_FOR_ONE_AHEAD = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptureService:
    """Captures the log files of every agent that an event names."""

    reader: EventParser
    api: CloudBackup
    secret: TokenSecret
    queue: CaptureQueue
    topic: OutcomeTopic
    recent: RecentCaptures | None
    retries: RetryPolicy
    follow: PollPolicy
    jobs: Jobs | None
    concurrency: int
    random: Callable[[], float]
    now: Callable[[], datetime]
    logger: "Logger"

    def run(self, event: object, *, request_id: str, remaining_millis: RemainingMillis) -> Report:
        """Work on everything that `event` carries; what could not be saved is in the report's `unsaved`.

        `remaining_millis` tells how much time the invocation has left: it ends well before that. TooLittleTimeError
        when that is not enough for a single call.
        """
        time_left = TimeLeft(remaining_millis)
        time_left.check()
        if self.recent:
            self.recent.begin(remaining_millis)
        now = self.now()
        parsed_records = self.reader.parse(event, request_id=request_id, now=now)
        came = [(parsed, capture) for parsed in parsed_records for capture in parsed.captures]
        work = [(parsed, capture) for parsed, capture in came if not capture.ended]
        refused = sum(each.count for parsed in parsed_records for each in parsed.rejections)
        report = Report(
            asked=len(work) + refused,
            # What was in the queue already was seen earlier.
            new=refused + sum(capture.asked_at == now for _, capture in work),
            ignored=parsed_records[0].ignored if len(parsed_records) == 1 else None,
        )
        writer = ResultWriter(self.queue, self.topic, self.logger, report, time_left.is_enough_to_send)
        for parsed in parsed_records:
            if parsed.ignored:
                self.logger.info("ignored", correlation_id=parsed.trigger.id, detail=parsed.ignored)
        writer.refuse(parsed_records)
        to_do = [item for item in work if not writer.is_kept(item[0])]
        writer.leave(len(work) - len(to_do))
        for parsed, capture in came:
            if capture.ended and not writer.is_kept(parsed):
                writer.add_ended(parsed, capture, capture.ended)
        # Requeued at once, in the function's own form: a redrive would lose that they were received before.
        again = [item for item in to_do if item[0].must_be_requeued(item[1])]
        to_do = [item for item in to_do if not item[0].must_be_requeued(item[1])]
        writer.fan_out([*again, *to_do[CAPTURES_IN_AN_INVOCATION:]])
        asking = self._asking()
        tasks = [Task(*item, time_left) for item in to_do[:CAPTURES_IN_AN_INVOCATION]]
        self._ask_all(asking, tasks, writer, time_left)
        writer.finish(self._counting(time_left), lambda region: asking.activate(region, time_left))
        report.answers, report.failure = asking.answers.counts(), asking.breaker.failure
        report.activations_failed = len(asking.failed_activations)
        for error in asking.failed_activations:
            self.logger.warning("agents were not activated", detail=error)
        return report

    def _ask_all(self, asking: Processor, tasks: Sequence[Task], writer: ResultWriter, time_left: TimeLeft) -> None:
        """Ask with all workers, and tell outcomes while others are still being asked for."""
        workers = self.concurrency + (self.concurrency // _WORKERS_FOR_ONE_AHEAD if self.recent else 0)
        taken = run_tasks(tasks, asking.work_on, workers=workers, time_left=time_left)
        with closing(taken):
            for task, future in taken:
                try:
                    result = future.result() if future else asking.given_up(task)
                except Exception as error:
                    self.logger.exception("a worker failed")
                    writer.lose(task.parsed, f"{type(error).__name__} in a worker")
                else:
                    # Outside of the try: an error in there is about other captures too, and must end the invocation.
                    writer.add(task.parsed, result)
        if self.recent:
            self.recent.end()
        if failure := asking.breaker.failure:
            self.logger.warning("the breaker: no further calls", reason=failure.reason, detail=failure.message)

    def _counting(self, time_left: TimeLeft) -> Counting | None:
        if self.jobs is None:
            return None
        return Counting(
            jobs=self.jobs,
            topic=self.topic,
            logger=self.logger,
            has_time=time_left.is_enough_to_count,
            now=self.now,
            window_seconds=self.retries.window_seconds,
        )

    def _asking(self) -> Processor:
        breaker = CircuitBreaker(self.concurrency, self.random)
        return Processor(
            api=self.api,
            token=InvocationToken(self.secret, breaker),
            breaker=breaker,
            slots=Semaphore(self.concurrency),
            recent=self.recent,
            retries=self.retries,
            follow=self.follow,
            now=self.now,
        )
