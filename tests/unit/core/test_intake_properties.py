import json
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agent_log_capture.core import agent_ids
from agent_log_capture.core.capture import Status
from agent_log_capture.core.intake import Reader
from agent_log_capture.core.notice import sns_message

NOW = datetime(2026, 11, 23, 3, 12, 40, tzinfo=UTC)
READER = Reader(default_region="IAD")
SAMPLES = [path.read_text() for path in sorted((Path(__file__).parents[3] / "events").glob("*.json"))]

# Words that mean something here, so that what is made is not all noise.
KEYS = st.sampled_from(
    """
    agent_id AgentIds region force name value Key Value Type captures attempts asked_at trigger id outcome_id
    Records body messageId eventSource EventSource Sns Message MessageId requestPayload requestContext requestId
    source detail detail-type alarmData alarmArn alarmName state timestamp configuration metrics expression
    resources AlarmName AlarmArn NewStateValue StateChangeTime
    """.split()  # noqa: SIM905 (one word a line would fill a page)
)
WORDS = st.sampled_from(
    ["a,b", "dfw", "us-east-1", "true", "ALARM", "OK", "aws:sqs", "aws:sns", "AgentId", "sqs"]
) | (st.sampled_from(["CloudWatch Alarm State Change", "GROUP BY", "2026-11-23T03:12:40Z", "\ufeff{", "[", "\ud800"]))
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
    """A sample in which another value has been put into some place."""
    event = json.loads(draw(st.sampled_from(SAMPLES)))
    place = event
    while True:
        key = draw(st.sampled_from(range(len(place)) if isinstance(place, list) else sorted(place)))
        if not isinstance(place[key], (dict, list)) or not place[key] or draw(st.integers(0, 5)) == 0:
            place[key] = draw(VALUES)
            return event
        place = place[key]


def read(event):
    return READER.read(event, request_id="a-request", now=NOW)


def from_queue(body):
    return {"Records": [{"messageId": "a-message", "body": body, "eventSource": "aws:sqs"}]}


EVENTS = VALUES | distorted_samples()
BODIES = VALUES | EVENTS.map(json.dumps) | st.text()


@given(event=EVENTS | BODIES.map(from_queue))
@example(event={"detail-type": []})
def test_whatever_arrives_is_taken_refused_or_ignored(event):
    arrivals = read(event)
    assert arrivals
    for arrival in arrivals:
        assert arrival.captures or arrival.refused or arrival.ignored
        assert bool(arrival.refused) == (arrival.dead_letter is not None)
        assert not arrival.captures or arrival.ignored is None
        for refused in arrival.refused:
            assert refused.count > 0
            assert refused.outcome.status is Status.REJECTED
            assert refused.outcome.reason
            assert refused.outcome.message
            assert refused.outcome.message.isprintable()
            sns_message(refused.outcome)["Message"].encode()
        for capture in arrival.captures:
            json.dumps(capture.trigger.to_json(), ensure_ascii=False).encode()


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
        lambda _: {"noise": ["agent_id", None, 1.5, "text, of no meaning"]},
    ]
)
SHAPES = st.recursive(
    CARRIERS,
    lambda inner: (
        inner.map(lambda shape: lambda new_id: {"Message": json.dumps({"in": shape(new_id)})})
        | st.lists(inner).map(lambda shapes: lambda new_id: [shape(new_id) for shape in shapes])
        | st.dictionaries(st.sampled_from(["detail", "Trigger", "requestPayload", "value", "tags"]), inner).map(
            lambda shapes: lambda new_id: {key: shape(new_id) for key, shape in shapes.items()}
        )
    ),
)


@given(shape=SHAPES, is_queued=st.booleans())
def test_whatever_ids_are_planted_come_out_once_each_in_order(shape, is_queued):
    numbers = count()
    event = {"detail": shape(lambda: f"agent-{next(numbers)}")}
    (arrival,) = read(from_queue(json.dumps([event, event])) if is_queued else event)
    found = [capture.agent_id for capture in arrival.captures]
    assert found == [f"agent-{number}" for number in range(next(numbers))]


@given(event=VALUES, limit=st.integers(0, 20))
def test_no_more_values_are_looked_at_than_the_limit(event, limit):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(agent_ids, "MAX_VALUES", limit)
        assert len(agent_ids.find(event)) <= max(limit, 1) + 1  # and one that says what was not looked at
