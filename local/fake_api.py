"""Fake versions of the Cloud Backup API v2 and the Identity API v2.0, over real HTTP on the loopback."""

import hashlib
import json
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.client import responses
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self, override
from urllib.parse import quote, unquote, urlsplit

type Json = dict[str, Any]
type Calls = Mapping[str, Callable[[], Response]]

_DAY_SECONDS = 86_400
# "Modes" in the API's reference: an idle agent polls for work every 30 s and sends a heartbeat once an hour; an
# active one sends one every second, for about a minute. A heartbeat counts for 75 s.
_IDLE_POLL_SECONDS = 30
_ACTIVE_SECONDS = 60
_HEARTBEAT_COUNTS_SECONDS = 75
_IDENTITY_ERRORS = {400: "badRequest", 401: "unauthorized", 413: "overLimit"}


@dataclass(frozen=True)
class Request:
    """What a client has sent; `segments` is its path."""

    method: str
    segments: list[str]
    auth_token: str = field(default="", repr=False)
    body: bytes = field(default=b"", repr=False)

    @property
    def target(self) -> str:
        """The agent ID; `tokens`, `ping` or `events` for the calls that name no agent."""
        match self.segments:
            case ["v2", _, "agents", agent_id, *_]:
                return agent_id
        return self.segments[-1]


