import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_log_capture.domain.capture import Capture, LogFile, Outcome, Polling, Reason, Status, Trigger, TriggerType
from agent_log_capture.domain.events.parser import EventParser
from agent_log_capture.domain.notifications import texts as wording
from agent_log_capture.domain.notifications.chat import to_chat
from agent_log_capture.domain.notifications.notification import email, sns_message, subject, to_json
from agent_log_capture.domain.notifications.texts import words
from agent_log_capture.domain.polling import Poll, PollPolicy
from agent_log_capture.domain.printable import printable
from agent_log_capture.domain.responses import Accepted, ApiResponse, Failure, duplicate, rejected

OUTCOMES = Path(__file__).parents[4] / "events" / "outcomes"
ASKED_AT = datetime(2026, 11, 23, 3, 12, 41, 31_000, tzinfo=UTC)
AT = datetime(2026, 11, 23, 3, 12, 41, 642_000, tzinfo=UTC)
AGENT = "8f135b4f-7a69-4b8a-947f-5e80d772fd97"
LOCATION = f"https://dfw.backup.api.rackspacecloud.com/v2/110011/agents/{AGENT}/logfiles/a533a845-4279-4838-af13-276114e90234"
LOG_FILE = LogFile(
    id="a533a845-4279-4838-af13-276114e90234",
    date="2026-11-23T03:12:41.606703Z",
    state="requested",
    location=LOCATION,
    links=({"rel": "self", "href": LOCATION},),
)
REQUESTED = Outcome(
    status=Status.REQUESTED,
    trigger=Trigger(TriggerType.MANUAL, "7be0b2a4-64a5-4e2c-b8a5-0d5e3b1f5c7e"),
    asked_at=ASKED_AT,
    at=AT,
    agent_id=AGENT,
    project_id="110011",
    region="DFW",
    log_file=LOG_FILE,
    http_status=202,
    attempts=1,
)
REJECTED = replace(
    REQUESTED,
    status=Status.REJECTED,
    trigger=Trigger(
        TriggerType.ALARM,
        "arn:aws:cloudwatch:us-east-1:123456789012:alarm:backup-failed-web-01@2026-11-23T03:12:40.989+0000",
        "backup-failed-web-01",
    ),
    log_file=None,
    reason=Reason.REFUSED,
    message="Agent not found.",
    http_status=404,
)
FAILED = replace(
    REJECTED,
    status=Status.FAILED,
    reason=Reason.TEMPORARY,
    message="Service Unavailable",
    http_status=503,
    attempts=192,
    at=ASKED_AT + timedelta(hours=24, minutes=4),
)
UNREADABLE = Outcome(
    status=Status.REJECTED,
    trigger=Trigger(TriggerType.SQS, "f9264353-28eb-4473-94f8-2f6ef39e228c"),
    asked_at=ASKED_AT,
    at=ASKED_AT,
    reason=Reason.INVALID_AGENT_ID,
    message="agent_ids: an agent ID is 1 to 128 characters of A-Z a-z 0-9 _ -: 'web-01.example.com', 'db 02'",
)
ASKED = Capture(
    agent_id=AGENT,
    region="DFW",
    trigger=REQUESTED.trigger,
    asked_at=ASKED_AT,
    retry_from=ASKED_AT,
    attempts=1,
)
OBJECT = (
    "https://storage101.dfw1.clouddrive.com/v1/MossoCloudFS_3f8a2c1e-5b7d-4e9f-8a6b-0c1d2e3f4a5b"
    f"/CloudBackupLogs/v2/{AGENT}/2026-11-23T03-12-41.606703Z.gz"
)
UPLOADED = replace(
    LOG_FILE,
    state="completed",
    location=None,
    links=(
        *LOG_FILE.links,
        {"rel": "logfile", "href": OBJECT},
        {"rel": "logfile_temp_url", "href": f"{OBJECT}?temp_url_sig={40 * '0'}&temp_url_expires=1795490052"},
    ),
)


def failed(reason, message):
    return replace(FAILED, reason=reason, message=message, http_status=None)


def a_look(after, trigger=REJECTED.trigger):
    polling = Polling(log_file_id=LOG_FILE.id, requested_at=AT, is_missing=True)
    return Poll(
        policy=PollPolicy(deadline_seconds=86_400, grace_seconds=0),
        capture=replace(ASKED, trigger=trigger, polling=polling),
        polling=polling,
        at=AT + after,
        project_id="110011",
    )


