import json
import time
from datetime import timedelta

import boto3
import pytest

from ops.logs import parse_since, shown_line

OUTCOME = {
    "level": "INFO",
    "message": "outcome",
    "agent_id": "agent-1",
    "status": "failed",
    "reason": "temporary",
    "http_status": 503,
    "correlation_id": "an-id",
}


@pytest.fixture
def log(cloud):
    assert cloud
    client = boto3.client("logs")
    [stack] = boto3.client("cloudformation").describe_stacks(StackName="agent-log-capture")["Stacks"]
    groups = {output["OutputKey"].removesuffix("LogGroupName"): output["OutputValue"] for output in stack["Outputs"]}

    def log(name, *messages, age_seconds=0):
        group = groups[name]
        stream = f"stream-{age_seconds}"
        client.create_log_stream(logGroupName=group, logStreamName=stream)
        moment = int((time.time() - age_seconds) * 1000)
        events = [
            {"timestamp": moment + place, "message": message if isinstance(message, str) else json.dumps(message)}
            for place, message in enumerate(messages)
        ]
        client.put_log_events(logGroupName=group, logStreamName=stream, logEvents=events)

    return log


def test_both_functions_lines_are_shown_in_order_and_in_words(run, log):
    log("Capture", OUTCOME, "START RequestId: 1", {"_aws": {}, "CapturesFailed": 1}, age_seconds=30)
    log(
        "RotateToken",
        {"level": "INFO", "message": "the new token is in use", "step": "finishSecret"},
        age_seconds=60,
    )
    log("Capture", {"level": "INFO", "message": "too old"}, age_seconds=3600)
    code, said = run("logs", "--since", "10m", "--no-follow")
    first, second = said.splitlines()
    assert code == 0
    assert first.endswith("rotate  INFO    the new token is in use step=finishSecret")
    assert second.endswith("capture INFO    outcome agent_id=agent-1 status=failed reason=temporary http_status=503")


def test_new_lines_are_shown_once_until_ctrl_c(run, log, monkeypatch):
    log("Capture", OUTCOME, age_seconds=5)
    pauses = iter([lambda: log("Capture", OUTCOME | {"agent_id": "agent-2"}), lambda: None])

    def pause(_):
        try:
            next(pauses)()
        except StopIteration:
            raise KeyboardInterrupt from None

    monkeypatch.setattr("ops.__main__.time.sleep", pause)
    code, said = run("logs")
    assert code == 0
    assert [said.count(f"agent_id=agent-{number}") for number in (1, 2)] == [1, 1]


def test_what_outsiders_wrote_stays_on_its_line():
    event = {"timestamp": 0, "message": json.dumps(OUTCOME | {"detail": "no\n\x1b[2J1970 capture ERROR forged"})}
    line = shown_line(event, "capture")
    assert line.isprintable()


def test_what_is_no_json_is_shown_as_it_is():
    event = {"timestamp": 0, "message": "Task timed out after 300.00 seconds\n"}
    assert shown_line(event, "capture") == "1970-01-01 00:00:00 capture         Task timed out after 300.00 seconds"


@pytest.mark.parametrize(("text", "seconds"), [("30s", 30), ("10m", 600), ("2h", 7200), ("1d", 86400)])
def test_a_time_is_read(text, seconds):
    assert parse_since(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "10", "m", "-1m", "1w"])
def test_what_is_no_time_is_refused(run, text):
    with pytest.raises(SystemExit) as ended:
        run("logs", f"--since={text}")
    assert ended.value.code == 2
