import json
from datetime import UTC, datetime, timedelta

import boto3
import pytest

from ops.dead_letters import SAMPLE_SIZE, cause_of

TOKEN = "a-token-that-is-never-shown"


def put_secret(value):
    boto3.client("secretsmanager").put_secret_value(SecretId="TokenSecret", SecretString=value)


def put_age(cloud, seconds):
    boto3.client("cloudwatch").put_metric_data(
        Namespace="AWS/SQS",
        MetricData=[
            {
                "MetricName": "ApproximateAgeOfOldestMessage",
                "Dimensions": [{"Name": "QueueName", "Value": cloud.queue_url.rsplit("/", 1)[1]}],
                "Timestamp": datetime.now(UTC) - timedelta(minutes=2),
                "Value": seconds,
            }
        ],
    )


def test_a_stack_with_a_token_and_no_dead_letters_is_well(run, cloud):
    cloud.send("agent-1")
    put_age(cloud, 90)
    code, said = run("status")
    assert code == 0
    assert "1 visible, 0 in flight, 0 delayed; oldest message: 0:01:30" in said
    assert "All is well." in said


def test_a_queue_that_is_not_read_needs_attention(run, cloud):
    put_age(cloud, 3300)
    code, said = run("status")
    assert code == 1
    assert "oldest message: 0:55:00" in said
    assert "Needs attention:\n  - messages are not read from CaptureQueue" in said


def test_dead_letters_are_counted_by_their_cause(run, put_dead_letter, cloud):
    put_dead_letter("a", reason="temporary", status="failed")
    put_dead_letter("b", reason="temporary", status="failed")
    put_dead_letter("c", ERROR_CODE="NO_PERMISSIONS", RULE_ARN="arn")
    put_dead_letter(json.dumps({"requestPayload": {}, "requestContext": {"condition": "RetriesExhausted"}}))
    put_dead_letter("e")
    code, said = run("status")
    assert code == 1
    for line in [
        "2  temporary (failed)",
        "1  EventBridge could not deliver it: NO_PERMISSIONS",
        "1  Lambda's invocation failed: RetriesExhausted",
        "1  no reason given",
    ]:
        assert line in said
    assert len(cloud.dead_letters()) == 5


def test_a_message_that_sqs_moved_to_the_dead_letter_queue_is_named_as_such():
    # moto moves such a message, but does not set this attribute.
    message = {"Body": "agent-1", "Attributes": {"DeadLetterQueueSourceArn": "arn:aws:sqs:us-east-1:1:CaptureQueue"}}
    assert cause_of(message) == "SQS moved it: invocations with it crashed too often"


def test_of_many_dead_letters_a_sample_is_read_and_all_stay_in_the_queue(run, put_dead_letter, cloud):
    for number in range(SAMPLE_SIZE + 5):
        put_dead_letter(f"agent-{number}", reason="conflict", status="failed")
    code, said = run("status")
    assert code == 1
    assert f"(a sample of {SAMPLE_SIZE} from about {SAMPLE_SIZE + 5})" in said
    assert len(cloud.dead_letters()) == SAMPLE_SIZE + 5


@pytest.mark.parametrize(
    ("fields", "code", "said_of_it"),
    [
        (
            {"token": TOKEN, "project_id": "1", "expires_at": "2999-01-01T00:00:00Z"},
            0,
            "valid until 2999-01-01 00:00",
        ),
        ({"token": TOKEN, "project_id": "1", "expires_at": "2020-01-01T00:00:00Z"}, 1, "the token has expired"),
        ({"token": TOKEN, "project_id": "1"}, 0, "does not say until when"),
        ({"username": "operator", "api_key": TOKEN}, 1, "has no 'token'"),
        ({}, 1, "has no 'token'"),
    ],
)
def test_the_token_is_described_and_never_shown(run, fields, code, said_of_it):
    put_secret(json.dumps(fields))
    ended, said = run("status")
    assert ended == code
    assert said_of_it in said
    assert TOKEN not in said


class TestWithoutAValue:
    @pytest.fixture
    def secret(self):
        return None

    def test_the_missing_token_needs_attention(self, run):
        code, said = run("status")
        assert code == 1
        assert "the secret has no value" in said
