"""Walks through the whole of what arrives: which agents it names, and under which trigger."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from agent_log_capture.domain.capture import Capture, is_agent_id
from agent_log_capture.domain.events.agent_ids import (
    NOTHING_BESIDE,
    Beside,
    Found,
    InvalidValue,
    attribute_texts,
    begins_like_json,
    has_digit,
    normal,
    one_id,
    opened,
    pairs,
    parse_json,
    read_beside,
    shown,
    split,
)
from agent_log_capture.domain.events.envelopes import OWN_NOTIFICATION, Recognized, recognize
from agent_log_capture.domain.outcome import Reason
from agent_log_capture.domain.queue_message import from_json
from agent_log_capture.domain.trigger import Trigger

# An event that fails after a replay lies five levels deeper each time. JSON inside a string counts as one level more.
MAX_DEPTH = 64
# Of all that one invocation reads. The 6 MB that Lambda takes at most are 170,000 agent IDs as the API makes them;
# as many as this take at most half of the memory that the function has as a rule (tests/unit/test_memory.py).
MAX_VALUES = 200_000

_AGENT_ID_KEYS = frozenset({"agentid", "agentids"})
_WORDS_NAMED = 10
_TEXT_RULE = "the text is not a list of agent IDs, which all have a digit"


class Ignored(NamedTuple):
    """Something that asks for nothing."""

    because: str


class Finding(NamedTuple):
    """What was found, and the trigger that it belongs to."""

    trigger: Trigger
    what: Found | InvalidValue | Ignored | Capture


class TooManyValuesError(Exception):
    """More came at once than there is memory for."""


class AgentFinder:
    """Reads records and events; all that one parser reads together counts towards `MAX_VALUES`."""

    def __init__(self, agent_id_keys: Collection[str], now: datetime) -> None:
        self._keys = _AGENT_ID_KEYS | {normal(key) for key in agent_id_keys}
        self._now = now
        self._values_left = MAX_VALUES
        self._is_too_deep = False
        # Of the message that is being read: what to say when it tasks out to name no agent, and whether it forwards a
        # notification, whose agent its attributes name, too.
        self._innermost: Recognized
        self._prose = ""
        self._is_forwarding = False

    def parse(self, event: object, trigger: Trigger) -> Iterator[Finding]:
        """Yield what an event says, in its order, and at least one thing; TooManyValuesError when it is too large."""
        self._is_too_deep = False
        values_left = self._values_left
        try:
            yield from self._message(self._body(event, trigger, depth=0), Recognized(trigger))
        except TooManyValuesError:
            self._values_left = values_left  # nothing of it is kept
            raise

    def _message(self, findings: Iterator[Finding], message: Recognized) -> Iterator[Finding]:
        """Yield what a message says; one that names no agent is refused."""
        self._innermost, self._prose, self._is_forwarding = message, "", False
        is_empty = True
        for finding in findings:
            is_empty = False
            yield finding
        if is_empty:
            because = self._innermost.ignored_if_empty
            refusal = InvalidValue(Reason.NO_AGENT_ID, "the event holds no agent ID", self._prose)
            yield Finding(self._innermost.trigger, Ignored(because) if because else refusal)

    def _body(self, value: object, trigger: Trigger, depth: int) -> Iterator[Finding]:
        """Read an event, or the body of a message: it may be a text, or a list of agent IDs that no key names."""
        if isinstance(value, str) and not begins_like_json(value):
            yield from self._text(value, trigger)
            return
        content = opened(value)
        if isinstance(content, str):
            rule = "the text begins like JSON and is not JSON"
            yield Finding(trigger, InvalidValue(Reason.INVALID_JSON, rule, shown(content)))
        elif isinstance(content, list) and any(isinstance(item, str) for item in content):
            yield from self._ids(content, "list", trigger, NOTHING_BESIDE, depth)
        else:
            yield from self._visit(content, trigger, depth + isinstance(value, str))

    def _text(self, text: str, trigger: Trigger) -> Iterator[Finding]:
        """Read a plain text: a list of IDs, a list that has a heading, or prose."""
        words = [self._counted(word) for word in split(text)]
        ids = sum(has_digit(word) for word in words if is_agent_id(word))
        others = [word for word in words if is_agent_id(word) and not has_digit(word)]
        if not ids or len(others) > ids:
            self._prose = shown(text)
        elif others:
            named = ", ".join(map(shown, others[:_WORDS_NAMED]))
            yield Finding(trigger, InvalidValue(Reason.INVALID_AGENT_ID, _TEXT_RULE, named))
        else:
            yield from (Finding(trigger, one_id(word, "text", NOTHING_BESIDE)) for word in words)

    def _visit(
        self, value: object, trigger: Trigger, depth: int, around: Beside = NOTHING_BESIDE
    ) -> Iterator[Finding]:
        """Poll for agent IDs in any value; `around` is what the list that it stands in says with its pairs."""
        self._counted(value)
        if isinstance(value, str):
            value = parse_json(value)
            depth += 1
        if not isinstance(value, (dict, list)):
            return
        if depth > MAX_DEPTH:
            yield from self._too_deep(trigger)
        elif isinstance(value, dict):
            yield from self._object(value, trigger, depth, around)
        else:
            # The pairs of a list belong together as the fields of one object do.
            beside = read_beside((name, said) for item in value for name, said, _ in pairs(item))
            for item in value:
                yield from self._visit(item, trigger, depth + 1, beside)

    def _object(self, fields: Mapping[str, Any], outer: Trigger, depth: int, around: Beside) -> Iterator[Finding]:
        recognized = recognize(fields, outer)
        if recognized.trigger is not outer:
            self._innermost = recognized
        if recognized.ignored:
            self._is_forwarding |= recognized.ignored == OWN_NOTIFICATION
            yield Finding(recognized.trigger, Ignored(recognized.ignored))
        elif fields.keys() == {"captures"} and isinstance(fields["captures"], list):
            yield from self._captures(fields["captures"], outer, depth)
        elif recognized.body:
            yield from self._message(self._message_fields(fields, recognized, depth), recognized)
        else:
            yield from self._fields(fields, recognized.trigger, depth, around)

    def _captures(self, items: Sequence[object], trigger: Trigger, depth: int) -> Iterator[Finding]:
        """Read what this function itself put into the queue; what it did not write is read as any event is."""
        for item in items:
            try:
                yield Finding(trigger, from_json(self._counted(item), self._now))
            except ValueError:
                yield from self._message(self._visit(item, trigger, depth + 1), Recognized(trigger))

    def _message_fields(self, fields: Mapping[str, Any], recognized: Recognized, depth: int) -> Iterator[Finding]:
        """Read the body first, and the rest unless it forwards a notification."""
        yield from self._body(fields.get(recognized.body or ""), recognized.trigger, depth + 1)
        if not self._is_forwarding:
            rest = {key: value for key, value in fields.items() if key != recognized.body}
            yield from self._fields(rest, recognized.trigger, depth, NOTHING_BESIDE)

    def _fields(self, fields: Mapping[str, Any], trigger: Trigger, depth: int, around: Beside) -> Iterator[Finding]:
        beside = read_beside(fields.items())
        pair_names = {value_key: name for name, _, value_key in pairs(fields) if normal(name) in self._keys}
        for key, value in fields.items():
            if name := pair_names.get(key):
                of_pair = beside if beside.as_they_came else around
                yield from self._ids(value, name, trigger, of_pair, depth)
            elif normal(key) in self._keys:
                yield from self._ids(value, key, trigger, beside, depth)
            else:
                yield from self._visit(value, trigger, depth + 1)

    def _ids(self, value: object, key: str, trigger: Trigger, beside: Beside, depth: int) -> Iterator[Finding]:
        """Read the value of an agent ID key."""
        value = opened(value)
        if isinstance(value, str):
            yield from (Finding(trigger, one_id(self._counted(part), key, beside)) for part in split(value))
        elif isinstance(value, list):
            for item in value:
                yield from self._item(opened(item), key, trigger, beside, depth)
        elif value is not None:
            yield from self._item(value, key, trigger, beside, depth)

    def _item(self, value: object, key: str, trigger: Trigger, beside: Beside, depth: int) -> Iterator[Finding]:
        """Read one value: an ID, a message attribute that holds some, or an object that has some inside."""
        self._counted(value)
        is_nested = isinstance(value, (dict, list))
        inside = self._inside(value, key, trigger, beside, depth + 1) if is_nested else iter(())
        yield next(inside, None) or Finding(trigger, one_id(value, key, beside))
        yield from inside

    def _inside(self, value: object, key: str, trigger: Trigger, beside: Beside, depth: int) -> Iterator[Finding]:
        """Read what a message attribute holds, and look through the rest."""
        texts = dict(attribute_texts(value))
        for text in texts.values():
            yield from self._ids(text, key, trigger, beside, depth)
        rest = {name: each for name, each in value.items() if name not in texts} if isinstance(value, dict) else value
        yield from self._visit(rest, trigger, depth)

    def _too_deep(self, trigger: Trigger) -> Iterator[Finding]:
        """Say once that there are parts that are not looked at."""
        if not self._is_too_deep:
            self._is_too_deep = True
            rule = f"deeper than {MAX_DEPTH} levels: not looked at below"
            yield Finding(trigger, InvalidValue(Reason.TOO_DEEP, rule))

    def _counted[T](self, value: T) -> T:
        self._values_left -= 1
        if self._values_left < 0:
            raise TooManyValuesError
        return value
