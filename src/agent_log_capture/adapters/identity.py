"""The Identity API v2.0."""

from collections.abc import Mapping
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

import requests

from agent_log_capture.adapters.http_session import NoResponseError, exchange, json_object
from agent_log_capture.domain.auth_token import AuthToken, is_project_id, is_token
from agent_log_capture.domain.credentials import Credentials, IssuedToken
from agent_log_capture.domain.printable import printable

_USERNAME_CHARACTERS = 80


class IdentityError(Exception):
    """Identity has issued no token; the message says what to do, and quotes no API key and no response."""


class CredentialsRefusedError(IdentityError):
    """Identity does not accept the username and the API key: only a person can change that."""


class Identity:
    """Requests tokens from the API at `url`."""

    def __init__(self, session: requests.Session, url: str) -> None:
        self._session = session
        self._url = url

    def authenticate(self, credentials: Credentials) -> IssuedToken:
        """Return a new token for these credentials; IdentityError when Identity issues none."""
        key = {"username": credentials.username, "apiKey": credentials.api_key}
        request = {"auth": {"RAX-KSKEY:apiKeyCredentials": key}}
        try:
            response, body = exchange(self._session, "POST", f"{self._url}/v2.0/tokens", json=request)
        except NoResponseError as error:
            raise IdentityError(f"Identity does not answer: {error}") from error
        if response.status_code != HTTPStatus.OK:
            raise _refusal(response.status_code, credentials.username)
        issued = _read(json_object(body))
        if issued is None:
            raise IdentityError("Identity's answer has no token, expiry and project ID that can be used")
        return issued


def _refusal(http_status: int, username: str) -> IdentityError:
    """Say what to do; the response's own message is left out, since it may repeat the request."""
    match http_status:
        case HTTPStatus.UNAUTHORIZED:
            shown = printable(username, _USERNAME_CHARACTERS)
            what_to_do = "put the right username and api_key into the secret"
            return CredentialsRefusedError(f"Identity refuses the API key of '{shown}' (401): {what_to_do}")
        case HTTPStatus.CONTENT_TOO_LARGE | HTTPStatus.TOO_MANY_REQUESTS:
            return IdentityError(f"Identity limits the rate ({http_status}): rotate again in some seconds")
    what_to_do = "check the URL and the user, or rotate again later"
    return IdentityError(f"Identity answers with HTTP status {http_status}: {what_to_do}")


def _read(fields: Mapping[str, Any]) -> IssuedToken | None:
    match fields:
        case {"access": {"token": {"id": value, "expires": expires, "tenant": {"id": project_id}}}}:
            expires_at = _moment(expires)
            if is_token(value) and is_project_id(project_id) and expires_at:
                return IssuedToken(AuthToken(value, project_id), expires_at)
    return None


def _moment(text: object) -> datetime | None:
    try:
        moment = datetime.fromisoformat(text) if isinstance(text, str) else None
        return moment and moment.replace(tzinfo=moment.tzinfo or UTC).astimezone(UTC)
    except (ValueError, OverflowError):
        return None
