"""The Identity API v2.0."""

from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus

import requests

from agent_log_capture.adapters.http_session import NoResponseError, exchange
from agent_log_capture.domain.auth_token import AuthToken, Credentials
from agent_log_capture.domain.printable import printable


class IdentityError(Exception):
    """Identity has issued no token; the message says what to do, and quotes no API key and no response."""


class CredentialsRefusedError(IdentityError):
    """Identity does not accept the username and the API key: only a person can change that."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Requests tokens from the API at `url`."""

    session: requests.Session
    url: str

    def authenticate(self, credentials: Credentials) -> tuple[AuthToken, datetime]:
        """Return a new token for these credentials, and when it expires; IdentityError without a token."""
        key = {"username": credentials.username, "apiKey": credentials.api_key}
        request = {"auth": {"RAX-KSKEY:apiKeyCredentials": key}}
        try:
            response, fields = exchange(self.session, "POST", f"{self.url}/v2.0/tokens", json=request)
        except NoResponseError as error:
            raise IdentityError(f"Identity does not answer: {error}") from error
        if response.status_code != HTTPStatus.OK:
            raise _refusal(response.status_code, credentials.username)
        match fields.get("access"):
            case {"token": {"id": str(value), "expires": str(expires), "tenant": {"id": str(project_id)}}}:
                with suppress(ValueError, OverflowError):  # TokenFormatError is a ValueError
                    moment = datetime.fromisoformat(expires)
                    expires_at = moment.replace(tzinfo=moment.tzinfo or UTC).astimezone(UTC)
                    return AuthToken(value, project_id), expires_at
        raise IdentityError("Identity's answer has no token, expiry and project ID that can be used")


def _refusal(http_status: int, username: str) -> IdentityError:
    """Say what to do; the response's own message is left out, since it may repeat the request."""
    match http_status:
        case HTTPStatus.UNAUTHORIZED:
            refused = f"Identity refuses the API key of '{printable(username, 80)}' (401)"
            return CredentialsRefusedError(f"{refused}: put the right username and api_key into the secret")
        case HTTPStatus.CONTENT_TOO_LARGE | HTTPStatus.TOO_MANY_REQUESTS:
            return IdentityError(f"Identity limits the rate ({http_status}): rotate again in some seconds")
    problem = f"Identity answers with HTTP status {http_status}"
    return IdentityError(f"{problem}: check the URL and the user, or rotate again later")
