"""The Cloud Backup API v2."""

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from http import HTTPStatus
from typing import Any, override
from urllib.parse import quote, unquote, urlsplit

import requests
from requests.adapters import HTTPAdapter
from requests.exceptions import ConnectTimeout, ProxyError, RequestException, SSLError
from urllib3.exceptions import MaxRetryError, NewConnectionError

from agent_log_capture.core.auth_token import AuthToken
from agent_log_capture.core.capture import Capture, LogFile, Reason, is_agent_id
from agent_log_capture.core.decision import Answer, TemporaryError, Trouble, retry_after_seconds
from agent_log_capture.core.printable import printable

CONNECT_TIMEOUT_SECONDS = 3.05  # a little over the 3 s after which TCP sends a lost packet again
READ_TIMEOUT_SECONDS = 10
MAX_BODY_BYTES = 1024 * 1024
_MESSAGE_CHARACTERS = 500
_FIELD_CHARACTERS = 2048


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


class CloudBackup:
    """Calls the API in whichever region a capture names; `url` may hold `{region}`.

    Any answer is returned, whatever its status; a redirect is an answer, and never followed. TemporaryError says that
    there was none, and whether the request may have been served all the same.
    """

    def __init__(self, session: requests.Session, url: str, now: Callable[[], datetime]) -> None:
        self._session = session
        self._url = url
        self._now = now

    def request_log_file(self, token: AuthToken, capture: Capture) -> Answer:
        """Ask an agent for its log file; the answer's log file is the one that was made, as far as it tells."""
        response, body = self._call("POST", token, capture)
        fields = _json(body)
        return self._answer(response, fields, _log_file(fields, response.headers.get("Location")))

    def find_log_file(self, token: AuthToken, capture: Capture, is_wanted: Callable[[LogFile], bool]) -> Answer:
        """Look through an agent's log files; the answer's log file is the latest that is wanted, None for none."""
        response, body = self._call("GET", token, capture)
        fields = _json(body)
        listed = _listed(fields)
        if response.status_code == HTTPStatus.OK and listed is None:
            raise TemporaryError(Trouble(reason=Reason.TEMPORARY, message="the list of log files could not be read"))
        wanted = [log_file for log_file in listed or [] if is_wanted(log_file)]
        latest = max(wanted, key=lambda log_file: log_file.date or "", default=None)
        return self._answer(response, fields, latest)

    def _call(self, method: str, token: AuthToken, capture: Capture) -> tuple[requests.Response, bytes]:
        url = self._url.replace("{region}", capture.region.lower())
        path = f"/v2/{quote(token.project_id, safe='')}/agents/{quote(capture.agent_id, safe='')}/logfiles"
        sent_at = self._now()
        try:
            with self._session.request(
                method,
                url + path,
                headers={"X-Auth-Token": token.value},
                timeout=(CONNECT_TIMEOUT_SECONDS, READ_TIMEOUT_SECONDS),
                allow_redirects=False,
                stream=True,
            ) as response:
                return response, _read(response)
        except RequestException as error:
            raise TemporaryError(_trouble(error, method, sent_at)) from error

    def _answer(self, response: requests.Response, fields: Mapping[str, Any], log_file: LogFile | None) -> Answer:
        return Answer(
            http_status=response.status_code,
            message=_message(fields),
            log_file=log_file if response.ok else None,
            retry_after_seconds=retry_after_seconds(response.headers.get("Retry-After"), self._now()),
        )


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


def _trouble(error: RequestException, method: str, sent_at: datetime) -> Trouble:
    message = printable(f"{type(error).__name__}: {error}", _MESSAGE_CHARACTERS)
    if _is_not_connected(error):
        return Trouble(reason=Reason.NOT_CONNECTED, message=message)
    is_unconfirmed = method == "POST"
    return Trouble(
        reason=Reason.UNCONFIRMED if is_unconfirmed else Reason.TEMPORARY,
        message=message,
        unconfirmed_since=sent_at if is_unconfirmed else None,
    )


def _is_not_connected(error: RequestException) -> bool:
    """Tell whether the request cannot have reached the API."""
    if isinstance(error, (ConnectTimeout, SSLError, ProxyError)):
        return True
    cause = error.args[0] if error.args else None
    return isinstance(cause, MaxRetryError) and isinstance(cause.reason, NewConnectionError)


def _json(body: bytes) -> Mapping[str, Any]:
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return fields if isinstance(fields, dict) else {}


def _message(fields: Mapping[str, Any]) -> str | None:
    """Return the API's error message with its details, as it is or inside a fault's name; None without one."""
    inner = next((value for value in fields.values() if isinstance(value, dict) and "message" in value), fields)
    errors = inner.get("errors")
    parts = [inner.get("message"), *(errors if isinstance(errors, list) else [])]
    text = " ".join(part for part in parts if isinstance(part, str))
    return printable(text, _MESSAGE_CHARACTERS).strip() or None


def _listed(fields: Mapping[str, Any]) -> Sequence[LogFile] | None:
    listed = fields.get("logfiles")
    if not isinstance(listed, list):
        return None
    return [_log_file(item, None) for item in listed if isinstance(item, dict)]


def _log_file(fields: Mapping[str, Any], location: str | None) -> LogFile:
    """Read a log file; what is missing or of the wrong type is left out, and `Location` serves for a missing ID."""
    log_file_id = _text(fields.get("id"))
    location = _text(location)
    return LogFile(
        id=log_file_id if log_file_id and is_agent_id(log_file_id) else _last_segment(location),
        date=_text(fields.get("date")),
        state=_text(fields.get("state")),
        location=location,
        links=tuple(_links(fields.get("links"))),
    )


def _links(links: object) -> Sequence[Mapping[str, str]]:
    found = [link for link in links if isinstance(link, dict)] if isinstance(links, list) else []
    texts = [{key: _text(link.get(key)) for key in ("rel", "href")} for link in found]
    return [{key: text for key, text in link.items() if text} for link in texts if link["href"]]


def _text(value: object) -> str | None:
    return printable(value, _FIELD_CHARACTERS) if isinstance(value, str) and value else None


def _last_segment(location: str | None) -> str | None:
    try:
        segment = unquote(urlsplit(location or "").path).rstrip("/").rpartition("/")[2]
    except ValueError:
        return None
    return segment if is_agent_id(segment) else None
