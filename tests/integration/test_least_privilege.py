"""Every call that the function makes is allowed by its role, and its role allows nothing else."""

import boto3
import pytest

from local.cloud import EmbeddedCloud
from local.stand_in import Fault
from local.template import translate

# IAM has one action for sending one message or a batch of them.
ACTIONS = {
    "SendMessage": "sqs:SendMessage",
    "SendMessageBatch": "sqs:SendMessage",
    "Publish": "sns:Publish",
    "PublishBatch": "sns:Publish",
    "GetSecretValue": "secretsmanager:GetSecretValue",
}
# Lambda itself uses the role for these: the event source mapping, and the log.
CALLED_BY_LAMBDA = {
    ("sqs:ReceiveMessage", "CaptureQueue"),
    ("sqs:DeleteMessage", "CaptureQueue"),
    ("sqs:GetQueueAttributes", "CaptureQueue"),
    ("logs:CreateLogStream", "CaptureFunctionLogGroup"),
    ("logs:PutLogEvents", "CaptureFunctionLogGroup"),
}


def as_list(value):
    return value if isinstance(value, list) else [value]


def logical_id(resource):
    """Return which resource of the template an ARN in a statement refers to."""
    match resource:
        case {"Ref": name} | {"Fn::GetAtt": [name, _]}:
            return name
        case {"Fn::If": [_, created, _]}:
            return logical_id(created)


@pytest.fixture
def allowed():
    [policy] = translate()["Resources"]["CaptureFunctionRole"]["Properties"]["Policies"]
    statements = [statement for statement in policy["PolicyDocument"]["Statement"] if "Sid" in statement]
    return {
        (action, logical_id(resource))
        for statement in statements
        for action in as_list(statement["Action"])
        for resource in as_list(statement["Resource"])
    }


@pytest.fixture
def calls(monkeypatch):
    """Every call of every client that the function builds: operation and parameters."""
    recorded = []

    class RecordingSession(boto3.session.Session):
        def __init__(self):
            super().__init__()
            self.events.register("provide-client-params", self.record)

        def record(self, params, model, **_):
            recorded.append((model.name, params))

    monkeypatch.setattr("agent_log_capture.bootstrap.boto3.session.Session", RecordingSession)
    return recorded


def test_the_role_allows_what_the_function_calls_and_nothing_else(calls, allowed, api, clock, token_json):
    with EmbeddedCloud(api, clock=clock, secret=token_json) as cloud:
        names = {
            cloud.queue_url: "CaptureQueue",
            cloud.dead_letter_queue_url: "CaptureDeadLetterQueue",
            cloud.topic_arn: "OutcomeTopic",
            cloud.secret_arn: "TokenSecret",
        }
        api.add_agents("there", "busy")
        api.inject("busy", Fault(status=503))
        cloud.send("there busy unknown b@d")
        cloud.drain()
        cloud.invoke({"no": "agent"})

    called = {
        (ACTIONS[operation], next(names[value] for value in params.values() if value in list(names)))
        for operation, params in calls
    }
    assert called <= allowed
    assert called | CALLED_BY_LAMBDA == allowed
