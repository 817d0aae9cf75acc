"""When, and for how long, a request is retried."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from agent_log_capture.domain.capture import Capture, Step
from agent_log_capture.domain.outcome import Status
from agent_log_capture.domain.responses import Failure

MAX_DELAY_SECONDS = 900  # the longest that SQS delays a message
MIN_DELAY_SECONDS = 5
_FIRST_DELAY_SECONDS = 30
_DOUBLINGS = 5  # 30 s doubled five times is more than 900 s


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """For how long a capture is retried, with full jitter; `random` returns a number from 0 to 1."""

    window_seconds: int
    random: Callable[[], float]

    def retry(self, tried: Capture, failure: Failure, *, now: datetime, project_id: str | None) -> Step:
        """Requeue a capture whose attempt failed, or send it to the dead-letter queue when its window is over."""
        waiting = tried.requesting(failure.unconfirmed_since)
        if now - tried.retry_from < timedelta(seconds=self.window_seconds):
            doublings = min(max(tried.attempts - 1, 0), _DOUBLINGS)
            longest = min(MAX_DELAY_SECONDS, _FIRST_DELAY_SECONDS << doublings)
            delay = max(MIN_DELAY_SECONDS, self.random() * longest, failure.retry_after_seconds)
            delay_seconds = round(min(MAX_DELAY_SECONDS, delay))
            return Step(capture=waiting, next=waiting, delay_seconds=delay_seconds, failure=failure)
        outcome = tried.outcome(Status.FAILED, at=now, project_id=project_id)
        outcome = replace(outcome, reason=failure.reason, message=failure.message, http_status=failure.http_status)
        return Step(capture=waiting, outcome=outcome, is_dead_letter=True)
