"""The Cloud Backup API v2."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from itertools import islice
from traceback import walk_tb
from typing import Any
from urllib.parse import quote, unquote, urljoin, urlsplit

import requests
from requests.exceptions import ConnectTimeout, ProxyError, RequestException
from urllib3.connection import HTTPSConnection
from urllib3.exceptions import MaxRetryError, NewConnectionError

from agent_log_capture.adapters.http_session import MESSAGE_CHARACTERS, error_message, exchange, json_object
from agent_log_capture.domain.auth_token import AuthToken
from agent_log_capture.domain.capture import Capture, is_agent_id
from agent_log_capture.domain.failure import Failure, RetryableError
from agent_log_capture.domain.outcome import SIGNED_LINK, LogFile, Reason
from agent_log_capture.domain.printable import printable
from agent_log_capture.domain.redaction import redact, redacted
from agent_log_capture.domain.responses import ApiResponse, ResponseClass, classify, retry_after_seconds

# Whatever the API answers, a notification stays below the 256 KiB that SNS carries.
_ADDRESS_CHARACTERS = 2048
_WORD_CHARACTERS = 100
_MOST_LINKS = 10
_SIGNATURE = "temp_url_sig"  # the parameter that makes a link a key


class CloudBackup:
    """Calls the API in whichever region a capture names; `url` may hold `{region}`.

    Any answer is returned, whatever its status; a redirect is an answer, and never followed. RetryableError says that
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

    def request_log_file(self, token: AuthToken, capture: Capture) -> ApiResponse:
        """Ask an agent for its log file; the answer's log file is the one that was made, as far as it tells."""
        response, fields = self._call("POST", token, capture)
        location = response.headers.get("Location", "")
        # What repeats the token names no log file.
        is_told = redacted(location, token.value) == location
        return self._answer(response, fields, self._log_file(fields, location if is_told else "", response.url))

    def read_log_file(self, token: AuthToken, capture: Capture, log_file_id: str) -> ApiResponse:
        """Poll at one log file of an agent."""
        response, fields = self._call("GET", token, capture, f"logfiles/{_segment(log_file_id)}")
        return self._answer(response, fields, self._log_file(fields))

    def read_status(self, token: AuthToken, capture: Capture) -> ApiResponse:
        """Ask whether an agent is online; the answer's `is_online` is None when it does not say."""
        response, fields = self._call("GET", token, capture, "status")
        is_online = fields.get("online")
        is_told = _is_accepted(response) and isinstance(is_online, bool)
        return replace(self._answer(response, fields), is_online=is_online if is_told else None)

    def find_log_file(self, token: AuthToken, capture: Capture, is_wanted: Callable[[LogFile], bool]) -> ApiResponse:
        """Poll through an agent's log files; the answer's log file is the latest that is wanted, None for none."""
        response, fields = self._call("GET", token, capture)
        listed = fields.get("logfiles")
        if _is_accepted(response) and not isinstance(listed, list):
            raise RetryableError(Failure(reason=Reason.TEMPORARY, message="the list of log files could not be read"))
        log_files = map(self._log_file, _objects(listed))
        latest = max(filter(is_wanted, log_files), key=lambda log_file: log_file.date or "", default=None)
        return self._answer(response, fields, latest)

    def activate_agents(self, token: AuthToken, region: str) -> ApiResponse:
        """Have all agents of the project in a region send heartbeats for a minute: `read_status` needs them."""
        event = {"event": "agent_activate", "mode": "active"}
        response, fields = self._send("POST", token, region, "events", json=event)
        return self._answer(response, fields)

    def ping(self, token: AuthToken, region: str) -> ApiResponse:
        """Ask whether the API is up and takes the token."""
        response, fields = self._send("GET", token, region, "ping")
        return self._answer(response, fields)

    def _call(
        self, method: str, token: AuthToken, capture: Capture, what: str = "logfiles"
    ) -> tuple[requests.Response, Mapping[str, Any]]:
        return self._send(method, token, capture.region, f"agents/{_segment(capture.agent_id)}/{what}")

    def _send(
        self, method: str, token: AuthToken, region: str, path: str, *, json: object = None
    ) -> tuple[requests.Response, Mapping[str, Any]]:
        project = f"{self._url.replace('{region}', region.lower())}/v2/{_segment(token.project_id)}"
        sent_at = self._now()
        try:
            headers = {"X-Auth-Token": token.value}
            response, body = exchange(self._session, method, f"{project}/{path}", headers=headers, json=json)
        except RequestException as error:
            raise RetryableError(_failure(error, method, sent_at)) from error
        # An answer is free to repeat the request; what is read of it is published and logged.
        fields = json_object(body)
        redact(fields, token.value)
        return response, fields

    def _answer(
        self, response: requests.Response, fields: Mapping[str, Any], log_file: LogFile | None = None
    ) -> ApiResponse:
        return ApiResponse(
            http_status=response.status_code,
            message=error_message(fields),
            log_file=log_file if _is_accepted(response) else None,
            retry_after_seconds=retry_after_seconds(response.headers.get("Retry-After"), self._now()),
        )

    def _log_file(self, fields: Mapping[str, Any], location: str = "", url: str = "") -> LogFile:
        """Read a log file; what is missing or of the wrong type is left out.

        `location` serves for a missing ID, and is itself kept where it leads to the API that was asked at `url`.
        """
        log_file_id = _text(fields.get("id"))
        links = (link for link in _links(fields.get("links")) if self._keeps_signed_links or not _is_signed(link))
        return LogFile(
            id=log_file_id if log_file_id and is_agent_id(log_file_id) else _last_segment(location),
            date=_text(fields.get("date"), _WORD_CHARACTERS),
            state=_text(fields.get("state"), _WORD_CHARACTERS),
            location=_text(location) if _is_of_the_api(location, url) else None,
            links=tuple(islice(links, _MOST_LINKS)),
        )


