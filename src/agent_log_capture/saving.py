"""Tells and keeps what came of the captures of one invocation."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from agent_log_capture.adapters.batches import MAX_ENTRIES
from agent_log_capture.adapters.capture_queue import CaptureQueue, DeadLetter
from agent_log_capture.adapters.outcome_topic import OutcomeTopic
from agent_log_capture.core.capture import Capture, Outcome, Status
from agent_log_capture.core.decision import Deferred, GivenUp, Result, Told
from agent_log_capture.core.intake import Arrival
from agent_log_capture.core.notice import to_json

if TYPE_CHECKING:
    from aws_lambda_powertools import Logger

_DEFERRED = "deferred"


@dataclass(kw_only=True)
class Report:
    """What one invocation came to.

    `counts` has each `Status` and `deferred`, and adds up to `asked`. `unsaved` tells, by the ID of the SQS record
    (None for any other event), why an outcome could not be told or a capture not be kept: its source must stay.
    """

    asked: int
    ignored: str | None
    counts: Counter[str] = field(default_factory=Counter)
    outcomes: list[Outcome] = field(default_factory=list)
    notices_published: int = 0
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
    """An outcome on its way to the topic, and what goes into the dead-letter queue once it is told."""

    arrival: Arrival
    outcome: Outcome
    count: int = 1
    dead_letter: str | None = None


class Saving:
    """Tells and keeps what the workers come to; what cannot be saved keeps its source alive."""

    def __init__(self, queue: CaptureQueue, topic: OutcomeTopic, logger: "Logger", report: Report) -> None:
        self._queue = queue
        self._topic = topic
        self._logger = logger
        self._report = report
        self._told: list[_Telling] = []
        self._waiting: list[tuple[Arrival, Capture, int]] = []

    def fan_out(self, work: Sequence[tuple[Arrival, Capture]]) -> None:
        """Put captures into the queue at once, for other instances."""
        self._report.counts[_DEFERRED] += len(work)
        self._put_back([(arrival, capture, 0) for arrival, capture in work])

    def refuse(self, arrivals: Sequence[Arrival]) -> None:
        """Tell what cannot be read, and keep it in the dead-letter queue."""
        for arrival in arrivals:
            for refused in arrival.refused:
                is_last = refused is arrival.refused[-1]
                letter = arrival.dead_letter if is_last else None
                told = _Telling(arrival=arrival, outcome=refused.outcome, count=refused.count, dead_letter=letter)
                self._tell(told)

    def add(self, arrival: Arrival, result: Result) -> None:
        """Take what came of one capture."""
        match result:
            case Told(outcome, then):
                self._tell(_Telling(arrival=arrival, outcome=outcome))
                if then:
                    self._waiting.append((arrival, then.capture, then.delay_seconds))
            case GivenUp(capture, outcome):
                letter = json.dumps({"captures": [capture.to_dead_letter()]})
                self._tell(_Telling(arrival=arrival, outcome=outcome, dead_letter=letter))
            case Deferred(capture, delay_seconds):
                self._report.counts[_DEFERRED] += 1
                self._log_deferred(result)
                self._waiting.append((arrival, capture, delay_seconds))

    def finish(self) -> None:
        """Save what has gathered."""
        self._publish()
        # What a kept source brings again must not wait in the queue as well.
        self._put_back([item for item in self._waiting if not self._is_kept(item[0])])

    def lose(self, arrival: Arrival, why: str) -> None:
        """Note that nothing is known of a capture, which its source must bring again."""
        self._report.counts[_DEFERRED] += 1
        self.keep(arrival, why)

    def keep(self, arrival: Arrival, why: str) -> None:
        """Note that an arrival must come again."""
        self._report.unsaved[arrival.message_id] = why
        self._logger.error("not saved: its source brings it again", reason=why, correlation_id=arrival.trigger.id)

    def _tell(self, told: _Telling) -> None:
        self._told.append(told)
        if len(self._told) == MAX_ENTRIES:
            self._publish()

    def _publish(self) -> None:
        """Publish what has gathered; only what was told goes into the dead-letter queue."""
        told, self._told = self._told, []
        failed = self._topic.publish([item.outcome for item in told])
        for index, item in enumerate(told):
            self._report.counts[item.outcome.status.value] += item.count
            self._report.outcomes.append(item.outcome)
            self._log_outcome(item.outcome)
            if index in failed:
                self.keep(item.arrival, f"the notice was not published: {failed[index]}")
        self._report.notices_published += len(told) - len(failed)
        self._give_up(told)

    def _give_up(self, told: Sequence[_Telling]) -> None:
        given_up = [
            (item.arrival, DeadLetter(item.dead_letter, item.outcome))
            for item in told
            if item.dead_letter and not self._is_kept(item.arrival)
        ]
        for index, why in self._queue.give_up([letter for _, letter in given_up]).items():
            self.keep(given_up[index][0], f"the dead letter was not sent: {why}")

    def _put_back(self, waiting: Sequence[tuple[Arrival, Capture, int]]) -> None:
        failed = self._queue.put_back([(capture, delay_seconds) for _, capture, delay_seconds in waiting])
        for index, why in failed.items():
            self.keep(waiting[index][0], f"the capture was not put back: {why}")

    def _is_kept(self, arrival: Arrival) -> bool:
        return arrival.message_id in self._report.unsaved

    def _log_outcome(self, outcome: Outcome) -> None:
        self._logger.info(
            "outcome",
            correlation_id=outcome.trigger.id,
            status=outcome.status,
            agent_id=outcome.agent_id,
            region=outcome.region,
            reason=outcome.reason,
            detail=outcome.message,
            http_status=outcome.http_status,
            attempts=outcome.attempts,
            outcome_id=outcome.outcome_id,
        )

    def _log_deferred(self, deferred: Deferred) -> None:
        capture, trouble = deferred.capture, deferred.trouble
        self._logger.info(
            "deferred",
            correlation_id=capture.trigger.id,
            agent_id=capture.agent_id,
            region=capture.region,
            reason=trouble.reason,
            detail=trouble.message,
            http_status=trouble.http_status,
            attempts=capture.attempts,
            delay_seconds=deferred.delay_seconds,
        )
