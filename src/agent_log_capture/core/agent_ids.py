"""Finds agent IDs wherever a JSON value carries them."""

import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from agent_log_capture.core.capture import REGIONS, Reason, is_agent_id
from agent_log_capture.core.printable import printable

# No event of AWS is a third as deep. JSON inside a string counts as one level more.
MAX_DEPTH = 32
# A 6 MB event, the largest that Lambda takes, of nothing but short IDs holds fewer.
MAX_VALUES = 500_000

_AGENT_ID_KEYS = frozenset({"agentid", "agentids"})
_ATTRIBUTE_VALUES = frozenset({"value", "stringvalue"})
_PAIR_KEYS = (("name", "value"), ("Name", "Value"), ("key", "value"), ("Key", "Value"))
_BETWEEN_IDS = re.compile(r"[,\s]+")
_NOT_IN_KEYS = re.compile(r"[^a-z0-9]")
_AWS_REGION = re.compile(r"[a-z]{2,4}(-[a-z]+)+-\d{1,2}")
_SHOWN_CHARACTERS = 80
_ID_RULE = "an agent ID is 1 to 128 characters of A-Z a-z 0-9 _ -"


@dataclass(frozen=True, slots=True)
class Found:
    """An agent ID, with what stood beside it; `region` is None where none was named."""

    agent_id: str
    region: str | None = None
    force: bool = False


@dataclass(frozen=True, slots=True)
class Refusal:
    """A value that should have been an agent ID and is none, or cannot be used.

    `value` is fit to be shown; `content` is the value as it came, with what stood beside it, or None when it is
    not one value that is refused.
    """

    reason: Reason
    message: str
    value: str = ""
    content: Mapping[str, Any] | None = None


def find(value: object, extra_keys: Collection[str] = ()) -> list[Found | Refusal]:
    """Return what `value` holds under agent ID keys and `extra_keys`, in the order in which it stands there."""
    walk = _Walk(_AGENT_ID_KEYS | {_normal(key) for key in extra_keys})
    try:
        findings = list(walk.visit(value, depth=0))
    except _TooManyValuesError:
        return [Refusal(Reason.TOO_LARGE, f"more than {MAX_VALUES:,} values")]
    if walk.is_too_deep:
        findings.append(Refusal(Reason.TOO_DEEP, f"deeper than {MAX_DEPTH} levels: not looked at below"))
    return findings


def find_in_list(values: Iterable[object]) -> list[Found | Refusal]:
    """Return the agent IDs of a bare list."""
    return [_one_id(value, "list", _Siblings()) for value in values]


def find_in_text(text: str) -> list[Found | Refusal]:
    """Return the agent IDs of a text that separates them by commas, white space or lines."""
    return [_one_id(part, "text", _Siblings()) for part in _split(text)]


def parse_json(text: str) -> Any:  # noqa: ANN401 (it is what json.loads returns)
    """Return the object or list that `text` is the JSON of; None when it is not."""
    if not begins_like_json(text):
        return None
    try:
        return json.loads(text.lstrip("\ufeff"))
    except (ValueError, RecursionError):
        return None


def begins_like_json(text: str) -> bool:
    """Tell whether the first character of `text` opens a JSON object or list."""
    return text[:64].lstrip("\ufeff \t\r\n").startswith(("{", "["))


class _TooManyValuesError(Exception):
    pass


@dataclass(frozen=True, slots=True)
class _Siblings:
    """What stands beside an agent ID in the same object: it holds for every ID of that object."""

    region: str | None = None
    force: bool = False
    refusal: tuple[Reason, str] | None = None
    as_they_came: Mapping[str, Any] | None = None


