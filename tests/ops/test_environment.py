import threading

import pytest
from werkzeug.serving import make_server

from ops.__main__ import main
from ops.errors import OperatorError
from ops.stack import read_stage

COMMANDS = [["status"], ["logs"], ["replay"], ["send", "agents.txt"]]


@pytest.mark.parametrize("command", ["deploy", "status", "logs", "send", "replay"])
def test_every_command_explains_itself_and_its_exit_codes(command, capsys):
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    assert "Exit code: 0" in capsys.readouterr().out


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_a_stack_that_is_not_there_is_named_with_its_region_and_what_to_do(run, command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "agents.txt").write_text("agent-1")
    code, said = run(*command, "--stage", "prod", "--region", "eu-west-1")
    assert code == 2
    assert "no stack agent-log-capture-prod in eu-west-1" in said
    assert "make deploy" in said


def test_a_stage_that_samconfig_does_not_have_is_refused_with_those_that_it_has(capsys):
    assert main(["deploy", "--stage", "qa"]) == 2
    assert "STAGE=qa: samconfig.toml has no such stage; it has default, staging, prod" in capsys.readouterr().err


def test_missing_credentials_are_told_with_what_to_do(capsys, monkeypatch):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    assert main(["status"]) == 2
    assert "no AWS credentials" in capsys.readouterr().err


def test_a_missing_region_is_told_with_what_to_do(capsys, monkeypatch):
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    assert main(["status"]) == 2
    assert "REGION=" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("code", "advice"), [("ExpiredToken", "log in again"), ("AccessDenied", "may not call DescribeStacks")]
)
def test_credentials_that_are_refused_or_may_too_little_are_told_apart(refusing, capsys, code, advice):
    assert main(["status", "--endpoint-url", refusing(code)]) == 2
    assert advice in capsys.readouterr().err


@pytest.fixture
def refusing():
    """Starts a server that answers every call as CloudFormation refuses one; returns its URL."""
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


def test_what_a_guided_deployment_writes_goes_before_what_the_project_has(tmp_path):
    path = tmp_path / "samconfig.toml"
    path.write_text(
        '[default.global.parameters]\nstack_name = "project"\n'
        '[default.deploy.parameters]\nstack_name = "guided"\nregion = "eu-west-1"\nprofile = "ops"\n'
    )
    stage = read_stage("default", path)
    assert (stage.stack_name, stage.region, stage.profile) == ("guided", "eu-west-1", "ops")


def test_a_stage_without_a_stack_is_refused(tmp_path):
    path = tmp_path / "samconfig.toml"
    path.write_text("[default.deploy.parameters]\nresolve_s3 = true\n")
    with pytest.raises(OperatorError, match="does not name its stack"):
        read_stage("default", path)
