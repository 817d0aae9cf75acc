"""Finds agent IDs in an event: walks through JSON, also inside strings, and reads lists and plain texts."""

import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from types import NoneType
from typing import Any, NamedTuple

from agent_log_capture.domain.capture import JOB_NAME_CHARACTERS, REGIONS, Capture, is_agent_id
from agent_log_capture.domain.events.envelopes import OWN_NOTIFICATION, Recognized, recognize
from agent_log_capture.domain.outcome import Reason, Trigger
from agent_log_capture.domain.printable import printable
from agent_log_capture.domain.queue_message import from_json

# An event that fails after a replay lies five levels deeper each time. JSON inside a string counts as one level more.
MAX_DEPTH = 64
# Of all records of one invocation. The 6 MB that Lambda takes at most are 170,000 agent IDs as the API makes them;
# this many take at most half of the memory that the function has by default (tests/unit/test_memory.py).
MAX_VALUES = 200_000
# The last invalid one is reported: rather the job than the region.
_OPTIONS = ("force", "region", "job")
# The keys that pairs have for their value and for their name.
_PAIR_KEYS = (("value", "name"), ("value", "key"), ("Value", "Name"), ("Value", "Key"))
# Python may refuse to read longer integers.
_DECODER = json.JSONDecoder(parse_int=lambda digits: digits if digits[640:] else int(digits))
_AROUND_JSON = re.compile(r"[\ufeff \t\r\n]*")
# An ID in braces, as Windows writes a GUID, is not JSON.
_BEGINS_LIKE_JSON = re.compile(r"[\ufeff \t\r\n]*(?:\[|\{(?![A-Za-z0-9_-]{1,128}\}))")
_WORD = re.compile(r"[^,;\s]+")
# Quotation marks and braces, and the byte order mark that an editor may write before a text.
_AROUND_AN_ID = "\"'“”‘’{}\ufeff"  # noqa: RUF001 (mail programs replace quotation marks by these)
_NOT_IN_KEYS = re.compile(r"[^a-z0-9]")
_AWS_REGION = re.compile(r"[a-z]{2,4}(-[a-z]+)+-\d{1,2}")
_SHOWN_CHARACTERS = 80


class Options(NamedTuple):
    """What an object says about all agent IDs in it, unchanged in `raw`; `error` is why it makes them invalid."""

    region: str | None = None
    force: bool = False
    job: str | None = None
    error: tuple[Reason, str] | None = None
    raw: Mapping[str, Any] = {}


class Found(NamedTuple):
    """An agent ID, its trigger and its options."""

    trigger: Trigger
    agent_id: str
    options: Options


class InvalidValue(NamedTuple):
    """A value that should be an agent ID, or hold some; `shown` is how its notification names it, if at all."""

    trigger: Trigger
    reason: Reason
    message: str
    value: object = None
    shown: str = ""
    options: Options = Options()


class Ignored(NamedTuple):
    """A part of an event that asks for nothing."""

    trigger: Trigger
    because: str


type Finding = Found | InvalidValue | Ignored | Capture


class _Place(NamedTuple):
    """Where a value is; `key` is the agent ID key whose value it is, and `options` are for the IDs in it."""

    trigger: Trigger
    depth: int = 0
    key: str = ""
    options: Options = Options()


class _TooManyValuesError(Exception):
    """The invocation has more values than there is memory for."""