class _Walk:
    def __init__(self, keys: Collection[str]) -> None:
        self._keys = keys
        self._values_left = MAX_VALUES
        self.is_too_deep = False

    def visit(self, value: object, depth: int) -> Iterator[Found | Refusal]:
        self._values_left -= 1
        if self._values_left < 0:
            raise _TooManyValuesError
        if isinstance(value, str):
            value = parse_json(value)
            depth += 1
        if not isinstance(value, (dict, list)):
            return
        if depth > MAX_DEPTH:
            self.is_too_deep = True
        elif isinstance(value, dict):
            yield from self._visit_object(value, depth)
        else:
            yield from self._visit_list(value, depth)

    def _visit_object(self, fields: Mapping[str, Any], depth: int) -> Iterator[Found | Refusal]:
        siblings = _siblings(fields.items())
        for key, value in fields.items():
            yield from self._visit_field(key, value, siblings, depth)
        if pair := _pair(fields):
            yield from self._visit_field(*pair, siblings, depth)

    def _visit_list(self, values: list[Any], depth: int) -> Iterator[Found | Refusal]:
        """Read a list; the pairs in it belong together as the fields of one object do."""
        pairs = [_pair(value) for value in values]
        siblings = _siblings(pair for pair in pairs if pair)
        for value, pair in zip(values, pairs, strict=True):
            if pair and _normal(pair[0]) in self._keys:
                yield from self._visit_field(*pair, siblings, depth)
            else:
                yield from self.visit(value, depth + 1)

    def _visit_field(self, key: str, value: object, siblings: _Siblings, depth: int) -> Iterator[Found | Refusal]:
        if _normal(key) in self._keys:
            yield from self._ids(value, key, siblings, depth)
        else:
            yield from self.visit(value, depth + 1)

    def _ids(self, value: object, key: str, siblings: _Siblings, depth: int) -> Iterator[Found | Refusal]:
        """Read the value of an agent ID key."""
        if isinstance(value, str) and (parsed := parse_json(value)) is not None:
            value = parsed
        if isinstance(value, str):
            yield from (_one_id(part, key, siblings) for part in _split(value))
        elif isinstance(value, list):
            for item in value:
                yield from self._item(item, key, siblings, depth)
        elif value is not None:
            yield from self._item(value, key, siblings, depth)

    def _item(self, value: object, key: str, siblings: _Siblings, depth: int) -> Iterator[Found | Refusal]:
        """Read one value: an ID, a message attribute that holds one, or an object that has one inside."""
        self._values_left -= 1
        if not isinstance(value, (dict, list)):
            yield _one_id(value, key, siblings)
            return
        attribute = _attribute(value)
        inside = _split_ids(attribute, key, siblings) if attribute else list(self.visit(value, depth + 1))
        yield from inside or [_one_id(value, key, siblings)]


def _split(text: str) -> Iterator[str]:
    return (part for part in _BETWEEN_IDS.split(text.lstrip("\ufeff")) if part)


def _split_ids(text: str, key: str, siblings: _Siblings) -> list[Found | Refusal]:
    return [_one_id(part, key, siblings) for part in _split(text)]


def _one_id(value: object, key: str, siblings: _Siblings) -> Found | Refusal:
    value = value.strip() if isinstance(value, str) else value
    content = {"agent_id": value, **(siblings.as_they_came or {})}
    if not isinstance(value, str) or not is_agent_id(value):
        message = f"{printable(key, _SHOWN_CHARACTERS)}: {_ID_RULE}"
        return Refusal(Reason.INVALID_AGENT_ID, message, shown(value), content)
    if siblings.refusal:
        return Refusal(*siblings.refusal, shown(value), content)
    return Found(value, siblings.region, siblings.force)


def _siblings(fields: Iterable[tuple[str, Any]]) -> _Siblings:
    """Read the `region` and `force` of an object."""
    named = {name: value for key, value in fields if (name := _normal(key)) in {"region", "force"}}
    if not named:
        return _Siblings()
    try:
        region, force = _region(named.get("region")), _force(named.get("force"))
    except _RefusedFieldError as error:
        return _Siblings(refusal=error.refusal, as_they_came=named)
    return _Siblings(region, force, None, named)


class _RefusedFieldError(Exception):
    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.refusal = reason, message


def _region(value: object) -> str | None:
    if value is None or (isinstance(value, str) and _AWS_REGION.fullmatch(value)):
        return None
    region = value.strip().upper() if isinstance(value, str) else None
    if region not in REGIONS:
        rule = f"region {shown(value)} is not one of {' '.join(sorted(REGIONS))}"
        raise _RefusedFieldError(Reason.INVALID_REGION, rule)
    return region


def _force(value: object) -> bool:
    word = value.strip().lower() if isinstance(value, str) else value
    if word in (None, False, True, "false", "true"):
        return word in (True, "true")
    raise _RefusedFieldError(Reason.INVALID_FORCE, f"force {shown(value)} is not true or false")


def _pair(value: object) -> tuple[str, Any] | None:
    """Return the name and value of an object such as `{"name": …, "value": …}`."""
    if not isinstance(value, dict):
        return None
    for name, content in _PAIR_KEYS:
        if isinstance(value.get(name), str) and content in value:
            return value[name], value[content]
    return None


def _attribute(value: object) -> str | None:
    """Return the value of a message attribute: SNS says `Value`, SQS `stringValue`."""
    if not isinstance(value, dict):
        return None
    texts = (text for key, text in value.items() if _normal(key) in _ATTRIBUTE_VALUES)
    return next((text for text in texts if isinstance(text, str)), None)


def _normal(key: str) -> str:
    return _NOT_IN_KEYS.sub("", key.lower())


def shown(value: object) -> str:
    """Return `value` as a person should read it in an error: on one line, and short."""
    if isinstance(value, str):
        return f"'{printable(value, _SHOWN_CHARACTERS)}'"
    if isinstance(value, (dict, list)):
        return "an object" if isinstance(value, dict) else "a list"
    return printable(json.dumps(value), _SHOWN_CHARACTERS)
