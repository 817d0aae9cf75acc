import json
from dataclasses import replace
from datetime import timedelta

import pytest

from agent_log_capture.domain.events.parser import EventParser
from agent_log_capture.domain.notifications.notification import sns_message, to_json
from agent_log_capture.domain.outcome import Reason, Status, Trigger, TriggerType
from tests.unit.domain.notifications.samples import (
    AT,
    CAPTURED,
    FAILED,
    FOLDER,
    LOG_FILE,
    REQUESTED,
    SAMPLES,
    bodies,
    files,
)

FILES = files()


@pytest.mark.parametrize("path", FILES)
def test_a_notification_is_published_as_its_sample_shows(path):
    assert (FOLDER / path).read_text(encoding="utf-8") == FILES[path]


def test_each_file_is_the_sample_of_a_notification():
    assert {str(path.relative_to(FOLDER)) for path in FOLDER.rglob("*.*")} == FILES.keys()


def test_each_status_has_a_sample():
    assert {outcome.status for outcome in SAMPLES.values()} == set(Status)
    assert all(SAMPLES[status].status is status for status in Status)


def test_a_message_has_json_for_programs_and_a_mail_for_people():
    message = sns_message(REQUESTED)
    assert message["MessageStructure"] == "json"
    assert bodies(message).keys() == {"default", "email"}
    assert json.loads(bodies(message)["default"]) == to_json(REQUESTED)


def test_a_chat_changes_nothing_for_other_protocols():
    with_chat = bodies(sns_message(CAPTURED, has_chat=True))
    assert with_chat.pop("https")
    assert with_chat == bodies(sns_message(CAPTURED))


@pytest.mark.parametrize("outcome", [*SAMPLES.values(), replace(FAILED, project_id=None)])
def test_no_message_attribute_is_empty(outcome):
    attributes = sns_message(outcome)["MessageAttributes"]
    assert {"status", "trigger_type"} <= attributes.keys() <= {"agent_id", "project_id", "region"} | attributes.keys()
    assert all(attribute["DataType"] == "String" and attribute["StringValue"] for attribute in attributes.values())


def test_an_outcome_that_is_published_twice_has_one_id():
    again = replace(REQUESTED, at=AT + timedelta(minutes=5), asked_at=AT, attempts=2, message="published again")
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


@pytest.mark.parametrize("character", ["\\", '"', "\x00", "𝄞", "é", "\ud800"])
def test_a_notification_about_50_hostile_values_fits_into_an_sns_message(character):
    hostile = character * 5000
    event = {
        "detail-type": "CloudWatch Alarm State Change",
        "resources": [hostile],
        "detail": {"alarmName": hostile, "state": {"value": "ALARM", "timestamp": hostile}},
        hostile + "agent_ids": [hostile] * 50,
    }
    (parsed,) = EventParser(default_region="DFW").parse(event, request_id="a-request", now=AT)
    (refused,) = parsed.rejections
    assert (refused.count, refused.outcome.reason) == (50, Reason.INVALID_AGENT_ID)
    assert refused.outcome.trigger.type is TriggerType.ALARM
    assert len(json.dumps(sns_message(refused.outcome, has_chat=True), ensure_ascii=False).encode()) < 256 * 1024
