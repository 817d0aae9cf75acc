import json
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from agent_log_capture.domain.capture import Capture, Job, Polling, Recorded, Requesting
from agent_log_capture.domain.events import agent_ids, parser
from agent_log_capture.domain.events.parser import EventParser
from agent_log_capture.domain.job import JobSummary
from agent_log_capture.domain.notifications import job_summary, notification
from agent_log_capture.domain.notifications.notification import sns_message
from agent_log_capture.domain.outcome import Outcome, Reason, Status, Trigger, TriggerType
from agent_log_capture.domain.queue_message import to_dead_letter, to_json

EVENTS = Path(__file__).parents[4] / "events"
NOW = datetime(2026, 11, 23, 3, 12, 40, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
AN_HOUR_AGO = NOW - 60 * MINUTE
READER = EventParser(default_region="IAD", agent_id_keys=("backup.client",))


def sample(name):
    return json.loads((EVENTS / f"{name}.json").read_text())


def read(event):
    return READER.parse(event, request_id="a-request", now=NOW)


def read_one(event):
    (parsed,) = read(event)
    return parsed


def read_body(body):
    return read_one(from_queue(body))


def sns_record(message, **fields):
    envelope = {"Type": "Notification", "MessageId": "an-sns-message", "TopicArn": "arn:topic", "Message": message}
    return {"Records": [{"EventSource": "aws:sns", "Sns": envelope | fields}]}


def from_queue(*bodies):
    return {
        "Records": [
            {"messageId": f"message-{number}", "body": body, "eventSource": "aws:sqs"}
            for number, body in enumerate(bodies)
        ]
    }


def ids(parsed):
    return [capture.agent_id for capture in parsed.captures]


def reasons(parsed):
    return [rejection.outcome.reason for rejection in parsed.rejections]


def alarm(name, state_time):
    arn = f"arn:aws:cloudwatch:us-east-1:123456789012:alarm:{name}"
    return Trigger(TriggerType.ALARM, f"{arn}@{state_time}", name)


def alarm_event(**detail):
    event = sample("eventbridge-alarm")
    return event | {"detail": event["detail"] | detail}


# ------------------------------------------------------------------ the samples, one for each source


SAMPLES = {
    "eventbridge-alarm": (
        ["4ce1e131-ee75-4ec5-ac6f-7491091f2705"],
        "IAD",
        alarm("backup-failed-web-01", "2026-11-20T03:12:40.989+0000"),
    ),
    "eventbridge-alarm-tags": (
        ["5c3e8991-dde9-4286-9fe6-e8327798d4b0"],
        "IAD",
        alarm("backup-failed-db-02", "2026-11-20T03:41:17.254+0000"),
    ),
    "eventbridge-alarm-metric-math": (
        ["bd5f78e9-4644-4fe3-a99f-fd1b7cb492a7", "7bb9af86-ad86-4f23-b76f-a9bc38d0980b"],
        "IAD",
        alarm("backup-failed-mail-pair", "2026-11-21T02:20:48.554+0000"),
    ),
    "eventbridge-alarm-contributor": (
        ["965d59f6-df52-498d-8f4a-eac36b32bef6"],
        "IAD",
        alarm("backup-failed-fleet", "2026-11-21T03:05:04.919+0000#833f08dcca870c64"),
    ),
    "alarm-action-contributor": (
        ["73ab4876-7734-47c1-87fd-e805ec99108d"],
        "IAD",
        alarm("backup-failed-fleet", "2026-11-21T03:05:04.919+0000#5be2b9d7c0446f13"),
    ),
    "sns-alarm-contributor": (
        ["309d6b79-965e-4a32-9ae4-45508201e2bd"],
        "IAD",
        alarm("backup-failed-fleet", "2026-11-21T03:05:04.919+0000#e07c41aa95d3b862"),
    ),
    "sqs-attributes": (
        ["e3eff9c0-cf44-4d3f-89e7-d15f17362f25"],
        "LON",
        Trigger(TriggerType.SQS, "244caf9c-4dab-4481-b253-edc618187993"),
    ),
    "lambda-destination": (
        ["5387f613-76c4-48ae-8732-1cc007b37e14", "320094ea-d7a9-4ded-9749-1e2370c6a5b8"],
        "IAD",
        Trigger(TriggerType.MANUAL, "09208a65-0f3e-4dd3-902b-938b8743feb6"),
    ),
    "eventbridge-request": (
        ["ad20f473-2051-4a5e-91ed-bc9e1557a98d", "a9e5d40b-02f7-4096-b327-14715bfb2b66"],
        "DFW",
        Trigger(TriggerType.EVENTBRIDGE, "db5e53f0-4e19-4b21-8f44-cf185d4f5e26"),
    ),
    "alarm-action": (
        ["1643e217-a8c7-4e6f-8ab7-875950f42fe7"],
        "IAD",
        alarm("backup-failed-app-03", "2026-11-20T03:27:15.490+0000"),
    ),
    "sns-alarm": (
        ["cbc760cf-4ac5-444f-8efc-43286ad01559"],
        "IAD",
        alarm("backup-failed-files-05", "2026-11-20T03:12:40.989+0000"),
    ),
    "manual": (
        [
            "d1829b05-ce41-49d7-820a-cc9953dc5e48",
            "70b0100d-cc26-4da6-9d25-041f882f48a3",
            "3465cabe-1684-49ac-9a16-a780caf5af78",
        ],
        "DFW",
        Trigger(TriggerType.MANUAL, "a-request"),
    ),
    "dead-letter-wrapped": (
        ["416f91f4-8f88-4ea1-a6d7-85d3da08a212"],
        "IAD",
        alarm("backup-failed-web-06", "2026-11-22T03:12:40.989+0000"),
    ),
}
MANY_SERIES = ["eventbridge-alarm-many-series", "alarm-action-many-series", "sns-alarm-many-series"]
SAMPLES_WITH_TESTS_OF_THEIR_OWN = {"sqs-list", "pipes-sqs", "eventbridge-alarm-ok", *MANY_SERIES}


@pytest.mark.parametrize("name", SAMPLES)
def test_each_sample_gives_the_agents_that_it_names(name):
    agents, region, trigger = SAMPLES[name]
    parsed = read_one(sample(name))
    assert ids(parsed) == agents
    assert {(capture.region, capture.trigger) for capture in parsed.captures} == {(region, trigger)}
    assert parsed.trigger == trigger
    assert (parsed.rejections, parsed.dead_letter, parsed.ignored) == ([], None, None)


def test_every_sample_has_a_test():
    assert {path.stem for path in EVENTS.glob("*.json")} == SAMPLES.keys() | SAMPLES_WITH_TESTS_OF_THEIR_OWN


def test_each_sqs_record_of_a_batch_is_parsed_by_itself():
    parsed_records = read(sample("sqs-list"))
    assert [(ids(parsed), parsed.record_id) for parsed in parsed_records] == [
        (
            [
                "028d93ce-d58f-485d-bc5d-5c6a33067c4f",
                "661aea5f-ca78-4625-a4a2-ec6aa0d472a1",
                "1c280200-982a-4441-8604-fc2c0a2aaeec",
            ],
            "238d8d7f-e807-417a-9e49-aa3eb3b01928",
        ),
        (
            [
                "b0f1e901-8b2d-47ed-b969-84dbbed7e530",
                "a90626ac-5f05-4a73-84c0-91ba51bcca45",
                "d4c64e20-db83-462c-80b9-604a85232d70",
            ],
            "465c93ea-4919-48f3-87d8-a018e35066a3",
        ),
        (["c34431be-0c23-4185-9d75-62cd7db1505f"], "794dc312-ff13-41b3-8944-57175d8aa3ef"),
        ([], "f9264353-28eb-4473-94f8-2f6ef39e228c"),
    ]
    assert [parsed.trigger for parsed in parsed_records] == [
        Trigger(TriggerType.SQS, "238d8d7f-e807-417a-9e49-aa3eb3b01928"),
        Trigger(TriggerType.SQS, "465c93ea-4919-48f3-87d8-a018e35066a3"),
        Trigger(TriggerType.SNS, "88cc2617-8a2e-425d-b393-d7f4052515a7"),
        Trigger(TriggerType.SQS, "f9264353-28eb-4473-94f8-2f6ef39e228c"),
    ]
    assert {capture.region for capture in parsed_records[0].captures} == {"ORD"}


def test_a_record_that_is_not_json_is_rejected_and_its_dead_letter_is_the_unchanged_body():
    event = sample("sqs-list")
    parsed = read(event)[3]
    (rejection,) = parsed.rejections
    assert rejection.outcome.status is Status.REJECTED
    assert rejection.outcome.reason is Reason.INVALID_JSON
    assert rejection.outcome.message == (
        "the text begins like JSON and is not JSON: "
        '\'{"agent_ids": ["9645cdd6-d687-4fc4-ae76-b54173657431", "16a0e081-c525\''
    )
    assert parsed.dead_letter == event["Records"][3]["body"]


# ------------------------------------------------------------------ what is ignored


@pytest.mark.parametrize(
    ("event", "because"),
    [
        (sample("eventbridge-alarm-ok"), "the alarm's state is OK, not ALARM"),
        (
            alarm_event() | {"detail-type": "CloudWatch Alarm Configuration Change"},
            "the alarm was configured, it did not fire",
        ),
    ],
)
def test_an_alarm_that_did_not_fire_is_ignored(event, because):
    for parsed in (read_one(event), read_body(json.dumps(event))):
        assert (ids(parsed), parsed.rejections, parsed.dead_letter) == ([], [], None)
        assert parsed.ignored == because


# ------------------------------------------------------------------ alarms over many time series
# Shapes: "Alarm events and EventBridge", "Acting on alarm changes" and "Log alarms" in the CloudWatch User Guide; the
# fields of SNS messages beyond these are as others have recorded them.

AS_A_WHOLE = "it is an alarm over many time series as a whole: each of them has an event of its own"
A_DESCRIPTION = json.dumps({"agent_ids": ["named-by-the-alarm-itself"]})


@pytest.mark.parametrize("name", MANY_SERIES)
def test_an_alarm_over_many_time_series_is_ignored_as_a_whole(name):
    for event in (sample(name), from_queue(json.dumps(sample(name)))):
        parsed = read_one(event)
        assert parsed.ignored == AS_A_WHOLE
        assert parsed.trigger == alarm("backup-failed-fleet", "2026-11-21T03:05:04.919+0000")
        assert (ids(parsed), parsed.rejections, parsed.dead_letter) == ([], [], None)


def configured(configuration, **detail):
    return alarm_event(configuration={"description": A_DESCRIPTION} | configuration, **detail)


def in_sns(**fields):
    message = json.loads(sample("sns-alarm-contributor")["Records"][0]["Sns"]["Message"])
    del message["AlarmContributorId"], message["AlarmContributorAttributes"]
    return sns_record(json.dumps(message | {"AlarmDescription": A_DESCRIPTION} | fields))


@pytest.mark.parametrize(
    "event",
    [
        configured(
            {"metrics": [{"id": "q", "returnData": True, "expression": 'select max(f) from "b" group\n by AgentId'}]}
        ),
        configured(
            {"metrics": []},
            state={"value": "ALARM", "timestamp": "t", "reason": "100+ time series evaluated to ALARM"},
        ),
        in_sns(NewStateReason="backup failed"),
        in_sns(Trigger={}, NewStateReason="5 out of 10 contributors evaluated to ALARM"),
    ],
)
def test_it_is_ignored_even_if_it_names_agents(event):
    assert read_one(event).ignored == AS_A_WHOLE


@pytest.mark.parametrize(
    "metrics",
    [
        [{"id": "e1", "expression": "MAX(METRICS())", "returnData": True}],
        [{"expression": "MAX(q)", "returnData": True}, {"id": "q", "expression": "GROUP BY a", "returnData": False}],
        *([{"expression": 7, "returnData": True}, None], {"expression": "GROUP BY", "returnData": True}, None),
    ],
)
def test_an_alarm_over_one_time_series_is_captured(metrics):
    event = configured({"metrics": metrics})
    assert ids(read_one(event)) == ["named-by-the-alarm-itself"]


def promql(**detail):
    criteria = {"promQLCriteria": {"query": "backup_failed > 0", "pendingPeriod": 60}}
    return alarm_event(configuration={"evaluationCriteria": criteria} | detail.pop("configuration", {}), **detail)


def test_a_promql_alarm_as_a_whole_is_ignored_only_if_it_names_no_agent():
    # What the events of such alarms look like is not documented ("PromQL alarms" in the CloudWatch User Guide has no
    # example): nothing is passed over for which no other event may come.
    assert read_one(promql()).ignored == AS_A_WHOLE
    assert read_one(in_sns(AlarmDescription=None, Trigger={"EvaluationCriteria": {"PromQLCriteria": {}}})).ignored
    assert ids(read_one(promql(configuration={"description": A_DESCRIPTION}))) == ["named-by-the-alarm-itself"]


def test_a_time_series_of_a_promql_alarm_is_captured():
    contributor = {"id": "0f", "attributes": {"agent_id": "a", "@resource.host.name": "web-01"}}
    event = promql(alarmContributor=contributor) | {"detail-type": "CloudWatch Alarm Contributor State Change"}
    (capture,) = read_one(event).captures
    assert (capture.agent_id, capture.trigger.id[-3:]) == ("a", "#0f")


@pytest.mark.parametrize(
    "name", ["eventbridge-alarm-contributor", "alarm-action-contributor", "sns-alarm-contributor"]
)
def test_a_time_series_that_recovers_is_ignored(name):
    text = json.dumps(sample(name)).replace('"value": "ALARM"', '"value": "OK"')
    event = json.loads(text.replace('NewStateValue\\":\\"ALARM', 'NewStateValue\\":\\"OK'))
    assert read_one(event).ignored == "the alarm's state is OK, not ALARM"


def test_each_time_series_that_changes_in_the_same_millisecond_is_a_trigger_and_a_job():
    one, other = sample("eventbridge-alarm-contributor"), sample("eventbridge-alarm-contributor")
    other["detail"]["alarmContributor"] = {"id": "5be2b9d7c0446f13", "attributes": {"AgentId": "another"}}
    captures = [capture for event in (one, other) for capture in read_one(event).captures]
    assert len({capture.job_id for capture in captures}) == 2
    assert {capture.job for capture in captures} == {Job(name=None, asked=1)}


def test_a_time_series_is_the_same_trigger_by_all_routes():
    detail = sample("eventbridge-alarm-contributor")["detail"]
    by_action = sample("alarm-action-contributor") | {"alarmData": detail}
    by_sns = in_sns(
        AlarmContributorId=detail["alarmContributor"]["id"],
        AlarmContributorAttributes=detail["alarmContributor"]["attributes"],
        AlarmDescription=None,
    )
    events = (sample("eventbridge-alarm-contributor"), by_action, by_sns)
    assert len({read_one(event).captures[0].key for event in events}) == 1


# ------------------------------------------------------------------ this project's own notifications

TRIGGER = Trigger(TriggerType.MANUAL, "a-request")
OUTCOME = Outcome(status=Status.REQUESTED, trigger=TRIGGER, asked_at=NOW, at=NOW, agent_id="a", region="DFW")
JOB_DONE = JobSummary(
    job_id="a-request", revision=1, counts={Status.CAPTURED: 1}, trigger=TRIGGER, asked_at=NOW, at=NOW
)
MESSAGES = [sns_message(OUTCOME, has_chat=True), job_summary.sns_message(JOB_DONE, has_chat=True)]
ATTRIBUTES = {"agent_id": {"Type": "String", "Value": "a"}, "region": {"Type": "String", "Value": "DFW"}}


def forwarded(raw):
    """Return the ways in which a notification may be sent to the function."""
    notification = json.loads(raw)
    wrapped = sns_record(raw, MessageAttributes=ATTRIBUTES)
    with_attributes = from_queue(raw)
    [record] = with_attributes["Records"]
    record["messageAttributes"] = {"agent_id": {"dataType": "String", "stringValue": "a"}}
    return {
        "by hand": notification,
        "as a text": raw,
        "from a queue": from_queue(json.dumps(wrapped["Records"][0]["Sns"])),
        "raw from a queue": with_attributes,
        "from the topic": wrapped,
        "in a list": [notification, notification],
        "in a list of texts": [raw],
        "as JSON lines": f"{raw}\n{raw}",
        "by a pipe": with_attributes["Records"],
        "through EventBridge": alarm_event() | {"detail-type": "Forwarded", "detail": notification},
        "through EventBridge by a pipe": alarm_event() | {"detail-type": "Forwarded", "detail": record},
        "a pipe's body as JSON": [record | {"body": notification}],
        "in a text in an object": {"note": {"text": raw}},
        "in the function's answer": {"requestPayload": {}, "responsePayload": {"outcomes": [notification]}},
    }


@pytest.mark.parametrize("form", ["default", "https"])
@pytest.mark.parametrize("message", MESSAGES, ids=["outcome", "job"])
def test_a_notification_of_this_project_is_ignored_at_any_depth(message, form):
    for event in forwarded(json.loads(message["Message"])[form]).values():
        parsed = read_one(event)
        assert parsed.ignored == "it is a notification that this function published"
        assert (ids(parsed), parsed.rejections, parsed.dead_letter) == ([], [], None)


@pytest.mark.parametrize("key", ["version", "status", "outcome_id"])
def test_an_object_with_two_of_the_three_keys_of_a_notification_is_read(key):
    own = notification.to_json(OUTCOME)
    del own[key]
    assert ids(read_one(own)) == ["a"]
    assert ids(read_one(notification.to_json(OUTCOME) | {key: 7})) == ["a"]


def test_agents_beside_a_notification_are_captured():
    assert ids(read_one([notification.to_json(OUTCOME), {"agent_id": "b"}])) == ["b"]


def test_a_replayed_event_is_rejected_for_the_same_reason():
    event = '{"agent_id": null, "outcome_id": null}'
    parsed = read_one(event)
    assert (reasons(parsed), reasons(read_body(parsed.dead_letter))) == ([Reason.NO_AGENT_ID], [Reason.NO_AGENT_ID])


# ------------------------------------------------------------------ the whole of an event is read


def test_each_record_in_an_array_from_eventbridge_pipes_is_a_trigger_of_its_own():
    # "Amazon Simple Queue Service as a source" in the EventBridge User Guide
    captures = read_one(sample("pipes-sqs")).captures
    assert [(capture.agent_id, capture.trigger) for capture in captures] == [
        ("986e86cb-0ab8-4b67-a26b-7f62b1852f27", Trigger(TriggerType.SQS, "73f778aa-f6fa-4db8-a56a-bd72fb710734")),
        ("a66b0d38-9d95-447e-bd29-9753a7677796", Trigger(TriggerType.SQS, "d4ea65d0-03d7-4684-9f85-58a628518867")),
    ]


def with_attribute(body, agent_id="b2"):
    event = from_queue(body)
    event["Records"][0]["messageAttributes"] = {"AgentId": {"stringValue": agent_id, "dataType": "String"}}
    return event


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (with_attribute("a1"), ["a1", "b2"]),
        (with_attribute('{"agent_id": "a1"}'), ["a1", "b2"]),
        (with_attribute("The backup of web-01 failed."), ["b2"]),
        (with_attribute("{}"), ["b2"]),
        (sns_record("a1", MessageAttributes={"AgentId": {"Type": "String", "Value": "b2"}}), ["a1", "b2"]),
        (from_queue(json.dumps(sns_record("{}", MessageAttributes={"AgentId": {"Value": "b2"}}))), ["b2"]),
        ([*with_attribute("a1")["Records"], *from_queue("c3")["Records"]], ["a1", "b2", "c3"]),
        ({"requestPayload": {"agent_id": "a1"}, "responsePayload": {"agent_id": "b2"}}, ["a1", "b2"]),
        ({"requestPayload": alarm_event(configuration={}), "responsePayload": ["x", {"agent_id": "b2"}]}, ["b2"]),
        ({"MessageId": "my own", "Message": '{"agent_id": "a1"}', "agent_id": "b2"}, ["a1", "b2"]),
        ({"MessageId": "my own", "Message": "call 4127", "agent_id": "b2"}, ["b2"]),
        ({"Records": [{"eventSource": "aws:s3", "agent_id": "a1"}], "agent_id": "b2"}, ["a1", "b2"]),
    ],
)
def test_all_parts_of_an_event_are_read(event, expected):
    parsed = read_one(event)
    assert (ids(parsed), parsed.rejections) == (expected, [])


