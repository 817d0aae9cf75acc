"""The queue message and the table items that docs/architecture.md shows are those that the code writes."""

import json
import re
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from agent_log_capture.domain import queue_message
from agent_log_capture.domain.capture import Job, Polling, Recorded, Requesting
from agent_log_capture.domain.claim import ClaimPolicy
from agent_log_capture.domain.job import fact_of, trigger_part
from agent_log_capture.domain.outcome import FINAL_STATUSES, LogFile, Reason, Status

PAGE = (Path(__file__).parents[2] / "docs" / "architecture.md").read_text(encoding="utf-8")
SHOWN = [json.loads(block) for block in re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)]


def shape(value):
    """Return the names in a value, at any depth, without those of a map of counts."""
    if isinstance(value, dict):
        return {name: None if name == "counts" else shape(inner) for name, inner in value.items()}
    return [shape(inner) for inner in value] if isinstance(value, list) else None


def test_the_queue_message_is_the_one_that_is_sent(a_capture, now):
    [message] = [block for block in SHOWN if "captures" in block]
    [capture] = message["captures"]
    job = Job(name=None, asked=1, is_open=True)
    sent = a_capture(job=job, phase=Polling(log_file_id="a-log-file", requested_at=now))
    assert shape(capture) == shape(queue_message.to_json(sent))
    assert queue_message.from_json(capture, now).job == job


@pytest.fixture
def written(captures_table, items, a_capture, now):
    """One item of each kind, by its kind."""
    captures_table = replace(captures_table, now=lambda: now)
    capture = a_capture(job=Job(name="night shift", asked=502, rejected=2), phase=Requesting())
    policy = ClaimPolicy(project_id="110011", claim_id="an-id", claimed_until=now, cool_down=timedelta(minutes=10))
    log_file = LogFile(id="a-log-file")
    claim = replace(policy.claim(capture, now), accepted_at=now, http_status=202, log_file=log_file)
    captures_table.settle([claim], [])
    part = trigger_part(capture, capture.job)
    captures_table.add_ended("night shift", part, 500)
    recorded = replace(capture, phase=Recorded(status=Status.EXPIRED, reason=Reason.GONE, log_file_id="a-log-file"))
    captures_table.write_facts("night shift", part.shards, [fact_of(recorded)])
    captures_table.update_report(captures_table.read_job("night shift"), dict.fromkeys(FINAL_STATUSES, 1))
    kinds = {"CLAIM": "claim", "TRIGGER": "trigger", "REPORT": "report"}
    return {kinds.get(item["sk"].partition("#")[0], "fact"): item for item in items()}


def test_the_table_items_are_those_that_are_written(written):
    shown = [block for block in SHOWN if "pk" in block]
    kinds = [next(kind for kind, item in written.items() if shape(item) == shape(block)) for block in shown]
    assert sorted(kinds) == sorted(written)
