"""Target: any bytes as the body of a message, and as an event where they are JSON."""

import json
from collections.abc import Sequence

from agent_log_capture.domain.events.parser import EventParser, ParsedRecord
from tests.fuzz.checks import NOW, check_capture, check_dead_letter, check_outcome, check_text

READER = EventParser(default_region="IAD", agent_id_keys=("backup.client",))


def check(data: bytes) -> None:
    """Check what is read from these bytes, and from what is kept of them."""
    # Bytes that are no UTF-8 become lone surrogates, which JSON may escape as well.
    text = data.decode("utf-8", "surrogateescape")
    check_event(from_queue(text))
    try:
        event = json.loads(text)
    except (ValueError, RecursionError):
        return
    check_event(event)


def check_arrival(parsed: ParsedRecord) -> None:
    """Check everything that comes of one parsed."""
    assert parsed.captures or parsed.refused or parsed.ignored
    assert bool(parsed.refused) == (parsed.dead_letter is not None)
    check_text(parsed.ignored or "")
    check_text(parsed.trigger.id)
    for capture in parsed.captures:
        check_capture(capture)
    for refused in parsed.refused:
        assert refused.count > 0
        check_outcome(refused.outcome)


def read(event: object) -> Sequence[ParsedRecord]:
    """Read any event."""
    return READER.read(event, request_id="a-request", now=NOW)


def check_event(event: object) -> None:
    """Check what is read from any event, and from what is kept of it."""
    parsed_records = read(event)
    assert parsed_records
    for parsed in parsed_records:
        check_arrival(parsed)
        _check_replay(parsed)
        _check_return(parsed)


def _check_replay(parsed: ParsedRecord) -> None:
    """Nothing of what is kept is lost when it is read again."""
    if parsed.dead_letter is None:
        return
    body = check_dead_letter(parsed.dead_letter, parsed.refused[0].outcome)
    [replayed] = read(from_queue(body))
    check_arrival(replayed)
    if body == parsed.dead_letter:
        # A part of a text that is JSON is opened, now that it is a value by itself, and may hold an agent after all.
        assert replayed.captures or _count(replayed) >= _count(parsed)


def _check_return(parsed: ParsedRecord) -> None:
    """What is put back into the queue comes out of it as it went in."""
    if parsed.captures:
        body = json.dumps({"captures": [capture.to_json() for capture in parsed.captures]})
        [returned] = read(from_queue(body))
        assert (returned.captures, returned.refused) == (parsed.captures, [])


def _count(parsed: ParsedRecord) -> int:
    return sum(refused.count for refused in parsed.refused)


def from_queue(body: object) -> dict[str, object]:
    """Return the event in which Lambda brings a message."""
    return {"Records": [{"messageId": "a-message", "body": body, "eventSource": "aws:sqs"}]}