def test_an_invalid_message_attribute_is_in_the_dead_letter():
    event = with_attribute("unreadable")
    event["Records"][0]["messageAttributes"]["AgentId"]["stringValue"] = "not/an/id"
    parsed = read_one(event)
    assert reasons(parsed) == [Reason.INVALID_AGENT_ID]
    again = read_body(parsed.dead_letter)
    assert (reasons(again), again.trigger) == ([Reason.INVALID_AGENT_ID], parsed.trigger)


def test_a_dead_letter_does_not_grow_when_it_is_replayed_and_rejected_again():
    event = with_attribute("{")
    letters = []
    for _ in range(3):
        letters.append(read_one(event).dead_letter)
        event = from_queue(letters[-1])
        event["Records"][0]["messageAttributes"] = {"reason": {"stringValue": "invalid_json", "dataType": "String"}}
    assert letters[0] == letters[1] == letters[2]


def test_a_dead_letter_that_is_too_long_with_its_attributes_has_only_the_body(monkeypatch):
    body = "{" + '"' * 300
    monkeypatch.setattr(parser, "_MOST_DEAD_LETTER_BYTES", 500)
    assert read_one(with_attribute(body)).dead_letter == body


def test_message_attributes_may_be_options_like_the_fields_of_an_object():
    fields = {"AgentId": "a", "Region": "ORD", "force": "true", "job": "night"}
    event = with_attribute("{}")
    event["Records"][0]["messageAttributes"] = {
        name: {"stringValue": text, "dataType": "String"} for name, text in fields.items()
    }
    (capture,) = read_one(event).captures
    assert (capture.region, capture.force, capture.job_id) == ("ORD", True, "night")


