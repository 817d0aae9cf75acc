import json
import re
import sys
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agent_log_capture.domain.events import agent_ids
from agent_log_capture.domain.printable import printable
from tests.fuzz.intake import check_event, from_queue, read

SAMPLES = [path.read_text() for path in sorted((Path(__file__).parents[4] / "events").glob("*.json"))]

# Words that mean something to the parser, so that not all events are noise.
KEYS = st.sampled_from(
    """
    agent_id AgentIds region force name value Key Value Type captures attempts asked_at trigger id outcome_id
    Records body messageId eventSource EventSource Sns Message MessageId requestPayload requestContext requestId
    source detail detail-type alarmData alarmArn alarmName state timestamp configuration metrics expression
    resources AlarmName AlarmArn NewStateValue StateChangeTime Trigger Metrics Expression alarmContributor attributes
    AlarmContributorId evaluationCriteria reason TopicArn messageAttributes MessageAttributes stringValue version
    status responsePayload
    """.split()  # noqa: SIM905 (one word a line would fill a page)
)
WORDS = st.sampled_from(
    ["a,b", "a1; 'b2'", "{a1}", "dfw", "us-east-1", "true", "ALARM", "OK", "aws:sqs", "aws:sns", "AgentId", "sqs"]
) | (
    st.sampled_from(["CloudWatch Alarm State Change", "CloudWatch Alarm Contributor State Change", "GROUP BY"])
    | st.sampled_from(["2026-11-23T03:12:40Z", "Notification", "\ufeff{", "[", "\ud800", '{"agent_id": "a"}\n{}'])
)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | WORDS | KEYS
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(KEYS | st.text(), inner)
        | st.dictionaries(KEYS, inner)
        | inner.map(json.dumps)
    ),
)


@st.composite
def distorted_samples(draw):
    """A sample in which one value is replaced."""
    event = json.loads(draw(st.sampled_from(SAMPLES)))
    place = event
    while True:
        key = draw(st.sampled_from(range(len(place)) if isinstance(place, list) else sorted(place)))
        if not isinstance(place[key], (dict, list)) or not place[key] or draw(st.integers(0, 5)) == 0:
            place[key] = draw(VALUES)
            return event
        place = place[key]


EVENTS = VALUES | distorted_samples()
BODIES = VALUES | EVENTS.map(json.dumps) | st.text()


@given(event=EVENTS | BODIES.map(from_queue))
@example(event={"detail-type": []})
@example(event=from_queue(""))
def test_every_event_is_captured_rejected_or_ignored_in_a_printable_form(event):
    check_event(event)


# Text that a person would misread, a terminal obey or a queue reject, as a name or a value.
HOSTILE = st.text(
    st.sampled_from('\n\r\x00\x1b\x85\u061c\u200b\u200f\u2028\u202e\u2066\ufeff\ud800\uffff\U000e0041\u0301"\\\\é𝄞a')
)


@given(name=HOSTILE, value=HOSTILE, body=HOSTILE, is_long=st.booleans())
def test_no_text_of_an_event_can_forge_reorder_or_cover_other_text(name, value, body, is_long):
    name, value, body = (text * 1000 if is_long else text for text in (name, value, body))
    alarm = {"alarmName": name, "state": {"value": "ALARM", "timestamp": value}, "agent_ids": ["an-agent", value]}
    event = {"detail-type": "CloudWatch Alarm State Change", "resources": [name], "detail": alarm | {name: value}}
    for hostile in (event, {"agent_id": "a", "region": value}, from_queue(body), from_queue(f'["{body}')):
        check_event(hostile)
    for ignored in (alarm | {"state": {"value": value}}, alarm | {"state": {"value": value, "timestamp": "t"}}):
        check_event(event | {"detail": ignored})


# ------------------------------------------------------------------ planted IDs


