import json
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_log_capture.domain.notifications.email import to_email
from agent_log_capture.domain.notifications.job_summary import sns_message, text_of, to_json
from agent_log_capture.domain.outcome import FINAL_STATUSES, Status, Trigger, TriggerType
from agent_log_capture.domain.printable import printable
from tests.unit.domain.notifications.samples import JOB_DONE, bodies

COUNTS = st.dictionaries(st.sampled_from(FINAL_STATUSES), st.integers(0, 1_000_000))
JOB_IDS = st.text(min_size=1, max_size=512).map(lambda text: printable(text, 512))


def mail(summary):
    return to_email(text_of(summary))


def test_each_final_status_is_counted_and_requested_too():
    assert set(FINAL_STATUSES) == set(Status) - {Status.WAITING}


def test_a_chat_is_published_only_if_there_is_one():
    assert bodies(sns_message(JOB_DONE)).keys() == {"default", "email"}
    assert bodies(sns_message(JOB_DONE, has_chat=True)).keys() == {"default", "email", "https"}


def test_a_job_id_is_not_read_as_a_link_or_a_mention_in_a_chat():
    chat = json.loads(bodies(sns_message(replace(JOB_DONE, job_id="<!channel> `@all`"), has_chat=True))["https"])
    assert "Job ID: `\u2039!channel\u203a '\uff20all'`" in chat["content"]["description"]


@given(counts=COUNTS, job_id=JOB_IDS)
def test_the_counts_add_up_to_asked(counts, job_id):
    notification = to_json(replace(JOB_DONE, counts=counts, job_id=job_id))
    assert notification["asked"] == sum(notification[status.value] for status in FINAL_STATUSES)


def test_the_message_leaves_out_statuses_that_no_agent_has():
    assert to_json(JOB_DONE)["message"] == "5,000 agents: 4,812 captured, 131 expired, 57 rejected"
    assert to_json(replace(JOB_DONE, counts={Status.FAILED: 1}))["message"] == "1 agent: 1 failed"


def test_a_revision_that_is_published_twice_has_one_id():
    later = replace(JOB_DONE, at=JOB_DONE.at + timedelta(minutes=5), trigger=Trigger(TriggerType.MANUAL, "another"))
    assert later.outcome_id == JOB_DONE.outcome_id
    others = [replace(JOB_DONE, revision=2), replace(JOB_DONE, job_id="another")]
    assert len({summary.outcome_id for summary in (JOB_DONE, *others)}) == 3


@given(counts=COUNTS, job_id=JOB_IDS)
def test_a_subject_is_printable_ascii_and_ends_with_the_counts(counts, job_id):
    summary = replace(JOB_DONE, counts=counts, job_id=job_id)
    text = sns_message(summary)["Subject"]
    assert len(text) <= 100
    assert text.isascii()
    assert text.isprintable()
    assert text.startswith("job_done ")
    assert text.endswith(f" - {counts.get(Status.CAPTURED, 0)} of {summary.asked} captured")


def test_a_mail_says_what_to_do_about_each_status_that_needs_action():
    text = mail(replace(JOB_DONE, revision=2, counts={Status.CAPTURED: 1, Status.FAILED: 2}))
    assert "Revision:     2" in text.splitlines()
    assert "Failed:       2" in text.splitlines()
    assert "replay the dead-letter queue" in text
    assert "Expired" not in text


def test_a_mail_about_captured_agents_says_that_no_action_is_needed():
    assert mail(replace(JOB_DONE, counts={Status.CAPTURED: 3})).startswith(
        "The job is done: every agent has a final status.\n\nNo action is needed.\n"
    )


@pytest.mark.parametrize(
    "summary", [JOB_DONE, replace(JOB_DONE, revision=7, counts=dict.fromkeys(FINAL_STATUSES, 1_000_000))]
)
def test_a_mail_has_at_most_100_columns(summary):
    assert all(len(line) <= 100 for line in mail(summary).splitlines())
    assert "None" not in mail(summary)


def test_filter_policies_can_use_the_status_and_the_type_of_trigger():
    attributes = {name: value["StringValue"] for name, value in sns_message(JOB_DONE)["MessageAttributes"].items()}
    assert attributes == {"status": "job_done", "trigger_type": "sqs"}