# ------------------------------------------------------------------ where agent IDs may be


@pytest.mark.parametrize(
    "key",
    [
        "AgentId",
        "agentIds",
        "agent-id",
        "AGENT_ID",
        "agent_ids",
        "agent_id",
        "agentid",
        "Agent.IDs",
        "backup.client",
        "BackupClient",
    ],
)
def test_a_key_is_an_agent_id_key_in_any_case_and_with_any_separators(key):
    assert ids(read_one({"detail": {key: "a-1"}})) == ["a-1"]


@pytest.mark.parametrize("key", ["id", "agent", "agent_ids_count", "reagent_id"])
def test_another_key_is_not_an_agent_id(key):
    assert reasons(read_one({key: "a-1"})) == [Reason.NO_AGENT_ID]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("a", ["a"]),
        (["a", "b"], ["a", "b"]),
        ("a, b\nc\td", ["a", "b", "c", "d"]),
        ('["a", "b"]', ["a", "b"]),
        (["a", '{"agent_id": "b"}'], ["a", "b"]),
        ({"Type": "String", "Value": "a"}, ["a"]),
        ({"Type": "String.Array", "Value": '["a", "b"]'}, ["a", "b"]),
        ({"dataType": "String", "stringValue": "a,b"}, ["a", "b"]),
        ({"first": {"agent_id": "a"}, "second": {"agent_id": "b"}}, ["a", "b"]),
        ([{"agent_id": "a"}, "b"], ["a", "b"]),
        ("A-Z_09" * 21, ["A-Z_09" * 21]),
    ],
)
def test_the_value_of_a_key_may_be_one_or_many(value, expected):
    parsed = read_one({"agent_ids": value})
    assert ids(parsed) == expected
    assert parsed.rejections == []


