import csv
import json
from datetime import UTC, datetime, timedelta

import boto3
import pytest
from boto3.session import Session
from moto import mock_aws

from agent_log_capture.adapters.captures_table import CapturesTable
from agent_log_capture.domain.job import Fact, TriggerPart, trigger_key
from agent_log_capture.domain.outcome import Reason, Status, Trigger, TriggerType
from ops.errors import OperatorError
from ops.job import job
from ops.stack import Stack

NOW = datetime.now(UTC)
TRIGGER = Trigger(TriggerType.SQS, "a-message")
PART = TriggerPart(trigger=TRIGGER, asked=4, rejected=1, asked_at=NOW, shards=1)


@pytest.fixture
def stack(monkeypatch):
    """A stack with a table and its output, and nothing else."""
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    key = [{"AttributeName": "pk", "KeyType": "HASH"}, {"AttributeName": "sk", "KeyType": "RANGE"}]
    table = {
        "Type": "AWS::DynamoDB::Table",
        "Properties": {
            "TableName": "captures",
            "BillingMode": "PAY_PER_REQUEST",
            "AttributeDefinitions": [{"AttributeName": name, "AttributeType": "S"} for name in ("pk", "sk")],
            "KeySchema": key,
        },
    }
    template = {"Resources": {"Table": table}, "Outputs": {"CapturesTableName": {"Value": {"Ref": "Table"}}}}
    with mock_aws():
        boto3.client("cloudformation").create_stack(StackName="jobs", TemplateBody=json.dumps(template))
        yield Stack("jobs", Session())


@pytest.fixture
def write(stack):
    """Writes a job of four agents, one of which had an unreadable ID, with what happened to some of them."""

    def write(job_id, *facts):
        table = CapturesTable(
            client=stack.client("dynamodb"),
            table="captures",
            keep=timedelta(days=1),
            now=lambda: NOW,
        )
        table.write_facts(job_id, PART.shards, facts)
        table.add_ended(job_id, PART, len(facts))

    return write


def fact(agent_id, status, **fields):
    return Fact(agent_id=agent_id, region="DFW", trigger_key=trigger_key(TRIGGER), replays=0, status=status, **fields)


def test_a_job_is_counted_by_status_and_lists_the_agents_that_are_not_captured(stack, write, capsys):
    write(
        "night shift",
        fact("agent-2", Status.FAILED, reason=Reason.TEMPORARY),
        fact("agent-1", Status.CAPTURED),
        fact("agent-3", None),
    )
    assert job(stack, "night shift", path=None) == 0
    assert capsys.readouterr().out.splitlines() == [
        "night shift: 4 asked, 3 ended, 1 pending",
        "         1  captured",
        "         1  rejected",
        "         1  failed",
        "  agent-2 in DFW: failed, temporary",
        "  agent-3 in DFW: pending",
    ]


def test_a_csv_file_has_a_line_for_each_agent_that_has_ended(stack, write, tmp_path):
    path = tmp_path / "job.csv"
    write(
        "night shift",
        fact("agent-2", Status.FAILED, reason=Reason.TEMPORARY),
        fact("agent-1", Status.CAPTURED, log_file_id="a-log-file"),
    )
    job(stack, "night shift", path=path)
    with path.open(newline="") as file:
        assert list(csv.reader(file)) == [
            ["agent_id", "region", "status", "reason", "log_file_id"],
            ["agent-1", "DFW", "captured", "", "a-log-file"],
            ["agent-2", "DFW", "failed", "temporary", ""],
        ]


def test_an_agent_that_is_replayed_is_pending(stack, write, tmp_path):
    path = tmp_path / "job.csv"
    write("night shift", fact("agent-1", None))
    job(stack, "night shift", path=path)
    assert ",pending," in path.read_text()


def test_an_unknown_job_is_reported(stack):
    with pytest.raises(OperatorError, match="there is no job day shift"):
        job(stack, "day shift", path=None)


def test_a_csv_file_that_cannot_be_written_is_named(stack, write, tmp_path):
    write("night shift")
    with pytest.raises(OperatorError, match=r"CSV=.* cannot be written: Is a directory"):
        job(stack, "night shift", path=tmp_path)
