import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_log_capture.domain.outcome import Status
from agent_log_capture.domain.trigger import Trigger, TriggerType
from agent_log_capture.domain.job import COUNTED, JobSummary
from agent_log_capture.domain.notifications.job_summary import email, message, sns_message, subject, to_json
from agent_log_capture.domain.printable import printable

OUTCOMES = Path(__file__).parents[4] / "events" / "outcomes"
ASKED_AT = datetime(2026, 11, 23, 3, 12, 41, 31_000, tzinfo=UTC)
DONE = JobSummary(
    job_id="night-shift-2026-11-23",
    revision=1,
    counts={Status.CAPTURED: 4812, Status.EXPIRED: 131, Status.REJECTED: 57},
    trigger=Trigger(TriggerType.SQS, "f9264353-28eb-4473-94f8-2f6ef39e228c"),
    asked_at=ASKED_AT,
    at=ASKED_AT + timedelta(hours=24, minutes=2, milliseconds=517),
)
COUNTS = st.dictionaries(st.sampled_from(COUNTED), st.integers(0, 1_000_000))
JOB_IDS = st.text(min_size=1, max_size=512).map(lambda text: printable(text, 512))


def as_published(done):
    published = sns_message(done)
    bodies = json.loads(published["Message"])
    return {
        "Subject": published["Subject"],
        "default": json.loads(bodies["default"]),
        "MessageAttributes": published["MessageAttributes"],
    }


def shown(value):
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def chat(done):
    return json.loads(json.loads(sns_message(done, has_chat=True)["Message"])["https"])


def test_the_notification_the_mail_and_the_chat_are_as_the_samples_show_them():
    assert shown(as_published(DONE)) == (OUTCOMES / "job-done.json").read_text(encoding="utf-8")
    assert email(DONE) == (OUTCOMES / "mails" / "job-done.txt").read_text(encoding="utf-8")
    assert shown(chat(DONE)) == (OUTCOMES / "chat" / "job-done.json").read_text(encoding="utf-8")


def test_a_chat_is_sent_where_there_is_one():
    assert json.loads(sns_message(DONE)["Message"]).keys() == {"default", "email"}


def test_the_name_of_a_job_is_no_link_and_no_mention_in_a_chat():
    text = chat(replace(DONE, job_id="<!channel> `@all`"))["content"]["description"]
    assert "Job: `\u2039!channel\u203a '\uff20all'`" in text


@given(counts=COUNTS, job_id=JOB_IDS)
def test_what_is_told_adds_up_to_what_was_asked(counts, job_id):
    notification = to_json(replace(DONE, counts=counts, job_id=job_id))
    assert notification["asked"] == sum(notification[status.value] for status in COUNTED)


def test_the_sentence_leaves_out_what_nothing_came_to():
    assert (
        message(DONE) == "of the 5,000 agents asked for: 4,812 captured, 131 expired, 57 rejected; nothing is missing"
    )
    assert (
        message(replace(DONE, counts={Status.FAILED: 1})) == "of the 1 agent asked for: 1 failed; nothing is missing"
    )


def test_the_same_sum_has_the_same_id_however_often_it_is_told():
    later = replace(DONE, at=DONE.at + timedelta(minutes=5), trigger=Trigger(TriggerType.MANUAL, "another"))
    assert later.outcome_id == DONE.outcome_id
    assert len({DONE.outcome_id, replace(DONE, revision=2).outcome_id, replace(DONE, job_id="x").outcome_id}) == 3


@given(counts=COUNTS, job_id=JOB_IDS)
def test_a_subject_is_printable_ascii_and_ends_with_the_sum(counts, job_id):
    done = replace(DONE, counts=counts, job_id=job_id)
    text = subject(done)
    assert len(text) <= 100
    assert text.isascii()
    assert text.isprintable()
    assert text.startswith("job_done ")
    assert text.endswith(f" - {counts.get(Status.CAPTURED, 0)} of {done.asked} captured")


def test_a_mail_says_what_to_do_about_what_did_not_come():
    text = email(replace(DONE, revision=2, counts={Status.CAPTURED: 1, Status.FAILED: 2}))
    assert "Revision:  2" in text.splitlines()
    assert "Failed:    2" in text.splitlines()
    assert "replay the dead-letter queue" in text
    assert "Expired" not in text


def test_a_mail_about_what_went_well_says_that_there_is_nothing_to_do():
    assert email(replace(DONE, counts={Status.CAPTURED: 3})).startswith(
        "Everything that was asked for has come to an end.\n\nNothing to do.\n"
    )


@pytest.mark.parametrize("done", [DONE, replace(DONE, revision=7, counts=dict.fromkeys(COUNTED, 1_000_000))])
def test_a_mail_fits_a_window(done):
    text = email(done)
    assert all(len(line) <= 106 for line in text.splitlines())
    assert "None" not in text


def test_a_subscriber_can_filter_by_the_status_and_the_kind_of_trigger():
    attributes = {name: value["StringValue"] for name, value in sns_message(DONE)["MessageAttributes"].items()}
    assert attributes == {"status": "job_done", "trigger_type": "sqs"}