class AgentFinder:
    """Finds agent IDs in the records of one invocation, which count together towards `MAX_VALUES`."""

    def __init__(self, agent_id_keys: Collection[str], manual: Trigger, now: datetime) -> None:
        self._keys = {"agentid", "agentids", *map(_normal, agent_id_keys)}
        self._manual, self._now = manual, now
        self._values_left = MAX_VALUES
        self._findings: list[Finding] = []
        # Of the message that is being read: the innermost event in it, and its text if that is prose.
        self._innermost, self._prose = Recognized(manual), ""

    def find(self, event: object) -> list[Finding]:
        """Return what an event says, in its order: at least one finding."""
        self._findings = []
        values_left = self._values_left
        try:
            with self._message(event, Recognized(self._manual)):
                self._body(event, _Place(self._manual))
        except _TooManyValuesError:
            self._values_left = values_left  # nothing of this event is used
            rule = f"more than {MAX_VALUES:,} values came at once"
            return [InvalidValue(self._innermost.trigger, Reason.TOO_LARGE, rule)]
        return self._findings

    @contextmanager
    def _message(self, message: object, recognized: Recognized) -> Iterator[None]:
        """Reject a message if nothing is found while it is read."""
        self._innermost, self._prose = recognized, ""
        count = len(self._findings)
        yield
        if len(self._findings) == count:
            trigger, because = self._innermost.trigger, self._innermost.ignored_if_empty
            nothing = InvalidValue(trigger, Reason.NO_AGENT_ID, "the event holds no agent ID", message, self._prose)
            self._findings.append(Ignored(trigger, because) if because else nothing)

    def _body(self, value: object, at: _Place) -> None:
        """Read an event or the body of a message, which may be a plain text or a list of IDs that no key names."""
        content = parse_json(value)
        if isinstance(content, list) and any(isinstance(item, str) for item in content):
            self._visit(content, at._replace(key="list"))
        elif not isinstance(content, str):
            self._visit(value, at)
        elif begins_like_json(content):
            self._reject(
                at, Reason.INVALID_JSON, "the text begins like JSON and is not JSON", content, shown(content)
            )
        else:
            self._text(content, at._replace(key="text"))

    def _text(self, text: str, at: _Place) -> None:
        """Read a plain text: a list of IDs, a list that has a heading, or prose."""
        words = [self._counted(word) for word in split(text)]
        ids = sum(has_digit(word) for word in words if is_agent_id(word))
        others = [word for word in words if is_agent_id(word) and not has_digit(word)]
        if not ids or len(others) > ids:
            self._prose = shown(text)
        elif others:
            rule = "the text is not a list of agent IDs, which all have a digit"
            self._reject(at, Reason.INVALID_AGENT_ID, rule, text, ", ".join(map(shown, others[:10])))
        else:
            for word in words:
                self._id(word, at)

    def _visit(self, value: object, at: _Place, *, is_item: bool = False) -> None:
        """Read any value; an item of a list is one agent ID, any other text may be several."""
        content = parse_json(self._counted(value))
        if content is not value:
            at = at._replace(depth=at.depth + 1)
        count = len(self._findings)
        if isinstance(content, (dict, list)) and at.depth > MAX_DEPTH:
            self._reject(at, Reason.TOO_DEEP, f"deeper than {MAX_DEPTH} levels: not looked at below", content)
        elif isinstance(content, dict):
            self._object(content, at)
        elif isinstance(content, list):
            self._list(content, at._replace(key="") if is_item else at)
        elif isinstance(content, str) and at.key and not is_item:
            self._values_left += 1  # its words count instead
            for word in split(content):
                self._id(self._counted(word), at)
        if at.key and len(self._findings) == count and (is_item or not isinstance(content, (str, list, NoneType))):
            self._id(content, at)

    def _list(self, items: list[Any], at: _Place) -> None:
        # The pairs of a list belong together like the fields of an object.
        pairs = (pair[:2] for item in items for pair in _pairs(item))
        inner = at._replace(depth=at.depth + 1, options=at.options if at.key else _read_options(pairs))
        for item in items:
            self._visit(item, inner, is_item=True)

    def _object(self, fields: dict[str, Any], at: _Place) -> None:
        recognized = recognize(fields, at.trigger)
        if recognized.trigger is not at.trigger:
            self._innermost = recognized
        if recognized.ignored:
            self._findings.append(Ignored(recognized.trigger, recognized.ignored))
        elif recognized.body:
            at, count = _Place(recognized.trigger, at.depth + 1), len(self._findings)
            with self._message(fields, recognized):
                self._body(fields.get(recognized.body), at)
                # The attributes of a forwarded notification name its agent again.
                if all(getattr(each, "because", "") != OWN_NOTIFICATION for each in self._findings[count:]):
                    self._fields({key: value for key, value in fields.items() if key != recognized.body}, at)
        elif fields.keys() == {"captures"} and isinstance(fields["captures"], list):
            self._captures(fields["captures"], _Place(at.trigger, at.depth + 1))
        else:
            self._fields(fields, at._replace(trigger=recognized.trigger))

    def _captures(self, items: list[Any], at: _Place) -> None:
        """Read a message that this function wrote; what it did not write is read like any event."""
        for item in items:
            try:
                self._findings.append(from_json(self._counted(item), self._now))
            except ValueError:
                with self._message(item, Recognized(at.trigger)):
                    self._visit(item, at)

    def _fields(self, fields: dict[str, Any], at: _Place) -> None:
        options = _read_options(fields.items())
        pairs = {value_key: name for name, _, value_key in _pairs(fields) if _normal(name) in self._keys}
        inner = _Place(at.trigger, at.depth + 1)
        for key, value in fields.items():
            if name := pairs.get(key):
                self._visit(value, inner._replace(key=name, options=options if options.raw else at.options))
            elif _normal(key) in self._keys:
                self._visit(value, inner._replace(key=key, options=options))
            elif at.key and _is_attribute_value(key, value):
                self._visit(value, inner._replace(key=at.key, options=at.options))
            else:
                self._visit(value, inner)

    def _id(self, value: object, at: _Place) -> None:
        agent_id = value.strip().strip(_AROUND_AN_ID) if isinstance(value, str) else ""
        if not is_agent_id(agent_id):
            rule = f"{printable(at.key, _SHOWN_CHARACTERS)}: an agent ID is 1 to 128 characters of A-Z a-z 0-9 _ -"
            self._reject(at, Reason.INVALID_AGENT_ID, rule, value, shown(value))
        elif at.options.error:
            self._reject(at, *at.options.error, value, shown(value))
        else:
            self._findings.append(Found(at.trigger, agent_id, at.options))

    def _reject(self, at: _Place, reason: Reason, message: str, value: object, shown_as: str = "") -> None:
        self._findings.append(InvalidValue(at.trigger, reason, message, value, shown_as, at.options))

    def _counted[T](self, value: T) -> T:
        self._values_left -= 1
        if self._values_left < 0:
            raise _TooManyValuesError
        return value


