"""The Cloud Backup API v2."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any
from urllib.parse import unquote, urljoin, urlsplit

import requests

from agent_log_capture.adapters import http_session
from agent_log_capture.domain import responses
from agent_log_capture.domain.auth_token import AuthToken
from agent_log_capture.domain.capture import Capture, is_agent_id
from agent_log_capture.domain.outcome import SIGNED_LINK, LogFile, Reason
from agent_log_capture.domain.printable import printable, redact, redacted
from agent_log_capture.domain.responses import ApiResponse, Failure, RetryableError

# A notification stays below the 256 KiB that SNS carries, however long the API's texts are.
_ADDRESS_CHARACTERS = 2048
_WORD_CHARACTERS = 100
_MAX_LINKS = 10
_SIGNATURE = "temp_url_sig"  # the parameter that makes a link a key


@dataclass(frozen=True, slots=True)
class CloudBackup:
    """Calls the API in a capture's region; `url` may hold `{region}`.

    A response is returned with any status, a redirect too, which is not followed. RetryableError says that there is
    no response, and whether the request may have been served. Without `keeps_signed_links`, the links that let their
    holder download a log file are dropped here, and are nowhere.
    """

    session: requests.Session
    url: str
    now: Callable[[], datetime]
    keeps_signed_links: bool = field(default=True, kw_only=True)

    def request_log_file(self, token: AuthToken, capture: Capture) -> ApiResponse:
        """Request an agent's log file; the response's log file is the new one, as far as the API describes it."""
        response, fields = self._call("POST", token, capture.region, "agents", capture.agent_id, "logfiles")
        log_file, (log_file_id, location) = self._log_file(fields), _read_location(response, token)
        log_file = replace(log_file, id=log_file.id or log_file_id, location=location)
        return self._response(response, fields, log_file)

    def read_log_file(self, token: AuthToken, capture: Capture, log_file_id: str) -> ApiResponse:
        """Read one log file of an agent."""
        path = ("agents", capture.agent_id, "logfiles", log_file_id)
        response, fields = self._call("GET", token, capture.region, *path)
        return self._response(response, fields, self._log_file(fields))

    def read_status(self, token: AuthToken, capture: Capture) -> ApiResponse:
        """Read whether an agent is online; the response's `is_online` is None when the API does not say."""
        response, fields = self._call("GET", token, capture.region, "agents", capture.agent_id, "status")
        is_online = fields.get("online")
        return self._response(response, fields, is_online=is_online if isinstance(is_online, bool) else None)

    def find_log_file(self, token: AuthToken, capture: Capture, is_wanted: Callable[[LogFile], bool]) -> ApiResponse:
        """List an agent's log files; the response's log file is the latest that is wanted, None without one."""
        response, fields = self._call("GET", token, capture.region, "agents", capture.agent_id, "logfiles")
        answer, listed = self._response(response, fields), fields.get("logfiles")
        if responses.classify(answer.http_status) is not responses.ResponseClass.ACCEPTED:
            return answer
        if not isinstance(listed, list):
            raise RetryableError(Failure(reason=Reason.TEMPORARY, message="the list of log files could not be read"))
        log_files = [self._log_file(each) for each in listed if isinstance(each, dict)]
        latest = max(filter(is_wanted, log_files), key=lambda log_file: log_file.date or "", default=None)
        return replace(answer, log_file=latest)

    def activate_agents(self, token: AuthToken, region: str) -> ApiResponse:
        """Make all agents of the project in a region send heartbeats for a minute: `read_status` needs them."""
        event = {"event": "agent_activate", "mode": "active"}
        return self._response(*self._call("POST", token, region, "events", body=event))

    def ping(self, token: AuthToken, region: str) -> ApiResponse:
        """Check that the API is up and accepts the token."""
        return self._response(*self._call("GET", token, region, "ping"))

    def _call(
        self, method: str, token: AuthToken, region: str, *path: str, body: object = None
    ) -> tuple[requests.Response, dict[str, Any]]:
        """Return the response and the JSON object in it."""
        # Each part is an ID that was checked when it came in: none has to be escaped.
        path = (self.url.replace("{region}", region.lower()), "v2", token.project_id, *path)
        url, sent_at = "/".join(path), self.now()
        try:
            headers = {"X-Auth-Token": token.value}
            response, fields = http_session.exchange(self.session, method, url, headers=headers, json=body)
        except http_session.NoResponseError as error:
            failure = Failure(reason=Reason.TEMPORARY, message=str(error))
            if isinstance(error, http_session.NotConnectedError):
                failure = replace(failure, reason=Reason.NOT_CONNECTED)
            elif method == "POST":
                failure = replace(failure, reason=Reason.UNCONFIRMED, unconfirmed_since=sent_at)
            raise RetryableError(failure) from error
        # A response may repeat the request; what is read of it is published and logged.
        redact(fields, token.value)
        return response, fields

    def _response(
        self,
        response: requests.Response,
        fields: Mapping[str, Any],
        log_file: LogFile | None = None,
        *,
        is_online: bool | None = None,
    ) -> ApiResponse:
        """Return a response; what it says of a log file and an agent counts only if the API has accepted the call."""
        is_accepted = responses.classify(response.status_code) is responses.ResponseClass.ACCEPTED
        return ApiResponse(
            http_status=response.status_code,
            message=http_session.error_message(fields),
            log_file=log_file if is_accepted else None,
            retry_after_seconds=responses.retry_after_seconds(response.headers.get("Retry-After"), self.now()),
            is_online=is_online if is_accepted else None,
        )

    def _log_file(self, fields: Mapping[str, Any]) -> LogFile:
        """Read a log file; what is missing or of the wrong type is left out."""
        log_file_id, listed = _text(fields.get("id")), fields.get("links")
        links: list[Mapping[str, str]] = []
        for link in listed if isinstance(listed, list) else ():
            if not isinstance(link, dict) or not (href := _text(link.get("href"))):
                continue
            rel = _text(link.get("rel"), _WORD_CHARACTERS)
            if self.keeps_signed_links or not (rel == SIGNED_LINK or _SIGNATURE in href):
                links.append({"rel": rel, "href": href} if rel else {"href": href})
        return LogFile(
            id=log_file_id if log_file_id and is_agent_id(log_file_id) else None,
            date=_text(fields.get("date"), _WORD_CHARACTERS),
            state=_text(fields.get("state"), _WORD_CHARACTERS),
            links=tuple(links[:_MAX_LINKS]),
        )


def _text(value: object, limit: int = _ADDRESS_CHARACTERS) -> str | None:
    return printable(value, limit) if isinstance(value, str) and value else None


def _read_location(response: requests.Response, token: AuthToken) -> tuple[str | None, str | None]:
    """Return the ID that `Location` ends with, and `Location` if it leads to the API; a query could be a key."""
    location = response.headers.get("Location", "")
    try:
        called, target = urlsplit(response.url), urlsplit(urljoin(response.url, location))
    except ValueError:
        return None, None
    if not location or redacted(location, token.value) != location:
        return None, None
    last_segment = unquote(target.path).rstrip("/").rpartition("/")[2]
    is_same = (target.scheme, target.netloc.lower()) == (called.scheme, called.netloc.lower())
    is_kept = is_same and not (target.query or target.fragment)
    return last_segment if is_agent_id(last_segment) else None, _text(location) if is_kept else None
