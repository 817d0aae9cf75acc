"""What Amazon Q Developer says of custom notifications is written out here and compared with what a chat gets."""

import json
import re
from dataclasses import replace
from datetime import UTC, datetime
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_log_capture.domain.outcome import LogFile, Outcome, Reason, Status
from agent_log_capture.domain.trigger import Trigger, TriggerType
from agent_log_capture.domain.notifications.chat import to_chat
from agent_log_capture.domain.printable import printable

AT = datetime(2026, 11, 23, 3, 12, 41, tzinfo=UTC)
LINK = "https://storage101.dfw1.clouddrive.com/v1/Mosso/log.gz?temp_url_sig=00&temp_url_expires=1795490052"
CAPTURED = Outcome(
    status=Status.CAPTURED,
    trigger=Trigger(TriggerType.ALARM, "arn:aws:cloudwatch:us-east-1:1:alarm:a@2026", "backup-failed-web-01"),
    asked_at=AT,
    at=AT,
    agent_id="8f135b4f-7a69-4b8a-947f-5e80d772fd97",
    project_id="110011",
    region="DFW",
    log_file=LogFile(id="a533a845", links=({"rel": "logfile_temp_url", "href": LINK},)),
    http_status=200,
    attempts=1,
)
REJECTED = replace(
    CAPTURED,
    status=Status.REJECTED,
    log_file=None,
    reason=Reason.REFUSED,
    message="Agent not found.",
    http_status=404,
)
# What the schema takes: each field's type, and the most characters where the documentation sets a limit or this
# project one of its own. https://docs.aws.amazon.com/chatbot/latest/adminguide/custom-notifs.html
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


def check_texts(fields, limits):
    """Each field is one of the schema's, of its type, and no longer than it may be."""
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
    # As CustomActionAttachment takes variables.
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{1,100}", name) for name in context)
    assert all(re.fullmatch(r"[\x21-\x7f]{1,1024}", value) for value in context.values())
    assert json.loads(json.dumps(notification)) == notification


def formatted(text):
    """Return what of a text a chat formats: all but its code spans, each of which must be whole and tame."""
    spans = re.findall(r"`[^`]*`", text)
    assert 2 * len(spans) == text.count("`")
    assert all(re.fullmatch(r"`[^`<>&@\n]+`", span) for span in spans)
    return re.sub(r"`[^`]*`", "`…`", text)


def all_formatted(notification):
    """Return what a chat formats of a notification."""
    content, metadata = notification["content"], notification["metadata"]
    return [
        *(content["title"], *content["nextSteps"], *content["keywords"]),
        *map(formatted, (content["description"], metadata["summary"])),
        *metadata["relatedResources"],
    ]


def outside(outcome, text):
    """Return an outcome as it is when an outsider chose its texts, made printable as they are on their way in."""
    trigger = Trigger(outcome.trigger.type, printable(text, 512) or "?", printable(text, 256) or None)
    return replace(outcome, trigger=trigger, message=printable(text, 5000))


@pytest.mark.parametrize(
    ("status", "reason", "kind"), list(product(Status, [None, *Reason], [TriggerType.ALARM, TriggerType.SQS]))
)
def test_every_outcome_is_a_custom_notification(status, reason, kind):
    trigger = Trigger(kind, "an-id", "an alarm" if kind is TriggerType.ALARM else None)
    check_schema(to_chat(replace(CAPTURED, status=status, reason=reason, trigger=trigger)))


@pytest.mark.parametrize("kind", TriggerType)
def test_an_event_without_an_agent_is_a_custom_notification(kind):
    nobody = replace(REJECTED, agent_id=None, region=None, project_id=None, trigger=Trigger(kind, "an-id"))
    check_schema(to_chat(nobody))


@given(
    text=st.text(max_size=200).map(lambda text: text * 50),
    agent_id=st.from_regex(r"[A-Za-z0-9_-]{1,128}", fullmatch=True),
)
def test_however_long_what_comes_from_outside_is_the_limits_are_kept(text, agent_id):
    link = {"rel": "logfile_temp_url", "href": LINK + 2048 * "0"}
    long = replace(CAPTURED, reason=Reason.REFUSED, agent_id=agent_id, log_file=LogFile(links=(link,)))
    check_schema(to_chat(outside(long, text)))


@pytest.mark.parametrize("text", HOSTILE)
def test_what_comes_from_outside_is_no_link_no_mention_and_no_format(text):
    assert all_formatted(to_chat(outside(REJECTED, text))) == all_formatted(to_chat(REJECTED))


@given(text=st.text(alphabet=st.sampled_from("`<>@!#*_~[]()|&;:/\\ \na") | st.characters(), max_size=300))
def test_whatever_comes_from_outside_is_formatted_like_anything_else(text):
    assert all_formatted(to_chat(outside(REJECTED, text))) == all_formatted(to_chat(REJECTED))


def test_a_chat_shows_the_link_and_until_when_it_works():
    lines = to_chat(CAPTURED)["content"]["description"].splitlines()
    assert f"Download, until 2026-11-24 03:14 UTC: <{LINK}>" in lines
    assert lines[:2] == ["Alarm: `backup-failed-web-01`", f"Agent: `{CAPTURED.agent_id}` (DFW)"]


def test_a_link_that_does_not_say_so_is_shown_without_its_end():
    log_file = LogFile(links=({"rel": "logfile_temp_url", "href": "https://a.example/log.gz"},))
    description = to_chat(replace(CAPTURED, log_file=log_file))["content"]["description"]
    assert "Download, the link does not say until when: <https://a.example/log.gz>" in description


def test_without_a_signed_link_there_is_none():
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
    assert "it is in the mail and in the JSON" in notification["content"]["description"]


def test_the_notifications_of_a_trigger_stand_in_one_thread():
    threads = {to_chat(outcome)["metadata"]["threadId"] for outcome in (CAPTURED, REJECTED)}
    assert len(threads) == 1
    again = replace(CAPTURED, trigger=replace(CAPTURED.trigger, id="arn:aws:cloudwatch:us-east-1:1:alarm:a@2027"))
    assert to_chat(again)["metadata"]["threadId"] not in threads


def test_a_notification_told_twice_has_the_same_id():
    assert to_chat(replace(CAPTURED, at=datetime(2027, 1, 1, tzinfo=UTC))) == to_chat(CAPTURED)
    assert to_chat(CAPTURED)["id"] == CAPTURED.outcome_id
