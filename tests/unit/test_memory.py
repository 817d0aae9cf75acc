"""The largest events that are read leave room in the memory that the function has as a rule."""

import subprocess
import sys
from pathlib import Path

import pytest

from agent_log_capture.domain.events.finder import MAX_VALUES
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
answer = type("Response", (), {"status_code": 200}), {"Successful": []}
client.meta.events.register("before-call.sqs.SendMessageBatch", lambda **_: answer)
captures = [capture for parsed in parsed_records for capture in parsed.captures]
CaptureQueue(client, "https://queue", "https://dead-letters").requeue([(capture, 0) for capture in captures])
refused = [each for parsed in parsed_records for each in parsed.refused]
peak = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
print(len(captures), sum(each.count for each in refused), refused[0].outcome.reason if refused else "-", peak[1])
"""

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the peak of a process is in Linux's /proc")


def read_and_fan_out(kind, count):
    """Return how many captures and refusals there are, the first reason, and the peak of a process in MiB."""
    code = [sys.executable, "-c", PEAK, kind, str(count)]
    said = subprocess.run(code, env={"PYTHONPATH": str(ROOT / "src")}, capture_output=True, check=True, text=True)
    captures, refused, reason, peak = said.stdout.split()
    return int(captures), int(refused), reason, int(peak) / 1024


@pytest.fixture(scope="module")
def memory():
    return translate()["Parameters"]["MemorySize"]["Default"]


@pytest.mark.parametrize("kind", ["not IDs", "an alarm with a long name"])
def test_the_largest_event_that_is_read_takes_half_of_the_memory_at_most(kind, memory):
    count = MAX_VALUES - 100
    captures, refused, _, peak = read_and_fan_out(kind, count)
    assert captures + refused == count
    assert peak <= memory / 2


def test_a_larger_one_is_refused_with_its_reason(memory):
    captures, refused, reason, peak = read_and_fan_out("short IDs", 499_000)
    assert (captures, refused, reason) == (0, 1, "too_large")
    assert peak <= memory / 2
