"""The schema of Amazon Q Developer's custom notifications, and that every notification for a chat follows it."""

import json
import re
from dataclasses import replace
from datetime import timedelta
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_log_capture.domain.notifications import chat
from agent_log_capture.domain.notifications.email import text_of
from agent_log_capture.domain.notifications.notification import to_json
from agent_log_capture.domain.outcome import LogFile, Reason, Status, Trigger, TriggerType
from agent_log_capture.domain.printable import printable
from tests.unit.domain.notifications import samples
from tests.unit.domain.notifications.samples import BY_ALARM, MAILS, REJECTED

LINK = "https://storage101.dfw1.clouddrive.com/v1/Mosso/log.gz?temp_url_sig=00&temp_url_expires=1795490052"
CAPTURED = replace(samples.CAPTURED, trigger=BY_ALARM, log_file=samples.with_link(LINK))
# For each field of the schema its maximum length, or (items, length of an item): those that are documented, or else
# this project's own. https://docs.aws.amazon.com/chatbot/latest/adminguide/custom-notifs.html
TOP = {"version": 3, "source": 6, "id": 36, "content": None, "metadata": None}
CONTENT = {"textType": 15, "title": 250, "description": 8000, "nextSteps": (10, 350), "keywords": (10, 75)}
METADATA = {
    "threadId": 36,
    "summary": 250,
    "eventType": 100,
    "relatedResources": (10, 128),
    "additionalContext": None,
}
HOSTILE = [
    "@here @channel @everyone @SRE-Team",
    "<!channel> <!here|here> <!subteam^S123> <@U0123456789> <#C0123456789> <at>all</at>",
    "<https://evil.example|the log file> [the log file](https://evil.example) https://evil.example evil.example",
    "![x](https://evil.example/x.png) <img src=x> <a href='https://evil.example'>x</a>",
    "` *bold* `` _italic_ ``` ~struck~ :rotating_light: # heading > quote | table |",
    "&lt;!channel&gt; &#60;!here&#62; &amp;lt;",
    "\n\n*Download:* <https://evil.example>\r\n```\n",
    "\\`<!channel>\\` \\",
    "`",
    " ",
    "\u202e\u200b\ud800",
]


def to_chat(outcome):
    return chat.to_chat(to_json(outcome), text_of(outcome))


def check_texts(fields, limits):
    """Each field is in the schema, has its type, and keeps its limit."""
    assert fields.keys() <= limits.keys()
    for name, value in fields.items():
        match limits[name]:
            case int(most):
                assert isinstance(value, str)
                assert 0 < len(value) <= most
            case (most, longest):
                assert len(value) <= most
                assert all(isinstance(each, str) and 0 < len(each) <= longest for each in value)


def check_schema(notification):
    check_texts(notification, TOP)
    assert (notification["version"], notification["source"]) == ("1.0", "custom")
    check_texts(notification["content"], CONTENT)
    assert notification["content"]["textType"] == "client-markdown"
    assert notification["content"]["description"]
    check_texts(notification["metadata"], METADATA)
    context = notification["metadata"]["additionalContext"]
    # The patterns of CustomActionAttachment for variables.
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{1,100}", name) for name in context)
    assert all(re.fullmatch(r"[\x21-\x7f]{1,1024}", value) for value in context.values())
    assert json.loads(json.dumps(notification)) == notification


def formatted(text):
    """Return the part of a text that a chat formats: all but its code spans, which contain no special character."""
    spans = re.findall(r"`[^`]*`", text)
    assert 2 * len(spans) == text.count("`")
    assert all(re.fullmatch(r"`[^`<>&@\n]+`", span) for span in spans)
    return re.sub(r"`[^`]*`", "`…`", text)


def all_formatted(notification):
    """Return every text of a notification that a chat formats."""
    content, metadata = notification["content"], notification["metadata"]
    return [
        *(content["title"], *content["nextSteps"], *content["keywords"]),
        *map(formatted, (content["description"], metadata["summary"])),
        *metadata["relatedResources"],
    ]


def outside(outcome, text):
    """Return an outcome whose texts from outside are all `text`, made printable as the event parser does."""
    trigger = Trigger(outcome.trigger.type, printable(text, 512) or "?", printable(text, 256) or None)
    return replace(outcome, trigger=trigger, message=printable(text, 5000))


