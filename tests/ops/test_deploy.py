import boto3
import pytest
from boto3.session import Session

from ops.deploy import deploy
from ops.errors import OperatorError
from ops.stack import Stack


@pytest.fixture
def stack(cloud):
    return Stack("agent-log-capture", Session(), cloud.endpoint_url)


@pytest.fixture
def run_sam():
    commands = []

    def run(command):
        commands.append(list(command[3:]))
        return 0

    run.commands = commands
    return run


def test_it_builds_deploys_the_stage_and_says_that_the_credentials_come_next(stack, cloud, run_sam, capsys):
    assert deploy(stack, "staging", run=run_sam) == 0
    build, deployment = run_sam.commands
    assert build == ["build"]
    assert deployment[:3] == ["deploy", "--config-env", "staging"]
    said = capsys.readouterr().out
    assert f"put-secret-value --region us-east-1 --secret-id {cloud.secret_arn}" in said
    # As an argument, it would be in the shell's history and in the list of processes.
    assert '--secret-string "file://$file"' in said
    assert "api_key" in said
    assert "rotate-secret" in said
    assert "make status STAGE=staging" in said


def test_nothing_is_deployed_that_was_not_built(stack):
    built = []
    assert deploy(stack, "staging", run=lambda command: built.append(command) or 1) == 2
    assert len(built) == 1


class TestWithoutRotation:
    @pytest.fixture
    def parameters(self):
        return {"RotateToken": "false"}

    def test_the_token_comes_next(self, stack, run_sam, capsys):
        deploy(stack, "staging", run=run_sam)
        said = capsys.readouterr().out
        assert '"token"' in said
        assert "rotate-secret" not in said


def test_an_output_that_is_missing_is_named(cloud):
    boto3.client("cloudformation").create_stack(StackName="other", TemplateBody='{"Resources": {}}')
    with pytest.raises(OperatorError, match="has no output CaptureQueueUrl"):
        Stack("other", Session(), cloud.endpoint_url).output("CaptureQueueUrl")
