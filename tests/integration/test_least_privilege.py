"""Every call that the capture function makes is allowed by its role, and its role allows nothing else."""

import json
import os

import pytest

from local.cloud import EmbeddedCloud
from local.stand_in import Fault
from local.template import translate

# IAM has one action for one message and for a batch of them; every other call is an action of its own name.
ACTIONS = {"SendMessageBatch": "SendMessage", "PublishBatch": "Publish"}
NEEDED_BESIDE = {
    # by Lambda, for the event source mapping and the log
    ("sqs:ReceiveMessage", "CaptureQueue"),
    ("sqs:DeleteMessage", "CaptureQueue"),
    ("sqs:GetQueueAttributes", "CaptureQueue"),
    ("logs:CreateLogStream", "CaptureFunctionLogGroup"),
    ("logs:PutLogEvents", "CaptureFunctionLogGroup"),
    # by Secrets Manager, of whoever asks for a rotation
    ("lambda:InvokeFunction", "RotateTokenFunction"),
}


def as_list(value):
    return value if isinstance(value, list) else [value]


def statements(role):
    """Return the statements of a role, those under a condition as if it holds, but for a key of the user's own."""
    [policy] = translate()["Resources"][role]["Properties"]["Policies"]
    for statement in policy["PolicyDocument"]["Statement"]:
        match statement:
            case {"Fn::If": ["HasTokenSecretKmsKey", *_]}:
                continue
            case {"Fn::If": [_, conditional, _]}:
                yield conditional
            case _:
                yield statement


def logical_id(resource):
    """Return which resource of the template an ARN in a statement refers to."""
    match resource:
        case {"Ref": name} | {"Fn::GetAtt": [name, _]}:
            return name
        case {"Fn::If": [_, created, _]}:
            return logical_id(created)


@pytest.fixture
def allowed():
    return {
        (action, logical_id(resource))
        for statement in statements("CaptureFunctionRole")
        for action in as_list(statement["Action"])
        for resource in as_list(statement["Resource"])
    }


def test_the_role_allows_what_the_function_calls_and_nothing_else(calls, allowed, api, clock, token_json):
    parameters = {"RotateToken": "true"}
    with EmbeddedCloud(api, clock=clock, secret=token_json, parameters=parameters) as cloud:
        names = {
            cloud.queue_url: "CaptureQueue",
            cloud.dead_letter_queue_url: "CaptureDeadLetterQueue",
            cloud.topic_arn: "OutcomeTopic",
            cloud.secret_arn: "TokenSecret",
            os.environ["RECENT_CAPTURES_TABLE"]: "RecentCapturesTable",
        }
        api.add_agents("there", "busy")
        api.inject("busy", Fault(status=503))
        cloud.send("there busy unknown b@d")
        cloud.drain()
        cloud.send("there")
        cloud.poll()
        cloud.invoke({"no": "agent"})
        api.revoke(json.loads(token_json)["token"])
        cloud.invoke({"agent_id": "there", "force": True})

    called = set()
    for service, operation, params in calls:
        resource = next((names[value] for value in params.values() if value in list(names)), None)
        called.add((f"{service}:{ACTIONS.get(operation, operation)}", resource))
    assert called - allowed == set()
    assert called | NEEDED_BESIDE == allowed
