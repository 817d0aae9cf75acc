"""The four steps over real HTTP, through the handler that Secrets Manager invokes."""

import json
import re
from datetime import UTC, datetime
from uuid import uuid4

import boto3
import pytest
from moto import mock_aws
from moto.core import DEFAULT_ACCOUNT_ID
from moto.secretsmanager.models import secretsmanager_backends

from agent_log_capture.adapters import http_session
from agent_log_capture.adapters.cloud_backup import CloudBackup
from agent_log_capture.adapters.http_session import build_session
from agent_log_capture.domain.auth_token import parse_auth_token
from agent_log_capture.handlers.rotate_token import lambda_handler
from agent_log_capture.service.token_rotation import RotationError
from local.lambda_service import Context
from tests.faults.faulty_api import Fault, FaultyApi

NOW = datetime(2026, 11, 23, 3, 12, 40, tzinfo=UTC)
STEPS = ("createSecret", "setSecret", "testSecret", "finishSecret")
API_KEY = "the-api-key-itself"
CREDENTIALS = {"username": "backup-bot", "api_key": API_KEY}


@pytest.fixture
def fake_api():
    with FaultyApi(clock=NOW.timestamp) as fake_api:
        fake_api.add_account("backup-bot", API_KEY)
        yield fake_api


@pytest.fixture(autouse=True)
def _environment(monkeypatch, capsys, fake_api):  # noqa: ARG001 (the log has to find the stream that is read here)
    monkeypatch.setenv("IDENTITY_URL", fake_api.url)
    monkeypatch.setenv("CLOUD_BACKUP_URL", fake_api.url)
    monkeypatch.setenv("CLOUD_BACKUP_REGION", "DFW")
    monkeypatch.setenv("POWERTOOLS_METRICS_NAMESPACE", "AgentLogCapture")
    # A logger keeps its stream for as long as the process lives, under the name of the service.
    monkeypatch.setenv("POWERTOOLS_SERVICE_NAME", str(uuid4()))


@pytest.fixture
def secrets():
    with mock_aws():
        yield boto3.client("secretsmanager")


@pytest.fixture
def secret_arn(secrets):
    return secrets.create_secret(Name="TokenSecret", SecretString=json.dumps(CREDENTIALS))["ARN"]


@pytest.fixture
def current(secrets, secret_arn):
    return lambda: secrets.get_secret_value(SecretId=secret_arn, VersionStage="AWSCURRENT")["SecretString"]


@pytest.fixture
def do(secret_arn):
    """Does a step of one rotation, for which Secrets Manager has set a version aside."""
    version_id = str(uuid4())
    kept = secretsmanager_backends[DEFAULT_ACCOUNT_ID]["us-east-1"].secrets["TokenSecret"]
    kept.versions[version_id] = {"createdate": 0, "version_id": version_id, "version_stages": ["AWSPENDING"]}

    def do_step(step):
        event = {"Step": step, "SecretId": secret_arn, "ClientRequestToken": version_id}
        lambda_handler(event, Context("RotateTokenFunction", 60))

    return do_step


@pytest.fixture
def call_api(fake_api, current):
    """Calls the API with the token that is in use, and returns the status of its answer."""

    def call():
        with build_session(1) as session:
            api = CloudBackup(session, fake_api.url, lambda: NOW)
            return api.ping(parse_auth_token(current(), None), "DFW").http_status

    return call


@pytest.fixture
def _impatient(monkeypatch):
    monkeypatch.setattr(http_session, "READ_TIMEOUT_SECONDS", 0.2)


def metrics_in(output):
    """Return the metrics that CloudWatch reads from what a function writes."""
    lines = [json.loads(line) for line in output.splitlines()]
    return {
        metric["Name"]: (line[metric["Name"]], rule["Namespace"])
        for line in lines
        if "_aws" in line
        for rule in line["_aws"]["CloudWatchMetrics"]
        for metric in rule["Metrics"]
    }


def test_the_four_steps_in_order_make_a_token_that_the_api_takes(fake_api, do, current, call_api):
    for step in STEPS:
        do(step)
    assert call_api() == 200
    assert json.loads(current()) == CREDENTIALS | {
        "token": parse_auth_token(current(), None).value,
        "project_id": fake_api.project_id,
        "expires_at": "2026-11-24T03:12:40Z",
    }


def test_a_new_token_in_use_is_counted_once(do, capsys):
    for step in (*STEPS[:-1], *STEPS[:-1]):
        do(step)
    assert metrics_in(capsys.readouterr().out) == {}
    do("finishSecret")
    assert metrics_in(capsys.readouterr().out) == {"TokenRefreshes": ([1.0], "AgentLogCapture")}
    do("finishSecret")
    assert metrics_in(capsys.readouterr().out) == {}


@pytest.mark.parametrize(
    ("fault", "problem"),
    [
        (Fault(status=413), "Identity limits the rate (413): rotate again in some seconds"),
        (Fault(status=500), "Identity answers with HTTP status 500"),
        (Fault(status=302, headers={"Location": "http://127.0.0.1:9/"}), "Identity answers with HTTP status 302"),
        (Fault(body=b"{"), "Identity's answer has no token, expiry and project ID that can be used"),
        (Fault(body=b'{"access"', headers={"Content-Length": "500"}), "Identity's answer has no token"),
        (Fault(drop="before"), "Identity does not answer: ConnectionError"),
        (Fault(drop="after"), "Identity does not answer: ConnectionError"),
    ],
    ids=["413", "500", "redirect", "malformed", "cut off", "dropped before", "dropped after"],
)
@pytest.mark.usefixtures("_impatient")
def test_a_rotation_that_identity_spoils_can_be_done_again(fake_api, do, call_api, fault, problem):
    fake_api.inject("tokens", fault)
    with pytest.raises(RotationError, match=rf"^createSecret: the secret .+ is not rotated: {re.escape(problem)}"):
        do("createSecret")
    for step in STEPS:
        do(step)
    assert call_api() == 200


def test_wrong_credentials_are_published_and_the_token_in_use_stays(fake_api, do, current):
    fake_api.add_account("backup-bot", "another-key")
    with pytest.raises(RotationError, match=r"put the right username and api_key into the secret$"):
        do("createSecret")
    assert json.loads(current()) == CREDENTIALS


def test_a_token_that_is_revoked_before_it_is_tested_is_not_put_into_use(fake_api, secrets, secret_arn, do, current):
    do("createSecret")
    pending = secrets.get_secret_value(SecretId=secret_arn, VersionStage="AWSPENDING")["SecretString"]
    fake_api.revoke(json.loads(pending)["token"])
    with pytest.raises(RotationError, match=r"the API refuses the new token \(401\)"):
        do("testSecret")
    with pytest.raises(RotationError, match="is not AWSPENDING"):
        do("finishSecret")
    assert json.loads(current()) == CREDENTIALS


def test_nothing_that_is_written_shows_the_token_or_the_api_key(fake_api, do, current, capsys):
    fake_api.inject("ping", Fault(drop="after"))
    do("createSecret")
    with pytest.raises(RotationError) as caught:
        do("testSecret")
    for step in STEPS:
        do(step)
    written = f"{capsys.readouterr()} {caught.getrepr(showlocals=False, chain=True)}"
    assert "the new token is in use" in written
    assert API_KEY not in written
    assert json.loads(current())["token"] not in written
