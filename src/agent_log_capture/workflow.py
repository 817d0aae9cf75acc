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
from agent_log_capture.asking import Asking
from agent_log_capture.core.brake import Brake
from agent_log_capture.core.decision import RetryPolicy
from agent_log_capture.core.following import FollowPolicy
from agent_log_capture.core.intake import Reader
from agent_log_capture.counting import Counting
from agent_log_capture.saving import Report, Saving
from agent_log_capture.workers import RemainingMillis, TimeLeft, Turn, take_turns

if TYPE_CHECKING:
    from aws_lambda_powertools import Logger

# What one invocation works on; the rest goes back into the queue at once, so that other instances work beside it.
CAPTURES_IN_AN_INVOCATION = 500
# One more enters agents in the cool-down for so many that may call the API, while all of these do so.
_WORKERS_FOR_ONE_AHEAD = 4


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
        arrivals = self.reader.read(event, request_id=request_id, now=now)
        came = [(arrival, capture) for arrival in arrivals for capture in arrival.captures]
        work = [(arrival, capture) for arrival, capture in came if not capture.ended]
        refused = sum(each.count for arrival in arrivals for each in arrival.refused)
        report = Report(
            asked=len(work) + refused,
            # What was in the queue already was seen earlier.
            new=refused + sum(capture.asked_at == now for _, capture in work),
            ignored=arrivals[0].ignored if len(arrivals) == 1 else None,
        )
        saving = Saving(self.queue, self.topic, self.logger, report, time_left.is_enough_to_send)
        for arrival in arrivals:
            if arrival.ignored:
                self.logger.info("ignored", correlation_id=arrival.trigger.id, detail=arrival.ignored)
        saving.refuse(arrivals)
        to_do = [item for item in work if not saving.is_kept(item[0])]
        saving.leave(len(work) - len(to_do))
        for arrival, capture in came:
            if capture.ended and not saving.is_kept(arrival):
                saving.add_ended(arrival, capture, capture.ended)
        # Requeued at once, in the function's own form: a redrive would lose that they were received before.
        again = [item for item in to_do if item[0].must_be_requeued(item[1])]
        to_do = [item for item in to_do if not item[0].must_be_requeued(item[1])]
        saving.fan_out([*again, *to_do[CAPTURES_IN_AN_INVOCATION:]])
        asking = self._asking()
        turns = [Turn(*item, time_left) for item in to_do[:CAPTURES_IN_AN_INVOCATION]]
        self._ask_all(asking, turns, saving, time_left)
        saving.finish(self._counting(time_left), lambda region: asking.activate(region, time_left))
        report.answers, report.trouble = asking.answers.counts(), asking.brake.trouble
        report.activations_failed = len(asking.failed_activations)
        for error in asking.failed_activations:
            self.logger.warning("agents were not activated", detail=error)
        return report

    def _ask_all(self, asking: Asking, turns: Sequence[Turn], saving: Saving, time_left: TimeLeft) -> None:
        """Ask with all workers, and tell outcomes while others are still being asked for."""
        workers = self.concurrency + (self.concurrency // _WORKERS_FOR_ONE_AHEAD if self.recent else 0)
        taken = take_turns(turns, asking.work_on, workers=workers, time_left=time_left)
        with closing(taken):
            for turn, future in taken:
                try:
                    result = future.result() if future else asking.given_up(turn)
                except Exception as error:
                    self.logger.exception("a worker failed")
                    saving.lose(turn.arrival, f"{type(error).__name__} in a worker")
                else:
                    # Outside of the try: an error in there is about other captures too, and must end the invocation.
                    saving.add(turn.arrival, result)
        if self.recent:
            self.recent.end()
        if trouble := asking.brake.trouble:
            self.logger.warning("the brake: no further calls", reason=trouble.reason, detail=trouble.message)

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

    def _asking(self) -> Asking:
        brake = Brake(self.concurrency, self.random)
        return Asking(
            api=self.api,
            token=InvocationToken(self.secret, brake),
            brake=brake,
            slots=Semaphore(self.concurrency),
            recent=self.recent,
            retries=self.retries,
            follow=self.follow,
            now=self.now,
        )
