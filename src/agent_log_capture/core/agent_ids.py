"""Finds agent IDs wherever a JSON value carries them."""

import json
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import filterfalse, product
from typing import Any, NamedTuple, TypeGuard, override

from agent_log_capture.core.capture import JOB_NAME_CHARACTERS, REGIONS, Reason, is_agent_id
from agent_log_capture.core.printable import printable

# No event of AWS is a third as deep. JSON inside a string counts as one level more.
MAX_DEPTH = 32
# A 6 MB event, the largest that Lambda takes, of nothing but short IDs holds fewer.
MAX_VALUES = 500_000

_AGENT_ID_KEYS = frozenset({"agentid", "agentids"})
_ATTRIBUTE_VALUES = frozenset({"value", "stringvalue"})
# For the key that a pair has its value under, those that it may have its name under.
_PAIR_KEYS = {"value": ("name", "key"), "Value": ("Name", "Key")}
_BEFORE_JSON = "\ufeff \t\r\n"
_BETWEEN_IDS = re.compile(r"[,\s]+")
_NOT_IN_KEYS = re.compile(r"[^a-z0-9]")
_AWS_REGION = re.compile(r"[a-z]{2,4}(-[a-z]+)+-\d{1,2}")
_SHOWN_CHARACTERS = 80
_ID_RULE = "an agent ID is 1 to 128 characters of A-Z a-z 0-9 _ -"


@dataclass(frozen=True, slots=True)
class Found:
    """An agent ID, with what stood beside it; `region` and `job` are None where none was named."""

    agent_id: str
    region: str | None = None
    force: bool = False
    job: str | None = None


class Content(NamedTuple):
    """A value as it came, and the `region`, `force` and `job` that stood beside it."""

    value: Any
    beside: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Refusal:
    """A value that should have been an agent ID and is none, or cannot be used.

    `value` is fit to be shown; `content` is None when it is not one value that is refused.
    """

    reason: Reason
    message: str
    value: str = ""
    content: Content | None = None
    job: str | None = None


class Repeating(dict[str, Any]):
    """A JSON object that says a key more than once.

    A look-up finds what the key said first; `items`, and with it `json.dumps`, has all that was said.
    """

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(reversed(pairs))
        self._pairs = pairs

    @override
    def items(self) -> Sequence[tuple[str, Any]]:  # type: ignore[override]  # a view says a key once
        return self._pairs


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
    """Return the object or list that `text` is the JSON of; None when it is not.

    An object that says a key more than once is a `Repeating`. An integer of thousands of digits stays a text.
    """
    if not begins_like_json(text):
        return None
    try:
        return json.loads(text.lstrip(_BEFORE_JSON), object_pairs_hook=_object, parse_int=_integer)
    except (ValueError, RecursionError):
        return None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    return fields if len(fields) == len(pairs) else Repeating(pairs)


def _integer(digits: str) -> int | str:
    try:
        return int(digits)
    except ValueError:
        return digits


def is_object(value: object) -> TypeGuard[dict[str, Any]]:
    """Tell whether a value is a JSON object that says each key once, so that there is no doubt what it says."""
    return isinstance(value, dict) and not isinstance(value, Repeating)


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
    job: str | None = None
    refusal: tuple[Reason, str] | None = None
    as_they_came: Mapping[str, Any] = field(default_factory=dict)


_ALONE = _Siblings()


class _Pair(NamedTuple):
    """The names and values of an object such as `{"name": …, "value": …}`, and which of its keys the values have.

    There is one of each, unless somebody wants to know which of two counts.
    """

    names: Sequence[str]
    values: Sequence[Any]
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
            pairs = [pair for item in value for pair in _pairs(item)]
            siblings = _siblings(self._counted(said) for pair in pairs for said in product(pair.names, pair.values))
            for item in value:
                yield from self.visit(item, siblings, depth + 1)

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
        names = self._names_of_values(fields)
        for key, value in fields.items():
            if key in names:
                yield from self.ids(value, names[key], siblings if siblings.as_they_came else around, depth)
            elif self._is_agent_id_key(key):
                yield from self.ids(value, key, siblings, depth)
            else:
                yield from self.visit(value, _ALONE, depth + 1)

    def _names_of_values(self, fields: Mapping[str, Any]) -> Mapping[str, str]:
        """Return under which agent ID key the values of pairs stand, by the key that they have in the object."""
        named = [(pair.value_key, name) for pair in _pairs(fields) for name in pair.names]
        return {value_key: name for value_key, name in named if self._is_agent_id_key(name)}

    def _item(self, value: object, key: str, siblings: _Siblings, depth: int) -> Iterator[Found | Refusal]:
        """Read one value: an ID, a message attribute that holds some, or an object that has some inside."""
        found = self._inside(value, key, siblings, depth) if isinstance(value, (dict, list)) else iter(())
        yield next(found, None) or _one_id(value, key, siblings)
        yield from found

    def _inside(
        self, value: dict[str, Any] | list[Any], key: str, siblings: _Siblings, depth: int
    ) -> Iterator[Found | Refusal]:
        """Read what a message attribute holds, and look through the rest."""
        fields = list(value.items()) if isinstance(value, dict) else []
        for _, text in filter(_is_attribute, fields):
            yield from self.ids(text, key, siblings, depth + 1)
        rest = _object(list(filterfalse(_is_attribute, fields))) if fields else value
        yield from self.visit(rest, _ALONE, depth + 1)

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
    content = Content(value, siblings.as_they_came)
    if not isinstance(value, str) or not is_agent_id(value):
        message = f"{printable(key, _SHOWN_CHARACTERS)}: {_ID_RULE}"
        return Refusal(Reason.INVALID_AGENT_ID, message, shown(value), content, siblings.job)
    if siblings.refusal:
        return Refusal(*siblings.refusal, shown(value), content, siblings.job)
    return Found(value, siblings.region, siblings.force, siblings.job)


