"""Target: any bytes as the body of a message, and as an event where they are JSON."""

import json
from collections.abc import Sequence

from agent_log_capture.domain.events.parser import EventParser, ParsedRecord
from agent_log_capture.domain.outcome import Reason
from agent_log_capture.domain.queue_message import to_json
from tests.fuzz.checks import NOW, check_capture, check_dead_letter, check_outcome, check_text

READER = EventParser(default_region="IAD", agent_id_keys=("backup.client",))


def check(data: bytes) -> None:
    """Check what is parsed from these bytes, and from their dead letter."""
    # Bytes that are not UTF-8 become lone surrogates, which JSON may escape as well.
    text = data.decode("utf-8", "surrogateescape")
    check_event(from_queue(text))
    try:
        event = json.loads(text)
    except (ValueError, RecursionError):
        return
    check_event(event)


def check_parsed(parsed: ParsedRecord) -> None:
    """Check the captures, rejections and texts of one record."""
    assert parsed.captures or parsed.rejections or parsed.ignored
    assert bool(parsed.rejections) == (parsed.dead_letter is not None)
    check_text(parsed.ignored or "")
    check_text(parsed.trigger.id)
    for capture in parsed.captures:
        check_capture(capture)
    for rejection in parsed.rejections:
        assert rejection.count > 0
        check_outcome(rejection.outcome)


def read(event: object) -> Sequence[ParsedRecord]:
    """Parse any event."""
    return READER.parse(event, request_id="a-request", now=NOW)


def check_event(event: object) -> None:
    """Check what is parsed from any event, and from its dead letter."""
    parsed_records = read(event)
    assert parsed_records
    for parsed in parsed_records:
        check_parsed(parsed)
        _check_replay(parsed)
        _check_return(parsed)


def _check_replay(parsed: ParsedRecord) -> None:
    """Nothing is lost when the dead letter is replayed: its values are rejected again, or captured after all."""
    if parsed.dead_letter is None:
        return
    body = check_dead_letter(parsed.dead_letter, parsed.rejections[0].outcome)
    [replayed] = read(from_queue(body))
    check_parsed(replayed)
    has_too_deep = any(rejection.outcome.reason is Reason.TOO_DEEP for rejection in parsed.rejections)
    if body == parsed.dead_letter and not has_too_deep:
        # A part of a text that is JSON is read as JSON when it is a value by itself, and may name an agent after all.
        assert replayed.captures or _count(replayed) >= _count(parsed)


def _check_return(parsed: ParsedRecord) -> None:
    """Captures are unchanged when they are read back from the queue."""
    if parsed.captures:
        body = json.dumps({"captures": [to_json(capture) for capture in parsed.captures]})
        [returned] = read(from_queue(body))
        assert (returned.captures, returned.rejections) == (parsed.captures, [])


def _count(parsed: ParsedRecord) -> int:
    return sum(rejection.count for rejection in parsed.rejections)


def from_queue(body: object) -> dict[str, object]:
    """Return the event in which Lambda delivers a message."""
    return {"Records": [{"messageId": "a-message", "body": body, "eventSource": "aws:sqs"}]}
