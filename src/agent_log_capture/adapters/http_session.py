"""HTTP as both APIs are called: one session, two timeouts, no redirects, and at most 1 MiB of a response's body."""

import json
import logging
import ssl
from collections.abc import Iterator, Mapping
from contextlib import suppress
from http import HTTPStatus
from traceback import walk_tb
from typing import Any, override

import certifi
import requests
from requests.adapters import HTTPAdapter
from requests.exceptions import ConnectTimeout, RequestException
from urllib3.connection import HTTPSConnection
from urllib3.exceptions import HTTPError, NewConnectionError

from agent_log_capture.domain.printable import printable

CONNECT_TIMEOUT_SECONDS = 3.05  # a little over the 3 s after which TCP sends a lost packet again
READ_TIMEOUT_SECONDS = 10  # to the next byte; the worker pool bounds a call as a whole
MAX_BODY_BYTES = 1024 * 1024
MESSAGE_CHARACTERS = 500
_READ_BYTES = 64 * 1024


class NoResponseError(Exception):
    """There is no response; the request may have been served all the same.

    Nothing is chained to it: an error of requests holds the request with its secret, and may quote the response.
    """


class NotConnectedError(NoResponseError):
    """There is no connection, so the request was certainly not sent."""


class _SharedTlsAdapter(HTTPAdapter):
    """Verifies servers with one TLS context: requests would parse the list of authorities for each connection."""

    @override
    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        # With an explicit list, those that the environment names are not added to it.
        context = ssl.create_default_context(cafile=certifi.where())
        context.keylog_filename = None  # type: ignore[assignment]  # the environment's: a file with all session keys
        super().init_poolmanager(*args, **kwargs, ssl_context=context)

    @override
    def cert_verify(self, *args: Any, **kwargs: Any) -> None:
        """Set no list of authorities on a connection: the context has it."""


def build_session(connections: int) -> requests.Session:
    """Return the session for all calls, which keeps up to `connections` connections to a host."""
    session = requests.Session()
    session.trust_env = False  # a .netrc would replace the token
    adapter = _SharedTlsAdapter(pool_maxsize=connections)
    session.mount("https://", adapter)
    session.mount("http://", adapter)
    session.headers.update({"Accept": "application/json", "Content-Type": "application/json"})
    # Bodies are not decoded: a compressed one may be a thousand times as long as it looks.
    session.headers["Accept-Encoding"] = "identity"
    # Its warning about a malformed header quotes the response, which may repeat the token.
    logging.getLogger("urllib3.connection").setLevel(logging.ERROR)
    return session


def exchange(
    session: requests.Session, method: str, url: str, *, headers: Mapping[str, str] | None = None, json: object = None
) -> tuple[requests.Response, dict[str, Any]]:
    """Send one request; return the response, whose status may be any, and the JSON object in it.

    NoResponseError if there is no response.
    """
    failure: NoResponseError | None = None
    try:
        prepared = session.prepare_request(requests.Request(method, url, headers=headers, json=json))
        # Through the adapter: the session would read redirects even if it does not follow them, and keep cookies.
        timeout = (CONNECT_TIMEOUT_SECONDS, READ_TIMEOUT_SECONDS)
        response = session.get_adapter(url).send(prepared, stream=True, timeout=timeout)
    except RequestException as error:
        failure = _no_response(error)
    if failure:
        raise failure  # here, where no error is chained to it
    with response:
        if response.status_code < HTTPStatus.OK:
            # http.client skips 100 alone. The response would follow, and be taken for the next request's.
            raise NoResponseError(f"HTTP status {response.status_code} in place of a response")
        return response, _read(response)


def _no_response(error: Exception) -> NoResponseError:
    causes = list(_causes(error))
    # An innermost error that is not the system's or TLS's is a protocol error, and quotes what could not be read.
    text = error if isinstance(causes[-1], OSError) else type(causes[-1]).__name__
    # A handshake that fails and TLS that breaks later raise the same errors with the same texts; only where differs.
    frames = (frame for cause in causes for frame, _ in walk_tb(cause.__traceback__))
    is_connecting = any(isinstance(cause, (ConnectTimeout, NewConnectionError)) for cause in causes)
    is_connecting = is_connecting or any(frame.f_code is HTTPSConnection.connect.__code__ for frame in frames)
    kind = NotConnectedError if is_connecting else NoResponseError
    return kind(printable(f"{type(error).__name__}: {text}", MESSAGE_CHARACTERS))


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error, then those that requests and urllib3 have wrapped in it, the innermost last."""
    yield error
    for cause in (*error.args, getattr(error, "reason", None), error.__cause__):
        if isinstance(cause, BaseException):
            yield from _causes(cause)


def _read(response: requests.Response) -> dict[str, Any]:
    """Return the JSON object in the first 1 MiB of the body; an empty one if it breaks off, or holds something else.

    The status line already decides: a 202 whose body is lost is an accepted request.
    """
    body = bytearray()
    # OverflowError is what a chunk of a negative size leads to.
    with suppress(HTTPError, OverflowError):
        while len(body) < MAX_BODY_BYTES and (part := response.raw.read1(_READ_BYTES, decode_content=False)):
            body += part
    with suppress(ValueError, RecursionError):
        fields = json.loads(body[:MAX_BODY_BYTES])
        return fields if isinstance(fields, dict) else {}
    return {}


def error_message(fields: Mapping[str, Any]) -> str | None:
    """Return a response's error message with its details, at the top level or inside a fault's name; None without."""
    inner = next((value for value in fields.values() if isinstance(value, dict) and "message" in value), fields)
    errors = inner.get("errors")
    parts = [inner.get("message"), *(errors if isinstance(errors, list) else [])]
    text = " ".join(part for part in parts if isinstance(part, str))
    return printable(text, MESSAGE_CHARACTERS).strip() or None