@dataclass(frozen=True)
class Response:
    """What the API answers; bytes are sent as they are."""

    status: int
    content: Json | bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def body(self) -> bytes:
        """The body as it is sent."""
        return self.content if isinstance(self.content, bytes) else json.dumps(self.content).encode()

    @property
    def head(self) -> bytes:
        """The status line and the headers, as they are sent."""
        headers = {"Content-Type": "application/json", "Content-Length": len(self.body), **self.headers}
        lines = [f"HTTP/1.1 {self.status} {responses.get(self.status, 'Unknown')}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        return "\r\n".join([*lines, "", ""]).encode("latin-1")


class _RefusedError(Exception):
    """Carries the status, the message where the usual phrase does not say enough, and headers."""


@dataclass
class _LogFile:
    id: str
    requested_at: float
    counting_since: float | None
    progress_seconds: float = 0

    def progress(self, now: float) -> float:
        return self.progress_seconds + (0 if self.counting_since is None else now - self.counting_since)


@dataclass
class _Agent:
    """`online_since` is None while the agent is off."""

    id: str
    name: str
    online_since: float | None
    is_forbidden: bool
    pick_up_seconds: float
    retry_after_seconds: int | None
    log_files: dict[str, _LogFile] = field(default_factory=dict)
    last_heartbeat_at: float = float("-inf")

    def note_heartbeats(self, activations: list[float], now: float) -> None:
        """Note the last heartbeat until now that the last activation has caused."""
        if self.online_since is None or not activations:
            return
        first = max(self.online_since, activations[-1] + _IDLE_POLL_SECONDS)
        last = min(now, activations[-1] + _ACTIVE_SECONDS)
        if first <= last:
            self.last_heartbeat_at = max(self.last_heartbeat_at, last)

    def details(self) -> Json:
        host = {
            "machine": {"id": str(uuid.uuid5(uuid.NAMESPACE_URL, self.id))},
            "os": {"name": "Debian", "version": "12"},
            "addresses": [{"version": 4, "addr": "192.0.2.1"}],
            "region": "DFW",
        }
        return {"id": self.id, "name": self.name, "enabled": True, "host": host}


class FakeApi:
    """Both APIs on one server, which runs for the duration of the `with` block.

    `url` is the base of both, known inside the block. What agents do follows from `clock`; `latency_seconds` before
    every response are real ones. `asked` counts all POSTs for a log file by agent, `posts` those that created one;
    `activations` holds when all agents were activated.

    A subclass may override `exchange` to alter, delay or drop responses.
    """

    project_id = "110011"

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.time,
        latency_seconds: float = 0.0,
        pick_up_seconds: float = 30.0,
        upload_seconds: float = 60.0,
    ) -> None:
        self.latency_seconds = latency_seconds
        self.asked: Counter[str] = Counter()
        self.posts: Counter[str] = Counter()
        self.activations: list[float] = []
        self._clock = clock
        self.pick_up_seconds = pick_up_seconds
        self.upload_seconds = upload_seconds
        self._agents: dict[str, _Agent] = {}
        self._accounts: dict[str, str] = {}
        self._tokens: dict[str, float] = {}
        self._lock = threading.RLock()
        self._stopped = threading.Event()

    def __enter__(self) -> Self:
        self._server = _Server(self.exchange)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._server.shutdown()
        self._server.server_close()

    def add_agents(
        self,
        *agent_ids: str,
        online: bool = True,
        forbidden: bool = False,
        pick_up_seconds: float | None = None,
        retry_after_seconds: int | None = None,
    ) -> None:
        """Add agents to the project; every other agent is a 404.

        A forbidden one answers its POST with 403. `pick_up_seconds` until the upload starts replace the server's own.
        With `retry_after_seconds`, the first POST is answered with 503 and this `Retry-After`.
        """
        now = self._clock() if online else None
        seconds = self.pick_up_seconds if pick_up_seconds is None else pick_up_seconds
        with self._lock:
            for number, agent_id in enumerate(agent_ids, len(self._agents) + 1):
                name = f"server-{number:03}"
                self._agents[agent_id] = _Agent(agent_id, name, now, forbidden, seconds, retry_after_seconds)

    def set_online(self, agent_id: str, *, online: bool) -> None:
        """Switch an agent on or off: while it is off it picks nothing up, and its uploads pause."""
        with self._lock:
            agent = self._agents[agent_id]
            if (agent.online_since is not None) == online:
                return
            now = self._clock()
            agent.note_heartbeats(self.activations, now)
            agent.online_since = now if online else None
            for log_file in agent.log_files.values():
                has_started = self._state(agent, log_file) != "requested"
                log_file.progress_seconds = log_file.progress(now) if has_started else 0
                log_file.counting_since = now if online else None

    def add_account(self, username: str, api_key: str) -> None:
        """Let Identity issue tokens for these credentials."""
        self._accounts[username] = api_key

    def issue_token(self, *, lives_seconds: float = _DAY_SECONDS) -> str:
        """Return a new token, valid until `clock` has moved on by `lives_seconds` or it is revoked."""
        token = uuid.uuid4().hex
        self._tokens[token] = self._clock() + lives_seconds
        return token

    def revoke(self, token: str) -> None:
        """Refuse this token from now on."""
        self._tokens.pop(token, None)

    def log_files(self, agent_id: str) -> list[Json]:
        """Return the agent's log files as the API would now, the oldest first."""
        with self._lock:
            agent = self._agents[agent_id]
            return [self._log_file(agent, log_file) for log_file in agent.log_files.values()]

    def exchange(self, request: Request) -> Iterator[bytes]:
        """Yield the bytes of the response to a request; ConnectionAbortedError closes the connection."""
        response = self.serve(request)
        yield response.head + response.body

    def serve(self, request: Request) -> Response:
        """Act on a request after the latency, and return the response."""
        self.count(request)
        if self._stopped.wait(self.latency_seconds):
            raise ConnectionAbortedError
        try:
            with self._lock:
                return self._route(request)
        except _RefusedError as refused:
            return refusal(request, *refused.args)

    def count(self, request: Request) -> None:
        """Count a POST for a log file in `asked`."""
        if request.method == "POST" and request.segments[4:] == ["logfiles"]:
            with self._lock:
                self.asked[request.target] += 1

    def _route(self, request: Request) -> Response:
        if request.segments[0] == "v2":
            self._authorize(request)
        calls = self._calls(request)
        if not calls:
            raise _RefusedError(404)
        if request.method not in calls:
            raise _RefusedError(405)
        return calls[request.method]()

    def _calls(self, request: Request) -> Calls:
        """Return what each method does with the path of a request."""
        match request.segments:
            case ["v2.0", "tokens"]:
                return {"POST": lambda: self._authenticate(request.body)}
            case ["v2", _, "ping"]:
                return {"GET": lambda: Response(200)}
            case ["v2", _, "events"]:
                return {"POST": lambda: self._activate(request.body)}
            case ["v2", _, "agents", agent_id, *rest] if agent_id in self._agents:
                return self._agent_calls(self._agents[agent_id], rest)
        return {}

    def _agent_calls(self, agent: _Agent, rest: list[str]) -> Calls:
        match rest:
            case []:
                return {"GET": lambda: Response(200, agent.details())}
            case ["status"]:
                return {"GET": lambda: Response(200, self._status(agent))}
            case ["logfiles"]:
                return {
                    "GET": lambda: Response(200, {"logfiles": self.log_files(agent.id)}),
                    "POST": lambda: self._request_log_file(agent),
                }
            case ["logfiles", log_file_id] if log_file_id in agent.log_files:
                return {"GET": lambda: Response(200, self._log_file(agent, agent.log_files[log_file_id]))}
        return {}

    def _activate(self, body: bytes) -> Response:
        """Activate every agent of the project; an agent learns of it at its next poll for work."""
        try:
            event = json.loads(body)
        except ValueError:
            event = None
        if event != {"event": "agent_activate", "mode": "active"}:
            raise _RefusedError(400, "Validation failed.")
        now = self._clock()
        for agent in self._agents.values():
            agent.note_heartbeats(self.activations, now)
        self.activations.append(now)
        return Response(202)

    def _authorize(self, request: Request) -> None:
        if self._tokens.get(request.auth_token, float("-inf")) <= self._clock():
            raise _RefusedError(401, "The credentials are expired or invalid.")
        if request.segments[1:2] != [self.project_id]:
            raise _RefusedError(403)

    def _authenticate(self, body: bytes) -> Response:
        try:
            credentials = json.loads(body)["auth"]["RAX-KSKEY:apiKeyCredentials"]
            username, api_key = str(credentials["username"]), str(credentials["apiKey"])
        except (ValueError, KeyError, TypeError) as error:
            raise _RefusedError(400, "Invalid request body.") from error
        if self._accounts.get(username) != api_key:
            raise _RefusedError(401, "Unable to authenticate user with credentials provided.")
        return Response(200, self._access(self.issue_token()))

    def _access(self, token: str) -> Json:
        expires = _at(self._tokens[token]).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        tenant = {"id": self.project_id, "name": self.project_id}
        base = f"{self.url}/v2/{self.project_id}"
        endpoint = {"region": "DFW", "tenantId": self.project_id, "publicURL": base}
        catalog = [{"type": "rax:backup", "name": "cloudBackup", "endpoints": [endpoint]}]
        return {"access": {"token": {"id": token, "expires": expires, "tenant": tenant}, "serviceCatalog": catalog}}

    def _request_log_file(self, agent: _Agent) -> Response:
        if agent.is_forbidden:
            raise _RefusedError(403)
        if agent.retry_after_seconds is not None:
            headers = {"Retry-After": str(agent.retry_after_seconds)}
            agent.retry_after_seconds = None
            raise _RefusedError(503, "Down for maintenance.", headers)
        now = self._clock()
        log_file = _LogFile(str(uuid.uuid4()), now, None if agent.online_since is None else now)
        agent.log_files[log_file.id] = log_file
        self.posts[agent.id] += 1
        return Response(202, self._log_file(agent, log_file), {"Location": self._location(agent, log_file)})

    def _status(self, agent: _Agent) -> Json:
        now = self._clock()
        agent.note_heartbeats(self.activations, now)
        is_busy = any(self._state(agent, log_file) == "started" for log_file in agent.log_files.values())
        # In idle mode the status means nothing. This API then answers what misleads most: offline.
        return {"busy": is_busy, "online": now - agent.last_heartbeat_at <= _HEARTBEAT_COUNTS_SECONDS}

    def _state(self, agent: _Agent, log_file: _LogFile) -> str:
        progress = log_file.progress(self._clock())
        # An agent that is off picks nothing up, even one with `pick_up_seconds` 0.
        is_held = log_file.counting_since is None and not log_file.progress_seconds
        if is_held or progress < agent.pick_up_seconds:
            return "requested"
        return "started" if progress < agent.pick_up_seconds + self.upload_seconds else "completed"

    def _log_file(self, agent: _Agent, log_file: _LogFile) -> Json:
        state = self._state(agent, log_file)
        links = [{"href": self._location(agent, log_file), "rel": "self"}]
        if state == "completed":
            links += self._download_links(agent, log_file)
        date = f"{_at(log_file.requested_at):%Y-%m-%dT%H:%M:%S.%fZ}"
        return {"id": log_file.id, "date": date, "state": state, "links": links}

    def _location(self, agent: _Agent, log_file: _LogFile) -> str:
        return f"{self.url}/v2/{self.project_id}/agents/{quote(agent.id, safe='')}/logfiles/{log_file.id}"

    def _download_links(self, agent: _Agent, log_file: _LogFile) -> list[dict[str, str]]:
        container = f"https://storage.example/v1/MossoCloudFS_{uuid.uuid5(uuid.NAMESPACE_URL, self.project_id)}"
        name = f"{_at(log_file.requested_at):%Y-%m-%dT%H-%M-%S.%fZ}.gz"
        href = f"{container}/CloudBackupLogs/v2/{quote(agent.id, safe='')}/{name}"
        expires = int(self._clock()) + _DAY_SECONDS
        signature = hashlib.sha256(f"{href}{expires}".encode()).hexdigest()[:40]
        signed = f"{href}?temp_url_sig={signature}&temp_url_expires={expires}"
        return [{"href": href, "rel": "logfile"}, {"href": signed, "rel": "logfile_temp_url"}]


