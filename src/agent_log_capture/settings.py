"""What the function is told by its environment."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self
from urllib.parse import urlsplit

from agent_log_capture.core.capture import REGIONS

DEFAULT_CLOUD_BACKUP_URL = "https://{region}.backup.api.rackspacecloud.com"
_LOOPBACK_HOSTS = frozenset({"127.0.0.1", "localhost", "::1"})
_PROJECT_ID = re.compile(r"[A-Za-z0-9_-]{0,128}")


class SettingError(ValueError):
    """A setting is missing or wrong; the message names it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The function's settings; each field is the environment variable of the same name in upper case."""

    token_secret_arn: str
    outcome_topic_arn: str
    capture_queue_url: str
    dead_letter_queue_url: str
    cloud_backup_url: str
    cloud_backup_region: str
    cloud_backup_project_id: str | None
    agent_id_keys: tuple[str, ...]
    retry_window_seconds: int
    concurrency: int

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Self:
        """Read the settings; SettingError for the first one that is missing or wrong."""
        read = _Reader(environment)
        return cls(
            token_secret_arn=read.text("TOKEN_SECRET_ARN"),
            outcome_topic_arn=read.text("OUTCOME_TOPIC_ARN"),
            capture_queue_url=read.text("CAPTURE_QUEUE_URL"),
            dead_letter_queue_url=read.text("DEAD_LETTER_QUEUE_URL"),
            cloud_backup_url=read.url("CLOUD_BACKUP_URL", DEFAULT_CLOUD_BACKUP_URL),
            cloud_backup_region=read.region("CLOUD_BACKUP_REGION"),
            cloud_backup_project_id=read.project_id("CLOUD_BACKUP_PROJECT_ID"),
            agent_id_keys=tuple(read.words("AGENT_ID_KEYS")),
            retry_window_seconds=read.integer("RETRY_WINDOW_SECONDS", 86_400, lowest=0),
            concurrency=read.integer("CONCURRENCY", 32, lowest=1),
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
        if not _is_https_or_loopback(value):
            raise SettingError(f"{name} must be an https URL, and is '{value}'")
        return value.rstrip("/")

    def region(self, name: str) -> str:
        value = self.text(name).upper()
        if value not in REGIONS:
            raise SettingError(f"{name} must be one of {' '.join(sorted(REGIONS))}, and is '{value}'")
        return value

    def project_id(self, name: str) -> str | None:
        value = self._optional(name)
        if not _PROJECT_ID.fullmatch(value):
            raise SettingError(f"{name} must be a project ID, and is '{value}'")
        return value or None

    def words(self, name: str) -> list[str]:
        return [word for part in self._optional(name).split(",") if (word := part.strip())]

    def integer(self, name: str, default: int, *, lowest: int) -> int:
        value = self._optional(name) or str(default)
        if not (value.isascii() and value.isdigit()) or int(value) < lowest:
            raise SettingError(f"{name} must be a whole number from {lowest} up, and is '{value}'")
        return int(value)

    def _optional(self, name: str) -> str:
        return self._environment.get(name, "").strip()


def _is_https_or_loopback(value: str) -> bool:
    try:
        url = urlsplit(value)
    except ValueError:
        return False
    is_local = url.scheme == "http" and url.hostname in _LOOPBACK_HOSTS
    return bool(url.hostname) and not url.query and not url.fragment and (url.scheme == "https" or is_local)
