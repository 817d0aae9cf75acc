import json
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from agent_log_capture.core import agent_ids, intake, job_notice
from agent_log_capture.core.capture import Capture, Following, Job, Outcome, Reason, Status, Trigger, TriggerType
from agent_log_capture.core.intake import Reader
from agent_log_capture.core.job import JobDone
from agent_log_capture.core.notice import sns_message, to_json

EVENTS = Path(__file__).parents[3] / "events"
NOW = datetime(2026, 11, 23, 3, 12, 40, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
AN_HOUR_AGO = NOW - 60 * MINUTE
READER = Reader(default_region="IAD", agent_id_keys=("backup.client",))


def sample(name):
    return json.loads((EVENTS / f"{name}.json").read_text())


def read(event):
    return READER.read(event, request_id="a-request", now=NOW)


def read_one(event):
    (arrival,) = read(event)
    return arrival


def read_body(body):
    return read_one(from_queue(body))


def from_queue(*bodies):
    return {
        "Records": [
            {"messageId": f"message-{number}", "body": body, "eventSource": "aws:sqs"}
            for number, body in enumerate(bodies)
        ]
    }


def ids(arrival):
    return [capture.agent_id for capture in arrival.captures]


def reasons(arrival):
    return [refused.outcome.reason for refused in arrival.refused]


def alarm(name, state_time):
    arn = f"arn:aws:cloudwatch:us-east-1:123456789012:alarm:{name}"
    return Trigger(TriggerType.ALARM, f"{arn}@{state_time}", name)


def alarm_event(**detail):
    event = sample("eventbridge-alarm")
    return event | {"detail": event["detail"] | detail}


# ------------------------------------------------------------------ the samples, one for each door


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
        alarm("backup-failed-fleet", "2026-11-21T03:05:04.919+0000"),
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
SAMPLES_WITH_TESTS_OF_THEIR_OWN = {"sqs-list", "eventbridge-alarm-ok"}


@pytest.mark.parametrize("name", SAMPLES)
def test_a_sample_gives_the_agents_that_it_names(name):
    agents, region, trigger = SAMPLES[name]
    arrival = read_one(sample(name))
    assert ids(arrival) == agents
    assert {(capture.region, capture.trigger) for capture in arrival.captures} == {(region, trigger)}
    assert arrival.trigger == trigger
    assert (arrival.refused, arrival.dead_letter, arrival.ignored) == ([], None, None)


def test_no_sample_is_without_a_test():
    assert {path.stem for path in EVENTS.glob("*.json")} == SAMPLES.keys() | SAMPLES_WITH_TESTS_OF_THEIR_OWN


def test_each_record_of_a_batch_is_an_arrival_of_its_own():
    arrivals = read(sample("sqs-list"))
    assert [(ids(arrival), arrival.message_id) for arrival in arrivals] == [
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
    assert [arrival.trigger for arrival in arrivals] == [
        Trigger(TriggerType.SQS, "238d8d7f-e807-417a-9e49-aa3eb3b01928"),
        Trigger(TriggerType.SQS, "465c93ea-4919-48f3-87d8-a018e35066a3"),
        Trigger(TriggerType.SNS, "88cc2617-8a2e-425d-b393-d7f4052515a7"),
        Trigger(TriggerType.SQS, "f9264353-28eb-4473-94f8-2f6ef39e228c"),
    ]
    assert {capture.region for capture in arrivals[0].captures} == {"ORD"}


def test_a_record_that_cannot_be_read_is_refused_and_kept_letter_for_letter():
    event = sample("sqs-list")
    arrival = read(event)[3]
    (refused,) = arrival.refused
    assert refused.outcome.status is Status.REJECTED
    assert refused.outcome.reason is Reason.INVALID_JSON
    assert refused.outcome.message == (
        "the body begins like JSON and is none: "
        '\'{"agent_ids": ["9645cdd6-d687-4fc4-ae76-b54173657431", "16a0e081-c525\''
    )
    assert arrival.dead_letter == event["Records"][3]["body"]


# ------------------------------------------------------------------ what is ignored


@pytest.mark.parametrize(
    ("event", "because"),
    [
        (sample("eventbridge-alarm-ok"), "the alarm's state is OK, not ALARM"),
        (
            alarm_event() | {"detail-type": "CloudWatch Alarm Configuration Change"},
            "the alarm was configured, it did not fire",
        ),
        (
            alarm_event(configuration=sample("eventbridge-alarm-contributor")["detail"]["configuration"]),
            "an alarm over many time series: the event of each one names its agent",
        ),
    ],
)
def test_what_asks_for_nothing_is_ignored(event, because):
    for arrival in (read_one(event), read_body(json.dumps(event))):
        assert (ids(arrival), arrival.refused, arrival.dead_letter) == ([], [], None)
        assert arrival.ignored == because


TRIGGER = Trigger(TriggerType.MANUAL, "a-request")
OUTCOME = Outcome(status=Status.REQUESTED, trigger=TRIGGER, asked_at=NOW, at=NOW, agent_id="a", region="DFW")
JOB_DONE = JobDone(job_id="a-request", revision=1, counts={Status.CAPTURED: 1}, trigger=TRIGGER, asked_at=NOW, at=NOW)


@pytest.mark.parametrize(
    ("message", "notice"),
    [(sns_message(OUTCOME), to_json(OUTCOME)), (job_notice.sns_message(JOB_DONE), job_notice.to_json(JOB_DONE))],
)
def test_a_notice_of_this_project_is_ignored_whichever_way_it_comes(message, notice):
    raw = json.loads(message["Message"])["default"]
    wrapped = {"Type": "Notification", "MessageId": "m", "Message": raw}
    to_lambda = {"Records": [{"EventSource": "aws:sns", "Sns": wrapped}]}
    for event in (from_queue(raw), from_queue(json.dumps(wrapped)), to_lambda, notice):
        arrival = read_one(event)
        assert arrival.ignored == "it is a notice that this function published"
        assert (ids(arrival), arrival.refused, arrival.dead_letter) == ([], [], None)


# ------------------------------------------------------------------ where agent IDs stand


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
def test_a_key_is_known_whatever_its_case_and_separators(key):
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
    arrival = read_one({"agent_ids": value})
    assert ids(arrival) == expected
    assert arrival.refused == []


@pytest.mark.parametrize(
    ("name", "value"), [("name", "value"), ("Name", "Value"), ("key", "value"), ("Key", "Value")]
)
def test_a_pair_is_read_as_the_field_that_it_stands_for(name, value):
    pairs = [
        {name: "AgentId", value: "a"},
        {value: "ORD", name: "Region"},
        {name: "agent_id", value: "b", "region": "SYD"},
    ]
    arrival = read_one({"dimensions": pairs, "tag": {name: "agent-ids", value: "c,d", "agent_id": "e"}})
    assert [(capture.agent_id, capture.region) for capture in arrival.captures] == [
        ("a", "ORD"),
        ("b", "SYD"),
        ("c", "IAD"),
        ("d", "IAD"),
        ("e", "IAD"),
    ]


@pytest.mark.parametrize(
    "body",
    [
        "a,b\nc",
        "a\r\nb\r\n\r\nc\r\n",
        "\ufeffa, b,, c",
        "  a b\tc  ",
        '\ufeff{"agent_ids": ["a", "b", "c"]}',
        f'{" " * 100}{{"agent_ids": "a b c"}}',
        '["a", "b", "c"]',
        '["a", "{\\"agent_ids\\": [\\"b\\", \\"c\\"]}"]',
        '{"Message": "{\\"agent_ids\\": [\\"a\\", \\"b\\", \\"c\\"]}"}',
    ],
)
def test_a_body_is_a_plain_list_or_json(body):
    arrival = read_body(body)
    assert ids(arrival) == ["a", "b", "c"]
    assert arrival.refused == []


def test_a_body_that_is_a_number_is_an_agent_id():
    assert ids(read_body("12345")) == ["12345"]


def test_json_in_the_description_of_an_alarm_is_looked_into():
    description = '{"agent_id": "a", "region": "lon", "note": "call Ann"}'
    (capture,) = read_one(alarm_event(configuration={"description": description, "metrics": []})).captures
    assert (capture.agent_id, capture.region) == ("a", "LON")


def test_dead_letters_in_dead_letters_are_opened_to_the_last():
    event = sample("manual")
    for number in range(5):
        context = {"requestId": f"request-{number}", "condition": "RetriesExhausted"}
        event = from_queue(json.dumps({"requestContext": context, "requestPayload": event}))
    arrival = read_one(event)
    assert len(arrival.captures) == 3
    assert arrival.trigger == Trigger(TriggerType.MANUAL, "request-0")


def test_records_without_usable_ids_of_their_own_fall_back_to_the_request():
    event = {"Records": [{"eventSource": "aws:sqs", "messageId": message_id, "body": "a"} for message_id in ([], "")]}
    first, second = read(event)
    assert first.message_id is None
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
def test_what_can_be_read_in_two_ways_is_read_in_both(event):
    assert ids(read_one(event)) == ["a", "b"]


# ------------------------------------------------------------------ keys that an object says more than once

CAPTURE = {
    "agent_id": "a",
    "region": "ORD",
    "trigger": {"type": "alarm", "id": "arn@time", "name": None},
    "asked_at": "2026-11-23T00:12:40.000Z",
    "retry_from": None,
    "attempts": 0,
    "replays": 0,
    "force": False,
    "unconfirmed_since": None,
}
ALARM_FIELDS = '"AlarmName": "n", "AlarmArn": "arn", "StateChangeTime": "t"'


@pytest.mark.parametrize(
    "body",
    [
        '{"agent_id": "a", "agent_id": "b"}',
        '{"agent_id": ["a"], "note": 1, "AgentId": "b", "agent_id": ["b", "a"]}',
        '{"in": "{\\"agent_id\\": \\"a\\", \\"agent_id\\": \\"b\\"}"}',
        '{"name": "AgentId", "value": "a", "value": "b"}',
        '{"name": "Host", "name": "AgentId", "value": "a", "value": "b"}',
        '{"agent_ids": {"Value": "a", "Value": "b"}}',
        '{"Message": "{\\"agent_id\\": \\"a\\"}", "Message": "{\\"agent_id\\": \\"b\\"}", "MessageId": "m"}',
        '{"alarmData": {"state": {"value": "OK", "value": "ALARM"}}, "agent_ids": ["a", "b"]}',
        f'{{"NewStateValue": "OK", "NewStateValue": "ALARM", {ALARM_FIELDS}, "agent_ids": ["a", "b"]}}',
        '{"captures": [{"agent_id": "a"}], "captures": [{"agent_id": "b"}]}',
        '{"captures": [{"agent_id": "a", "agent_id": "b"}]}',
    ],
)
def test_no_agent_is_lost_when_a_key_is_said_twice(body):
    arrival = read_body(body)
    assert sorted(ids(arrival)) == ["a", "b"]
    assert arrival.refused == []


@pytest.mark.parametrize(
    "further",
    [
        '"agent_id": "b"',
        '"more": {"agent_id": "b"}',
        '"trigger": {"type": "alarm", "id": "arn@time", "name": null, "agent_id": "b"}',
        '"following": {"logfile_id": null, "requested_at": null, "activations": 0, "agent_id": "b"}',
    ],
)
def test_no_agent_is_lost_that_somebody_has_written_into_a_capture(further):
    text = json.dumps({"captures": [CAPTURE]})
    assert read_body(text).captures[0].trigger == Trigger(TriggerType.ALARM, "arn@time")
    assert sorted(ids(read_body(text.replace('"agent_id"', f'{further}, "agent_id"')))) == ["a", "b"]


@pytest.mark.parametrize(
    ("fields", "reason", "message"),
    [
        ('"region": "DFW", "region": "ORD"', Reason.INVALID_REGION, "region 'DFW' contradicts region 'ORD': 'a'"),
        ('"region": "dfw", "Region": "lon"', Reason.INVALID_REGION, "region 'DFW' contradicts region 'LON': 'a'"),
        (
            '"region": "DFW", "region": 7',
            Reason.INVALID_REGION,
            "region 7 is not one of DFW HKG IAD LON ORD SYD: 'a'",
        ),
        ('"force": true, "force": false', Reason.INVALID_FORCE, "force true contradicts force false: 'a'"),
    ],
)
def test_fields_that_contradict_each_other_are_refused(fields, reason, message):
    arrival = read_body(f'[{{"agent_id": "a", {fields}}}, {{"agent_id": "c"}}]')
    assert (ids(arrival), reasons(arrival)) == (["c"], [reason])
    assert arrival.refused[0].outcome.message == message
    assert reasons(read_body(arrival.dead_letter)) == [reason]


@pytest.mark.parametrize("fields", ['"region": "DFW", "Region": "dfw"', '"region": "DFW", "region": "us-east-1"'])
def test_fields_that_agree_are_one(fields):
    assert [capture.region for capture in read_body(f'{{"agent_id": "a", {fields}}}').captures] == ["DFW"]


def test_a_pair_of_a_list_may_contradict_another():
    assert reasons(
        read_body('[{"name": "region", "value": "DFW", "value": "ORD"}, {"key": "AgentId", "value": "a"}]')
    ) == [Reason.INVALID_REGION]


def test_a_key_may_be_said_a_hundred_thousand_times():
    said = ", ".join(f'"agent_id": "a{number % 7}"' for number in range(100_000))
    assert ids(read_body(f"{{{said}}}")) == [f"a{number}" for number in range(7)]


@pytest.mark.parametrize("key", ["name", "value"])
def test_names_and_values_that_multiply_are_too_large(key):
    pair = ", ".join([f'"{key}": "region"'] * 1000 + ['"name": "x", "value": "y"'] * 1000)
    assert reasons(read_body(f"[{{{pair}}}]")) == [Reason.TOO_LARGE]


def test_a_refused_object_that_says_a_key_twice_is_kept_as_it_came():
    arrival = read_body('{"agent_ids": ["a", {"b": 1, "b": 2}]}')
    assert arrival.dead_letter == '{"refused":[{"agent_ids":[{"b":1,"b":2}]}]}'


@pytest.mark.parametrize("number", ["9" * 5000, "-" + "9" * 5000, "1e999", "NaN", "-Infinity"], ids=lambda n: n[:9])
def test_no_number_spoils_what_stands_beside_it(number):
    arrival = read_body(f'{{"note": "{{\\"n\\": {number}, \\"agent_id\\": \\"a\\"}}", "agent_ids": [{number}, "b"]}}')
    assert (ids(arrival), reasons(arrival)) == (["a", "b"], [Reason.INVALID_AGENT_ID])


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
def test_a_region_is_taken_in_any_case_and_an_aws_region_is_not_meant(region, expected):
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
def test_a_bad_field_spoils_only_the_agents_beside_it(beside, reason, message):
    arrival = read_one({"one": {"agent_ids": ["a", "b"], **beside}, "other": {"agent_id": "c"}})
    assert ids(arrival) == ["c"]
    (refused,) = arrival.refused
    assert (refused.outcome.reason, refused.outcome.message, refused.count) == (reason, message, 2)
    assert json.loads(arrival.dead_letter) == {"refused": [{"agent_ids": ["a", "b"], **beside}]}


@pytest.mark.parametrize(
    ("force", "expected"),
    [(True, True), ("true", True), ("TRUE ", True), (False, False), ("false", False), (None, False)],
)
def test_force_is_true_or_false(force, expected):
    (capture,) = read_one({"agent_id": "a", "force": force}).captures
    assert capture.force is expected


# ------------------------------------------------------------------ what is refused


@pytest.mark.parametrize("value", ["b!", "é", "a/b", "x" * 129, 7, 1.5, True, {}, [], {"deep": [1]}])
def test_a_bad_id_spoils_only_itself(value):
    arrival = read_one({"agent_ids": ["a", value, "c"]})
    assert ids(arrival) == ["a", "c"]
    assert reasons(arrival) == [Reason.INVALID_AGENT_ID]
    assert json.loads(arrival.dead_letter) == {"refused": [{"agent_ids": [value]}]}


def test_a_bad_id_is_named_in_a_form_that_is_fit_to_be_shown():
    (refused,) = read_one({"agent\nid": ["\u202e\x1b[31m", "x" * 500, 12, None]}).refused
    assert refused.outcome.message == (
        f"agent id: an agent ID is 1 to 128 characters of A-Z a-z 0-9 _ -: '  [31m', '{'x' * 79}…', 12, null"
    )


def test_one_notice_names_up_to_fifty_bad_ids():
    bad = [f"bad!{number}" for number in range(120)]
    arrival = read_one({"agent_ids": [*bad, "good"]})
    assert [refused.count for refused in arrival.refused] == [50, 50, 20]
    assert [name for refused in arrival.refused for name in re.findall("'(.*?)'", refused.outcome.message)] == bad
    assert len({refused.outcome.outcome_id for refused in arrival.refused}) == 3
    assert json.loads(arrival.dead_letter) == {"refused": [{"agent_ids": bad}]}


def test_what_is_refused_alike_is_told_together():
    event = [{"agent_id": "b!"}, {"agent_id": "a", "region": "?"}] * 3
    assert [refused.count for refused in read_one(event).refused] == [3, 3]


@pytest.mark.parametrize("event", [{}, [], None, 7, "a", {"agent_ids": []}, {"agent_id": None}, {"agent_id": " , "}])
def test_an_event_without_an_agent_id_is_refused_and_kept(event):
    arrival = read_one(event)
    (refused,) = arrival.refused
    assert refused.outcome.reason is Reason.NO_AGENT_ID
    assert refused.outcome.message == "the event holds no agent ID"
    assert refused.outcome.agent_id is None
    assert arrival.dead_letter == (event if isinstance(event, str) else json.dumps(event, separators=(",", ":")))


@pytest.mark.parametrize("body", ["{", "[a]", '{"agent_id": "a"} trailing', " [1,]", "{'agent_id': 'a'}"])
def test_a_body_that_begins_like_json_and_is_none_is_refused_as_a_whole(body):
    arrival = read_body(body)
    assert (ids(arrival), reasons(arrival), arrival.dead_letter) == ([], [Reason.INVALID_JSON], body)


def test_a_body_of_bad_ids_only_is_kept_letter_for_letter():
    body = "b!\r\nc?\r\n"
    arrival = read_body(body)
    assert (arrival.refused[0].count, arrival.dead_letter) == (2, body)


def test_an_arrival_of_several_triggers_names_the_one_that_is_refused():
    records = [
        {"EventSource": "aws:sns", "Sns": {"MessageId": message_id, "Message": message}}
        for message_id, message in (("good", '{"agent_id": "a"}'), ("bad", "nothing in here"))
    ]
    arrival = read_one({"Records": records})
    assert ids(arrival) == ["a"]
    assert [refused.outcome.trigger for refused in arrival.refused] == [Trigger(TriggerType.SNS, "bad")]


def test_what_is_refused_is_kept_in_no_more_room_than_it_came_in():
    beside = {"region": "x" * 50_000, "force": [1]}
    event = json.dumps([{"agent_ids": [*["a"] * 1000, "b!"], **beside}, {"agent_ids": ["c", "𝄞" * 5000, "\ud800"]}])
    arrival = read_body(event)
    assert len(arrival.dead_letter) < len(event)
    assert json.loads(arrival.dead_letter) == {
        "refused": [{"agent_ids": [*["a"] * 1000, "b!"], **beside}, {"agent_ids": ["𝄞" * 5000, "\ud800"]}]
    }
    assert "𝄞" in arrival.dead_letter


def test_what_is_refused_is_kept_as_it_came_when_it_would_fit_into_no_message(monkeypatch):
    body = "a " + "! " * 100
    monkeypatch.setattr(intake, "_LONGEST_LETTER_BYTES", 400)
    assert read_body(body).dead_letter == body
    monkeypatch.setattr(intake, "_LONGEST_LETTER_BYTES", 1000)
    assert json.loads(read_body(body).dead_letter) == {"refused": [{"agent_ids": ["!"] * 100}]}


@pytest.mark.parametrize("value", ["b c", "b,c", '{"agent_id": 7}', "[1]", {"Value": " "}, None, ["b!"]], ids=repr)
def test_what_is_refused_is_refused_again_when_it_is_replayed(value):
    arrival = read_one({"agent_ids": ["a", value]})
    again = read_body(arrival.dead_letter)
    assert (ids(arrival), ids(again)) == (["a"], [])
    assert (reasons(again), again.refused[0].count) == (reasons(arrival), arrival.refused[0].count)


def test_an_empty_body_is_kept_as_something_that_a_queue_takes():
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
    assert (second.captures, second.refused) == ([], [])
    assert second.ignored == "another record names the same agents"


def test_two_triggers_are_two_captures():
    first, second = read(from_queue("a", "a"))
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
    unconfirmed_since=NOW - timedelta(hours=1),
)


def own_message(*items):
    return from_queue(json.dumps({"captures": items}))


def test_captures_come_back_from_the_queue_as_they_were():
    following = Following(
        log_file_id="a-log-file", requested_at=NOW - timedelta(minutes=30), activated_at=NOW, activations=1
    )
    other = replace(WAITING, agent_id="b", unconfirmed_since=None, following=following)
    assert read_one(own_message(WAITING.to_json(), other.to_json())).captures == [WAITING, other]


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


@pytest.mark.parametrize("count", ["2", "3", "1000", 2])
@pytest.mark.parametrize("body", ["a b", '{"agent_ids": ["a", "b"]}'])
def test_a_record_that_comes_again_may_have_been_asked_for_since_it_came_first(body, count):
    captures = read_one(received(body, count, millis(AN_HOUR_AGO))).captures
    assert [(capture.agent_id, capture.unconfirmed_since) for capture in captures] == [
        ("a", AN_HOUR_AGO),
        ("b", AN_HOUR_AGO),
    ]


@pytest.mark.parametrize(
    "count", ["1", 1, "0", "-2", "2.5", "many", "", None, [2], "9" * 5000], ids=lambda count: str(count)[:9]
)
def test_a_record_that_comes_for_the_first_time_has_not(count):
    (capture,) = read_one(received("a", count, millis(AN_HOUR_AGO))).captures
    assert capture.unconfirmed_since is None


@pytest.mark.parametrize(
    "first_received_at",
    [
        *("", "soon", "-1", "1.5", "٣", "9" * 5000, "99999999999999", "0", None, {}),
        *(millis(NOW + timedelta(seconds=1)), millis(NOW - timedelta(days=14, seconds=1))),
    ],
    ids=lambda moment: str(moment)[:14],
)
def test_a_first_time_that_no_queue_can_remember_is_passed_over(first_received_at):
    (capture,) = read_one(received("a", "2", first_received_at)).captures
    assert capture.unconfirmed_since is None


@pytest.mark.parametrize("attributes", [None, [], "2", {}, {"ApproximateReceiveCount": "2"}])
def test_attributes_that_cannot_be_read_are_passed_over(attributes):
    event = from_queue("a")
    event["Records"][0]["attributes"] = attributes
    assert read_one(event).captures[0].unconfirmed_since is None


@pytest.mark.parametrize(
    ("known", "since"),
    [(None, AN_HOUR_AGO), (AN_HOUR_AGO - MINUTE, AN_HOUR_AGO - MINUTE), (AN_HOUR_AGO + MINUTE, AN_HOUR_AGO)],
)
def test_the_first_request_without_an_answer_is_the_one_that_counts(known, since):
    body = json.dumps({"captures": [replace(WAITING, unconfirmed_since=known).to_json()]})
    (capture,) = read_one(received(body, "2", millis(AN_HOUR_AGO))).captures
    assert capture == replace(WAITING, unconfirmed_since=since)


def test_each_record_of_a_batch_has_come_so_often_by_itself():
    again, new = received("a", "2", millis(AN_HOUR_AGO)), received("b", "1", millis(NOW))
    arrivals = read({"Records": [*again["Records"], *new["Records"]]})
    assert [arrival.captures[0].unconfirmed_since for arrival in arrivals] == [AN_HOUR_AGO, None]


def test_a_dead_letter_comes_back_with_a_new_retry_window():
    (capture,) = read_one(own_message(WAITING.to_dead_letter())).captures
    assert capture == replace(WAITING, attempts=0, replays=2, retry_from=NOW)


def test_a_damaged_capture_is_read_as_any_event():
    (capture,) = read_one(own_message(WAITING.to_json() | {"attempts": "many"})).captures
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


def test_a_damaged_capture_without_an_agent_is_refused_beside_the_others():
    arrival = read_one(own_message(WAITING.to_json(), {"region": "ORD"}, 7))
    assert arrival.captures == [WAITING]
    assert (reasons(arrival), arrival.refused[0].count) == ([Reason.NO_AGENT_ID], 2)


@pytest.mark.parametrize("captures", [[{"agent_id": "a"}], [], "a", {"agent_id": "b"}])
def test_an_event_of_others_may_say_captures_too(captures):
    assert "c" in ids(read_one({"captures": captures, "agent_id": "c"}))


# ------------------------------------------------------------------ bounds


@pytest.mark.parametrize("wrap", [lambda inner: {"in": inner}, lambda inner: [inner]])
def test_what_lies_too_deep_is_not_looked_at_and_said_to_be(wrap):
    event = {"agent_id": "b"}
    for _ in range(agent_ids.MAX_DEPTH):
        event = wrap(event)
    assert ids(read_one(event)) == ["b"]
    arrival = read_one({"agent_id": "a", "in": event})
    assert (ids(arrival), reasons(arrival)) == (["a"], [Reason.TOO_DEEP])
    assert json.loads(arrival.dead_letter) == {"agent_id": "a", "in": event}


def test_an_event_of_too_many_values_is_refused_as_a_whole(monkeypatch):
    monkeypatch.setattr(agent_ids, "MAX_VALUES", 100)
    for event in ([[]] * 100, {"agent_ids": ["a"] * 101}, {"agent_ids": "a " * 101}, from_queue("a " * 101)):
        arrival = read_one(event)
        assert (ids(arrival), reasons(arrival)) == ([], [Reason.TOO_LARGE])
    assert len(read_one({"agent_ids": [str(number) for number in range(90)]}).captures) == 90


def test_pairs_within_pairs_are_each_looked_at_once():
    event = {"agent_id": "a"}
    for _ in range(30):
        event = {"name": "layer", "value": event}
    assert ids(read_one(event)) == ["a"]


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"in": ', "}"), ('{"agent_id": ', "}")])
def test_an_event_nested_9000_deep_is_refused(opening, closing):
    text = opening * 9000 + "1" + closing * 9000
    assert Reason.TOO_DEEP in reasons(read_body(text))
    assert json.loads(read_one(json.loads(text)).dead_letter) == json.loads(text)
    assert reasons(read_body(text * 100)) == [Reason.INVALID_JSON]


def nested(depth):
    value = []
    for _ in range(depth):
        value = [value]
    return value


def test_an_event_too_deep_to_be_written_down_is_refused():
    arrival = read_one({"agent_id": "a", "deep": nested(20_000)})
    assert (ids(arrival), reasons(arrival), arrival.dead_letter) == (["a"], [Reason.TOO_DEEP], "{}")


def test_attributes_too_deep_to_be_written_down_are_passed_over():
    assert ids(read_one(received("a", nested(20_000), nested(20_000)))) == ["a"]


def test_json_in_strings_in_json_in_strings_is_looked_into():
    event = {"agent_id": "a"}
    for _ in range(12):
        event = {"in": json.dumps(event)}
    assert ids(read_one(event)) == ["a"]


def test_json_nested_deeper_than_it_can_be_read_is_refused():
    assert reasons(read_body("[" * 90_000 + "]" * 90_000)) == [Reason.INVALID_JSON]


def test_a_message_of_nothing_but_garbage_is_told_in_twenty_one_notices_that_count_every_value():
    arrival = read_body(" ".join(["!"] * 5000))
    assert len(arrival.refused) == 21
    assert sum(refused.count for refused in arrival.refused) == 5000
    assert arrival.refused[-1].outcome.message == "4,000 further values are refused; the dead letter holds them"
    assert len({refused.outcome.outcome_id for refused in arrival.refused}) == 21


# ------------------------------------------------------------------ jobs


def jobs(arrival):
    return {
        capture.agent_id: (capture.job_id, capture.job.asked, capture.job.rejected) for capture in arrival.captures
    }


def test_everything_that_one_trigger_asks_for_is_one_job():
    arrival = read_body("a b not@good c a")
    assert jobs(arrival) == dict.fromkeys("abc", (arrival.trigger.id, 4, 1))
    assert {capture.job.is_open for capture in arrival.captures} == {False}


def test_a_job_that_is_named_beside_agents_is_theirs():
    arrival = read_one(
        [
            {"agent_ids": ["a", "b", "no!"], "job": "night"},
            {"agent_id": "c", "Job": " day "},
            {"agent_ids": ["d", "a", "no?"]},
            [{"name": "AgentId", "value": "e"}, {"name": "job", "value": "day"}],
            {"agent_id": "f!", "job": "nobody"},
        ]
    )
    assert jobs(arrival) == {
        "a": ("night", 3, 1),
        "b": ("night", 3, 1),
        "c": ("day", 2, 0),
        "d": (arrival.trigger.id, 2, 1),
        "e": ("day", 2, 0),
    }
    assert [each.outcome.job_id for each in arrival.refused] == ["night", arrival.trigger.id, "nobody"]


def test_what_is_refused_for_another_fields_sake_counts_in_its_job():
    arrival = read_one([{"agent_id": "a", "job": "night"}, {"agent_id": "b", "job": "night", "region": "?"}])
    assert jobs(arrival) == {"a": ("night", 2, 1)}


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
def test_a_job_that_is_no_name_is_refused(job, message):
    arrival = read_one([{"agent_id": "a", "job": job}, {"agent_id": "b"}])
    assert ids(arrival) == ["b"]
    [refused] = arrival.refused
    assert (refused.outcome.reason, refused.outcome.message) == (Reason.INVALID_JOB, message)
    assert refused.outcome.job_id == arrival.trigger.id


@pytest.mark.parametrize("job", [None, "x" * 128, "Nachtschicht ä \U0001f600"])
def test_a_job_may_have_any_name_that_can_be_printed(job):
    [capture] = read_one({"agent_id": "a", "job": job}).captures
    assert capture.job_id == (job or capture.trigger.id)


def test_two_names_for_one_job_contradict_each_other():
    [refused] = read_body('{"agent_id": "a", "job": "x", "Job": "y"}').refused
    assert (refused.outcome.reason, refused.outcome.message) == (
        Reason.INVALID_JOB,
        "job 'x' contradicts job 'y': 'a'",
    )


def test_the_same_trigger_asks_for_as_much_however_its_records_come():
    event = from_queue("a b", "a b")
    for record in event["Records"]:
        record["messageId"] = "the same"
    first, second = read(event)
    assert jobs(first) == dict.fromkeys("ab", ("the same", 2, 0))
    assert second.captures == []


def test_what_was_put_back_keeps_its_job():
    job = Job(name="night", asked=7, rejected=2, is_open=True)
    capture = replace(WAITING, job=job, ended=Status.CAPTURED)
    [read_again] = read_one(own_message(capture.to_json())).captures
    assert (read_again.job, read_again.ended) == (job, Status.CAPTURED)


def test_what_is_refused_keeps_its_job_in_the_dead_letter():
    arrival = read_body('{"agent_ids": ["a", "no!"], "job": "night"}')
    assert json.loads(arrival.dead_letter) == {"refused": [{"agent_ids": ["no!"], "job": "night"}]}
