from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from agent_log_capture.domain.capture import Capture, Recorded, Step, rejected
from agent_log_capture.domain.outcome import FINAL_STATUSES, LogFile, Reason, Status, Trigger, TriggerType
from agent_log_capture.domain.responses import ApiResponse

NOW = datetime(2026, 11, 23, 3, 12, 40, tzinfo=UTC)
CAPTURE = Capture(
    agent_id="an-agent",
    region="DFW",
    trigger=Trigger(TriggerType.MANUAL, "a-request"),
    asked_at=NOW - timedelta(minutes=2),
    retry_from=NOW - timedelta(minutes=1),
    attempts=1,
    replays=2,
)


@pytest.mark.parametrize(
    ("response", "reason", "message"),
    [
        (ApiResponse(http_status=404, message="Agent not found"), Reason.REFUSED, "Agent not found"),
        (ApiResponse(http_status=403), Reason.REFUSED, "Forbidden"),
        (ApiResponse(http_status=499), Reason.REFUSED, "HTTP status 499"),
        (
            ApiResponse(http_status=302, message="Found"),
            Reason.REDIRECTED,
            "a redirect is not followed: the token must not be sent to another host",
        ),
    ],
)
def test_a_rejection_has_the_message_of_the_api(response, reason, message):
    outcome = rejected(CAPTURE, response, at=NOW, project_id="110011").outcome
    assert (outcome.status, outcome.http_status) == (Status.REJECTED, response.http_status)
    assert (outcome.reason, outcome.message) == (reason, message)
    assert (outcome.agent_id, outcome.attempts, outcome.replays) == ("an-agent", 1, 2)


@pytest.mark.parametrize("status", FINAL_STATUSES)
def test_a_step_without_a_next_capture_is_recorded_with_its_status(status):
    outcome = CAPTURE.outcome(status, at=NOW, project_id="110011")
    outcome = replace(outcome, reason=Reason.REFUSED, log_file=LogFile(id="a-log-file"))
    recorded = Step(capture=CAPTURE, outcome=outcome).recorded
    assert recorded.phase == Recorded(status=status, reason=Reason.REFUSED, log_file_id="a-log-file")
    assert recorded.retry_from == NOW


def test_a_step_with_a_next_capture_has_not_ended():
    outcome = CAPTURE.outcome(Status.REQUESTED, at=NOW, project_id="110011")
    assert Step(capture=CAPTURE, outcome=outcome, next=CAPTURE).recorded is None


def test_a_capture_that_is_recorded_already_is_recorded_as_it_is():
    capture = replace(CAPTURE, phase=Recorded(status=Status.CAPTURED))
    assert Step(capture=capture).recorded == capture
