"""Finds agent IDs in an event: walks through JSON, also inside strings, and reads lists and plain texts."""

import json
import re
from collections.abc import Collection, Iterator, Mapping
from datetime import datetime
from itertools import islice
from types import NoneType
from typing import Any, NamedTuple

from agent_log_capture.domain.capture import JOB_NAME_CHARACTERS, REGIONS, Capture, is_agent_id
from agent_log_capture.domain.events.envelopes import CAPTURES, OWN_NOTIFICATION, Recognized, recognize
from agent_log_capture.domain.outcome import Reason, Trigger
from agent_log_capture.domain.printable import printable
from agent_log_capture.domain.queue_message import from_json

# An event that fails after a replay lies five levels deeper each time. JSON inside a string counts as one level more.
MAX_DEPTH = 64
# Of all records of one invocation. The 6 MB that Lambda takes at most are 170,000 agent IDs as the API makes them;
# this many take at most half of the memory that the function has by default (tests/unit/test_memory.py).
MAX_VALUES = 200_000
# Of several invalid options, the last is reported.
_OPTION_RULES = {
    "force": "true or false",
    "region": f"one of {' '.join(sorted(REGIONS))}",
    "job": f"a line of 1 to {JOB_NAME_CHARACTERS} printable characters",
}
# Of a pair, for the key of its value: the keys that its name may have.
_NAME_KEYS = {"value": ("name", "key"), "Value": ("Name", "Key")}
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
        self._findings, values_left = [], self._values_left
        self._message(event, event, Recognized(self._manual))
        if self._values_left < 0:
            self._values_left = values_left  # nothing of this event is used
            rule = f"more than {MAX_VALUES:,} values came at once"
            self._findings = [InvalidValue(self._innermost.trigger, Reason.TOO_LARGE, rule)]
        return self._findings

    def _message(self, message: object, body: object, recognized: Recognized, depth: int = 0) -> None:
        """Read an event, or the body and then the attributes of a message; reject it if nothing is found.

        A body may be a plain text, or a list of IDs that no key names.
        """
        self._innermost, self._prose = recognized, ""
        at, count, content = _Place(recognized.trigger, depth), len(self._findings), parse_json(body)
        if isinstance(content, str):
            self._text(content, at._replace(key="text"))
        else:
            is_list = isinstance(content, list) and any(isinstance(item, str) for item in content)
            self._visit(body, at._replace(key="list") if is_list else at)
        if recognized.body and isinstance(message, dict):
            is_own = any(getattr(each, "because", "") == OWN_NOTIFICATION for each in self._findings[count:])
            if not is_own:  # its attributes name its agent again
                self._fields({key: message[key] for key in message if key != recognized.body}, at)
        if len(self._findings) == count:
            trigger, because = self._innermost.trigger, self._innermost.ignored_if_empty
            nothing = InvalidValue(trigger, Reason.NO_AGENT_ID, "the event holds no agent ID", message, self._prose)
            self._findings.append(Ignored(trigger, because) if because else nothing)

    def _text(self, text: str, at: _Place) -> None:
        """Read a plain text: a list of IDs, a list that has a heading, or prose."""
        if begins_like_json(text):
            self._reject(at, Reason.INVALID_JSON, "the text begins like JSON and is not JSON", text, shown(text))
            return
        words = self._words(text)
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
        self._values_left -= 1
        if self._values_left < 0:
            return
        content, count = parse_json(value), len(self._findings)
        at = at if content is value else at._replace(depth=at.depth + 1)
        if isinstance(content, (dict, list)) and at.depth > MAX_DEPTH:
            self._reject(at, Reason.TOO_DEEP, f"deeper than {MAX_DEPTH} levels: not looked at below", content)
        elif isinstance(content, dict):
            if recognized := recognize(content, at.trigger):
                self._envelope(content, recognized, at)
            else:
                self._fields(content, at)
        elif isinstance(content, list):
            self._list(content, at._replace(key="") if is_item else at)
        elif isinstance(content, str) and at.key and not is_item:
            self._values_left += 1  # its words count instead
            for word in self._words(content):
                self._id(word, at)
        if at.key and len(self._findings) == count and (is_item or not isinstance(content, (str, list, NoneType))):
            self._id(content, at)

    def _envelope(self, fields: dict[str, Any], recognized: Recognized, at: _Place) -> None:
        """Read an event or a message."""
        if recognized.trigger is not at.trigger:
            self._innermost = recognized
        if recognized.ignored:
            self._findings.append(Ignored(recognized.trigger, recognized.ignored))
        elif recognized.body == CAPTURES:
            for item in fields[CAPTURES]:
                if self._values_left < 0:
                    break  # the whole event is rejected
                try:
                    self._findings.append(from_json(item, self._now))
                except ValueError:  # not written by this function, so it is read like any event
                    self._message(item, item, Recognized(at.trigger), at.depth + 1)
        elif recognized.body:
            self._message(fields, fields.get(recognized.body), recognized, at.depth + 1)
        else:
            self._fields(fields, at._replace(trigger=recognized.trigger))

    def _list(self, items: list[Any], at: _Place) -> None:
        raw = {}  # the pairs of a list belong together like the fields of an object
        for pair in (item for item in items if isinstance(item, dict)):
            for key in _NAME_KEYS:
                if key in pair and (name := _pair_name(pair, key, _OPTION_RULES)):
                    raw[_normal(name)] = pair[key]
        inner = at._replace(depth=at.depth + 1, options=_options(raw) if raw else at.options)
        for item in items:
            self._visit(item, inner, is_item=True)

    def _fields(self, fields: dict[str, Any], at: _Place) -> None:
        raw = {name: value for key, value in fields.items() if (name := _normal(key)) in _OPTION_RULES}
        options = _options(raw) if raw else Options()
        inner = _Place(at.trigger, at.depth + 1)
        for key, value in fields.items():
            place = inner
            if key in _NAME_KEYS and (name := _pair_name(fields, key, self._keys)):
                place = inner._replace(key=name, options=options if raw else at.options)
            elif _normal(key) in self._keys:
                place = inner._replace(key=key, options=options)
            elif at.key and _is_attribute_value(key, value):
                place = inner._replace(key=at.key, options=at.options)
            self._visit(value, place)

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

    def _words(self, text: str) -> list[str]:
        """Return and count the words of a text: as many as may be read, or one more, which rejects the event."""
        words = list(islice(split(text), max(self._values_left, 0) + 1))
        self._values_left -= len(words)
        return words