@pytest.mark.parametrize(
    ("name", "value"), [("name", "value"), ("Name", "Value"), ("key", "value"), ("Key", "Value")]
)
def test_a_pair_of_a_name_and_a_value_is_read_like_a_field(name, value):
    pairs = [
        {name: "AgentId", value: "a"},
        {value: "ORD", name: "Region"},
        {name: "agent_id", value: "b", "region": "SYD"},
    ]
    parsed = read_one({"dimensions": pairs, "tag": {name: "agent-ids", value: "c,d", "agent_id": "e"}})
    assert [(capture.agent_id, capture.region) for capture in parsed.captures] == [
        ("a", "ORD"),
        ("b", "SYD"),
        ("c", "IAD"),
        ("d", "IAD"),
        ("e", "IAD"),
    ]


@pytest.mark.parametrize(
    "body",
    [
        "a1,b2\nc3",
        "a1\r\nb2\r\n\r\nc3\r\n",
        "\ufeffa1, b2,, c3",
        "  a1 b2\tc3  ",
        "a1; b2;c3",
        '"a1", \'b2\'\n“c3”\n""',
        "{a1}\r\n{b2}\r\n{c3}\r\n",
        '\ufeff{"agent_ids": ["a1", "b2", "c3"]}',
        f'{" " * 100}{{"agent_ids": "a1 b2 c3"}}',
        '["a1", "b2", "c3"]',
        '["{a1}", "\'b2\'", "c3"]',
        '["a1", "{\\"agent_ids\\": [\\"b2\\", \\"c3\\"]}"]',
        '{"Message": "{\\"agent_ids\\": [\\"a1\\", \\"b2\\", \\"c3\\"]}"}',
        '{"agent_id": "a1"}\n{"agent_ids": ["b2"]}\n\n{"note": "none"}\n{"agent_id": "c3"}\n',
        '{"agent_id": "a1"} {"agent_ids": "{b2}; c3"}',
    ],
)
def test_a_body_is_a_plain_list_json_or_json_lines(body):
    for event in (from_queue(body), body, sns_record(body)):
        parsed = read_one(event)
        assert ids(parsed) == ["a1", "b2", "c3"]
        assert parsed.rejections == []


@pytest.mark.parametrize(
    "text",
    [
        "Backup 4127 of web-01 failed, please have a look",
        "nothing in here",
        "agent_id",
        "failed!",
        "2026-11-24 backup failed",
    ],
)
def test_prose_is_rejected(text):
    for event in (text, from_queue(text), sns_record(text)):
        parsed = read_one(event)
        (rejection,) = parsed.rejections
        assert rejection.outcome.reason is Reason.NO_AGENT_ID
        assert rejection.outcome.message == f"the event holds no agent ID: '{text}'"
        assert ids(parsed) == []
        assert text in parsed.dead_letter


def test_a_list_with_a_heading_is_rejected_as_a_whole_and_its_words_are_named():
    body = "agent_id,host\n8f135b4f-7a69-4b8a-947f-5e80d772fd97,web-01\n"
    parsed = read_body(body)
    (rejection,) = parsed.rejections
    assert rejection.outcome.reason is Reason.INVALID_AGENT_ID
    assert rejection.outcome.message == (
        "the text is not a list of agent IDs, which all have a digit: 'agent_id', 'host'"
    )
    assert (ids(parsed), parsed.dead_letter) == ([], body)


def test_an_id_that_a_key_names_needs_no_digit():
    assert ids(read_one({"agent_ids": "web;mail", "more": {"agent_id": ["db"]}})) == ["web", "mail", "db"]


@pytest.mark.parametrize("spoiler", [7, None, {}, {"note": 1}, []], ids=repr)
def test_an_invalid_value_in_a_bare_list_does_not_affect_the_others(spoiler):
    for event in (["a", spoiler, "c"], from_queue(json.dumps(["a", spoiler, "c"]))):
        parsed = read_one(event)
        assert (ids(parsed), reasons(parsed)) == (["a", "c"], [Reason.INVALID_AGENT_ID])
        assert json.loads(parsed.dead_letter) == {"rejected": [{"agent_ids": [spoiler]}]}


def test_objects_in_a_bare_list_are_read():
    assert ids(read_one(["a", {"agent_id": "b"}, {"detail": {"agent_ids": ["c"]}}])) == ["a", "b", "c"]


def test_a_body_that_is_a_number_is_an_agent_id():
    assert ids(read_body("12345")) == ["12345"]


