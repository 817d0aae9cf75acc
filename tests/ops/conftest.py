import json

import boto3
import pytest

from local.clock import Clock
from local.cloud import EmbeddedCloud
from local.fake_api import FakeApi
from ops.__main__ import main

TOKEN = "a-token-that-is-never-shown"


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def api(clock):
    with FakeApi(clock=clock.time) as fake_api:
        yield fake_api


@pytest.fixture
def secret():
    return json.dumps({"token": TOKEN, "project_id": "110011"})


@pytest.fixture
def parameters():
    return {"RotateToken": "true"}


@pytest.fixture
def cloud(api, clock, secret, parameters):
    with EmbeddedCloud(api, clock=clock, secret=secret, parameters=parameters) as embedded:
        yield embedded


@pytest.fixture
def run(cloud, capsys, tmp_path, monkeypatch):
    """Runs a command against the embedded cloud; returns its exit code and all that it printed."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def run(*arguments):
        code = main([*arguments, "--endpoint-url", cloud.endpoint_url])
        captured = capsys.readouterr()
        return code, captured.out + captured.err

    return run


@pytest.fixture
def put_dead_letter(cloud):
    def put(body, **attributes):
        boto3.client("sqs").send_message(
            QueueUrl=cloud.dead_letter_queue_url,
            MessageBody=body,
            MessageAttributes={
                name: {"DataType": "String", "StringValue": value} for name, value in attributes.items()
            },
        )

    return put
