from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_log_capture.domain.notifications.email import text_of, to_email
from agent_log_capture.domain.notifications.notification import sns_message
from agent_log_capture.domain.outcome import SIGNED_LINK, Outcome, Trigger, TriggerType
from agent_log_capture.domain.printable import printable
from tests.unit.domain.notifications.samples import AGENT, CAPTURED, MAILS, OBJECT, REJECTED, SAMPLES


def mail(outcome: Outcome) -> str:
    return to_email(text_of(outcome))


def subject_of(outcome: Outcome) -> str:
    return sns_message(outcome)["Subject"]


@pytest.mark.parametrize("name", MAILS)
def test_a_mail_has_at_most_100_columns_except_for_links(name):
    lines = mail(MAILS[name]).splitlines()
    assert all(len(line) <= 100 or "https://" in line for line in lines)
    assert "None" not in mail(MAILS[name])


@pytest.mark.parametrize("name", MAILS)
def test_a_colon_at_the_end_of_a_step_is_followed_by_a_command(name):
    text = text_of(MAILS[name])
    assert text.next_steps.endswith(":") is (text.command is not None)


@given(text=st.text(min_size=1, max_size=600))
def test_no_text_from_outside_begins_a_line(text):
    trigger = Trigger(TriggerType.ALARM, "an-alarm", printable(f"{text} {'x' * 90} Download: y", 256))
    outcome = replace(REJECTED, trigger=trigger, message=printable(f"{text} {'x ' * 90}", 500))
    facts = mail(outcome).split("\n\n")[-1].split("\n")
    labels = [line[:14].strip() for line in facts if line[:14].strip()]
    assert labels == ["Requested by:", "Agent:", "Reason:", "Project:", "Received at:", "Outcome ID:"]


def test_the_download_link_is_on_a_line_of_its_own_below_its_expiry():
    lines = mail(CAPTURED).splitlines()
    link = lines.index(CAPTURED.log_file.link(SIGNED_LINK))
    assert lines[link - 1] == "Download link (expires 2026-11-24 03:14 UTC):"
    assert f"Stored at:    {OBJECT}" in lines


def test_a_mail_without_a_signed_link_shows_where_the_log_file_is_stored():
    text = mail(SAMPLES["captured-without-link"])
    assert f"Stored at:    {OBJECT}" in text.splitlines()
    assert not [word for word in ("Download link", "expires", "temp_url") if word in text]


def test_the_command_is_indented_on_a_line_of_its_own():
    assert "\n\n    make replay\n\n" in mail(SAMPLES["failed"])


@given(name=st.none() | st.text(), agent_id=st.none() | st.from_regex(r"[A-Za-z0-9_-]{1,128}", fullmatch=True))
def test_a_subject_is_printable_ascii_with_the_status_and_the_agent_first(name, agent_id):
    text = subject_of(replace(REJECTED, agent_id=agent_id, trigger=Trigger(TriggerType.ALARM, "an-alarm", name)))
    assert len(text) <= 100
    assert text.isascii()
    assert text.isprintable()
    assert text.startswith(f"rejected {agent_id or '(no agent)'}"[:100])


def test_a_long_alarm_name_is_cut_in_the_subject():
    text = subject_of(replace(REJECTED, trigger=Trigger(TriggerType.ALARM, "an-alarm", "ü\n" * 200)))
    assert text == f"rejected {AGENT} - {'? ' * 25}?"
