"""How this project speaks HTTP: one session, two timeouts, no redirects, and no more of a body than is wanted."""

import json
from collections.abc import Mapping
from typing import Any, override

import requests
from requests.adapters import HTTPAdapter
from requests.exceptions import RequestException

from agent_log_capture.core.printable import printable

CONNECT_TIMEOUT_SECONDS = 3.05  # a little over the 3 s after which TCP sends a lost packet again
READ_TIMEOUT_SECONDS = 10
MAX_BODY_BYTES = 1024 * 1024
MESSAGE_CHARACTERS = 500


class _Session(requests.Session):
    """Takes a redirect for the answer that it is.

    Told not to follow, requests still reads all of its body and parses where it leads: one without an end would
    hold a worker, and a hostile `Location` raises errors that are none of requests' own.
    """

    @override
    def get_redirect_target(self, resp: requests.Response) -> None:
        return None


def build_session(connections: int) -> requests.Session:
    """Return the one session for all calls, with room for so many connections at a time."""
    session = _Session()
    # Neither a proxy nor a .netrc of the environment may come between: they would see the token, or replace it.
    session.trust_env = False
    adapter = HTTPAdapter(pool_connections=connections, pool_maxsize=connections, max_retries=0)
    session.mount("https://", adapter)
    session.mount("http://", adapter)
    session.headers.update({"Accept": "application/json", "Content-Type": "application/json"})
    return session


def exchange(
    session: requests.Session,
    method: str,
    url: str,
    *,
    headers: Mapping[str, str] | None = None,
    json: object = None,
) -> tuple[requests.Response, bytes]:
    """Send one request; return the answer, whatever its status, and at most 1 MiB of its body.

    RequestException when there is no answer. A body that breaks off counts as what came of it.
    """
    with session.request(
        method,
        url,
        headers=headers,
        json=json,
        timeout=(CONNECT_TIMEOUT_SECONDS, READ_TIMEOUT_SECONDS),
        allow_redirects=False,
        stream=True,
    ) as response:
        return response, _read(response)


def _read(response: requests.Response) -> bytes:
    """Read at most 1 MiB of the body; a body that breaks off counts as what came of it.

    The status line has already told what matters: a 202 whose body is lost is an accepted request.
    """
    body = b""
    try:
        for part in response.iter_content(65_536):
            body += part
            if len(body) >= MAX_BODY_BYTES:
                break
    except RequestException:
        pass
    return body[:MAX_BODY_BYTES]


def json_object(body: bytes) -> Mapping[str, Any]:
    """Return the JSON object that a body holds; an empty one when it holds none."""
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return fields if isinstance(fields, dict) else {}


def error_message(fields: Mapping[str, Any]) -> str | None:
    """Return an answer's error message with its details, as it is or inside a fault's name; None without one."""
    inner = next((value for value in fields.values() if isinstance(value, dict) and "message" in value), fields)
    errors = inner.get("errors")
    parts = [inner.get("message"), *(errors if isinstance(errors, list) else [])]
    text = " ".join(part for part in parts if isinstance(part, str))
    return printable(text, MESSAGE_CHARACTERS).strip() or None
