"""One invocation: read what arrived, ask every agent, tell and keep what came of it."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from agent_log_capture.adapters.capture_queue import CaptureQueue
from agent_log_capture.adapters.cloud_backup import CloudBackup
from agent_log_capture.adapters.outcome_topic import OutcomeTopic
from agent_log_capture.adapters.recent_captures import RecentCaptures
from agent_log_capture.adapters.token_secret import InvocationToken, TokenSecret
from agent_log_capture.asking import Asking
from agent_log_capture.core.capture import Capture
from agent_log_capture.core.decision import RetryPolicy
from agent_log_capture.core.following import FollowPolicy
from agent_log_capture.core.intake import Arrival, Reader
from agent_log_capture.saving import Report, Saving

if TYPE_CHECKING:
    from aws_lambda_powertools import Logger

# What one invocation works on; the rest goes back into the queue at once, so that other instances work beside it.
CAPTURES_IN_AN_INVOCATION = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptureWorkflow:
    """Captures the log files of every agent that an event names."""

    reader: Reader
    api: CloudBackup
    secret: TokenSecret
    queue: CaptureQueue
    topic: OutcomeTopic
    recent: RecentCaptures | None
    retries: RetryPolicy
    follow: FollowPolicy
    concurrency: int
    now: Callable[[], datetime]
    logger: "Logger"

    def run(self, event: object, *, request_id: str, remaining_millis: Callable[[], int]) -> Report:
        """Work on everything that `event` carries; what could not be saved is in the report's `unsaved`.

        `remaining_millis` tells how much time the invocation has left.
        """
        if self.recent:
            self.recent.begin(remaining_millis)
        arrivals = self.reader.read(event, request_id=request_id, now=self.now())
        work = [(arrival, capture) for arrival in arrivals for capture in arrival.captures]
        report = Report(
            asked=len(work) + sum(refused.count for arrival in arrivals for refused in arrival.refused),
            ignored=arrivals[0].ignored if len(arrivals) == 1 else None,
        )
        saving = Saving(self.queue, self.topic, self.logger, report)
        for arrival in arrivals:
            if arrival.ignored:
                self.logger.info("ignored", correlation_id=arrival.trigger.id, detail=arrival.ignored)
        saving.fan_out(work[CAPTURES_IN_AN_INVOCATION:])
        saving.refuse(arrivals)
        self._ask_all(work[:CAPTURES_IN_AN_INVOCATION], saving)
        saving.finish()
        return report

    def _ask_all(self, work: Sequence[tuple[Arrival, Capture]], saving: Saving) -> None:
        """Ask with all workers, and tell outcomes while others are still being asked for."""
        asking = Asking(
            api=self.api,
            token=InvocationToken(self.secret),
            recent=self.recent,
            retries=self.retries,
            follow=self.follow,
            now=self.now,
        )
        with ThreadPoolExecutor(self.concurrency, thread_name_prefix="capture") as workers:
            futures = {workers.submit(asking.work_on, capture): arrival for arrival, capture in work}
            for future in as_completed(futures):
                try:
                    result = future.result()
                except Exception as error:
                    self.logger.exception("a worker failed")
                    saving.lose(futures[future], f"{type(error).__name__} in a worker")
                else:
                    # Outside of the try: an error in there is about other captures too, and must end the invocation.
                    saving.add(futures[future], result)