def found(log_file, *, after, trigger=REJECTED.trigger, is_online=None, http_status=200):
    """Return what is told when a log file is found like this so long after it was requested."""
    answer = ApiResponse(http_status=http_status, log_file=log_file)
    return a_look(after, trigger).answered(answer, is_online=is_online).outcome


def found_nothing(message, *, after):
    """Return what is told when a look fails so long after the log file was requested."""
    return a_look(after).failed(Failure(reason=Reason.TEMPORARY, message=message, http_status=503)).outcome


WAITING = found(replace(LOG_FILE, location=None), after=timedelta(seconds=126), is_online=False)
CAPTURED = found(UPLOADED, after=timedelta(seconds=92), trigger=REQUESTED.trigger)
CAPTURED_WITHOUT_LINK = found(
    replace(UPLOADED, links=UPLOADED.links[:2]), after=timedelta(seconds=92), trigger=REQUESTED.trigger
)
EXPIRED = found(replace(LOG_FILE, location=None), after=timedelta(hours=24))
DUPLICATE = duplicate(
    replace(ASKED, trigger=UNREADABLE.trigger, asked_at=AT, retry_from=AT),
    Accepted(
        trigger=REJECTED.trigger,
        replays=0,
        requested_at=AT,
        answer=ApiResponse(http_status=202, log_file=LOG_FILE),
    ),
    now=AT + timedelta(minutes=2),
    project_id="110011",
)
BY_QUEUE, BY_HAND = UNREADABLE.trigger, REQUESTED.trigger
BY_EVENT = Trigger(TriggerType.EVENTBRIDGE, "6a7e8feb-b491-4cf7-a9f1-bf3703467718")
BY_SNS = Trigger(TriggerType.SNS, "22b80b92-fdea-4c2c-8f9d-bdfb0c7bf324")
SAMPLES = {
    "requested": REQUESTED,
    "waiting": WAITING,
    "captured": CAPTURED,
    "captured-without-link": CAPTURED_WITHOUT_LINK,
    "expired": EXPIRED,
    "rejected": REJECTED,
    "failed": FAILED,
    "duplicate": DUPLICATE,
    "unreadable": UNREADABLE,
}
# The mails of further reasons, each of which asks for something else.
MAILS = SAMPLES | {
    "requested-by-an-alarm": replace(REQUESTED, trigger=REJECTED.trigger),
    "captured-for-an-alarm": replace(CAPTURED, trigger=REJECTED.trigger),
    "captured-until-nobody-knows": found(
        replace(UPLOADED, links=({"rel": "logfile_temp_url", "href": f"{OBJECT}?temp_url_sig={40 * '0'}"},)),
        after=timedelta(seconds=92),
        trigger=BY_EVENT,
    ),
    "expired-begun": found(replace(LOG_FILE, state="started", location=None), after=timedelta(hours=24)),
    "expired-not-seen": found_nothing("Service Unavailable", after=timedelta(hours=24)),
    "expired-gone": found(None, after=timedelta(minutes=2), trigger=BY_QUEUE, http_status=404),
    "rejected-400": replace(REJECTED, message="Validation failed. Name is required.", http_status=400),
    "rejected-403": replace(REJECTED, trigger=BY_SNS, message="Forbidden", http_status=403),
    "rejected-501": replace(REJECTED, trigger=BY_HAND, message="Not Implemented", http_status=501),
    "rejected-redirect": rejected(ASKED, ApiResponse(http_status=302), now=AT, project_id="110011"),
    "unreadable-alarm": replace(
        UNREADABLE, trigger=REJECTED.trigger, reason=Reason.NO_AGENT_ID, message="the event holds no agent ID"
    ),
    "unreadable-without-agent": replace(
        UNREADABLE, trigger=BY_EVENT, reason=Reason.NO_AGENT_ID, message="the event holds no agent ID"
    ),
    "failed-not-connected": failed(Reason.NOT_CONNECTED, "ConnectTimeout: dfw.backup.api.rackspacecloud.com:443"),
    "failed-unconfirmed": failed(Reason.UNCONFIRMED, "ReadTimeout: dfw.backup.api.rackspacecloud.com:443"),
    "failed-conflict": replace(FAILED, reason=Reason.CONFLICT, message="Conflict", http_status=409),
    "failed-token-refused": failed(
        Reason.TOKEN_REFUSED,
        "the secret arn:aws:secretsmanager:us-east-1:123456789012:secret:TokenSecret-AbCdEf holds a token that the"
        " API refuses; put another one",
    ),
    "failed-token-unavailable": failed(
        Reason.TOKEN_UNAVAILABLE,
        "the secret arn:aws:secretsmanager:us-east-1:123456789012:secret:TokenSecret-AbCdEf has no 'project_id', and"
        " CLOUD_BACKUP_PROJECT_ID is not set",
    ),
    "failed-in-progress": failed(Reason.IN_PROGRESS, "another invocation is asking this agent right now"),
}


