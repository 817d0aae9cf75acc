"""Reads agent IDs out of texts and single values, and what stands beside them in an object."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from agent_log_capture.domain.capture import JOB_NAME_CHARACTERS, REGIONS, is_agent_id
from agent_log_capture.domain.outcome import Reason
from agent_log_capture.domain.printable import printable

_ATTRIBUTE_VALUES = frozenset({"value", "stringvalue"})
# For the key that a pair has its value under, those that it may have its name under.
_PAIR_KEYS = {"value": ("name", "key"), "Value": ("Name", "Key")}
_AROUND_JSON = re.compile(r"[\ufeff \t\r\n]*")
# An ID in braces, as Windows writes a GUID, is not JSON.
_BEGINS_LIKE_JSON = re.compile(r"[\ufeff \t\r\n]*(?:\[|\{(?![A-Za-z0-9_-]{1,128}\}))")
_WORD = re.compile(r"[^,;\s]+")
# Quotation marks and braces, and the mark that an editor may put before a text.
_AROUND_AN_ID = "\"'“”‘’{}\ufeff"  # noqa: RUF001 (what a mail program makes of quotation marks)
_DIGIT = re.compile(r"[0-9]")
_NOT_IN_KEYS = re.compile(r"[^a-z0-9]")
_AWS_REGION = re.compile(r"[a-z]{2,4}(-[a-z]+)+-\d{1,2}")
_SHOWN_CHARACTERS = 80
_ID_RULE = "an agent ID is 1 to 128 characters of A-Z a-z 0-9 _ -"


class Content(NamedTuple):
    """A value as it came, and the `region`, `force` and `job` that stood beside it."""

    value: Any
    beside: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class InvalidValue:
    """A value that should have been an agent ID and is not one, or cannot be used.

    `value` is fit to be shown; `content` is None when it is not one value that is refused.
    """

    reason: Reason
    message: str
    value: str = ""
    content: Content | None = None
    job: str | None = None


@dataclass(frozen=True, slots=True)
class Beside:
    """What stands beside agent IDs in the same object, and holds for each of them; None where nothing is said."""

    region: str | None = None
    force: bool = False
    job: str | None = None
    refusal: tuple[Reason, str] | None = None
    as_they_came: Mapping[str, Any] = field(default_factory=dict)


NOTHING_BESIDE = Beside()


class Found(NamedTuple):
    """An agent ID, and what stands beside it."""

    agent_id: str
    beside: Beside


def parse_json(text: str) -> Any:  # noqa: ANN401 (any JSON value may stand there)
    """Return the object or list that `text` is the JSON of, or the list of several, as JSON lines; None otherwise.

    A key that is said twice means its last value. An integer of thousands of digits stays a text.
    """
    if not begins_like_json(text):
        return None
    try:
        values = list(_json_values(text))
    except (ValueError, RecursionError):
        return None
    return values if values[1:] else values[0]


def _json_values(text: str) -> Iterator[Any]:
    decoder = json.JSONDecoder(parse_int=_integer)
    end = 0
    while (around := _AROUND_JSON.match(text, end)) and around.end() < len(text):
        value, end = decoder.raw_decode(text, around.end())
        yield value


def _integer(digits: str) -> int | str:
    try:
        return int(digits)
    except ValueError:
        return digits


def begins_like_json(text: str) -> bool:
    """Tell whether the first character of `text` opens a JSON object or list."""
    return _BEGINS_LIKE_JSON.match(text) is not None


def opened(value: object) -> object:
    """Return what a string is the JSON of, and anything else as it is."""
    parsed = parse_json(value) if isinstance(value, str) else None
    return value if parsed is None else parsed


def split(text: str) -> Iterator[str]:
    """Return the words between commas, semicolons and white space, out of their quotation marks or braces."""
    words = (match[0].strip(_AROUND_AN_ID) for match in _WORD.finditer(text))
    return (word for word in words if word)


def has_digit(word: str) -> bool:
    """Tell whether a word has a digit in it, as every agent ID in a plain text must have."""
    return _DIGIT.search(word) is not None


def one_id(value: object, key: str, beside: Beside) -> Found | InvalidValue:
    """Read one value that should be an agent ID; `key` tells a person where it stood."""
    agent_id = value.strip().strip(_AROUND_AN_ID) if isinstance(value, str) else ""
    content = Content(value, beside.as_they_came)
    if not is_agent_id(agent_id):
        message = f"{printable(key, _SHOWN_CHARACTERS)}: {_ID_RULE}"
        return InvalidValue(Reason.INVALID_AGENT_ID, message, shown(value), content, beside.job)
    if beside.refusal:
        return InvalidValue(*beside.refusal, shown(value), content, beside.job)
    return Found(agent_id, beside)


def read_beside(fields: Iterable[tuple[str, Any]]) -> Beside:
    """Read the `region`, `force` and `job` of an object."""
    said = {normal(key): value for key, value in fields if normal(key) in {"region", "force", "job"}}
    if not said:
        return NOTHING_BESIDE
    beside = Beside(as_they_came=said)
    try:
        # The job first: what is refused for another field's sake counts in it.
        beside = replace(beside, job=_job(_said(said.get("job"))))
        return replace(beside, region=_region(_said(said.get("region"))), force=_force(_said(said.get("force"))))
    except _RefusedFieldError as error:
        return replace(beside, refusal=error.refusal)


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


def _job(value: object) -> str | None:
    name = value.strip() if isinstance(value, str) else value
    if name is None or (isinstance(name, str) and name and name == printable(name, JOB_NAME_CHARACTERS)):
        return name
    rule = f"job {shown(value)} is not a line of 1 to {JOB_NAME_CHARACTERS} printable characters"
    raise _RefusedFieldError(Reason.INVALID_JOB, rule)


def pairs(value: object) -> Iterator[tuple[str, Any, str]]:
    """Return what an object says as a name and a value, in either spelling, with the key that the value has."""
    fields: dict[str, Any] = value if isinstance(value, dict) else {}
    for value_key, name_keys in _PAIR_KEYS.items():
        names = map(fields.get, name_keys) if value_key in fields else ()
        yield from ((name, fields[value_key], value_key) for name in names if isinstance(name, str))


def attribute_texts(value: object) -> Iterator[tuple[str, str]]:
    """Return the fields of a message attribute that hold its value: SNS says `Value`, SQS `stringValue`."""
    for key, text in value.items() if isinstance(value, dict) else ():
        if normal(key) in _ATTRIBUTE_VALUES and isinstance(text, str):
            yield key, text


def _said(value: object) -> object:
    """Return the text that a message attribute holds, and anything else as it is."""
    return next((text for _, text in attribute_texts(value)), value)


def normal(key: str) -> str:
    """Return a key without its case and separators."""
    return _NOT_IN_KEYS.sub("", key.lower())


def shown(value: object) -> str:
    """Return `value` as a person should read it in an error: on one line, and short."""
    if isinstance(value, str):
        return f"'{printable(value, _SHOWN_CHARACTERS)}'"
    if isinstance(value, (dict, list)):
        return "an object" if isinstance(value, dict) else "a list"
    return printable(json.dumps(value), _SHOWN_CHARACTERS)
