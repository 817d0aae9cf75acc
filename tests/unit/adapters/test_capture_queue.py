import json
from datetime import UTC, datetime

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError

from agent_log_capture.adapters.capture_queue import MAX_BYTES, CaptureQueue, DeadLetter
from agent_log_capture.domain.capture import Requesting
from agent_log_capture.domain.events.parser import EventParser
from agent_log_capture.domain.outcome import Reason, Status, Trigger, TriggerType

# Of a batch: what is around each body counts a little.
FULL = MAX_BYTES - 2000


@pytest.fixture
def captures(a_capture):
    return lambda count, prefix="agent": [a_capture(agent_id=f"{prefix}-{number}") for number in range(count)]


@pytest.fixture
def a_letter(an_outcome):
    def build(body, **changes):
        failed = {"status": Status.FAILED, "reason": Reason.TEMPORARY, "attempts": 17}
        return DeadLetter(body, an_outcome(**failed | changes))

    return build


@pytest.fixture
def broken_queue(sqs):
    """Lets every SendMessageBatch end in an error, and counts them."""

    def break_with(error):
        calls = []

        def fail(params, **_):
            calls.append(params)
            raise error

        sqs.meta.events.register("before-call.sqs.SendMessageBatch", fail)
        return calls

    return break_with


def agents_of(body):
    return [capture["agent_id"] for capture in body["captures"]]


def test_captures_that_wait_equally_long_share_a_message(queue, waiting, captures):
    one, two, three = captures(3)
    assert queue.requeue([(one, 30), (two, 60), (three, 30)]) == {}
    assert waiting.bodies(after_seconds=29) == []
    assert [agents_of(body) for body in waiting.bodies(after_seconds=31)] == [["agent-0", "agent-2"]]
    assert [agents_of(body) for body in waiting.bodies(after_seconds=61)] == [["agent-1"]]


def test_nothing_to_requeue_is_nothing_to_send(queue, queue_entries):
    assert (queue.requeue([]), queue.send_dead_letters([]), queue_entries.calls) == ({}, {}, [])


@pytest.mark.parametrize("delay_seconds", [0, 5, 900])
def test_the_delay_is_the_queues_own(queue, queue_entries, captures, delay_seconds):
    queue.requeue([(capture, delay_seconds) for capture in captures(1)])
    assert [entry["DelaySeconds"] for [entry] in queue_entries.calls] == [delay_seconds]


def test_a_message_holds_up_to_10_captures_and_a_call_10_messages(queue, queue_entries, waiting, captures):
    requeue = captures(121)
    assert queue.requeue([(capture, 0) for capture in requeue]) == {}
    assert [len(call) for call in queue_entries.calls] == [10, 3]
    bodies = waiting.bodies()
    assert [len(body["captures"]) for body in bodies] == [10] * 12 + [1]
    assert [agent for body in bodies for agent in agents_of(body)] == [capture.agent_id for capture in requeue]


def test_a_capture_comes_back_as_it_went(queue, waiting, a_capture, now):
    away = [
        a_capture(attempts=3, replays=1, force=True, phase=Requesting(now), region="SYD"),
        a_capture(agent_id="other", trigger=Trigger(TriggerType.SQS, "id é \U0001f600", None)),
    ]
    queue.requeue([(capture, 0) for capture in away])
    [message] = waiting.messages()
    record = {"eventSource": "aws:sqs", "messageId": message["MessageId"], "body": message["Body"]}
    reader = EventParser(default_region="DFW")
    [parsed] = reader.parse({"Records": [record]}, request_id="r", now=datetime(2030, 1, 1, tzinfo=UTC))
    assert (parsed.captures, parsed.rejections, parsed.dead_letter) == (away, [], None)


def test_the_attributes_of_a_dead_letter_say_why_it_is_one(queue, dead, a_letter):
    assert queue.send_dead_letters([a_letter('{"captures": []}')]) == {}
    [message] = dead.messages()
    assert message["Body"] == '{"captures": []}'
    assert message["MessageAttributes"] == {
        "reason": {"StringValue": "temporary", "DataType": "String"},
        "status": {"StringValue": "failed", "DataType": "String"},
        "trigger_type": {"StringValue": "alarm", "DataType": "String"},
        "attempts": {"StringValue": "17", "DataType": "Number"},
    }


def test_a_dead_letter_without_a_reason_has_no_empty_attribute(queue, dead, a_letter):
    assert queue.send_dead_letters([a_letter("body", reason=None, attempts=0)]) == {}
    [message] = dead.messages()
    assert sorted(message["MessageAttributes"]) == ["attempts", "status", "trigger_type"]
    assert message["MessageAttributes"]["attempts"]["StringValue"] == "0"


@pytest.mark.parametrize("refused", ["\x00", "\x08", "\x0b", "\x1f", "\ud800", "\ufffe", "\uffff"])
def test_characters_that_sqs_refuses_are_replaced(queue, dead, a_letter, refused):
    assert queue.send_dead_letters([a_letter(f"a{refused}b")]) == {}
    assert [message["Body"] for message in dead.messages()] == ["a\ufffdb"]


