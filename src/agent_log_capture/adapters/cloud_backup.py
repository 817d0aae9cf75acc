"""The Cloud Backup API v2."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from http import HTTPStatus
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import requests
from requests.exceptions import ConnectTimeout, ProxyError, RequestException, SSLError
from urllib3.exceptions import MaxRetryError, NewConnectionError

from agent_log_capture.adapters.http_session import MESSAGE_CHARACTERS, error_message, exchange, json_object
from agent_log_capture.core.auth_token import AuthToken
from agent_log_capture.core.capture import SIGNED_LINK, Capture, LogFile, Reason, is_agent_id
from agent_log_capture.core.decision import Answer, TemporaryError, Trouble, Verdict, judge, retry_after_seconds
from agent_log_capture.core.printable import printable

_FIELD_CHARACTERS = 2048
_SIGNATURE = "temp_url_sig"  # the parameter that makes a link a key


class CloudBackup:
    """Calls the API in whichever region a capture names; `url` may hold `{region}`.

    Any answer is returned, whatever its status; a redirect is an answer, and never followed. TemporaryError says that
    there was none, and whether the request may have been served all the same. Without `keeps_signed_links`, links
    with which anybody can download a log file are dropped where they come in, and so are nowhere.
    """

    def __init__(
        self,
        session: requests.Session,
        url: str,
        now: Callable[[], datetime],
        *,
        keeps_signed_links: bool = True,
    ) -> None:
        self._session = session
        self._url = url
        self._now = now
        self._keeps_signed_links = keeps_signed_links

    def request_log_file(self, token: AuthToken, capture: Capture) -> Answer:
        """Ask an agent for its log file; the answer's log file is the one that was made, as far as it tells."""
        response, body = self._call("POST", token, capture)
        fields = json_object(body)
        return self._answer(response, fields, self._log_file(fields, response.headers.get("Location")))

    def read_log_file(self, token: AuthToken, capture: Capture, log_file_id: str) -> Answer:
        """Look at one log file of an agent."""
        response, body = self._call("GET", token, capture, f"logfiles/{quote(log_file_id, safe='')}")
        fields = json_object(body)
        return self._answer(response, fields, self._log_file(fields))

    def read_status(self, token: AuthToken, capture: Capture) -> Answer:
        """Ask whether an agent is online; the answer's `is_online` is None when it does not say."""
        response, body = self._call("GET", token, capture, "status")
        fields = json_object(body)
        is_online = fields.get("online")
        is_told = _is_accepted(response) and isinstance(is_online, bool)
        return replace(self._answer(response, fields), is_online=is_online if is_told else None)

    def find_log_file(self, token: AuthToken, capture: Capture, is_wanted: Callable[[LogFile], bool]) -> Answer:
        """Look through an agent's log files; the answer's log file is the latest that is wanted, None for none."""
        response, body = self._call("GET", token, capture)
        fields = json_object(body)
        listed = self._listed(fields)
        if response.status_code == HTTPStatus.OK and listed is None:
            raise TemporaryError(Trouble(reason=Reason.TEMPORARY, message="the list of log files could not be read"))
        wanted = [log_file for log_file in listed or [] if is_wanted(log_file)]
        latest = max(wanted, key=lambda log_file: log_file.date or "", default=None)
        return self._answer(response, fields, latest)

    def ping(self, token: AuthToken, region: str) -> Answer:
        """Ask whether the API is up and takes the token."""
        response, body = self._send("GET", token, region, "ping")
        return self._answer(response, json_object(body))

    def _call(
        self, method: str, token: AuthToken, capture: Capture, what: str = "logfiles"
    ) -> tuple[requests.Response, bytes]:
        return self._send(method, token, capture.region, f"agents/{quote(capture.agent_id, safe='')}/{what}")

    def _send(self, method: str, token: AuthToken, region: str, path: str) -> tuple[requests.Response, bytes]:
        project = f"{self._url.replace('{region}', region.lower())}/v2/{quote(token.project_id, safe='')}"
        sent_at = self._now()
        try:
            return exchange(self._session, method, f"{project}/{path}", headers={"X-Auth-Token": token.value})
        except RequestException as error:
            raise TemporaryError(_trouble(error, method, sent_at)) from error

    def _answer(
        self, response: requests.Response, fields: Mapping[str, Any], log_file: LogFile | None = None
    ) -> Answer:
        return Answer(
            http_status=response.status_code,
            message=error_message(fields),
            log_file=log_file if _is_accepted(response) else None,
            retry_after_seconds=retry_after_seconds(response.headers.get("Retry-After"), self._now()),
        )

    def _listed(self, fields: Mapping[str, Any]) -> Sequence[LogFile] | None:
        listed = fields.get("logfiles")
        if not isinstance(listed, list):
            return None
        return [self._log_file(item) for item in listed if isinstance(item, dict)]

    def _log_file(self, fields: Mapping[str, Any], location: str | None = None) -> LogFile:
        """Read a log file; what is missing or of the wrong type is left out; `Location` serves for a missing ID."""
        log_file_id = _text(fields.get("id"))
        location = _text(location)
        links = [link for link in _links(fields.get("links")) if self._keeps_signed_links or not _is_signed(link)]
        return LogFile(
            id=log_file_id if log_file_id and is_agent_id(log_file_id) else _last_segment(location),
            date=_text(fields.get("date")),
            state=_text(fields.get("state")),
            location=location,
            links=tuple(links),
        )


def _is_accepted(response: requests.Response) -> bool:
    return judge(response.status_code) is Verdict.ACCEPTED


def _trouble(error: RequestException, method: str, sent_at: datetime) -> Trouble:
    message = printable(f"{type(error).__name__}: {error}", MESSAGE_CHARACTERS)
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


def _links(links: object) -> Sequence[Mapping[str, str]]:
    found = [link for link in links if isinstance(link, dict)] if isinstance(links, list) else []
    texts = [{key: _text(link.get(key)) for key in ("rel", "href")} for link in found]
    return [{key: text for key, text in link.items() if text} for link in texts if link["href"]]


def _is_signed(link: Mapping[str, str]) -> bool:
    return link.get("rel") == SIGNED_LINK or _SIGNATURE in link["href"]


def _text(value: object) -> str | None:
    return printable(value, _FIELD_CHARACTERS) if isinstance(value, str) and value else None


def _last_segment(location: str | None) -> str | None:
    try:
        segment = unquote(urlsplit(location or "").path).rstrip("/").rpartition("/")[2]
    except ValueError:
        return None
    return segment if is_agent_id(segment) else None
