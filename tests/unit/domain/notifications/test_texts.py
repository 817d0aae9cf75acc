from dataclasses import replace

import pytest

from agent_log_capture.domain.notifications.email import TEXTS, text_of
from agent_log_capture.domain.outcome import LogFile, Reason, Status
from tests.unit.domain.notifications.samples import AGENT, CAPTURED, EXPIRED, MAILS, REJECTED

# Reasons of requeued captures and of dead letters; no notification has them.
NEVER_PUBLISHED = {Reason.IN_PROGRESS, Reason.OUT_OF_TIME, Reason.NOT_COUNTED}
# Reasons that need no text beside that of their status.
COVERED_BY_STATUS = {
    Reason.AGENT_OFFLINE: Status.WAITING,
    Reason.COOL_DOWN: Status.DUPLICATE,
    Reason.TEMPORARY: Status.FAILED,
    Reason.INVALID_AGENT_ID: Status.REJECTED,
    Reason.INVALID_REGION: Status.REJECTED,
    Reason.INVALID_FORCE: Status.REJECTED,
    Reason.INVALID_JOB: Status.REJECTED,
    Reason.INVALID_JSON: Status.REJECTED,
    Reason.TOO_DEEP: Status.REJECTED,
    Reason.NOT_UPLOADED: Status.EXPIRED,
}


def test_each_status_has_a_text():
    assert {(status,) for status in Status} <= TEXTS.keys()


def test_each_published_reason_has_a_text():
    with_text = {key[1] for key in TEXTS if len(key) > 1} - {None}
    assert with_text | COVERED_BY_STATUS.keys() == set(Reason) - NEVER_PUBLISHED


def test_each_text_is_in_a_sample_mail():
    assert {text_of(outcome).headline for outcome in MAILS.values()} == {text.headline for text in TEXTS.values()}
    assert {text_of(outcome).next_steps for outcome in MAILS.values()} == {text.next_steps for text in TEXTS.values()}


@pytest.mark.parametrize(("reason", "status"), COVERED_BY_STATUS.items())
def test_a_reason_without_a_text_has_that_of_its_status(reason, status):
    outcome = replace(REJECTED, status=status, reason=reason, http_status=None, log_file=None)
    assert text_of(outcome).headline == TEXTS[status,].headline


def test_a_reason_that_does_not_belong_to_a_status_has_the_text_of_the_status():
    assert text_of(replace(EXPIRED, reason=Reason.TOO_DEEP)).headline == TEXTS[Status.EXPIRED,].headline


def test_a_command_names_the_agent_and_its_region():
    outcome = replace(REJECTED, http_status=403, region="ORD")
    assert text_of(outcome).command == f"echo {AGENT} | make send FILE=- BACKUP_REGION=ORD"


def test_the_next_step_is_a_download_only_if_there_is_a_signed_link():
    assert "link" in text_of(CAPTURED).next_steps
    assert "token from Cloud Files" in text_of(replace(CAPTURED, log_file=LogFile())).next_steps


@pytest.mark.parametrize("name", MAILS)
def test_the_http_status_is_shown_if_the_api_refused_the_request_or_failed(name):
    has_code = name.startswith(("rejected", "failed")) and MAILS[name].http_status is not None
    assert ("(HTTP " in (text_of(MAILS[name]).facts["Reason"] or "")) is has_code