def refusal(
    request: Request, status: int, message: str | None = None, headers: Mapping[str, str] | None = None
) -> Response:
    """Return an error in the form of the API that was called."""
    message = message or responses.get(status, "Unknown")
    content: Json = {"message": message, "errors": []}
    if request.segments[0] == "v2.0":
        content = {_IDENTITY_ERRORS.get(status, "identityFault"): {"code": status, "message": message}}
    return Response(status, b"" if request.method == "HEAD" else content, headers or {})


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Otherwise the second request of a connection waits 40 ms for a delayed acknowledgement.
    disable_nagle_algorithm = True
    server: "_Server"

    def __getattr__(self, name: str) -> Callable[[], None]:
        # Every method has a response, most of them 405.
        if name.startswith("do_"):
            return self._respond
        raise AttributeError(name)

    @override
    def handle(self) -> None:
        # Either side may close the connection: no reason for a traceback on stderr.
        with suppress(ConnectionError):
            super().handle()

    def _respond(self) -> None:
        # The body is always read: otherwise its bytes would be parsed as the connection's next request.
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path = urlsplit(self.path).path.removeprefix("/")
        segments = [unquote(segment) for segment in path.split("/")]
        token = self.headers.get("X-Auth-Token", "")
        for piece in self.server.exchange(Request(self.command, segments, token, body)):
            self.wfile.write(piece)


class _Server(ThreadingHTTPServer):
    request_queue_size = 128

    def __init__(self, exchange: Callable[[Request], Iterator[bytes]]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.exchange = exchange


def _at(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