def as_published(outcome):
    """Return what is published, with the JSON that it holds as text unfolded."""
    message = sns_message(outcome)
    bodies = json.loads(message["Message"])
    return {
        "Subject": message["Subject"],
        "default": json.loads(bodies["default"]),
        "MessageAttributes": message["MessageAttributes"],
    }


@pytest.mark.parametrize("name", SAMPLES)
def test_the_notification_is_as_the_sample_shows_it(name):
    published = json.dumps(as_published(SAMPLES[name]), indent=2, ensure_ascii=False) + "\n"
    assert published == (OUTCOMES / f"{name}.json").read_text(encoding="utf-8")


def test_no_status_is_without_a_sample():
    assert {path.stem for path in OUTCOMES.glob("*.json")} - {"job-done"} == SAMPLES.keys()
    assert {outcome.status for outcome in SAMPLES.values()} == set(Status)
    assert all(SAMPLES[status].status is status for status in Status)


def test_every_protocol_gets_a_text():
    message = sns_message(REQUESTED)
    assert message["MessageStructure"] == "json"
    assert json.loads(message["Message"]).keys() == {"default", "email"}
    assert json.loads(json.loads(message["Message"])["default"]) == to_json(REQUESTED)
    assert json.loads(message["Message"])["email"] == email(REQUESTED)


def test_with_a_chat_https_gets_a_text_of_its_own_and_everybody_else_what_they_got():
    plain, with_chat = sns_message(CAPTURED), sns_message(CAPTURED, has_chat=True)
    bodies = json.loads(with_chat["Message"])
    assert json.loads(bodies.pop("https")) == to_chat(CAPTURED)
    assert with_chat | {"Message": json.dumps(bodies, ensure_ascii=False)} == plain


@pytest.mark.parametrize("name", SAMPLES)
def test_the_chat_is_as_the_sample_shows_it(name):
    shown = json.dumps(to_chat(SAMPLES[name]), indent=2, ensure_ascii=False) + "\n"
    assert shown == (OUTCOMES / "chat" / f"{name}.json").read_text(encoding="utf-8")


def test_no_chat_is_there_that_nobody_gets():
    assert {path.stem for path in (OUTCOMES / "chat").iterdir()} - {"job-done"} == SAMPLES.keys()


# ------------------------------------------------------------------ mails


@pytest.mark.parametrize("name", MAILS)
def test_the_mail_is_as_the_sample_shows_it(name):
    assert email(MAILS[name]) == (OUTCOMES / "mails" / f"{name}.txt").read_text(encoding="utf-8")


def test_no_mail_is_there_that_nobody_gets():
    assert {path.stem for path in (OUTCOMES / "mails").iterdir()} - {"job-done"} == MAILS.keys()


def test_every_text_that_is_there_is_in_a_mail():
    said = {(text.happened, text.next_step) for text in map(words, MAILS.values())}
    assert said == {(text.happened, text.next_step) for text in wording.WORDS.values()}


def test_every_reason_that_is_told_has_words():
    for status in Status:
        for reason in (None, *Reason):
            for agent_id in (AGENT, None) if status is Status.REJECTED else (AGENT,):
                assert words(replace(REJECTED, status=status, reason=reason, agent_id=agent_id)).happened


@pytest.mark.parametrize("name", MAILS)
def test_a_mail_fits_a_window(name):
    text = email(MAILS[name])
    assert all(len(line) <= 100 or "https://" in line for line in text.splitlines())
    assert "None" not in text