def _is_accepted(response: requests.Response) -> bool:
    return classify(response.status_code) is ResponseClass.ACCEPTED


def _failure(error: RequestException, method: str, sent_at: datetime) -> Failure:
    message = printable(f"{type(error).__name__}: {error}", MESSAGE_CHARACTERS)
    if _is_not_connected(error):
        return Failure(reason=Reason.NOT_CONNECTED, message=message)
    is_unconfirmed = method == "POST"
    return Failure(
        reason=Reason.UNCONFIRMED if is_unconfirmed else Reason.TEMPORARY,
        message=message,
        unconfirmed_since=sent_at if is_unconfirmed else None,
    )


def _is_not_connected(error: BaseException) -> bool:
    """Tell whether the request surely was not sent."""
    if isinstance(error, (ConnectTimeout, ProxyError, NewConnectionError)):
        return True
    # TLS that fails before the request and TLS that breaks after it raise the same errors, down to their texts: what
    # tells them apart is where. Only an error's own causes count, not what was being handled when it was raised.
    if any(frame.f_code is HTTPSConnection.connect.__code__ for frame, _ in walk_tb(error.__traceback__)):
        return True
    causes = [*error.args, error.__cause__, error.reason if isinstance(error, MaxRetryError) else None]
    return any(_is_not_connected(cause) for cause in causes if isinstance(cause, BaseException))


def _objects(values: object) -> Iterator[Mapping[str, Any]]:
    return (value for value in values if isinstance(value, dict)) if isinstance(values, list) else iter(())


def _links(links: object) -> Iterator[Mapping[str, str]]:
    for link in _objects(links):
        if href := _text(link.get("href")):
            rel = _text(link.get("rel"), _WORD_CHARACTERS)
            yield {"rel": rel, "href": href} if rel else {"href": href}


def _is_signed(link: Mapping[str, str]) -> bool:
    return link.get("rel") == SIGNED_LINK or _SIGNATURE in link["href"]


def _text(value: object, limit: int = _ADDRESS_CHARACTERS) -> str | None:
    return printable(value, limit) if isinstance(value, str) and value else None


def _segment(text: str) -> str:
    """Return a text as one segment of a path; requests and urllib3 unescape dots, and take `..` for a place."""
    return "%252E" * len(text) if text in {".", ".."} else quote(text, safe="", errors="replace")


def _is_of_the_api(location: str, url: str) -> bool:
    """Tell whether a `Location` leads to the API that was asked at `url`, without a query: that may hold a key."""
    try:
        asked, leads_to = urlsplit(url), urlsplit(urljoin(url, location))
    except ValueError:
        return False
    is_there = (leads_to.scheme, leads_to.netloc.lower()) == (asked.scheme, asked.netloc.lower())
    return is_there and not (leads_to.query or leads_to.fragment)


def _last_segment(location: str) -> str | None:
    try:
        segment = unquote(urlsplit(location).path).rstrip("/").rpartition("/")[2]
    except ValueError:
        return None
    return segment if is_agent_id(segment) else None