def test_json_in_the_description_of_an_alarm_is_read():
    description = '{"agent_id": "a", "region": "lon", "note": "call Ann"}'
    (capture,) = read_one(alarm_event(configuration={"description": description, "metrics": []})).captures
    assert (capture.agent_id, capture.region) == ("a", "LON")


def test_dead_letters_in_dead_letters_are_read():
    event = sample("manual")
    for number in range(5):
        context = {"requestId": f"request-{number}", "condition": "RetriesExhausted"}
        event = from_queue(json.dumps({"requestContext": context, "requestPayload": event}))
    parsed = read_one(event)
    assert len(parsed.captures) == 3
    assert parsed.trigger == Trigger(TriggerType.MANUAL, "request-0")


def test_records_without_usable_ids_have_the_trigger_of_the_request():
    records = [{"eventSource": "aws:sqs", "messageId": message_id, "body": "a1"} for message_id in ([], "")]
    event = {"Records": records}
    first, second = read(event)
    assert first.record_id is None
    assert first.trigger == second.trigger == Trigger(TriggerType.MANUAL, "a-request")


@pytest.mark.parametrize(
    "event",
    [
        {"name": "Host", "key": "AgentId", "value": "a", "Name": "AgentId", "Value": "b"},
        {"AgentId": {"Value": "a", "stringValue": "b"}},
        {"AgentId": {"Value": "a", "more": {"agent_id": "b"}}},
    ],
    ids=["in either spelling", "two attributes", "beside an attribute"],
)
def test_values_that_can_be_read_in_two_ways_are_read_in_both(event):
    assert ids(read_one(event)) == ["a", "b"]


# ------------------------------------------------------------------ keys that say the same

CAPTURE = {
    "agent_id": "a",
    "region": "ORD",
    "trigger": {"type": "alarm", "id": "arn@time", "name": None},
    "asked_at": "2026-11-23T00:12:40.000Z",
    "retry_from": None,
    "attempts": 0,
    "part_of_job": None,
    "replays": 0,
    "force": False,
    "phase": {"name": "requesting", "unconfirmed_since": None},
}


def test_the_last_value_of_a_key_that_is_there_twice_counts():
    assert ids(read_body('{"agent_id": "a", "agent_id": "b"}')) == ["b"]
    assert ids(read_body('{"agent_id": "a", "AgentId": "b"}')) == ["a", "b"]
    (capture,) = read_body('{"agent_id": "a", "region": "DFW", "Region": "lon"}').captures
    assert capture.region == "LON"


@pytest.mark.parametrize(
    "further",
    [
        '"AgentId": "b"',
        '"more": {"agent_id": "b"}',
        '"trigger": {"type": "alarm", "id": "arn@time", "name": null, "agent_id": "b"}',
        '"part_of_job": {"name": null, "agent_id": "b"}',
    ],
)
def test_an_agent_that_was_added_to_a_waiting_capture_is_captured_too(further):
    text = json.dumps({"captures": [CAPTURE]})
    assert read_body(text).captures[0].trigger == Trigger(TriggerType.ALARM, "arn@time")
    assert sorted(ids(read_body(text.replace('"replays"', f'{further}, "replays"')))) == ["a", "b"]


@pytest.mark.parametrize("number", ["9" * 5000, "-" + "9" * 5000, "1e999", "NaN", "-Infinity"], ids=lambda n: n[:9])
def test_no_number_makes_its_event_unreadable(number):
    parsed = read_body(f'{{"note": "{{\\"n\\": {number}, \\"agent_id\\": \\"a\\"}}", "agent_ids": [{number}, "b"]}}')
    assert (ids(parsed), reasons(parsed)) == (["a", "b"], [Reason.INVALID_AGENT_ID])


# ------------------------------------------------------------------ region and force


@pytest.mark.parametrize(
    ("region", "expected"),
    [
        ("DFW", "DFW"),
        ("hKg", "HKG"),
        (" syd ", "SYD"),
        (None, "IAD"),
        ("us-east-1", "IAD"),
        ("us-gov-west-1", "IAD"),
        ("ap-southeast-2", "IAD"),
    ],
)
def test_a_region_may_be_in_any_case_and_an_aws_region_is_ignored(region, expected):
    (capture,) = read_one({"agent_id": "a", "Region": region}).captures
    assert capture.region == expected


@pytest.mark.parametrize(
    ("beside", "reason", "message"),
    [
        ({"region": "XYZ"}, Reason.INVALID_REGION, "region 'XYZ' is not one of DFW HKG IAD LON ORD SYD: 'a', 'b'"),
        ({"region": 7}, Reason.INVALID_REGION, "region 7 is not one of DFW HKG IAD LON ORD SYD: 'a', 'b'"),
        ({"region": []}, Reason.INVALID_REGION, "region a list is not one of DFW HKG IAD LON ORD SYD: 'a', 'b'"),
        ({"force": "maybe"}, Reason.INVALID_FORCE, "force 'maybe' is not true or false: 'a', 'b'"),
        ({"force": {}}, Reason.INVALID_FORCE, "force an object is not true or false: 'a', 'b'"),
    ],
)
def test_an_invalid_option_affects_only_the_agents_in_the_same_object(beside, reason, message):
    parsed = read_one({"one": {"agent_ids": ["a", "b"], **beside}, "other": {"agent_id": "c"}})
    assert ids(parsed) == ["c"]
    (rejection,) = parsed.rejections
    assert (rejection.outcome.reason, rejection.outcome.message, rejection.count) == (reason, message, 2)
    assert json.loads(parsed.dead_letter) == {"rejected": [{"agent_ids": ["a", "b"], **beside}]}


@pytest.mark.parametrize(
    ("force", "expected"),
    [(True, True), ("true", True), ("TRUE ", True), (False, False), ("false", False), (None, False)],
)
def test_force_is_true_or_false(force, expected):
    (capture,) = read_one({"agent_id": "a", "force": force}).captures
    assert capture.force is expected


# ------------------------------------------------------------------ what is rejected


@pytest.mark.parametrize("value", ["b!", "é", "a/b", "x" * 129, 7, 1.5, True, {}, [], {"deep": [1]}])
def test_an_invalid_id_does_not_affect_the_others(value):
    parsed = read_one({"agent_ids": ["a", value, "c"]})
    assert ids(parsed) == ["a", "c"]
    assert reasons(parsed) == [Reason.INVALID_AGENT_ID]
    assert json.loads(parsed.dead_letter) == {"rejected": [{"agent_ids": [value]}]}


def test_an_invalid_id_is_named_in_a_printable_form():
    (rejection,) = read_one({"agent\nid": ["\u202e\x1b[31m", "x" * 500, 12, None]}).rejections
    assert rejection.outcome.message == (
        f"agent id: an agent ID is 1 to 128 characters of A-Z a-z 0-9 _ -: '  [31m', '{'x' * 79}…', 12, null"
    )


