"""How this project speaks HTTP: one session, two timeouts, no redirects, and no more of an answer than is wanted."""

import http.client
import io
import json
import ssl
import time
from collections.abc import Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, override

import certifi
import requests
import urllib3
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection

from agent_log_capture.domain.printable import printable

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

CONNECT_TIMEOUT_SECONDS = 3.05  # a little over the 3 s after which TCP sends a lost packet again
READ_TIMEOUT_SECONDS = 10  # to the next byte
ANSWER_TIMEOUT_SECONDS = 20  # to the last one
MAX_BODY_BYTES = 1024 * 1024
MAX_ANSWER_BYTES = 2 * MAX_BODY_BYTES  # with all that is around a body, and between its parts
MESSAGE_CHARACTERS = 500


class _Received(io.RawIOBase):
    """What a connection receives as one answer: no more than 2 MiB of it, and in no more than 20 s.

    http.client and urllib3 bound a line and the number of headers, but neither the answers that may come before the
    answer, nor trailers, nor a chunk whose size is -1.
    """

    def __init__(self, connection: io.RawIOBase) -> None:
        super().__init__()
        self._connection = connection
        self._bytes_left = MAX_ANSWER_BYTES
        self._until = time.monotonic() + ANSWER_TIMEOUT_SECONDS

    @override
    def readable(self) -> bool:
        return True

    @override
    def readinto(self, buffer: "WriteableBuffer") -> int | None:
        if time.monotonic() > self._until:
            raise TimeoutError("the answer does not end")
        if self._bytes_left == 0:
            raise OSError("the answer is too long")
        count = self._connection.readinto(memoryview(buffer)[: self._bytes_left])
        self._bytes_left -= count or 0
        return count

    @override
    def close(self) -> None:
        self._connection.close()
        super().close()


class _Answer(http.client.HTTPResponse):
    """An answer, as far as anybody wants it."""

    @override
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fp = io.BufferedReader(_Received(self.fp.detach()))

    @override
    def begin(self) -> None:
        """Read the head of the answer; HTTPException, which shows nothing of it, when that is no HTTP.

        What is no answer yet, such as 103, is passed over. http.client does so with 100 alone, and would take the
        answer behind it for the one to the connection's next request.
        """
        try:
            super().begin()
            while self.status < HTTPStatus.OK:
                self.headers = None  # type: ignore[assignment]  # how it knows that it has not begun
                super().begin()
        except http.client.RemoteDisconnected:
            raise
        except http.client.HTTPException as error:
            # It quotes the answer, which is free to repeat the request, and with it a token or a key.
            raise http.client.HTTPException(f"{type(error).__name__} in the head of the answer") from None
        # Cookies would be sent along with other requests, and pile up.
        del self.headers["Set-Cookie"], self.headers["Set-Cookie2"]
        # What is no header is passed over: urllib3 would write it into the log as it came.
        self.headers.defects.clear()
        self.headers.set_payload("")


class _HTTPConnection(HTTPConnection):
    response_class = _Answer


class _HTTPSConnection(HTTPSConnection):
    response_class = _Answer


class _HTTPPool(urllib3.HTTPConnectionPool):
    ConnectionCls = _HTTPConnection


class _HTTPSPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _HTTPSConnection


class _Adapter(HTTPAdapter):
    """Lets all connections verify servers with one context.

    requests has each of them read the list of authorities anew, which takes longer than all else that it does.
    """

    @override
    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs, ssl_context=_tls_context())
        self.poolmanager.pool_classes_by_scheme = {"http": _HTTPPool, "https": _HTTPSPool}

    @override
    def cert_verify(self, conn: Any, url: str, verify: bool | str, cert: Any) -> None:
        if verify is not True:
            super().cert_verify(conn, url, verify, cert)  # type: ignore[no-untyped-call]


def _tls_context() -> ssl.SSLContext:
    # The list by its name: without, the environment's would be added, and what it names trusted.
    context = ssl.create_default_context(cafile=certifi.where())
    # Nor may the environment have the keys of all connections written into a file.
    context.keylog_filename = None  # type: ignore[assignment]
    return context


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
    adapter = _Adapter(pool_connections=connections, pool_maxsize=connections, max_retries=0)
    session.mount("https://", adapter)
    session.mount("http://", adapter)
    session.headers.update({"Accept": "application/json", "Content-Type": "application/json"})
    # What is not asked for is not decoded either: a compressed body may be a thousand times as long as it looks.
    session.headers["Accept-Encoding"] = "identity"
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
    body = bytearray()
    try:
        for part in response.raw.stream(65_536, decode_content=False):
            body += part
            if len(body) >= MAX_BODY_BYTES:
                break
    except (urllib3.exceptions.HTTPError, ValueError, OverflowError):  # what chunks of negative sizes lead to
        pass
    return bytes(body[:MAX_BODY_BYTES])


def json_object(body: bytes) -> dict[str, Any]:
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