def test_characters_that_sqs_takes_stay(queue, dead, a_letter):
    body = "\t\n\r ~é\ud7ff\ue000\ufffd\U00010000\U0010ffff"
    queue.send_dead_letters([a_letter(body)])
    assert [message["Body"] for message in dead.messages()] == [body]


@pytest.mark.parametrize(
    ("body", "attributes"),
    [("x" * FULL, 4), ('"' * FULL, 4), ("é" * (FULL // 2), 4), ("x" * MAX_BYTES, 0), ("é" * (MAX_BYTES // 2), 0)],
    ids=["nearly", "nearly, of quotes", "nearly, of two bytes each", "whole", "whole, of two bytes each"],
)
def test_a_body_of_the_whole_mib_goes_without_attributes(queue, dead, a_letter, body, attributes):
    assert queue.send_dead_letters([a_letter(body)]) == {}
    [message] = dead.messages()
    assert (message["Body"] == body, len(message.get("MessageAttributes", {}))) == (True, attributes)


def test_a_call_carries_no_more_than_a_mib(queue, queue_entries, dead, a_letter):
    half = FULL // 2
    sizes = [half, half, 10, FULL, 3000, 1]
    assert queue.send_dead_letters([a_letter("é" * (size // 2) + "x" * (size % 2)) for size in sizes]) == {}
    sent = [[len(entry["MessageBody"].encode()) for entry in call] for call in queue_entries.calls]
    assert sent == [[half, half, 10], [FULL], [3000, 1]]
    assert len(dead.messages()) == len(sizes)


def test_a_body_that_no_message_can_hold_is_reported_and_spoils_no_other(queue, dead, a_letter):
    failed = queue.send_dead_letters([a_letter("first"), a_letter("x" * (MAX_BYTES + 1)), a_letter("last")])
    assert list(failed) == [1]
    assert "BatchRequestTooLong" in failed[1]
    assert [message["Body"] for message in dead.messages()] == ["first", "last"]


def test_an_entry_that_fails_inside_a_success_is_sent_again(queue, queue_entries, waiting, captures, pauses):
    queue_entries.fail(lambda entry: entry["DelaySeconds"] == 7)
    assert queue.requeue(list(zip(captures(3), [6, 7, 8], strict=True))) == {}
    assert [[entry["DelaySeconds"] for entry in call] for call in queue_entries.calls] == [[6, 7, 8], [7]]
    assert [agents_of(body) for body in waiting.bodies(after_seconds=10)] == [["agent-0"], ["agent-2"], ["agent-1"]]
    assert pauses == [0.2]


def test_captures_are_reported_by_their_own_index_when_their_message_keeps_failing(
    queue, queue_entries, waiting, captures, pauses
):
    queue_entries.fail(lambda entry: entry["DelaySeconds"] == 7, calls=3)
    failed = queue.requeue(list(zip(captures(5), [7, 6, 7, 6, 7], strict=True)))
    assert failed == dict.fromkeys([0, 2, 4], "Throttled: slow down")
    assert [agents_of(body) for body in waiting.bodies(after_seconds=10)] == [["agent-1", "agent-3"]]
    assert pauses == [0.2, 0.6]


def test_an_entry_that_is_the_senders_fault_is_not_sent_again(queue, queue_entries, captures, pauses):
    queue_entries.fail(lambda entry: entry["DelaySeconds"] == 7, is_sender_fault=True)
    failed = queue.requeue(list(zip(captures(3), [6, 7, 7], strict=True)))
    assert failed == dict.fromkeys([1, 2], "Throttled: slow down")
    assert (len(queue_entries.calls), pauses) == (1, [])


def test_an_entry_may_fail_in_more_than_one_way(queue, queue_entries, dead, a_letter):
    queue_entries.fail(lambda entry: entry["MessageBody"] in {"one", "two"})
    queue_entries.fail(lambda entry: entry["MessageBody"] == "two", is_sender_fault=True)
    assert list(queue.send_dead_letters([a_letter(body) for body in ("zero", "one", "two")])) == [2]
    assert [message["Body"] for message in dead.messages()] == ["zero", "one"]


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (
            ClientError({"Error": {"Code": "AccessDenied", "Message": "not yours"}}, "SendMessageBatch"),
            "ClientError: An error occurred (AccessDenied) when calling the SendMessageBatch operation: not yours",
        ),
        (
            EndpointConnectionError(endpoint_url="https://sqs.example"),
            'EndpointConnectionError: Could not connect to the endpoint URL: "https://sqs.example"',
        ),
    ],
    ids=["refused", "not connected"],
)
def test_a_call_that_fails_is_reported_for_each_entry_and_not_repeated(queue, broken_queue, captures, error, why):
    calls = broken_queue(error)
    assert queue.requeue([(capture, 0) for capture in captures(11)]) == dict.fromkeys(range(11), why)
    assert len(calls) == 1


def test_a_queue_that_is_gone_is_reported(sqs, dead, a_capture, a_letter):
    queue = CaptureQueue(sqs, f"{dead.url}-gone", dead.url)
    assert "NonExistentQueue" in queue.requeue([(a_capture(), 5)])[0]
    assert queue.send_dead_letters([a_letter(json.dumps({"captures": []}))]) == {}