# Each carrier takes the next IDs and returns a JSON value that holds them.
CARRIERS = st.sampled_from(
    [
        lambda new_id: {"agent_id": new_id()},
        lambda new_id: {"id": 7, "AgentIds": [new_id(), new_id()], "note": "no agent"},
        lambda new_id: {"agent-ids": f"{new_id()}, {new_id()}\n{new_id()}", "region": "DFW"},
        lambda new_id: {"AGENT_IDS": json.dumps([new_id(), new_id()])},
        lambda new_id: {"name": "agentId", "value": new_id()},
        lambda new_id: [{"Key": "Host", "Value": "web"}, {"Key": "AgentId", "Value": new_id()}],
        lambda new_id: {"agent_ids": [{"agent_id": new_id()}, new_id()]},
        lambda new_id: {"MessageAttributes": {"AgentId": {"Type": "String", "Value": new_id()}}},
        lambda new_id: {"AgentId": {"Value": new_id(), "stringValue": new_id(), "more": {"agent_id": new_id()}}},
        lambda new_id: {"name": "Host", "key": "AgentId", "value": new_id(), "Name": "AgentId", "Value": new_id()},
        lambda new_id: {"agent_id": new_id(), "n": 1, "AgentId": [new_id()], "agent-ids": f"{new_id()};{new_id()}"},
        lambda new_id: {"agent_ids": f"\"{new_id()}\"; '{new_id()}'"},
        lambda new_id: {"lines": "\n".join(json.dumps({"agent_id": new_id()}) for _ in range(2))},
        lambda new_id: {"responsePayload": {"agent_id": new_id()}, "requestPayload": {"agent_id": new_id()}},
        lambda new_id: [
            {"eventSource": "aws:sqs", "messageId": "m", "body": json.dumps([new_id()])} for _ in range(2)
        ],
        lambda new_id: {"agent_id": new_id(), "number": 10**5000, "infinite": float("inf"), "none": float("nan")},
        lambda _: {"noise": ["agent_id", None, 1.5, "text, of no meaning"]},
    ]
)
ENVELOPE_KEYS = st.sampled_from(
    ["detail", "Trigger", "requestPayload", "value", "tags", "Records", "body", "Message", "captures", "alarmData"]
)
SHAPES = st.recursive(
    CARRIERS,
    lambda inner: (
        inner.map(lambda shape: lambda new_id: {"Message": json.dumps({"in": shape(new_id)})})
        | st.lists(inner).map(lambda shapes: lambda new_id: [shape(new_id) for shape in shapes])
        | st.dictionaries(ENVELOPE_KEYS, inner).map(
            lambda shapes: lambda new_id: {key: shape(new_id) for key, shape in shapes.items()}
        )
    ),
)
NO_IDS = ["../{}", "..", "%2e%2e{}", "a/b{}", "?x={}", "#{}", "a\x00{}", "ä{}", "x" * 129, "\u202e{}", "\ud800{}"]


@given(shape=SHAPES, bad=st.lists(st.none() | st.sampled_from(NO_IDS)))
def test_planted_ids_are_captured_once_each_in_order_or_rejected_by_name(shape, bad):
    numbers, planted, rejected = count(), [], []

    def new_id():
        number = next(numbers)
        template = bad[number] if number < len(bad) else None
        (planted if template is None else rejected).append((template or "agent-{}").format(number))
        return (planted if template is None else rejected)[-1]

    with no_limit_of_digits():
        event = json.dumps({"in": shape(new_id)})
    (parsed,) = read(from_queue(f"[{event}, {event}]"))
    assert [capture.agent_id for capture in parsed.captures] == planted
    assert names(parsed) == {printable(name, 80) for name in rejected}
    if rejected:
        (replayed,) = read(from_queue(parsed.dead_letter))
        assert (replayed.captures, names(replayed)) == ([], names(parsed))


def names(parsed):
    return {name for each in parsed.rejections for name in re.findall("'(.*?)'", each.outcome.message)}


@contextmanager
def no_limit_of_digits():
    """Allow this test, but not the code under test, to write numbers of any length."""
    limit = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(0)
    yield
    sys.set_int_max_str_digits(limit)


@given(event=VALUES, limit=st.integers(0, 20))
def test_no_more_values_are_read_than_the_limit(event, limit):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(agent_ids, "MAX_VALUES", limit)
        [parsed] = read(event)
        # One more says that the event holds no agent ID, is too deep, or too large.
        assert len(parsed.captures) + sum(each.count for each in parsed.rejections) <= limit + 1
