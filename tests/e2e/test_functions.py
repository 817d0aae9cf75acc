"""Both functions as they are deployed, in Lambda's own runtime, with the embedded cloud around them."""

import json
import shutil
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import boto3
import pytest

from local.emulator import FunctionError
from tests.e2e.conftest import emulator_of
from tests.faults.faulty_api import Fault

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="AWS's emulator is a Linux program")

SAMPLES = sorted(path.stem for path in Path(__file__).resolve().parents[2].glob("events/*.json"))
# A function that ignores its own deadline, as it would in a process that is paused.
HOPEFUL = """
from agent_log_capture.handlers import capture

def lambda_handler(event, context):
    context.get_remaining_time_in_millis = lambda: 300_000
    return capture.lambda_handler(event, context)
"""


@pytest.fixture(scope="module")
def from_the_process(samples, embed):
    with embed() as (_, _, cloud):
        return {name: outcomes(cloud, event) for name, event in samples.items()}


@pytest.fixture(scope="module")
def from_the_emulator(samples, embed, emulate):
    with emulate(), embed() as (_, _, cloud):
        return {name: outcomes(cloud, event) for name, event in samples.items()}


def outcomes(cloud, event):
    """The answer to an event, and everything that is published about it."""
    answer = cloud.invoke(event)
    if "outcomes" in answer:
        answer = {**answer, "outcomes": essence(answer["outcomes"])}
    cloud.drain()
    letters = [letter["MessageAttributes"]["reason"]["StringValue"] for letter in cloud.dead_letters()]
    return {"answer": answer, "published": essence(cloud.notifications()), "dead letters": letters}


def essence(notifications):
    """All of notifications but what is another one each time."""
    names = ("status", "agent_id", "project_id", "region", "reason", "http_status", "attempts")
    return sorted(
        (
            {name: notification[name] for name in names} | {"asked by": notification["trigger"]["type"]}
            for notification in notifications
        ),
        key=json.dumps,
    )


@pytest.mark.parametrize("name", SAMPLES)
def test_a_sample_has_the_same_outcomes_as_in_the_process(name, from_the_process, from_the_emulator):
    assert from_the_emulator[name] == from_the_process[name]


def test_every_agent_of_the_samples_has_a_final_status(from_the_emulator):
    published = [notification["status"] for each in from_the_emulator.values() for notification in each["published"]]
    assert Counter(published) == {"requested": 27, "captured": 27, "rejected": 1}
    assert "OK" in from_the_emulator["eventbridge-alarm-ok"]["answer"]["ignored"]


def test_the_token_is_rotated_and_used(embed, emulate):
    with emulate() as running, embed({"username": "operator", "api_key": "the-api-key"}) as (api, _, cloud):
        cloud.rotate_secret()
        assert cloud.poll() == 1
        assert running["RotateTokenFunction"].log.count("INVOKE START") == 4
        secret = boto3.client("secretsmanager").get_secret_value(SecretId=cloud.secret_arn, VersionStage="AWSCURRENT")
        assert json.loads(secret["SecretString"]).keys() == {
            "username",
            "api_key",
            "token",
            "expires_at",
            "project_id",
        }
        api.add_agents("agent")
        cloud.send('["agent"]')
        cloud.drain()
        assert [notification["status"] for notification in cloud.notifications()] == ["requested", "captured"]


def test_a_function_that_is_killed_at_its_timeout_loses_nothing_and_requests_no_log_file_twice(
    embed, emulate, built, tmp_path
):
    with emulate() as running, embed() as (api, clock, cloud):
        api.add_agents("agent")
        api.inject("agent", Fault(delay_seconds=600))
        cloud.send('["agent"]')
        killed = []
        with hopeful(built, tmp_path) as emulator:
            cloud.poll(lambda event: killed.append(failure(emulator, event)) or {}["batchItemFailures"])
        assert killed == ["Task timed out after 4.00 seconds"]
        assert (cloud.waiting, cloud.notifications(), running) == (1, [], {})

        # The API serves the request after all, but the client has gone.
        api.hurry()
        assert api.wait_until_served(10)
        assert api.posts == {"agent": 1}
        clock.advance(1801)
        end_claims()
        cloud.drain()
        assert [notification["status"] for notification in cloud.notifications()] == ["requested", "captured"]
        assert api.posts == {"agent": 1}
        assert cloud.dead_letters() == []


def hopeful(built, folder):
    artifact = shutil.copytree(built / "CaptureFunction", folder / "artifact")
    (artifact / "hopeful.py").write_text(HOPEFUL, encoding="utf-8")
    function = emulator_of("CaptureFunction", built)
    return replace(function, artifact=artifact, handler="hopeful.lambda_handler", timeout_seconds=4)


def failure(emulator, event):
    with pytest.raises(FunctionError) as raised:
        emulator.invoke(event)
    return str(raised.value)


def end_claims():
    """Let all claims lapse: the function in the emulator does not use the clock that was advanced."""
    for table in boto3.resource("dynamodb").tables.all():
        for item in table.scan()["Items"]:
            if "claimed_until" in item:
                table.put_item(Item=item | {"claimed_until": "1970-01-01T00:00:00.000Z"})


def test_a_function_with_too_little_time_lets_its_message_come_again(embed, built):
    with embed() as (api, _, cloud):
        api.add_agents("agent")
        cloud.send('["agent"]')
        with replace(emulator_of("CaptureFunction", built), timeout_seconds=5) as emulator:
            assert cloud.poll(emulator.invoke) == 1
        assert (cloud.waiting, api.asked) == (1, {})
