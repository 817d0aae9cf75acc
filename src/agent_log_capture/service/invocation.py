"""One invocation: parse the event, process its captures, save the results."""

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING
from uuid import uuid4

from agent_log_capture.adapters.capture_queue import CaptureQueue
from agent_log_capture.adapters.captures_table import CapturesTable
from agent_log_capture.adapters.cloud_backup import CloudBackup
from agent_log_capture.adapters.outcome_topic import OutcomeTopic
from agent_log_capture.adapters.token_secret import InvocationToken, TokenSecret
from agent_log_capture.domain.capture import Capture
from agent_log_capture.domain.circuit_breaker import CircuitBreaker
from agent_log_capture.domain.claim import ClaimPolicy
from agent_log_capture.domain.events.parser import EventParser, ParsedRecord
from agent_log_capture.domain.polling import PollPolicy
from agent_log_capture.domain.retry import RetryPolicy
from agent_log_capture.service.claims import Claims
from agent_log_capture.service.job_tracker import JobTracker
from agent_log_capture.service.processor import Processor
from agent_log_capture.service.result_writer import InvocationResult, ResultWriter
from agent_log_capture.service.worker_pool import SENDING_SECONDS, RemainingMillis, TimeLeft, run_tasks

if TYPE_CHECKING:
    from aws_lambda_powertools import Logger


# What one invocation processes; the rest is requeued at once, so that other instances work beside it. It is the
# template's BatchSize times the captures in a message: what was requeued is not requeued again.
CAPTURES_IN_AN_INVOCATION = 500
# A claim outlives its invocation by this: the clocks of two instances differ by less.
_CLAIM_MARGIN = timedelta(seconds=30)


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptureService:
    """Captures the log files of every agent that an event names."""

    parser: EventParser
    api: CloudBackup
    secret: TokenSecret
    queue: CaptureQueue
    topic: OutcomeTopic
    table: CapturesTable
    retries: RetryPolicy
    polls: PollPolicy
    cool_down: timedelta
    concurrency: int
    random: Callable[[], float]
    now: Callable[[], datetime]
    logger: "Logger"

    def run(self, event: object, *, request_id: str, remaining_millis: RemainingMillis) -> InvocationResult:
        """Process everything that `event` carries; what could not be saved is in the result's `unsaved`.

        `remaining_millis` returns how much time the invocation has left: it ends well before that. TooLittleTimeError
        when that is not enough for a single call.
        """
        time_left, now = TimeLeft(remaining_millis), self.now()
        time_left.check()
        records = self.parser.parse(event, request_id=request_id, now=now)
        for record in records:
            if record.ignored:
                self.logger.info("ignored", correlation_id=record.trigger.id, detail=record.ignored)
        result = _result(records, now)
        writer = self._writer(result, time_left)
        writer.reject(records)
        breaker = CircuitBreaker(self.concurrency, self.random)
        processor = Processor(
            api=self.api,
            token=InvocationToken(self.secret, breaker),
            breaker=breaker,
            retries=self.retries,
            polls=self.polls,
            now=self.now,
        )
        self._process(_to_process(records, writer), processor, writer, time_left)
        writer.finish(lambda region: processor.activate(region, time_left))
        self._note_api(processor, result)
        return result

    def _process(
        self, captures: Sequence[Capture], processor: Processor, writer: ResultWriter, time_left: TimeLeft
    ) -> None:
        """Process captures with all workers, and publish outcomes while others are still being processed."""
        claims = self._claims(processor, writer, time_left)
        for each_agent_once in claims.rounds(captures):
            batches = claims.claim(each_agent_once)
            tasks = run_tasks(batches, processor.process, workers=self.concurrency, time_left=time_left)
            with closing(tasks):
                for task, future in tasks:
                    try:
                        step = future.result() if future else processor.abandoned(task)
                    except Exception as error:
                        self.logger.exception("a worker failed")
                        writer.lose(task.capture, f"{type(error).__name__} in a worker")
                    else:
                        # Outside of the try: an error in there concerns other captures too, and ends the invocation.
                        claims.visited(step)
                        writer.add(step)
            claims.settle()

    def _note_api(self, processor: Processor, result: InvocationResult) -> None:
        result.responses, result.failure = processor.breaker.responses, processor.breaker.failure
        result.activations_failed = len(processor.failed_activations)
        for error in processor.failed_activations:
            self.logger.warning("agents were not activated", detail=error)
        if failure := result.failure:
            self.logger.warning("the circuit breaker is open", reason=failure.reason, detail=failure.message)

    def _claims(self, processor: Processor, writer: ResultWriter, time_left: TimeLeft) -> Claims:
        """Return the claims of this invocation; without a token, or with no cool-down, it makes none."""
        project_id = processor.token.try_project_id() if self.cool_down else None
        remaining = timedelta(milliseconds=time_left.remaining_millis())
        policy = None
        if project_id:
            policy = ClaimPolicy(
                project_id=project_id,
                claim_id=uuid4().hex,
                claimed_until=self.now() + remaining + _CLAIM_MARGIN,
                cool_down=self.cool_down,
            )
        return Claims(
            table=self.table, policy=policy, polls=self.polls, now=self.now, logger=self.logger, save=writer.add
        )

    def _writer(self, result: InvocationResult, time_left: TimeLeft) -> ResultWriter:
        tracker = JobTracker(
            table=self.table,
            topic=self.topic,
            logger=self.logger,
            window=timedelta(seconds=self.retries.window_seconds),
            now=self.now,
            has_time=lambda: time_left.is_enough(2 * SENDING_SECONDS),  # what waits is requeued after it
        )
        return ResultWriter(
            queue=self.queue,
            topic=self.topic,
            logger=self.logger,
            tracker=tracker,
            result=result,
            has_time=lambda: time_left.is_enough(SENDING_SECONDS),
        )


def _result(records: Sequence[ParsedRecord], now: datetime) -> InvocationResult:
    # What is only recorded is in an earlier result.
    asked = [capture for record in records for capture in record.captures if not capture.is_recorded]
    rejected = sum(rejection.count for record in records for rejection in record.rejections)
    return InvocationResult(
        asked=len(asked) + rejected,
        # What was in the queue already was counted earlier.
        new=rejected + sum(capture.asked_at == now for capture in asked),
        ignored=records[0].ignored if len(records) == 1 else None,
    )


def _to_process(records: Sequence[ParsedRecord], writer: ResultWriter) -> Sequence[Capture]:
    """Return the captures that this invocation processes; others are requeued, or left to their source."""
    again: list[Capture] = []
    recorded: list[Capture] = []
    asked: list[Capture] = []
    for record in records:
        for capture in record.captures:
            if record.record_id in writer.result.unsaved:
                writer.lose(capture, "its record is kept")
            elif record.must_be_requeued(capture):
                # Requeued at once, in the function's own form: a redrive would lose that it was received before.
                again.append(capture)
            else:
                (recorded if capture.is_recorded else asked).append(capture)
    if again := again + asked[CAPTURES_IN_AN_INVOCATION:]:
        writer.requeue_now(again)
    return recorded + asked[:CAPTURES_IN_AN_INVOCATION]
