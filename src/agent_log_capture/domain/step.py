"""What one visit to a capture resulted in."""

from dataclasses import dataclass, replace
from datetime import datetime

from agent_log_capture.domain.capture import Capture, Recorded
from agent_log_capture.domain.outcome import Outcome, Reason, Status
from agent_log_capture.domain.responses import ApiResponse, Failure, ResponseClass, classify, phrase


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What is to be saved after one visit to a capture.

    With `is_dead_letter`, the capture is sent to the dead-letter queue first. `outcome` is published; when that
    fails, `capture` is requeued. Without `next`, or with one in phase `Recorded`, the outcome is final, and is
    recorded in the job before `next` is requeued with a delay. `failure` says why a capture without an outcome is
    requeued; `is_tried` is False when it is requeued as it is. With `needs_activation` its region's agents are
    activated first.
    """

    capture: Capture
    outcome: Outcome | None = None
    next: Capture | None = None
    delay_seconds: int = 0
    failure: Failure | None = None
    is_tried: bool = True
    is_dead_letter: bool = False
    needs_activation: bool = False

    @property
    def recorded(self) -> Capture | None:
        """The capture as its job is to record it; None while it has no final status."""
        if self.next:
            return self.next if isinstance(self.next.phase, Recorded) and self.outcome else None
        if isinstance(self.capture.phase, Recorded) or self.outcome is None:
            return self.capture
        outcome = self.outcome
        log_file_id = outcome.log_file.id if outcome.log_file else None
        phase = Recorded(status=outcome.status, reason=outcome.reason, log_file_id=log_file_id)
        return replace(self.capture, phase=phase, retry_from=outcome.at)


def not_tried(capture: Capture, failure: Failure, delay_seconds: int) -> Step:
    """Return the step of a capture that is requeued as it is."""
    return Step(capture=capture, next=capture, delay_seconds=delay_seconds, failure=failure, is_tried=False)


def rejected(capture: Capture, response: ApiResponse, *, at: datetime, project_id: str | None) -> Step:
    """Return the step of a request that the API refuses, with the API's own message."""
    reason, message = Reason.REFUSED, response.message or phrase(response.http_status)
    if classify(response.http_status) is ResponseClass.REDIRECTED:
        reason = Reason.REDIRECTED
        message = "a redirect is not followed: the token must not be sent to another host"
    outcome = capture.outcome(Status.REJECTED, at=at, project_id=project_id)
    outcome = replace(outcome, reason=reason, message=message, http_status=response.http_status)
    return Step(capture=capture, outcome=outcome)
