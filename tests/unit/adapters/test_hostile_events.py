"""Every event can be logged, published and sent to the dead-letter queue."""

import json
from datetime import timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent_log_capture.adapters.batches import always, send_in_batches
from agent_log_capture.domain.capture import Step
from agent_log_capture.domain.outcome import Reason
from agent_log_capture.domain.responses import Failure
from agent_log_capture.service.job_tracker import JobTracker
from agent_log_capture.service.result_writer import InvocationResult, ResultWriter
from tests.fuzz.checks import check_text
from tests.fuzz.intake import from_queue, read

TEXTS = st.text(max_size=300) | st.text(st.sampled_from('\n\r\x00\x1b\u2028\u202e\u2066\ufeff\ud800\u0301"\\é𝄞 ,'))
FAILURE = Failure(reason=Reason.TEMPORARY, message="Service Unavailable", http_status=503)


def alarm(name, moment, agent_ids):
    state = {"value": "ALARM", "timestamp": moment}
    detail = {"alarmName": name, "state": state, "agent_ids": agent_ids}
    return {"detail-type": "CloudWatch Alarm State Change", "resources": [name], "detail": detail}


EVENTS = st.builds(alarm, TEXTS, TEXTS, st.lists(TEXTS | st.just("an-agent"), max_size=5)) | TEXTS.map(from_queue)


def strings(value):
    if isinstance(value, (dict, list)):
        parts = [*value, *value.values()] if isinstance(value, dict) else value
        return [text for part in parts for text in strings(part)]
    return [value] if isinstance(value, str) else []


@given(event=EVENTS)
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_event_can_forge_a_log_line_or_prevent_that_results_are_saved(
    *, queue, topic, captures_table, logger, log, event, now
):
    report = InvocationResult(asked=1, ignored=None)
    tracker = JobTracker(
        table=captures_table, topic=topic, logger=logger, window=timedelta(), now=lambda: now, has_time=always
    )
    writer = ResultWriter(queue=queue, topic=topic, logger=logger, tracker=tracker, result=report, has_time=always)
    parsed_records = read(event)
    writer.reject(parsed_records)
    for parsed in parsed_records:
        for capture in parsed.captures:
            writer.add(Step(capture=capture, next=capture, delay_seconds=5, failure=FAILURE))
    writer.finish(lambda _: None)
    assert not report.unsaved
    lines = log.getvalue().splitlines()
    for text in strings([json.loads(line) for line in lines]):
        check_text(text)


@pytest.mark.parametrize("is_sender_fault", [True, False])
def test_the_reason_why_an_entry_was_not_sent_is_one_short_line(is_sender_fault):
    why = {"Code": "Invalid", "Message": "slow\r\ndown\u202e\x1b[31m" + "x" * 9000, "SenderFault": is_sender_fault}
    failed = send_in_batches([{}], lambda _: {"Failed": [why | {"Id": "0"}]}, max_bytes=100, has_time=always)
    assert failed[0].startswith("Invalid: slow  down  [31mxxx")
    assert (len(failed[0]), failed[0].isprintable()) == (500, True)
