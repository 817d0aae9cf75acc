"""The largest events that are parsed leave room in the memory that the function has by default."""

import subprocess
import sys
from pathlib import Path

import pytest

from agent_log_capture.domain.events.agent_ids import MAX_VALUES
from local.template import translate

ROOT = Path(__file__).resolve().parents[2]
PEAK = r"""
import json, re, sys, uuid
from datetime import UTC, datetime
from pathlib import Path

import boto3

from agent_log_capture import bootstrap  # with all that the function imports
from agent_log_capture.adapters.capture_queue import CaptureQueue
from agent_log_capture.domain.events.parser import EventParser

MARKS = "\N{MUSICAL SYMBOL G CLEF}" * 600
ALARM = {"alarmName": MARKS, "state": {"value": "ALARM", "timestamp": "t"}}
COUNT = int(sys.argv[2])
EVENTS = {
    "short IDs": lambda: {"agent_ids": [str(number) for number in range(COUNT)]},
    "not IDs": lambda: {"agent_ids": [f"!{number}" for number in range(COUNT)]},
    "an alarm with a long name": lambda: {
        "detail-type": "CloudWatch Alarm State Change",
        "resources": [MARKS],
        "detail": ALARM | {"agent_ids": [str(uuid.uuid4()) for _ in range(COUNT)]},
    },
}
event = json.loads(json.dumps(EVENTS[sys.argv[1]]()))
parsed_records = EventParser(default_region="DFW").parse(event, request_id="r", now=datetime.now(UTC))
client = boto3.client("sqs", region_name="us-east-1", aws_access_key_id="a", aws_secret_access_key="b")
response = type("Response", (), {"status_code": 200}), {"Successful": []}
client.meta.events.register("before-call.sqs.SendMessageBatch", lambda **_: response)
captures = [capture for parsed in parsed_records for capture in parsed.captures]
CaptureQueue(client, "https://queue", "https://dead-letters").requeue([(capture, 0) for capture in captures])
rejected = [each for parsed in parsed_records for each in parsed.rejections]
peak = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
print(len(captures), sum(each.count for each in rejected), rejected[0].outcome.reason if rejected else "-", peak[1])
"""

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the peak of a process is in Linux's /proc")


def parse_and_requeue(kind, count):
    """Return how many captures and invalid values there are, the first reason, and the peak of a process in MiB."""
    code = [sys.executable, "-c", PEAK, kind, str(count)]
    output = subprocess.run(code, env={"PYTHONPATH": str(ROOT / "src")}, capture_output=True, check=True, text=True)
    captures, rejected, reason, peak = output.stdout.split()
    return int(captures), int(rejected), reason, int(peak) / 1024


@pytest.fixture(scope="module")
def memory():
    return translate()["Parameters"]["MemorySize"]["Default"]


@pytest.mark.parametrize("kind", ["not IDs", "an alarm with a long name"])
def test_the_largest_event_that_is_parsed_takes_at_most_half_of_the_memory(kind, memory):
    count = MAX_VALUES - 100
    captures, rejected, _, peak = parse_and_requeue(kind, count)
    assert captures + rejected == count
    assert peak <= memory / 2


def test_a_larger_event_is_rejected_with_its_reason(memory):
    captures, rejected, reason, peak = parse_and_requeue("short IDs", 499_000)
    assert (captures, rejected, reason) == (0, 1, "too_large")
    assert peak <= memory / 2
