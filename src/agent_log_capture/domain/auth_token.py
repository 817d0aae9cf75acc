"""What the token's secret holds: a token, and with rotation also the credentials that a person put there."""

import json
import re
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

# Visible ASCII: a header that holds it cannot change the request.
_TOKEN = re.compile(r"[\x21-\x7e]{1,8192}")
PROJECT_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")
# The fields that a rotation writes. All others are a person's, and stay.
_WRITTEN = dict.fromkeys(("token", "expires_at", "project_id"))
_ADVICE = "; put JSON with 'username' and 'api_key' into it"


class TokenFormatError(ValueError):
    """What is wrong with a secret: the message follows its name, and shows nothing of its content."""


@dataclass(frozen=True, slots=True)
class AuthToken:
    """An auth token and its project, as a request can carry them; it never shows its value."""

    value: str = field(repr=False)
    project_id: str

    def __post_init__(self) -> None:
        if not _TOKEN.fullmatch(self.value):
            problem = "has a 'token' with characters that an HTTP header cannot carry, or a very long one"
            raise TokenFormatError(problem)
        if not PROJECT_ID.fullmatch(self.project_id):
            raise TokenFormatError("has a 'project_id' that is not a text of letters, digits, _ and -")


@dataclass(frozen=True, slots=True)
class Credentials:
    """With what a token is requested from Identity; it never shows the API key."""

    username: str
    api_key: str = field(repr=False)


def parse_auth_token(secret: object, default_project_id: str | None) -> AuthToken:
    """Read a secret: a plain token, or the JSON `{"token": "…", "project_id": "…"}`.

    `default_project_id` is used where the secret names none. TokenFormatError for everything else.
    """
    fields = _fields(secret)
    token = _text(fields, "token")
    if fields.get("project_id") is None:
        fields["project_id"] = default_project_id
    return AuthToken(token, _text(fields, "project_id", ", and CLOUD_BACKUP_PROJECT_ID is not set"))


def parse_credentials(secret: object) -> Credentials:
    """Read a secret's JSON, `{"username": "…", "api_key": "…"}`; TokenFormatError for everything else."""
    fields = _fields(secret)
    return Credentials(_text(fields, "username", _ADVICE), _text(fields, "api_key", _ADVICE))


def parse_pending_token(secret: str | None) -> AuthToken | None:
    """Read the token of a version that is not in use yet; None without a value, or for a copy of a person's."""
    return parse_auth_token(secret, None) if secret is not None and "expires_at" in _fields(secret) else None


def with_token(secret: object, token: AuthToken, expires_at: datetime) -> str:
    """Return a secret's JSON with a token in it; the fields of a person stay."""
    written = token.value, expires_at.isoformat().replace("+00:00", "Z"), token.project_id
    return json.dumps(_fields(secret) | dict(zip(_WRITTEN, written, strict=True)))


def is_made_from(pending: object, current: object) -> bool:
    """Return whether a pending version has a new token and the fields of a person that the current one has now."""
    fields = _fields(pending)
    return "expires_at" in fields and fields | _WRITTEN == _fields(current) | _WRITTEN


def _fields(secret: object) -> dict[str, Any]:
    """Return the fields of a secret's JSON; any other text is a token."""
    if not isinstance(secret, str):
        raise TokenFormatError("holds binary data, not a text")
    text = secret.strip()
    if not text:
        raise TokenFormatError("is empty")
    if not text.startswith("{"):
        return {"token": text}
    with suppress(ValueError, RecursionError):
        return dict(json.loads(text))
    # Nothing is chained to it: a JSONDecodeError carries the whole text.
    raise TokenFormatError("begins like JSON and is not JSON")


def _text(fields: dict[str, Any], name: str, advice: str = "") -> str:
    value = fields.get(name)
    if value is None:
        raise TokenFormatError(f"has no '{name}'{advice}")
    if not isinstance(value, str) or not value:
        raise TokenFormatError(f"has a '{name}' that is empty or not a text")
    return value