def test_one_notification_names_up_to_fifty_invalid_ids():
    bad = [f"bad!{number}" for number in range(120)]
    parsed = read_one({"agent_ids": [*bad, "good"]})
    assert [rejection.count for rejection in parsed.rejections] == [50, 50, 20]
    assert [
        name for rejection in parsed.rejections for name in re.findall("'(.*?)'", rejection.outcome.message)
    ] == bad
    assert len({rejection.outcome.outcome_id for rejection in parsed.rejections}) == 3
    assert json.loads(parsed.dead_letter) == {"rejected": [{"agent_ids": bad}]}


def test_one_notification_reports_values_that_are_invalid_for_the_same_reason():
    event = [{"agent_id": "b!"}, {"agent_id": "a", "region": "?"}] * 3
    assert [rejection.count for rejection in read_one(event).rejections] == [3, 3]


@pytest.mark.parametrize("event", [{}, [], None, 7, {"agent_ids": []}, {"agent_id": None}, {"agent_id": " , "}])
def test_an_event_without_an_agent_id_is_rejected_and_is_its_own_dead_letter(event):
    parsed = read_one(event)
    (rejection,) = parsed.rejections
    assert rejection.outcome.reason is Reason.NO_AGENT_ID
    assert rejection.outcome.message == "the event holds no agent ID"
    assert rejection.outcome.agent_id is None
    assert parsed.dead_letter == json.dumps(event, separators=(",", ":"))


@pytest.mark.parametrize("body", ["{", "[a]", '{"agent_id": "a"} trailing', " [1,]", "{'agent_id': 'a'}"])
def test_a_body_that_begins_like_json_and_is_not_json_is_rejected_as_a_whole(body):
    parsed = read_body(body)
    assert (ids(parsed), reasons(parsed), parsed.dead_letter) == ([], [Reason.INVALID_JSON], body)


def test_the_dead_letter_of_a_body_of_invalid_ids_is_the_unchanged_body():
    body = '[\r\n"b!",\r\n"c?"]'
    parsed = read_body(body)
    assert (parsed.rejections[0].count, parsed.dead_letter) == (2, body)


def test_a_rejection_in_an_event_of_several_triggers_has_the_trigger_of_its_message():
    messages = (("good", '{"agent_id": "a"}'), ("bad", "nothing in here"))
    records = [each for name, message in messages for each in sns_record(message, MessageId=name)["Records"]]
    parsed = read_one({"Records": records})
    assert ids(parsed) == ["a"]
    assert [rejection.outcome.trigger for rejection in parsed.rejections] == [Trigger(TriggerType.SNS, "bad")]


def test_a_dead_letter_is_not_longer_than_its_event():
    beside = {"region": "x" * 50_000, "force": [1]}
    event = json.dumps([{"agent_ids": [*["a"] * 1000, "b!"], **beside}, {"agent_ids": ["c", "𝄞" * 5000, "\ud800"]}])
    parsed = read_body(event)
    assert len(parsed.dead_letter) < len(event)
    assert json.loads(parsed.dead_letter) == {
        "rejected": [{"agent_ids": [*["a"] * 1000, "b!"], **beside}, {"agent_ids": ["𝄞" * 5000, "\ud800"]}]
    }
    assert "𝄞" in parsed.dead_letter


def test_a_dead_letter_of_invalid_values_that_is_too_long_is_the_unchanged_body(monkeypatch):
    body = "a1 " + "! " * 100
    monkeypatch.setattr(parser, "_MOST_DEAD_LETTER_BYTES", 400)
    assert read_body(body).dead_letter == body
    monkeypatch.setattr(parser, "_MOST_DEAD_LETTER_BYTES", 1000)
    assert json.loads(read_body(body).dead_letter) == {"rejected": [{"agent_ids": ["!"] * 100}]}


@pytest.mark.parametrize("value", ["b c", "b,c", '{"agent_id": 7}', "[1]", {"Value": " "}, None, ["b!"]], ids=repr)
def test_an_invalid_value_is_rejected_again_when_it_is_replayed(value):
    parsed = read_one({"agent_ids": ["a", value]})
    again = read_body(parsed.dead_letter)
    assert (ids(parsed), ids(again)) == (["a"], [])
    assert (reasons(again), again.rejections[0].count) == (reasons(parsed), parsed.rejections[0].count)


@pytest.mark.parametrize(
    "event",
    [
        {"agent_ids": ["a1", "b!"]},
        [{"agent_id": "a1"}, {"agent_id": "b2", "region": "?"}],
        with_attribute("{", "a1"),
        with_attribute("agent_id,host\n8f135b4f,web-01,db-02\n", "a1"),
        [*from_queue("a1")["Records"], *from_queue("The backup failed.")["Records"]],
        {"Records": [*sns_record("a1")["Records"], *sns_record("The backup failed.", MessageId="b")["Records"]]},
        from_queue(json.dumps({"captures": [{"agent_id": "a1"}, {"region": "DFW"}, 7]})),
    ],
)
def test_a_replayed_dead_letter_is_rejected_again_and_what_was_captured_is_not_requested_again(event):
    parsed = read_one(event)
    replayed = read_body(parsed.dead_letter)
    assert (ids(parsed), ids(replayed)) == (["a1"], [])
    assert sum(each.count for each in replayed.rejections) == sum(each.count for each in parsed.rejections) > 0


def test_a_replayed_message_of_an_event_keeps_its_trigger():
    records = [record for body in ("a1", "The backup failed.") for record in from_queue(body)["Records"]]
    records[1]["messageId"] = "the second"
    replayed = read_body(read_one(records).dead_letter)
    assert replayed.rejections[0].outcome.trigger == Trigger(TriggerType.SQS, "the second")


def test_the_dead_letter_of_an_empty_body_is_not_empty():
    assert (read_body("").dead_letter, read_body(None).dead_letter) == ('""', "null")


# ------------------------------------------------------------------ each agent once for each trigger


def test_an_agent_that_one_trigger_names_twice_is_one_capture():
    assert ids(read_one({"agent_ids": ["b", "a", "b"], "detail": {"AgentId": "a"}})) == ["b", "a"]


def test_two_regions_are_two_captures():
    event = [{"agent_id": "a", "region": "DFW"}, {"agent_id": "a", "region": "LON"}]
    assert [capture.region for capture in read_one(event).captures] == ["DFW", "LON"]


def test_two_records_of_the_same_alarm_are_one_capture():
    alarm = json.dumps(sample("eventbridge-alarm"))
    first, second = read(from_queue(alarm, alarm))
    assert len(first.captures) == 1
    assert (second.captures, second.rejections) == ([], [])
    assert second.ignored == "another record names the same agents"


def test_two_triggers_are_two_captures():
    first, second = read(from_queue("a1", "a1"))
    assert [capture.trigger.id for capture in (*first.captures, *second.captures)] == ["message-0", "message-1"]


# ------------------------------------------------------------------ what this function itself puts into its queues

WAITING = Capture(
    agent_id="a",
    region="ORD",
    trigger=Trigger(TriggerType.ALARM, "arn@time", "alarm"),
    asked_at=NOW - timedelta(hours=3),
    retry_from=NOW - timedelta(hours=2),
    attempts=4,
    replays=1,
    force=True,
    phase=Requesting(NOW - timedelta(hours=1)),
)


def own_message(*items):
    return from_queue(json.dumps({"captures": items}))