@pytest.mark.parametrize(
    ("status", "reason", "kind"), list(product(Status, [None, *Reason], [TriggerType.ALARM, TriggerType.SQS]))
)
def test_every_status_and_reason_is_published_as_a_custom_notification(status, reason, kind):
    trigger = Trigger(kind, "an-id", "an alarm" if kind is TriggerType.ALARM else None)
    check_schema(to_chat(replace(CAPTURED, status=status, reason=reason, trigger=trigger)))


@pytest.mark.parametrize("name", MAILS)
def test_every_sample_is_published_as_a_custom_notification(name):
    check_schema(to_chat(MAILS[name]))


@given(
    text=st.text(max_size=200).map(lambda text: text * 50),
    agent_id=st.from_regex(r"[A-Za-z0-9_-]{1,128}", fullmatch=True),
)
def test_long_texts_from_outside_are_cut_to_the_limits(text, agent_id):
    link = {"rel": "logfile_temp_url", "href": LINK + 2048 * "0"}
    long = replace(CAPTURED, reason=Reason.REFUSED, agent_id=agent_id, log_file=LogFile(links=(link,)))
    check_schema(to_chat(outside(long, text)))


@pytest.mark.parametrize("text", HOSTILE)
def test_text_from_outside_is_not_read_as_a_link_a_mention_or_a_format(text):
    assert all_formatted(to_chat(outside(REJECTED, text))) == all_formatted(to_chat(REJECTED))


@given(text=st.text(alphabet=st.sampled_from("`<>@!#*_~[]()|&;:/\\ \na") | st.characters(), max_size=300))
def test_text_from_outside_does_not_change_what_is_formatted(text):
    assert all_formatted(to_chat(outside(REJECTED, text))) == all_formatted(to_chat(REJECTED))


def test_a_chat_shows_the_alarm_the_agent_and_the_link_with_its_expiry():
    lines = to_chat(CAPTURED)["content"]["description"].splitlines()
    assert lines == [
        "Requested by: `alarm backup-failed-web-01`",
        f"Agent: `{CAPTURED.agent_id} (DFW)`",
        "Received at: `2026-11-23 03:12 UTC`",
        f"Download link (expires 2026-11-24 03:14 UTC): <{LINK}>",
    ]


def test_a_link_without_a_readable_expiry_is_shown():
    log_file = LogFile(links=({"rel": "logfile_temp_url", "href": "https://a.example/log.gz"},))
    description = to_chat(replace(CAPTURED, log_file=log_file))["content"]["description"]
    assert "Download link (expiry time unknown): <https://a.example/log.gz>" in description


def test_the_command_is_a_step_of_its_own_in_a_code_span():
    assert to_chat(samples.FAILED)["content"]["nextSteps"][-1] == "`make replay`"


def test_a_link_that_needs_a_token_is_not_shown():
    log_file = LogFile(links=({"rel": "logfile", "href": "https://a.example/log.gz"},))
    assert "https://" not in json.dumps(to_chat(replace(CAPTURED, log_file=log_file)))


@pytest.mark.parametrize(
    "href",
    [
        "https://a.example/x|the log file",
        "https://a.example/x> <!channel>",
        "https://user@evil.example/",
        "javascript:alert(1)",
        "https://a.example/`*x*`",
        "http://a.example/x",
        "https://a.example/x\n@here",
        "https://a.exämple/",
    ],
)
def test_a_link_that_a_chat_may_misread_is_left_out(href):
    log_file = LogFile(links=({"rel": "logfile_temp_url", "href": href},))
    notification = to_chat(replace(CAPTURED, log_file=log_file))
    assert "example" not in json.dumps(notification)
    assert "see the mail or the JSON" in notification["content"]["description"]


def test_the_notifications_of_a_trigger_are_in_one_thread():
    threads = {to_chat(outcome)["metadata"]["threadId"] for outcome in (CAPTURED, REJECTED)}
    assert len(threads) == 1
    again = replace(CAPTURED, trigger=replace(CAPTURED.trigger, id="arn:aws:cloudwatch:us-east-1:1:alarm:a@2027"))
    assert to_chat(again)["metadata"]["threadId"] not in threads


def test_an_outcome_that_is_published_twice_has_one_id_in_a_chat():
    assert to_chat(replace(CAPTURED, at=CAPTURED.at + timedelta(days=40))) == to_chat(CAPTURED)
    assert to_chat(CAPTURED)["id"] == CAPTURED.outcome_id
