"""What the secret of a token that is rotated holds: credentials, put there by a person, and the token beside them."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from agent_log_capture.domain.auth_token import (
    AuthToken,
    TokenFormatError,
    json_fields,
    parse_auth_token,
    secret_text,
)

# What rotation writes; everything else in the secret is a person's and stays.
_WRITTEN = frozenset({"token", "expires_at", "project_id"})


@dataclass(frozen=True, slots=True)
class Credentials:
    """Who asks Identity for a token; it never shows the API key."""

    username: str
    api_key: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class IssuedToken:
    """A token that Identity has issued, and until when it is good."""

    auth_token: AuthToken
    expires_at: datetime


def parse_credentials(secret: object) -> Credentials:
    """Read a secret's JSON, `{"username": "…", "api_key": "…"}`; TokenFormatError for everything else."""
    fields = _fields(secret)
    return Credentials(_text(fields, "username"), _text(fields, "api_key"))


def with_token(secret: object, issued: IssuedToken) -> str:
    """Return the secret with a token written into it, beside all that a person put there."""
    token = issued.auth_token
    written = {
        "token": token.value,
        "expires_at": issued.expires_at.isoformat().replace("+00:00", "Z"),
        "project_id": token.project_id,
    }
    return json.dumps({**_fields(secret), **written})


def parse_pending_token(secret: object) -> AuthToken | None:
    """Read the token of a version that is not in use yet; None for a mere copy of what a person put."""
    return parse_auth_token(secret, None) if _is_written(secret) else None


def is_made_from(pending: object, current: object) -> bool:
    """Tell whether a pending version is what rotation makes of all that the current one holds by now."""
    return _is_written(pending) and _put_by_a_person(pending) == _put_by_a_person(current)


def _is_written(secret: object) -> bool:
    text = secret_text(secret)
    return text.startswith("{") and "expires_at" in json_fields(text)


def _put_by_a_person(secret: object) -> Mapping[str, Any]:
    return {key: value for key, value in _fields(secret).items() if key not in _WRITTEN}


def _fields(secret: object) -> Mapping[str, Any]:
    text = secret_text(secret)
    if not text.startswith("{"):
        raise TokenFormatError("holds no JSON; put one with 'username' and 'api_key' into it")
    return json_fields(text)


def _text(fields: Mapping[str, Any], name: str) -> str:
    value = fields.get(name)
    if value is None:
        raise TokenFormatError(f"has no '{name}'; put 'username' and 'api_key' into it")
    if not isinstance(value, str) or not value:
        raise TokenFormatError(f"has a '{name}' that is empty or not a text")
    return value