@pytest.mark.parametrize("length", range(500, 516))
def test_the_captures_of_an_alarm_with_a_long_name_can_be_read_back_from_the_queue(length):
    marks = "x" * length + "\u0301" * 12
    state = {"value": "ALARM", "timestamp": "t"}
    event = alarm_event(alarmName=marks[-270:], state=state, agent_id="a") | {"resources": [marks]}
    event["detail"]["configuration"] = {}
    (capture,) = read_one(event).captures
    assert read_one(own_message(to_json(capture))).captures == [capture]


def test_captures_are_unchanged_when_they_are_read_back_from_the_queue():
    polling = Polling(
        log_file_id="a-log-file", requested_at=NOW - timedelta(minutes=30), activated_at=NOW, activations=1
    )
    other = replace(WAITING, agent_id="b", phase=polling)
    assert read_one(own_message(to_json(WAITING), to_json(other))).captures == [WAITING, other]


def received(body, count, first_received_at):
    """Return the event of a record that was received so often."""
    event = from_queue(body)
    event["Records"][0]["attributes"] = {
        "ApproximateReceiveCount": count,
        "ApproximateFirstReceiveTimestamp": first_received_at,
    }
    return event


def millis(moment):
    return str(round(moment.timestamp() * 1000))


@pytest.mark.parametrize("count", ["2", "3", "1000"])
@pytest.mark.parametrize("body", ["a1 b2", '{"agent_ids": ["a1", "b2"]}'])
def test_the_captures_of_a_record_that_was_received_before_are_unconfirmed_since_then(body, count):
    captures = read_one(received(body, count, millis(AN_HOUR_AGO))).captures
    assert [(capture.agent_id, capture.unconfirmed_since) for capture in captures] == [
        ("a1", AN_HOUR_AGO),
        ("b2", AN_HOUR_AGO),
    ]


@pytest.mark.parametrize(
    "count", ["1", 1, "0", "-2", "2.5", "many", "", None, [2], "9" * 5000], ids=lambda count: str(count)[:9]
)
def test_the_captures_of_a_record_that_is_received_for_the_first_time_are_not_unconfirmed(count):
    (capture,) = read_one(received("a1", count, millis(AN_HOUR_AGO))).captures
    assert capture.unconfirmed_since is None


@pytest.mark.parametrize(
    "first_received_at",
    [
        *("", "soon", "-1", "1.5", "٣", "9" * 5000, "99999999999999", "0", None, {}),
        *(millis(NOW + timedelta(seconds=1)), millis(NOW - timedelta(days=14, seconds=1))),
    ],
    ids=lambda moment: str(moment)[:14],
)
def test_an_impossible_time_of_the_first_delivery_is_ignored(first_received_at):
    (capture,) = read_one(received("a1", "2", first_received_at)).captures
    assert capture.unconfirmed_since is None


@pytest.mark.parametrize("attributes", [None, [], "2", {}, {"ApproximateReceiveCount": "2"}])
def test_unreadable_attributes_are_ignored(attributes):
    event = from_queue("a1")
    event["Records"][0]["attributes"] = attributes
    assert read_one(event).captures[0].unconfirmed_since is None


@pytest.mark.parametrize(
    ("known", "since"),
    [(None, AN_HOUR_AGO), (AN_HOUR_AGO - MINUTE, AN_HOUR_AGO - MINUTE), (AN_HOUR_AGO + MINUTE, AN_HOUR_AGO)],
)
def test_a_capture_is_unconfirmed_since_the_earlier_of_two_times(known, since):
    body = json.dumps({"captures": [to_json(replace(WAITING, phase=Requesting(known)))]})
    (capture,) = read_one(received(body, "2", millis(AN_HOUR_AGO))).captures
    assert capture == replace(WAITING, phase=Requesting(since))


def test_each_record_of_a_batch_has_its_own_receive_count():
    again, new = received("a1", "2", millis(AN_HOUR_AGO)), received("b1", "1", millis(NOW))
    parsed_records = read({"Records": [*again["Records"], *new["Records"]]})
    assert [parsed.captures[0].unconfirmed_since for parsed in parsed_records] == [AN_HOUR_AGO, None]


def test_a_replayed_dead_letter_has_a_new_retry_window():
    (capture,) = read_one(own_message(to_dead_letter(WAITING))).captures
    assert capture == replace(WAITING, attempts=0, replays=2, retry_from=NOW)


def test_a_damaged_capture_is_read_like_any_event():
    (capture,) = read_one(own_message(to_json(WAITING) | {"attempts": "many"})).captures
    fresh = Capture(
        agent_id="a",
        region="ORD",
        trigger=Trigger(TriggerType.SQS, "message-0"),
        asked_at=NOW,
        retry_from=NOW,
        force=True,
        job=Job(name=None, asked=1),
    )
    assert capture == fresh


def test_a_damaged_capture_without_an_agent_does_not_affect_the_others():
    parsed = read_one(own_message(to_json(WAITING), {"region": "ORD"}, 7))
    assert parsed.captures == [WAITING]
    assert (reasons(parsed), parsed.rejections[0].count) == ([Reason.NO_AGENT_ID], 2)


@pytest.mark.parametrize("captures", [[{"agent_id": "a"}], [], "a", {"agent_id": "b"}])
def test_another_event_may_have_a_key_captures(captures):
    assert "c" in ids(read_one({"captures": captures, "agent_id": "c"}))


# ------------------------------------------------------------------ bounds


@pytest.mark.parametrize("wrap", [lambda inner: {"in": inner}, lambda inner: [inner]])
def test_a_value_that_is_nested_too_deep_is_rejected(wrap):
    event = {"agent_id": "b"}
    for _ in range(agent_ids.MAX_DEPTH):
        event = wrap(event)
    assert ids(read_one(event)) == ["b"]
    parsed = read_one({"agent_id": "a", "in": event})
    assert (ids(parsed), reasons(parsed)) == (["a"], [Reason.TOO_DEEP])
    assert json.loads(parsed.dead_letter) == {"rejected": [{"agent_ids": [{"agent_id": "b"}]}]}


def test_one_notification_reports_all_values_that_are_nested_too_deep():
    event = [{"agent_id": "b"}] * 70
    for _ in range(agent_ids.MAX_DEPTH):
        event = [event]
    (rejection,) = read_one([{"agent_id": "a"}, event[0]]).rejections
    assert rejection.count == 70


def test_an_event_of_too_many_values_is_rejected_as_a_whole(monkeypatch):
    monkeypatch.setattr(agent_ids, "MAX_VALUES", 100)
    for event in ([[]] * 100, {"agent_ids": ["a"] * 101}, {"agent_ids": "a " * 101}, from_queue("a1 " * 101)):
        parsed = read_one(event)
        assert (ids(parsed), reasons(parsed)) == ([], [Reason.TOO_LARGE])
    assert len(read_one({"agent_ids": [str(number) for number in range(90)]}).captures) == 90