def _siblings(fields: Iterable[tuple[str, Any]]) -> _Siblings:
    """Read the `region`, `force` and `job` of an object."""
    named: defaultdict[str, list[Any]] = defaultdict(list)
    for key, value in fields:
        if (name := _normal(key)) in {"region", "force", "job"}:
            named[name].append(value)
    if not named:
        return _ALONE
    as_they_came = {name: values if values[1:] else values[0] for name, values in named.items()}
    siblings = _Siblings(as_they_came=as_they_came)
    try:
        # The job first: what is refused for another field's sake counts in it.
        siblings = replace(siblings, job=_job(named["job"]))
        return replace(siblings, region=_region(named["region"]), force=_force(named["force"]))
    except _RefusedFieldError as error:
        return replace(siblings, refusal=error.refusal)


class _RefusedFieldError(Exception):
    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.refusal = reason, message


def _region(values: Iterable[object]) -> str | None:
    return _agreed("region", Reason.INVALID_REGION, map(_one_region, values))


def _one_region(value: object) -> str | None:
    if value is None or (isinstance(value, str) and _AWS_REGION.fullmatch(value)):
        return None
    region = value.strip().upper() if isinstance(value, str) else None
    if region not in REGIONS:
        rule = f"region {shown(value)} is not one of {' '.join(sorted(REGIONS))}"
        raise _RefusedFieldError(Reason.INVALID_REGION, rule)
    return region


def _force(values: Iterable[object]) -> bool:
    return _agreed("force", Reason.INVALID_FORCE, map(_one_force, values)) or False


def _one_force(value: object) -> bool | None:
    word = value.strip().lower() if isinstance(value, str) else value
    if word in (None, False, True, "false", "true"):
        return None if word is None else word in (True, "true")
    raise _RefusedFieldError(Reason.INVALID_FORCE, f"force {shown(value)} is not true or false")


def _job(values: Iterable[object]) -> str | None:
    return _agreed("job", Reason.INVALID_JOB, map(_one_job, values))


def _one_job(value: object) -> str | None:
    name = value.strip() if isinstance(value, str) else value
    if name is None or (isinstance(name, str) and name and name == printable(name, JOB_NAME_CHARACTERS)):
        return name
    rule = f"job {shown(value)} is not a line of 1 to {JOB_NAME_CHARACTERS} printable characters"
    raise _RefusedFieldError(Reason.INVALID_JOB, rule)


def _agreed[T](name: str, reason: Reason, values: Iterable[T | None]) -> T | None:
    """Return what every value says, as far as it says anything."""
    said = list(dict.fromkeys(value for value in values if value is not None))
    if said[1:]:
        raise _RefusedFieldError(reason, f"{name} {shown(said[0])} contradicts {name} {shown(said[1])}")
    return said[0] if said else None


def _pairs(value: object) -> Iterator[_Pair]:
    """Return what an object says as a name and a value, in either spelling."""
    if not isinstance(value, dict):
        return
    for value_key, name_keys in _PAIR_KEYS.items():
        if value_key in value:
            names = [name for key, name in value.items() if key in name_keys and isinstance(name, str)]
            yield _Pair(names, [each for key, each in value.items() if key == value_key], value_key)


def _is_attribute(field: tuple[str, Any]) -> bool:
    """Tell whether a field is the value of a message attribute: SNS says `Value`, SQS `stringValue`."""
    key, value = field
    return _normal(key) in _ATTRIBUTE_VALUES and isinstance(value, str)


def _normal(key: str) -> str:
    return _NOT_IN_KEYS.sub("", key.lower())


def shown(value: object) -> str:
    """Return `value` as a person should read it in an error: on one line, and short."""
    if isinstance(value, str):
        return f"'{printable(value, _SHOWN_CHARACTERS)}'"
    if isinstance(value, (dict, list)):
        return "an object" if isinstance(value, dict) else "a list"
    return printable(json.dumps(value), _SHOWN_CHARACTERS)