def _options(raw: Mapping[str, Any]) -> Options:
    options: dict[str, Any] = {"raw": raw}
    for name, rule in _OPTION_RULES.items():
        value = raw.get(name)
        if isinstance(value, dict):
            value = next((text for key, text in value.items() if _is_attribute_value(key, text)), value)
        match name, value.strip() if isinstance(value, str) else value:
            case _, None:
                pass
            case "force", bool() | str() as text if str(text).lower() in {"false", "true"}:
                options[name] = str(text).lower() == "true"
            case "region", str(text) if text.upper() in REGIONS or _AWS_REGION.fullmatch(text):
                options[name] = text.upper() if text.upper() in REGIONS else None
            case "job", str(text) if text and text == printable(text, JOB_NAME_CHARACTERS):
                options[name] = text
            case _:
                options["error"] = Reason(f"invalid_{name}"), f"{name} {shown(value)} is not {rule}"
    return Options(**options)


def _pair_name(fields: Mapping[str, Any], value_key: str, names: Collection[str]) -> str:
    """Return the name of the pair whose value is at `value_key`, if it is one of `names`."""
    found = (fields.get(key) for key in _NAME_KEYS[value_key])
    return next((name for name in found if isinstance(name, str) and _normal(name) in names), "")


def _is_attribute_value(key: str, value: object) -> bool:
    """Return whether a field of a message attribute holds its value: `Value` in SNS, `stringValue` in SQS."""
    return isinstance(value, str) and _normal(key) in {"value", "stringvalue"}


def parse_json(value: object) -> object:
    """Return the object or list in a JSON text, or the list of several, as in JSON lines; anything else unchanged.

    Of a key that is there twice the last value counts. An integer of thousands of digits is returned as a text.
    """
    if not isinstance(value, str) or not _BEGINS_LIKE_JSON.match(value):
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
