"""The settings of the functions, read from their environment."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from functools import partial
from typing import Self

from agent_log_capture.domain.auth_token import PROJECT_ID
from agent_log_capture.domain.capture import REGIONS

_LONGEST_SECONDS = 604_800  # a week, as in the template; SQS keeps what waits for two
_HIGHEST_PORT = 65_535
_LABEL = "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
# Only what every parser reads alike: with a user name, a backslash, white space or what is not ASCII in it, the host
# that is checked here may not be the one that is called.
_URL = re.compile(
    rf"""
        (https://({_LABEL}(\.{_LABEL})* | \[::1\]) | http://(127\.0\.0\.1 | localhost | \[::1\]))
        (:(?P<port>[0-9]{{1,5}}))?
        (/[a-z0-9._~-]+)* /*
    """,
    re.ASCII | re.IGNORECASE | re.VERBOSE,
)


class SettingError(ValueError):
    """A setting is missing or wrong; the message names it."""


def _text(name: str, value: str) -> str:
    if not value:
        raise SettingError(f"{name} is not set")
    return value


def _words(_name: str, value: str) -> tuple[str, ...]:
    return tuple(filter(None, map(str.strip, value.split(","))))


def _url(name: str, value: str, *, may_name_region: bool = False) -> str:
    url = _URL.fullmatch(value.replace("{region}", "dfw") if may_name_region else value)
    if not url or not 0 < int(url["port"] or 1) <= _HIGHEST_PORT:
        # The part before an @ is a password, or was meant to be taken for a host.
        shown = re.sub(".*@", "…@", value, flags=re.DOTALL)
        raise SettingError(f"{name} must be an https URL of host, port and path alone, and is '{shown}'")
    return value.rstrip("/")


def _region(name: str, value: str) -> str:
    region = _text(name, value).upper()
    if region not in REGIONS:
        raise SettingError(f"{name} must be one of {' '.join(sorted(REGIONS))}, and is '{region}'")
    return region


def _project_id(name: str, value: str) -> str | None:
    if value and not PROJECT_ID.fullmatch(value):
        raise SettingError(f"{name} must be a project ID, and is '{value}'")
    return value or None


def _integer(name: str, value: str, lowest: int = 0, highest: int = _LONGEST_SECONDS) -> int:
    # Not isdigit alone: it takes digits of every script.
    if not (value.isascii() and value.isdigit()) or not lowest <= int(value) <= highest:
        raise SettingError(f"{name} must be a whole number from {lowest} to {highest}, and is '{value}'")
    return int(value)


def _switch(name: str, value: str) -> bool:
    if value.lower() not in {"true", "false"}:
        raise SettingError(f"{name} must be true or false, and is '{value.lower()}'")
    return value.lower() == "true"


def _read[T](parse: Callable[..., T], default: str = "", **options: object) -> T:
    field_: T = field(metadata={"parse": partial(parse, **options), "default": default})
    return field_


@dataclass(frozen=True, slots=True, kw_only=True)
class _Settings:
    """What both functions read; each field is the environment variable of the same name in upper case."""

    cloud_backup_url: str = _read(_url, "https://{region}.backup.api.rackspacecloud.com", may_name_region=True)
    cloud_backup_region: str = _read(_region)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Self:
        """Read the settings; SettingError for the first one that is missing or wrong."""
        values = {}
        for each in fields(cls):
            variable = each.name.upper()
            value = environment.get(variable, "").strip() or each.metadata["default"]
            values[each.name] = each.metadata["parse"](variable, value)
        return cls(**values)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings(_Settings):
    """The capture function's settings."""

    token_secret_arn: str = _read(_text)
    outcome_topic_arn: str = _read(_text)
    capture_queue_url: str = _read(_text)
    dead_letter_queue_url: str = _read(_text)
    captures_table: str = _read(_text)
    cloud_backup_project_id: str | None = _read(_project_id)
    agent_id_keys: tuple[str, ...] = _read(_words)
    cool_down_seconds: int = _read(_integer, "600")  # 0: agents are not claimed
    retry_window_seconds: int = _read(_integer, "86400")
    capture_deadline_seconds: int = _read(_integer, "86400")  # 0: log files are not polled
    concurrency: int = _read(_integer, "32", lowest=1, highest=1024)  # as many threads as Lambda allows
    publish_download_url: bool = _read(_switch, "true")
    chat_messages: bool = _read(_switch, "false")
    rotation_enabled: bool = _read(_switch, "false")


@dataclass(frozen=True, slots=True, kw_only=True)
class RotationSettings(_Settings):
    """The settings of the function that rotates the token."""

    identity_url: str = _read(_url, "https://identity.api.rackspacecloud.com")
