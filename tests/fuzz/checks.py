"""What holds for all that is published, logged or saved, for any input."""

import json
import re
import unicodedata
from datetime import UTC, datetime

from agent_log_capture.adapters.capture_queue import CAPTURES_IN_A_MESSAGE, DeadLetter, _dead_entry, _entry
from agent_log_capture.domain.capture import REGIONS, Capture, is_agent_id
from agent_log_capture.domain.notifications.notification import sns_message
from agent_log_capture.domain.outcome import Outcome
from agent_log_capture.domain.queue_message import from_json, to_json

NOW = datetime(2026, 11, 23, 3, 12, 40, tzinfo=UTC)
SNS_BYTES = 256 * 1024
SQS_BYTES = 1024 * 1024
# Control, format (which is all that is bidirectional), surrogate, private use, unassigned; what separates lines.
_UNFIT = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
_SQS_REFUSES = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_MOST_MARKS = 4


def check_text(text: str) -> None:
    """A person may read it, in a log or in a mail: it stays on its line, in its order, and covers nothing."""
    if text.isascii() and text.isprintable():
        return
    categories = [unicodedata.category(character) for character in text]
    assert not _UNFIT.intersection(categories), ascii(text)
    marks = "".join("M" if category[0] == "M" else " " for category in categories)
    assert "M" * (_MOST_MARKS + 1) not in marks, ascii(text)


def check_outcome(outcome: Outcome) -> None:
    """It can be logged, and published as it is."""
    for text in (outcome.trigger.id, outcome.trigger.name, outcome.message, outcome.agent_id, outcome.region):
        check_text(text or "")
    message = sns_message(outcome, has_chat=True)
    _check_subject(message["Subject"])
    bodies = json.loads(message["Message"])
    _check_json(json.loads(bodies["default"]))
    for text in (bodies["email"], json.loads(bodies["https"])["content"]["description"]):
        for line in text.split("\n"):
            check_text(line)
    assert all(attribute["StringValue"] for attribute in message["MessageAttributes"].values())
    assert len(json.dumps(message["MessageAttributes"])) + len(message["Message"].encode()) < SNS_BYTES


def _check_subject(subject: str) -> None:
    assert 0 < len(subject) <= 100
    assert subject.isascii()
    assert subject.isprintable()


def _check_json(value: object) -> None:
    if isinstance(value, str):
        check_text(value)
    elif isinstance(value, (dict, list)):
        for item in value.values() if isinstance(value, dict) else value:
            _check_json(item)


def check_capture(capture: Capture) -> None:
    """It names one agent, and is read from the queue as it was sent."""
    assert is_agent_id(capture.agent_id)
    assert capture.region in REGIONS
    assert from_json(json.loads(json.dumps(to_json(capture))), max(NOW, capture.retry_from)) == capture
    body = _entry(0, [capture])["MessageBody"]
    assert CAPTURES_IN_A_MESSAGE * len(body) < SQS_BYTES
    assert not _SQS_REFUSES.search(body)


def check_dead_letter(body: str, outcome: Outcome) -> str:
    """The dead-letter queue takes it; return what is replayed from there."""
    entry = _dead_entry(DeadLetter(body, outcome))
    sent = str(entry["MessageBody"])
    assert sent
    assert not _SQS_REFUSES.search(sent)
    return sent
