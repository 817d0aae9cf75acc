"""The auth token of the Cloud Backup API, read from what a secret holds."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

# What may stand in an HTTP header without changing the request: visible ASCII.
_TOKEN = re.compile(r"[\x21-\x7e]{1,8192}")
_PROJECT_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")


class TokenFormatError(ValueError):
    """A secret does not hold an auth token; the message says what is wrong and shows nothing of the content."""


@dataclass(frozen=True, slots=True)
class AuthToken:
    """An auth token and the project that it is for; it never shows its value."""

    value: str = field(repr=False)
    project_id: str


def parse_auth_token(secret: object, default_project_id: str | None) -> AuthToken:
    """Read a secret: a plain token, or the JSON `{"token": "…", "project_id": "…"}`.

    `default_project_id` serves where the secret names none. TokenFormatError for everything else.
    """
    if not isinstance(secret, str):
        raise TokenFormatError("holds binary data, not a text")
    text = secret.strip()
    if not text:
        raise TokenFormatError("is empty")
    fields = _fields(text) if text.startswith("{") else {"token": text}
    return AuthToken(_token(fields.get("token")), _project_id(fields.get("project_id"), default_project_id))


def _fields(text: str) -> Mapping[str, Any]:
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError):
        fields = None
    if fields is None:
        # Raised out here so that nothing is chained to it: a JSONDecodeError carries the whole text.
        raise TokenFormatError("begins like JSON and is none")
    return dict(fields)


def _token(value: object) -> str:
    if value is None:
        raise TokenFormatError("has no 'token'")
    if not isinstance(value, str) or not value:
        raise TokenFormatError("has a 'token' that is empty or not a text")
    if not _TOKEN.fullmatch(value):
        raise TokenFormatError("has a 'token' with characters that an HTTP header cannot carry, or a very long one")
    return value


def _project_id(value: object, default: str | None) -> str:
    project_id = default if value is None else value
    if project_id is None:
        raise TokenFormatError("has no 'project_id', and CLOUD_BACKUP_PROJECT_ID is not set")
    if not isinstance(project_id, str) or not _PROJECT_ID.fullmatch(project_id):
        raise TokenFormatError("has a 'project_id' that is not a text of letters, digits, _ and -")
    return project_id
