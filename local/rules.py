"""Which events reach the function by the rules and permissions of template.yaml."""

import json
from collections.abc import Iterator, Mapping
from functools import reduce
from itertools import chain
from typing import Any, TypeGuard

from moto.events.models import EventPattern

from local.template import resolve, translate

type Path = tuple[str, ...]

_MISSING = object()
_SHOWN = 80  # characters of a value


def is_eventbridge_event(event: object) -> TypeGuard[dict[str, Any]]:
    """Return whether `event` has the form of an event on EventBridge's bus."""
    if not isinstance(event, dict) or not isinstance(event.get("detail"), dict):
        return False
    return all(event.get(key) and isinstance(event[key], str) for key in ("source", "detail-type"))


def mismatches(event: object) -> list[str]:
    """Return the fields in which `event` does not match the rules, or the permission of an alarm's own action.

    Empty when one of them matches, and for events that need none: from a queue, SNS or a manual invocation.
    """
    found = [list(_mismatches(name, pattern, event)) for name, pattern in _patterns(event)]
    return list(chain.from_iterable(found)) if all(found) else []


def _patterns(event: object) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield an event pattern for each rule or permission in the template that is for events of this kind."""
    template = translate()
    if is_eventbridge_event(event):
        for name, resource in template["Resources"].items():
            if resource["Type"] == "AWS::Events::Rule":
                yield name, resolve(template, resource["Properties"]["EventPattern"])
    elif isinstance(event, dict) and "alarmData" in event:
        permission = resolve(template, template["Resources"]["AlarmActionPermission"]["Properties"])
        prefix = permission["SourceArn"].partition(":alarm:")[2].removesuffix("*")
        yield "AlarmActionPermission", {"alarmData": {"alarmName": [{"prefix": prefix}]}}


def _mismatches(name: str, pattern: Mapping[str, Any], event: Any) -> Iterator[str]:  # noqa: ANN401 (any JSON)
    for path, accepted in _conditions(pattern):
        # All fields must match, so that each can be tested alone by moto, as on the bus ("Creating Amazon EventBridge
        # event patterns" in the user guide).
        alone = reduce(lambda inner, key: {key: inner}, reversed(path), accepted)
        if not EventPattern(None, alone).matches_event(event):
            yield f"{name} needs {'.'.join(path)} to match {json.dumps(accepted)}; it is {_shown(event, path)}"


def _conditions(pattern: Mapping[str, Any], path: Path = ()) -> Iterator[tuple[Path, Any]]:
    for key, node in pattern.items():
        if isinstance(node, dict):
            yield from _conditions(node, (*path, key))
        else:
            yield (*path, key), node


def _shown(value: Any, path: Path) -> str:  # noqa: ANN401 (any JSON)
    for key in path:
        value = value.get(key, _MISSING) if isinstance(value, dict) else _MISSING
    text = "missing" if value is _MISSING else json.dumps(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
