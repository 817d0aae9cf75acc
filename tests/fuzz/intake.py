"""Target: any bytes as the body of a message, and as an event where they are JSON."""

import json
from collections.abc import Sequence

from agent_log_capture.core.intake import Arrival, Reader
from tests.fuzz.checks import NOW, check_capture, check_dead_letter, check_outcome, check_text

READER = Reader(default_region="IAD", agent_id_keys=("backup.client",))


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


def check_arrival(arrival: Arrival) -> None:
    """Check everything that comes of one arrival."""
    assert arrival.captures or arrival.refused or arrival.ignored
    assert bool(arrival.refused) == (arrival.dead_letter is not None)
    check_text(arrival.ignored or "")
    check_text(arrival.trigger.id)
    for capture in arrival.captures:
        check_capture(capture)
    for refused in arrival.refused:
        assert refused.count > 0
        check_outcome(refused.outcome)


def read(event: object) -> Sequence[Arrival]:
    """Read any event."""
    return READER.read(event, request_id="a-request", now=NOW)


def check_event(event: object) -> None:
    """Check what is read from any event, and from what is kept of it."""
    arrivals = read(event)
    assert arrivals
    for arrival in arrivals:
        check_arrival(arrival)
        _check_replay(arrival)
        _check_return(arrival)


def _check_replay(arrival: Arrival) -> None:
    """Nothing of what is kept is lost when it is read again."""
    if arrival.dead_letter is None:
        return
    body = check_dead_letter(arrival.dead_letter, arrival.refused[0].outcome)
    [replayed] = read(from_queue(body))
    check_arrival(replayed)
    if body == arrival.dead_letter:
        # A part of a text that is JSON is opened, now that it is a value by itself, and may hold an agent after all.
        assert replayed.captures or _count(replayed) >= _count(arrival)


def _check_return(arrival: Arrival) -> None:
    """What is put back into the queue comes out of it as it went in."""
    if arrival.captures:
        body = json.dumps({"captures": [capture.to_json() for capture in arrival.captures]})
        [returned] = read(from_queue(body))
        assert (returned.captures, returned.refused) == (arrival.captures, [])


def _count(arrival: Arrival) -> int:
    return sum(refused.count for refused in arrival.refused)


def from_queue(body: object) -> dict[str, object]:
    """Return the event in which Lambda brings a message."""
    return {"Records": [{"messageId": "a-message", "body": body, "eventSource": "aws:sqs"}]}