def _read_options(fields: Iterable[tuple[str, Any]]) -> Options:
    raw = {name: value for key, value in fields if (name := _normal(key)) in _OPTIONS}
    if not raw:
        return Options()
    options: dict[str, Any] = {"raw": raw}
    for name in sorted(raw, key=_OPTIONS.index):
        value = raw[name]
        if isinstance(value, dict):
            value = next((text for key, text in value.items() if _is_attribute_value(key, text)), value)
        try:
            options[name] = _option(name, value.strip() if isinstance(value, str) else value)
        except ValueError as rule:
            options["error"] = Reason(f"invalid_{name}"), f"{name} {shown(value)} is not {rule}"
    return Options(**options)


def _option(name: str, value: object) -> object:
    """Return the value of an option; ValueError says what it is not."""
    match name, value:
        case _, None:
            return False if name == "force" else None
        case "force", bool() | str() if str(value).lower() in {"false", "true"}:
            return str(value).lower() == "true"
        case "force", _:
            raise ValueError("true or false")
        case "region", str() if _AWS_REGION.fullmatch(value):
            return None
        case "region", str() if value.upper() in REGIONS:
            return value.upper()
        case "region", _:
            raise ValueError(f"one of {' '.join(sorted(REGIONS))}")
        case _, str() if value and value == printable(value, JOB_NAME_CHARACTERS):
            return value
    raise ValueError(f"a line of 1 to {JOB_NAME_CHARACTERS} printable characters")


def _pairs(value: object) -> Iterator[tuple[str, Any, str]]:
    """Return the name, the value and the value's key of each pair that an object is."""
    for value_key, name_key in _PAIR_KEYS:
        if isinstance(value, dict) and value_key in value and isinstance(value.get(name_key), str):
            yield value[name_key], value[value_key], value_key


def _is_attribute_value(key: str, value: object) -> bool:
    """Return whether a field of a message attribute holds its value: `Value` in SNS, `stringValue` in SQS."""
    return isinstance(value, str) and _normal(key) in {"value", "stringvalue"}


def parse_json(value: object) -> object:
    """Return the object or list in a JSON text, or the list of several, as in JSON lines; anything else unchanged.

    Of a key that is there twice the last value counts. An integer of thousands of digits is returned as a text.
    """
    if not isinstance(value, str) or not begins_like_json(value):
        return value
    values, end = [], 0
    try:
        while (around := _AROUND_JSON.match(value, end)) and around.end() < len(value):
            item, end = _DECODER.raw_decode(value, around.end())
            values.append(item)
    except (ValueError, RecursionError):
        return value
    return values if values[1:] else values[0]


def begins_like_json(text: str) -> bool:
    """Return whether the first character of `text` opens a JSON object or list."""
    return _BEGINS_LIKE_JSON.match(text) is not None


def split(text: str) -> Iterator[str]:
    """Return the words between commas, semicolons and white space, without quotation marks or braces around them."""
    return filter(None, (match[0].strip(_AROUND_AN_ID) for match in _WORD.finditer(text)))


def has_digit(word: str) -> bool:
    """Return whether a word has a digit in it, as every agent ID in a plain text must have."""
    return any(character in "0123456789" for character in word)


def shown(value: object) -> str:
    """Return `value` as a person should read it in an error: on one line, and short."""
    if isinstance(value, str):
        return f"'{printable(value, _SHOWN_CHARACTERS)}'"
    if isinstance(value, (dict, list)):
        return "an object" if isinstance(value, dict) else "a list"
    return printable(json.dumps(value), _SHOWN_CHARACTERS)


def _normal(key: str) -> str:
    """Return a key without its case and separators."""
    return _NOT_IN_KEYS.sub("", key.lower())
