"""The settings of the functions, read from their environment."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from agent_log_capture.domain.auth_token import is_project_id
from agent_log_capture.domain.capture import REGIONS

DEFAULT_CLOUD_BACKUP_URL = "https://{region}.backup.api.rackspacecloud.com"
DEFAULT_IDENTITY_URL = "https://identity.api.rackspacecloud.com"
_LONGEST_SECONDS = 604_800  # a week, as in the template; SQS keeps what waits for two
_MOST_WORKERS = 1024  # the most threads that Lambda allows a function
_REGION = "{region}"
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
_HIGHEST_PORT = 65_535


class SettingError(ValueError):
    """A setting is missing or wrong; the message names it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The capture function's settings; each field is the environment variable of the same name in upper case.

    With 0 for `cool_down_seconds` agents are not claimed, with 0 for `capture_deadline_seconds` log files are not
    polled.
    """

    token_secret_arn: str
    outcome_topic_arn: str
    capture_queue_url: str
    dead_letter_queue_url: str
    captures_table: str
    cloud_backup_url: str
    cloud_backup_region: str
    cloud_backup_project_id: str | None
    agent_id_keys: tuple[str, ...]
    cool_down_seconds: int
    retry_window_seconds: int
    capture_deadline_seconds: int
    concurrency: int
    publish_download_url: bool
    chat_messages: bool
    rotation_enabled: bool

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Self:
        """Read the settings; SettingError for the first one that is missing or wrong."""
        read = _Reader(environment)
        return cls(
            token_secret_arn=read.text("TOKEN_SECRET_ARN"),
            outcome_topic_arn=read.text("OUTCOME_TOPIC_ARN"),
            capture_queue_url=read.text("CAPTURE_QUEUE_URL"),
            dead_letter_queue_url=read.text("DEAD_LETTER_QUEUE_URL"),
            captures_table=read.text("CAPTURES_TABLE"),
            cloud_backup_url=read.url("CLOUD_BACKUP_URL", DEFAULT_CLOUD_BACKUP_URL),
            cloud_backup_region=read.region("CLOUD_BACKUP_REGION"),
            cloud_backup_project_id=read.project_id("CLOUD_BACKUP_PROJECT_ID"),
            agent_id_keys=tuple(read.words("AGENT_ID_KEYS")),
            cool_down_seconds=read.integer("COOL_DOWN_SECONDS", 600, 0, _LONGEST_SECONDS),
            retry_window_seconds=read.integer("RETRY_WINDOW_SECONDS", 86_400, 0, _LONGEST_SECONDS),
            capture_deadline_seconds=read.integer("CAPTURE_DEADLINE_SECONDS", 86_400, 0, _LONGEST_SECONDS),
            concurrency=read.integer("CONCURRENCY", 32, 1, _MOST_WORKERS),
            publish_download_url=read.switch("PUBLISH_DOWNLOAD_URL", default=True),
            chat_messages=read.switch("CHAT_MESSAGES", default=False),
            rotation_enabled=read.switch("ROTATION_ENABLED", default=False),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RotationSettings:
    """The settings of the function that keeps the token; each field is the variable of its name in upper case."""

    identity_url: str
    cloud_backup_url: str
    cloud_backup_region: str

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Self:
        """Read the settings; SettingError for the first one that is missing or wrong."""
        read = _Reader(environment)
        return cls(
            identity_url=read.url("IDENTITY_URL", DEFAULT_IDENTITY_URL),
            cloud_backup_url=read.url("CLOUD_BACKUP_URL", DEFAULT_CLOUD_BACKUP_URL),
            cloud_backup_region=read.region("CLOUD_BACKUP_REGION"),
        )


class _Reader:
    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment

    def text(self, name: str) -> str:
        value = self._optional(name)
        if not value:
            raise SettingError(f"{name} is not set")
        return value

    def url(self, name: str, default: str) -> str:
        value = self._optional(name) or default
        # Where the default names the region, any other value may do so.
        example = value.replace(_REGION, "dfw") if _REGION in default else value
        if not _is_https_or_loopback(example):
            # Before an @ stands a password, or what was meant to be taken for a host.
            shown = re.sub(".*@", "…@", value, flags=re.DOTALL)
            raise SettingError(f"{name} must be an https URL of host, port and path alone, and is '{shown}'")
        return value.rstrip("/")

    def region(self, name: str) -> str:
        value = self.text(name).upper()
        if value not in REGIONS:
            raise SettingError(f"{name} must be one of {' '.join(sorted(REGIONS))}, and is '{value}'")
        return value

    def project_id(self, name: str) -> str | None:
        value = self._optional(name)
        if value and not is_project_id(value):
            raise SettingError(f"{name} must be a project ID, and is '{value}'")
        return value or None

    def words(self, name: str) -> list[str]:
        return [word for part in self._optional(name).split(",") if (word := part.strip())]

    def integer(self, name: str, default: int, lowest: int, highest: int) -> int:
        value = self._optional(name) or str(default)
        # Not isdigit alone: it takes digits of every script.
        if not (value.isascii() and value.isdigit()) or not lowest <= int(value) <= highest:
            raise SettingError(f"{name} must be a whole number from {lowest} to {highest}, and is '{value}'")
        return int(value)

    def switch(self, name: str, *, default: bool) -> bool:
        value = self._optional(name).lower()
        if value not in {"", "true", "false"}:
            raise SettingError(f"{name} must be true or false, and is '{value}'")
        return value == "true" if value else default

    def _optional(self, name: str) -> str:
        return self._environment.get(name, "").strip()


def _is_https_or_loopback(value: str) -> bool:
    url = _URL.fullmatch(value)
    return url is not None and 0 < int(url["port"] or 1) <= _HIGHEST_PORT
