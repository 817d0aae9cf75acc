"""The auth token of the Cloud Backup API, read from what a secret holds."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeGuard

# What may stand in an HTTP header without changing the request: visible ASCII.
_TOKEN = re.compile(r"[\x21-\x7e]{1,8192}")
_PROJECT_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")


class TokenFormatError(ValueError):
    """A secret does not hold an auth token, or what one is asked for with.

    The message says what is wrong, to follow the secret's name, and shows nothing of the content.
    """


@dataclass(frozen=True, slots=True)
class AuthToken:
    """An auth token and the project that it is for; it never shows its value."""

    value: str = field(repr=False)
    project_id: str


def parse_auth_token(secret: object, default_project_id: str | None) -> AuthToken:
    """Read a secret: a plain token, or the JSON `{"token": "…", "project_id": "…"}`.

    `default_project_id` serves where the secret names none. TokenFormatError for everything else.
    """
    text = secret_text(secret)
    fields = json_fields(text) if text.startswith("{") else {"token": text}
    return AuthToken(_token(fields.get("token")), _project_id(fields.get("project_id"), default_project_id))


def is_token(value: object) -> TypeGuard[str]:
    """Tell whether an HTTP header can carry a value as a token."""
    return isinstance(value, str) and bool(_TOKEN.fullmatch(value))


def is_project_id(value: object) -> TypeGuard[str]:
    """Tell whether a value is a project ID, which is safe to put into a URL."""
    return isinstance(value, str) and bool(_PROJECT_ID.fullmatch(value))


def secret_text(secret: object) -> str:
    """Return what a secret holds, without white space around it; TokenFormatError when that is no text or empty."""
    if not isinstance(secret, str):
        raise TokenFormatError("holds binary data, not a text")
    text = secret.strip()
    if not text:
        raise TokenFormatError("is empty")
    return text


def json_fields(text: str) -> Mapping[str, Any]:
    """Return the fields of a JSON object; TokenFormatError for a text that begins like one and is none."""
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
    if not is_token(value):
        raise TokenFormatError("has a 'token' with characters that an HTTP header cannot carry, or a very long one")
    return value


def _project_id(value: object, default: str | None) -> str:
    project_id = default if value is None else value
    if project_id is None:
        raise TokenFormatError("has no 'project_id', and CLOUD_BACKUP_PROJECT_ID is not set")
    if not is_project_id(project_id):
        raise TokenFormatError("has a 'project_id' that is not a text of letters, digits, _ and -")
    return project_id