def test_the_values_of_all_records_of_a_batch_are_counted_together(monkeypatch):
    monkeypatch.setattr(agent_ids, "MAX_VALUES", 100)
    parsed_records = read(from_queue("a1 " * 60, "a1 " * 61, "a1 " * 62, "a1"))
    assert [ids(parsed) for parsed in parsed_records] == [["a1"], [], [], ["a1"]]
    assert [reasons(parsed) for parsed in parsed_records] == [[], [Reason.TOO_LARGE], [Reason.TOO_LARGE], []]
    assert len({parsed.rejections[0].outcome.outcome_id for parsed in parsed_records[1:3]}) == 2
    assert parsed_records[1].dead_letter == "a1 " * 61


def test_captures_that_waited_are_read_or_kept_all_together_however_many_values_came_before_them(monkeypatch):
    monkeypatch.setattr(agent_ids, "MAX_VALUES", 100)
    captures = read_one({"agent_ids": list("abcdefghij")}).captures
    body = json.dumps({"captures": [to_json(capture) for capture in captures]})
    results = [read(from_queue("a1 " * number, body))[1] for number in range(80, 100)]
    assert {(*ids(each), *reasons(each)) for each in results} == {tuple("abcdefghij"), (Reason.TOO_LARGE,)}


def test_of_too_many_values_beside_captures_that_waited_nothing_is_used_and_all_is_kept(monkeypatch):
    monkeypatch.setattr(agent_ids, "MAX_VALUES", 100)
    capture = read_one({"agent_ids": ["a"]}).captures[0]
    body = json.dumps({"captures": [to_json(capture), *range(200), to_json(capture)]})
    [parsed] = read(from_queue(body))
    assert (ids(parsed), reasons(parsed), parsed.dead_letter) == ([], [Reason.TOO_LARGE], body)


def test_pairs_in_pairs_are_each_read_once():
    event = {"agent_id": "a"}
    for _ in range(30):
        event = {"name": "layer", "value": event}
    assert ids(read_one(event)) == ["a"]


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"in": ', "}"), ('{"agent_id": ', "}")])
def test_an_event_nested_9000_deep_is_rejected(opening, closing):
    text = opening * 9000 + "1" + closing * 9000
    assert Reason.TOO_DEEP in reasons(read_body(text))
    assert json.loads(read_one(json.loads(text)).dead_letter) == json.loads(text)


def nested(depth):
    value = []
    for _ in range(depth):
        value = [value]
    return value


def test_an_event_too_deep_to_be_written_is_rejected():
    parsed = read_one({"agent_id": "a", "deep": nested(20_000)})
    assert (ids(parsed), reasons(parsed), parsed.dead_letter) == (["a"], [Reason.TOO_DEEP], "{}")


def test_attributes_too_deep_to_be_written_are_ignored():
    assert ids(read_one(received("a1", nested(20_000), nested(20_000)))) == ["a1"]


def test_json_in_strings_in_json_in_strings_is_read():
    event = {"agent_id": "a"}
    for _ in range(12):
        event = {"in": json.dumps(event)}
    assert ids(read_one(event)) == ["a"]


def test_json_nested_deeper_than_it_can_be_read_is_rejected():
    assert reasons(read_body("[" * 90_000 + "]" * 90_000)) == [Reason.INVALID_JSON]


def test_twenty_one_notifications_report_every_value_of_a_message_of_invalid_values():
    parsed = read_body(json.dumps(["!"] * 5000))
    assert len(parsed.rejections) == 21
    assert sum(rejection.count for rejection in parsed.rejections) == 5000
    assert parsed.rejections[-1].outcome.message == "4,000 further values are rejected; the dead letter holds them"
    assert len({rejection.outcome.outcome_id for rejection in parsed.rejections}) == 21


# ------------------------------------------------------------------ jobs


def jobs(parsed):
    return {
        capture.agent_id: (capture.job_id, capture.job.asked, capture.job.rejected) for capture in parsed.captures
    }


def test_all_agents_of_a_trigger_are_one_job():
    parsed = read_body("a1 b2 not@good c3 a1")
    assert jobs(parsed) == dict.fromkeys(["a1", "b2", "c3"], (parsed.trigger.id, 4, 1))
    assert {capture.job.is_open for capture in parsed.captures} == {False}


def test_the_job_of_an_object_is_the_job_of_its_agents():
    parsed = read_one(
        [
            {"agent_ids": ["a", "b", "no!"], "job": "night"},
            {"agent_id": "c", "Job": " day "},
            {"agent_ids": ["d", "a", "no?"]},
            [{"name": "AgentId", "value": "e"}, {"name": "job", "value": "day"}],
            {"agent_id": "f!", "job": "other"},
        ]
    )
    assert jobs(parsed) == {
        "a": ("night", 3, 1),
        "b": ("night", 3, 1),
        "c": ("day", 2, 0),
        "d": (parsed.trigger.id, 2, 1),
        "e": ("day", 2, 0),
    }
    assert [each.outcome.job_id for each in parsed.rejections] == ["night", parsed.trigger.id, "other"]


def test_an_agent_with_an_invalid_region_counts_in_its_job():
    parsed = read_one([{"agent_id": "a", "job": "night"}, {"agent_id": "b", "job": "night", "region": "?"}])
    assert jobs(parsed) == {"a": ("night", 2, 1)}


@pytest.mark.parametrize(
    ("job", "message"),
    [
        ("", "job '' is not a line of 1 to 128 printable characters: 'a'"),
        (7, "job 7 is not a line of 1 to 128 printable characters: 'a'"),
        ([], "job a list is not a line of 1 to 128 printable characters: 'a'"),
        ("a\nb", "job 'a b' is not a line of 1 to 128 printable characters: 'a'"),
        ("x" * 129, f"job '{79 * 'x'}…' is not a line of 1 to 128 printable characters: 'a'"),
    ],
)
def test_an_invalid_name_of_a_job_is_rejected(job, message):
    parsed = read_one([{"agent_id": "a", "job": job}, {"agent_id": "b"}])
    assert ids(parsed) == ["b"]
    [rejection] = parsed.rejections
    assert (rejection.outcome.reason, rejection.outcome.message) == (Reason.INVALID_JOB, message)
    assert rejection.outcome.job_id == parsed.trigger.id


@pytest.mark.parametrize("job", [None, "x" * 128, "Nachtschicht ä \U0001f600"])
def test_a_job_may_have_any_printable_name(job):
    [capture] = read_one({"agent_id": "a", "job": job}).captures
    assert capture.job_id == (job or capture.trigger.id)


def test_two_records_of_one_trigger_have_the_same_job():
    event = from_queue("a1 b2", "a1 b2")
    for record in event["Records"]:
        record["messageId"] = "the same"
    first, second = read(event)
    assert jobs(first) == dict.fromkeys(["a1", "b2"], ("the same", 2, 0))
    assert second.captures == []


def test_a_requeued_capture_keeps_its_job():
    job = Job(name="night", asked=7, rejected=2, is_open=True)
    capture = replace(WAITING, job=job, phase=Recorded(status=Status.CAPTURED))
    [read_again] = read_one(own_message(to_json(capture))).captures
    assert (read_again.job, read_again.phase) == (job, capture.phase)


def test_the_dead_letter_of_an_invalid_value_has_its_job():
    parsed = read_body('{"agent_ids": ["a", "no!"], "job": "night"}')
    assert json.loads(parsed.dead_letter) == {"rejected": [{"agent_ids": ["no!"], "job": "night"}]}