@given(text=st.text(min_size=1, max_size=600))
def test_nothing_from_outside_begins_a_line_of_a_mail(text):
    trigger = Trigger(TriggerType.ALARM, "an-alarm", printable(f"{text} {'x' * 90} Download: y", 256))
    mail = email(replace(REJECTED, trigger=trigger, message=printable(f"{text} {'x ' * 90}", 500)))
    facts = mail.split("\n\n")[2].split("\n")
    labels = [line[:11].strip() for line in facts if line[:11].strip()]
    assert labels == ["Alarm:", "Agent:", "Reason:", "Project:", "Asked at:", "Outcome:"]


def test_a_mail_shows_the_link_on_a_line_of_its_own_and_until_when_it_works():
    lines = email(CAPTURED).splitlines()
    link = lines.index(CAPTURED.log_file.download_url)
    assert lines[link - 1] == "Download, until 2026-11-24 03:14 UTC:"
    assert f"Stored at: {OBJECT}" in lines


def test_a_mail_without_a_signed_link_says_where_the_log_files_are():
    text = email(CAPTURED_WITHOUT_LINK)
    assert f"Stored at: {OBJECT}" in text.splitlines()
    assert not [word for word in ("Download", "until", "temp_url", "link") if word in text]


@pytest.mark.parametrize("name", SAMPLES)
def test_an_http_status_is_shown_where_the_api_refused(name):
    assert ("(HTTP " in email(SAMPLES[name])) is (name in {"rejected", "failed"})


# ------------------------------------------------------------------ subject and attributes


@given(name=st.none() | st.text(), agent_id=st.none() | st.from_regex(r"[A-Za-z0-9_-]{1,128}", fullmatch=True))
def test_a_subject_is_printable_ascii_with_the_status_and_the_agent_first(name, agent_id):
    text = subject(replace(REJECTED, agent_id=agent_id, trigger=Trigger(TriggerType.ALARM, "an-alarm", name)))
    assert len(text) <= 100
    assert text.isascii()
    assert text.isprintable()
    assert text.startswith(f"rejected {agent_id or '(no agent)'}"[:100])


def test_a_long_alarm_name_is_cut_in_the_subject():
    text = subject(replace(REJECTED, trigger=Trigger(TriggerType.ALARM, "an-alarm", "ü\n" * 200)))
    assert text == f"rejected {AGENT} - {'? ' * 25}?"


@pytest.mark.parametrize("outcome", [*SAMPLES.values(), replace(FAILED, project_id=None)])
def test_no_attribute_is_empty(outcome):
    attributes = sns_message(outcome)["MessageAttributes"]
    assert {"status", "trigger_type"} <= attributes.keys() <= {"agent_id", "project_id", "region"} | attributes.keys()
    assert all(attribute["DataType"] == "String" and attribute["StringValue"] for attribute in attributes.values())


# ------------------------------------------------------------------ outcome_id


def test_the_same_outcome_told_again_has_the_same_id():
    again = replace(REQUESTED, at=AT + timedelta(minutes=5), asked_at=AT, attempts=2, message="told again")
    assert again.outcome_id == REQUESTED.outcome_id


@pytest.mark.parametrize(
    "change",
    [
        {"agent_id": "another-agent"},
        {"region": "ORD"},
        {"status": Status.FAILED},
        {"trigger": Trigger(TriggerType.MANUAL, "another-request")},
        {"trigger": Trigger(TriggerType.SQS, REQUESTED.trigger.id)},
        {"replays": 1},
        {"log_file": replace(LOG_FILE, id="another-log-file")},
        {"log_file": None},
        {"part": 1},
    ],
)
def test_another_outcome_has_another_id(change):
    assert replace(REQUESTED, **change).outcome_id != REQUESTED.outcome_id


# ------------------------------------------------------------------ size


@pytest.mark.parametrize("character", ["\\", '"', "\x00", "𝄞", "é", "\ud800"])
def test_a_notification_that_names_50_hostile_values_fits_into_a_message(character):
    hostile = character * 5000
    event = {
        "detail-type": "CloudWatch Alarm State Change",
        "resources": [hostile],
        "detail": {"alarmName": hostile, "state": {"value": "ALARM", "timestamp": hostile}},
        hostile + "agent_ids": [hostile] * 50,
    }
    (parsed,) = EventParser(default_region="DFW").parse(event, request_id="a-request", now=AT)
    (refused,) = parsed.rejections
    assert refused.count == 50
    assert refused.outcome.trigger.type is TriggerType.ALARM
    assert len(json.dumps(sns_message(refused.outcome, has_chat=True), ensure_ascii=False).encode()) < 256 * 1024
