"""Finds agent IDs wherever a JSON value carries them."""

import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from agent_log_capture.core.capture import REGIONS, Reason, is_agent_id
from agent_log_capture.core.printable import printable

# No event of AWS is a third as deep. JSON inside a string counts as one level more.
MAX_DEPTH = 32
# A 6 MB event, the largest that Lambda takes, of nothing but short IDs holds fewer.
MAX_VALUES = 500_000

_AGENT_ID_KEYS = frozenset({"agentid", "agentids"})
_ATTRIBUTE_VALUES = frozenset({"value", "stringvalue"})
_PAIR_KEYS = (("name", "value"), ("Name", "Value"), ("key", "value"), ("Key", "Value"))
_BEFORE_JSON = "\ufeff \t\r\n"
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
    walk = _Walk(extra_keys)
    return walk.gather(walk.visit(value, _ALONE, depth=0))


def find_in_list(values: list[Any], extra_keys: Collection[str] = ()) -> list[Found | Refusal]:
    """Return the agent IDs of a bare list."""
    walk = _Walk(extra_keys)
    return walk.gather(walk.ids(values, "list", _ALONE, depth=0))


def find_in_text(text: str) -> list[Found | Refusal]:
    """Return the agent IDs of a text that separates them by commas, white space or lines."""
    walk = _Walk(())
    return walk.gather(walk.ids(text, "text", _ALONE, depth=0))


def parse_json(text: str) -> Any:  # noqa: ANN401 (it is what json.loads returns)
    """Return the object or list that `text` is the JSON of; None when it is not."""
    if not begins_like_json(text):
        return None
    try:
        return json.loads(text.lstrip(_BEFORE_JSON))
    except (ValueError, RecursionError):
        return None


def begins_like_json(text: str) -> bool:
    """Tell whether the first character of `text` opens a JSON object or list."""
    return text.lstrip(_BEFORE_JSON).startswith(("{", "["))


def opened(value: object) -> object:
    """Return what a string is the JSON of, and anything else as it is."""
    parsed = parse_json(value) if isinstance(value, str) else None
    return value if parsed is None else parsed


class _TooManyValuesError(Exception):
    pass


@dataclass(frozen=True, slots=True)
class _Siblings:
    """What stands beside an agent ID in the same object: it holds for every ID of that object."""

    region: str | None = None
    force: bool = False
    refusal: tuple[Reason, str] | None = None
    as_they_came: Mapping[str, Any] | None = None


_ALONE = _Siblings()


class _Pair(NamedTuple):
    """An object such as `{"name": …, "value": …}`, and which of its keys the value has."""

    name: str
    value: Any
    value_key: str


class _Walk:
    def __init__(self, extra_keys: Collection[str]) -> None:
        self._keys = _AGENT_ID_KEYS | {_normal(key) for key in extra_keys}
        self._values_left = MAX_VALUES
        self._is_too_deep = False

    def gather(self, findings: Iterator[Found | Refusal]) -> list[Found | Refusal]:
        """Return `findings`, or one refusal for far too many of them."""
        try:
            gathered = [self._counted(finding) for finding in findings]
        except _TooManyValuesError:
            return [Refusal(Reason.TOO_LARGE, f"more than {MAX_VALUES:,} values")]
        if self._is_too_deep:
            gathered.append(Refusal(Reason.TOO_DEEP, f"deeper than {MAX_DEPTH} levels: not looked at below"))
        return gathered

    def visit(self, value: object, around: _Siblings, depth: int) -> Iterator[Found | Refusal]:
        """Look for agent IDs in any value; `around` is what the list that it stands in says with its pairs."""
        self._counted(value)
        if isinstance(value, str):
            value = parse_json(value)
            depth += 1
        if not isinstance(value, (dict, list)):
            return
        if depth > MAX_DEPTH:
            self._is_too_deep = True
        elif isinstance(value, dict):
            yield from self._visit_object(value, around, depth)
        else:
            # The pairs of a list belong together as the fields of one object do.
            pairs = _siblings((pair.name, pair.value) for item in value if (pair := _pair(item)))
            for item in value:
                yield from self.visit(item, pairs, depth + 1)

    def ids(self, value: object, key: str, siblings: _Siblings, depth: int) -> Iterator[Found | Refusal]:
        """Read the value of an agent ID key."""
        value = opened(value)
        if isinstance(value, str):
            yield from (_one_id(part, key, siblings) for part in _split(value))
        elif isinstance(value, list):
            for item in value:
                yield from self._item(opened(item), key, siblings, depth)
        elif value is not None:
            yield from self._item(value, key, siblings, depth)

    def _visit_object(self, fields: Mapping[str, Any], around: _Siblings, depth: int) -> Iterator[Found | Refusal]:
        siblings = _siblings(fields.items())
        pair = _pair(fields)
        for key, value in fields.items():
            if pair and key == pair.value_key and self._is_agent_id_key(pair.name):
                yield from self.ids(value, pair.name, siblings if siblings.as_they_came else around, depth)
            elif self._is_agent_id_key(key):
                yield from self.ids(value, key, siblings, depth)
            else:
                yield from self.visit(value, _ALONE, depth + 1)

    def _item(self, value: object, key: str, siblings: _Siblings, depth: int) -> Iterator[Found | Refusal]:
        """Read one value: an ID, a message attribute that holds some, or an object that has some inside."""
        if not isinstance(value, (dict, list)):
            yield _one_id(value, key, siblings)
            return
        attribute = _attribute(value)
        found = self.ids(attribute, key, siblings, depth + 1) if attribute else self.visit(value, _ALONE, depth + 1)
        yield next(found, None) or _one_id(value, key, siblings)
        yield from found

    def _is_agent_id_key(self, key: str) -> bool:
        return _normal(key) in self._keys

    def _counted[T](self, value: T) -> T:
        self._values_left -= 1
        if self._values_left < 0:
            raise _TooManyValuesError
        return value


def _split(text: str) -> Iterator[str]:
    return (part for part in _BETWEEN_IDS.split(text.lstrip("\ufeff")) if part)


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
        return _ALONE
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


def _pair(value: object) -> _Pair | None:
    if not isinstance(value, dict):
        return None
    for name_key, value_key in _PAIR_KEYS:
        if isinstance(value.get(name_key), str) and value_key in value:
            return _Pair(value[name_key], value[value_key], value_key)
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
