"""The Identity API v2.0."""

from collections.abc import Mapping
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

import requests
from requests.exceptions import RequestException

from agent_log_capture.adapters.http_session import MESSAGE_CHARACTERS, exchange, json_object
from agent_log_capture.domain.auth_token import AuthToken, is_project_id, is_token
from agent_log_capture.domain.credentials import Credentials, IssuedToken
from agent_log_capture.domain.printable import printable

_USERNAME_CHARACTERS = 80


class IdentityError(Exception):
    """Identity has issued no token; the message says what to do and shows nothing of the API key or an answer.

    Nothing is chained to it: what requests raises holds the request, and with it the API key.
    """


class CredentialsRefusedError(IdentityError):
    """Identity does not accept the username and the API key: only a person can change that."""


class Identity:
    """Asks the API at `url` for tokens."""

    def __init__(self, session: requests.Session, url: str) -> None:
        self._session = session
        self._url = url

    def authenticate(self, credentials: Credentials) -> IssuedToken:
        """Return a token for these credentials; IdentityError when there is none to be had."""
        body = {"username": credentials.username, "apiKey": credentials.api_key}
        request = {"auth": {"RAX-KSKEY:apiKeyCredentials": body}}
        try:
            response, answer = exchange(self._session, "POST", f"{self._url}/v2.0/tokens", json=request)
        except RequestException as error:
            problem = printable(f"Identity does not answer: {type(error).__name__}: {error}", MESSAGE_CHARACTERS)
        else:
            return _issued_token(response.status_code, answer, credentials.username)
        raise IdentityError(problem)


def _issued_token(http_status: int, body: bytes, username: str) -> IssuedToken:
    if http_status == HTTPStatus.UNAUTHORIZED:
        shown = printable(username, _USERNAME_CHARACTERS)
        what_to_do = "put the right username and api_key into the secret"
        raise CredentialsRefusedError(f"Identity refuses the API key of '{shown}' (401): {what_to_do}")
    if http_status != HTTPStatus.OK:
        raise IdentityError(_refusal(http_status))
    issued = _read(json_object(body))
    if issued is None:
        raise IdentityError("Identity's answer has no token, expiry and project ID that can be used")
    return issued


def _refusal(http_status: int) -> str:
    # The answer's own message is left out: it is free to repeat the request.
    if http_status in {HTTPStatus.CONTENT_TOO_LARGE, HTTPStatus.TOO_MANY_REQUESTS}:
        return f"Identity limits the rate ({http_status}): rotate again in some seconds"
    return f"Identity answers with HTTP status {http_status}: check the URL and the user, or rotate again later"


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
