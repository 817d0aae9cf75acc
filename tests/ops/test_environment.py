import threading

import boto3
import pytest
from boto3.session import Session
from werkzeug.serving import make_server

from ops.__main__ import main
from ops.errors import OperatorError
from ops.stack import Stack, read_stage

COMMANDS = [["status"], ["replay"], ["send", "agents.txt"]]


@pytest.mark.parametrize("command", ["status", "send", "replay", "job"])
def test_every_command_explains_itself_and_its_exit_codes(command, capsys):
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    assert "Exit code: 0" in capsys.readouterr().out


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_a_missing_stack_is_named_with_its_region_and_what_to_do(run, command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "agents.txt").write_text("agent-1")
    code, said = run(*command, "--stage", "prod", "--region", "eu-west-1")
    assert code == 2
    assert "no stack agent-log-capture-prod in eu-west-1" in said
    assert "make deploy" in said


def test_an_unknown_stage_is_refused_with_the_names_of_the_known_ones(capsys):
    assert main(["status", "--stage", "qa"]) == 2
    assert "STAGE=qa: samconfig.toml has no such stage; it has default, staging, prod" in capsys.readouterr().err


def test_missing_credentials_are_reported_with_what_to_do(capsys, monkeypatch):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    assert main(["status"]) == 2
    assert "no AWS credentials" in capsys.readouterr().err


def test_a_missing_region_is_reported_with_what_to_do(capsys, monkeypatch):
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    assert main(["status"]) == 2
    assert "REGION=" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("code", "advice"), [("ExpiredToken", "log in again"), ("AccessDenied", "may not call DescribeStacks")]
)
def test_refused_credentials_and_a_missing_permission_are_distinguished(refusing, capsys, code, advice):
    assert main(["status", "--endpoint-url", refusing(code)]) == 2
    assert advice in capsys.readouterr().err


@pytest.fixture
def refusing():
    """Starts a server that refuses every call as CloudFormation does; returns its URL."""
    servers = []

    def start(code):
        def app(_, start_response):
            start_response("403 Forbidden", [("Content-Type", "text/xml")])
            return [
                f"<ErrorResponse><Error><Code>{code}</Code><Message>no</Message></Error></ErrorResponse>".encode()
            ]

        server = make_server("127.0.0.1", 0, app, threaded=True)
        threading.Thread(target=server.serve_forever).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_the_settings_of_a_guided_deployment_override_those_of_the_project(tmp_path):
    path = tmp_path / "samconfig.toml"
    path.write_text(
        '[default.global.parameters]\nstack_name = "project"\n'
        '[default.deploy.parameters]\nstack_name = "guided"\nregion = "eu-west-1"\nprofile = "ops"\n'
    )
    stage = read_stage("default", path)
    assert stage == {"stack_name": "guided", "region": "eu-west-1", "profile": "ops"}


def test_a_stage_without_a_stack_is_refused(tmp_path):
    path = tmp_path / "samconfig.toml"
    path.write_text("[default.deploy.parameters]\nresolve_s3 = true\n")
    with pytest.raises(OperatorError, match="does not name its stack"):
        read_stage("default", path)


def test_a_missing_output_is_named(cloud):
    boto3.client("cloudformation").create_stack(StackName="other", TemplateBody='{"Resources": {}}')
    with pytest.raises(OperatorError, match="has no output CaptureQueueUrl"):
        Stack("other", Session(), cloud.endpoint_url).output("CaptureQueueUrl")
