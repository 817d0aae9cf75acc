"""`logs`: what both functions log, as lines for people."""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from agent_log_capture.domain.printable import printable
from ops.errors import WELL, OperatorError
from ops.stack import Stack

_OUTPUTS = {"CaptureLogGroupName": "capture", "RotateTokenLogGroupName": "rotate"}
# In this order behind the message; what is no part of it is in the log, for whoever needs more.
_FIELDS = ("agent_id", "status", "reason", "detail", "http_status", "attempts", "asked", "ignored", "step")
_SHOWN_CHARACTERS = 200
_POLL_SECONDS = 2
# A line may reach the log this much later than others that are younger.
_LATE = timedelta(minutes=1)
_SINCE = re.compile(r"(\d{1,6})([smhd])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def parse_since(text: str) -> timedelta:
    """Read `30s`, `10m`, `2h` or `1d`; ValueError for anything else."""
    match = _SINCE.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not a time such as 30s, 10m, 2h or 1d")
    return timedelta(**{_UNITS[match[2]]: int(match[1])})


def logs(
    stack: Stack, *, since: timedelta, follow: bool, now: Callable[[], datetime], pause: Callable[[float], None]
) -> int:
    """Print what was logged `since`, and what is logged from now on until Ctrl-C if `follow`.

    By FilterLogEvents: CloudWatch's live tail costs by the minute, and `sam logs` shows the JSON as it is.
    """
    groups = {stack.outputs[output]: name for output, name in _OUTPUTS.items() if output in stack.outputs}
    if not groups:
        raise OperatorError(f"stack {stack.name} in {stack.region} names no log groups: deploy it again")
    client, start, seen = stack.client("logs"), now() - since, set[str]()
    try:
        while True:
            began = now()
            events = [(event, name) for group, name in groups.items() for event in _events(client, group, start)]
            for event, name in sorted(events, key=lambda item: item[0]["timestamp"]):
                if event["eventId"] not in seen and (line := shown_line(event, name)):
                    print(line, flush=True)
            seen = {event["eventId"] for event, _ in events}
            if not follow:
                return WELL
            start = max(start, began - _LATE)
            pause(_POLL_SECONDS)
    except KeyboardInterrupt:
        return WELL


def _events(client: Any, group: str, start: datetime) -> Iterator[Mapping[str, Any]]:  # noqa: ANN401 (no types)
    for page in client.get_paginator("filter_log_events").paginate(
        logGroupName=group, startTime=int(start.timestamp() * 1000)
    ):
        yield from page["events"]


def shown_line(event: Mapping[str, Any], name: str) -> str | None:
    """Return a log event as a line; None for metrics and for what Lambda logs when all is well."""
    moment = f"{datetime.fromtimestamp(event['timestamp'] / 1000, UTC):%Y-%m-%d %H:%M:%S}"
    text = event["message"].rstrip()
    fields = _fields(text)
    if fields is None:
        is_noise = text.startswith(("INIT_START ", "START ", "END ", "REPORT ")) and "Error" not in text
        return None if is_noise else f"{moment} {name:7} {'':7} {_shown(text)}"
    if "_aws" in fields:
        return None
    said = " ".join(f"{key}={_shown(fields[key])}" for key in _FIELDS if fields.get(key) is not None)
    exception = f" {_shown(fields['exception'].splitlines()[-1])}" if fields.get("exception") else ""
    message = f"{_shown(fields.get('message', ''))} {said}".rstrip()
    return f"{moment} {name:7} {_shown(fields.get('level', '')):7} {message}{exception}"


def _fields(text: str) -> dict[str, Any] | None:
    try:
        fields = json.loads(text)
    except ValueError:
        return None
    return fields if isinstance(fields, dict) else None


def _shown(value: object) -> str:
    return printable(value if isinstance(value, str) else json.dumps(value), _SHOWN_CHARACTERS)
