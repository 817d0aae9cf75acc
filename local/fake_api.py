"""A fake API for the Cloud Backup API v2 and the Identity API v2.0, over real HTTP on the loopback."""

import hashlib
import json
import threading
import time
import uuid
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from http import HTTPStatus
from http.client import responses
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socket import SHUT_RDWR, socket
from typing import Any, Literal, Self, override
from urllib.parse import quote, unquote, urlsplit

type Json = dict[str, Any]

_DAY_SECONDS = 86_400
# "Modes" in the API's reference: an idle agent polls for work every 30 s and sends a heartbeat once an hour; an
# active one sends one every second, for about a minute. A heartbeat counts for 75 s.
_IDLE_POLL_SECONDS = 30
_ACTIVE_SECONDS = 60
_HEARTBEAT_COUNTS_SECONDS = 75
_IDENTITY_ERRORS = {400: "badRequest", 401: "unauthorized", 413: "overLimit"}


@dataclass(frozen=True)
class Fault:
    """What goes wrong with the next requests.

    Without a `status` the normal answer is given, as slow and as altered as the other fields say. A `status`
    of 300 or more is answered in place of acting, and `message` is its text; a lower one replaces the status
    of a success. `headers` come on top: a wrong `Content-Length` can be told too. `drip_seconds` pass before each
    byte of the body, with `drips_head` of the head as well. `drop` closes the connection without an answer, before
    or after the server acted; `cut_after` closes it after so many bytes of the answer.
    """

    status: int | None = None
    message: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    delay_seconds: float = 0
    drip_seconds: float | None = None
    drips_head: bool = False
    cut_after: int | None = None
    drop: Literal["before", "after"] | None = None
    times: int = 1
    method: str | None = None


@dataclass(frozen=True)
class Request:
    """What a client has sent; `segments` is its path."""

    method: str
    segments: list[str]
    auth_token: str = field(repr=False)
    body: bytes = field(repr=False)

    @property
    def target(self) -> str:
        """The agent ID, or the last segment (`tokens`, `ping`, `events`, `agents`) where there is none."""
        match self.segments:
            case ["v2", _, "agents", agent_id, *_]:
                return agent_id
        return self.segments[-1]


@dataclass(frozen=True)
class _Answer:
    status: int
    content: Json | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    raw_body: bytes | None = None
    drip_seconds: float | None = None
    drips_head: bool = False
    cut_after: int | None = None

    def pieces(self) -> list[bytes]:
        body = b"" if self.content is None else json.dumps(self.content).encode()
        if self.raw_body is not None:
            body = self.raw_body
        head = self._head(len(body))
        if self.drip_seconds is None:
            return [(head + body)[: self.cut_after]]
        dripping = head + body if self.drips_head else body
        return [b"" if self.drips_head else head, *(bytes([byte]) for byte in dripping[: self.cut_after])]

    def _head(self, length: int) -> bytes:
        headers = {"Content-Type": "application/json", "Content-Length": str(length), **self.headers}
        lines = [f"HTTP/1.1 {self.status} {responses.get(self.status, 'Unknown')}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        return "\r\n".join([*lines, "", ""]).encode("latin-1")


class _RefusedError(Exception):
    """Carries the status and, where the usual phrase is not enough, the message."""


@dataclass
class _LogFile:
    id: str
    asked_at: float
    counting_since: float | None
    progress_seconds: float = 0

    def progress(self, now: float) -> float:
        return self.progress_seconds + (0 if self.counting_since is None else now - self.counting_since)


@dataclass
class _Agent:
    """`pick_up_seconds` is the time from a request to `started`; `online_since` is None while it is off."""

    name: str
    online_since: float | None
    is_forbidden: bool
    pick_up_seconds: float
    log_files: dict[str, _LogFile] = field(default_factory=dict)
    last_heartbeat_at: float = float("-inf")

    @property
    def is_online(self) -> bool:
        return self.online_since is not None

    def note_heartbeats(self, activated_at: float, now: float) -> None:
        """Note the last heartbeat until now that an activation has caused."""
        if self.online_since is None:
            return
        first = max(self.online_since, activated_at + _IDLE_POLL_SECONDS)
        last = min(now, activated_at + _ACTIVE_SECONDS)
        if first <= last:
            self.last_heartbeat_at = max(self.last_heartbeat_at, last)


@dataclass(kw_only=True, eq=False)
class FakeApi:
    """Both APIs on one server, which runs while the `with` block does.

    `url` is the base of both, known inside the block. What agents do follows from `clock`; the waits
    (`latency_seconds` before every answer, a fault's delay and drip) are real ones and end with the block.
    `asked` counts all POSTs for a log file by agent, `posts` those that made one, `activations` holds when all agents
    were activated, `most_at_once` the most requests that were under way together. `faults` draws a fault for each
    request that no injected one is for.
    """

    project_id: str = "110011"
    clock: Callable[[], float] = time.time
    latency_seconds: float = 0.0
    pick_up_seconds: float = 30.0
    upload_seconds: float = 60.0
    faults: Callable[[Request], Fault | None] | None = None
    url: str = field(init=False)
    asked: Counter[str] = field(init=False, default_factory=Counter)
    posts: Counter[str] = field(init=False, default_factory=Counter)
    activations: list[float] = field(init=False, default_factory=list)
    most_at_once: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self._at_once = 0
        self._unserved = 0
        self._agents: dict[str, _Agent] = {}
        self._accounts: dict[str, str] = {}
        self._tokens: dict[str, float] = {}
        self._faults: defaultdict[str, list[Fault]] = defaultdict(list)
        self._lock = threading.Lock()
        self._hurried = threading.Event()
        self._is_stopped = False
        self._served = threading.Condition(self._lock)

    def __enter__(self) -> Self:
        self._server = _Server(self._serve)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_stopped = True
        self.hurry()
        self._server.stop()

    def add_agents(
        self, *agent_ids: str, online: bool = True, forbidden: bool = False, pick_up_seconds: float | None = None
    ) -> None:
        """Make agents known: a forbidden one answers its POST with 403, one that was not added is a 404.

        `pick_up_seconds` is how long these take to begin an upload, where that is not the server's own figure.
        """
        now = self.clock() if online else None
        seconds = self.pick_up_seconds if pick_up_seconds is None else pick_up_seconds
        with self._lock:
            for number, agent_id in enumerate(agent_ids, len(self._agents) + 1):
                self._agents[agent_id] = _Agent(f"server-{number:03}", now, forbidden, seconds)

    def set_online(self, agent_id: str, *, online: bool) -> None:
        """Switch an agent on or off: while it is off it picks nothing up, and its uploads stand still."""
        with self._lock:
            agent = self._agents[agent_id]
            if agent.is_online == online:
                return
            now = self.clock()
            self._note_heartbeats(agent, now)
            agent.online_since = now if online else None
            for log_file in agent.log_files.values():
                has_started = self._state(agent, log_file) != "requested"
                log_file.progress_seconds = log_file.progress(now) if has_started else 0
                log_file.counting_since = now if online else None

    def add_account(self, username: str, api_key: str) -> None:
        """Let Identity issue tokens for these credentials."""
        with self._lock:
            self._accounts[username] = api_key

    def issue_token(self, *, lives_seconds: float = _DAY_SECONDS) -> str:
        """Give a new token, good until `clock` has moved on by `lives_seconds` or it is revoked."""
        with self._lock:
            return self._new_token(lives_seconds)

    def revoke(self, token: str) -> None:
        """Refuse this token from now on."""
        with self._lock:
            self._tokens.pop(token, None)

    def inject(self, target: str, fault: Fault) -> None:
        """Queue a fault for the next `fault.times` requests that name this target.

        A target is an agent ID, known or not, or `tokens`, `ping`, `events` or `agents` for the calls that name none.
        """
        with self._lock:
            self._faults[target].append(fault)

    def limit_identity(self, times: int = 1) -> None:
        """Let Identity answer its next requests with 413, its rate limit."""
        self.inject("tokens", Fault(status=413, times=times))

    def log_files(self, agent_id: str) -> list[Json]:
        """Give the agent's log files as the API would now, the oldest first."""
        with self._lock:
            return self._list(agent_id)

    def hurry(self) -> None:
        """Let no answer be slow from now on, not even those under way."""
        self._hurried.set()

    def wait_until_served(self, timeout_seconds: float) -> bool:
        """Wait until every request that came was acted on, even one whose client has gone; return whether it was."""
        with self._served:
            return self._served.wait_for(lambda: not self._unserved, timeout_seconds)

    @contextmanager
    def _under_way(self) -> Iterator[None]:
        with self._lock:
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            yield
        finally:
            with self._lock:
                self._at_once -= 1

    @contextmanager
    def _unserved_request(self) -> Iterator[None]:
        with self._served:
            self._unserved += 1
        try:
            yield
        finally:
            with self._served:
                self._unserved -= 1
                self._served.notify_all()

    def _wait(self, seconds: float) -> None:
        self._hurried.wait(seconds)
        if self._is_stopped:
            raise ConnectionAbortedError

    def _serve(self, request: Request) -> Iterator[bytes]:
        with self._under_way():
            answer = self._answer(request)
            *early, last = answer.pieces()
            for piece in early:
                yield piece
                self._wait(answer.drip_seconds or 0)
        # No longer under way: who has read the last byte may send the next request at once.
        yield last
        if answer.cut_after is not None:
            raise ConnectionAbortedError

    def _answer(self, request: Request) -> _Answer:
        fault = self._take_fault(request)
        with self._unserved_request():
            self._count(request)
            self._wait(self.latency_seconds + fault.delay_seconds)
            if fault.drop == "before":
                raise ConnectionAbortedError
            answer = self._act(request, fault)
        if fault.drop == "after":
            raise ConnectionAbortedError
        return replace(
            answer,
            # What was refused is never dressed up as a success: nothing was made that it could stand for.
            status=fault.status if fault.status and answer.status < HTTPStatus.BAD_REQUEST else answer.status,
            headers={**answer.headers, **fault.headers},
            raw_body=b"" if request.method == "HEAD" else fault.body,
            drip_seconds=fault.drip_seconds,
            drips_head=fault.drips_head,
            cut_after=fault.cut_after,
        )

    def _take_fault(self, request: Request) -> Fault:
        with self._lock:
            queue = self._faults[request.target]
            for place, fault in enumerate(queue):
                if fault.method in (None, request.method):
                    left = replace(fault, times=fault.times - 1)
                    queue[place : place + 1] = [left] if left.times > 0 else []
                    return fault
        return (self.faults and self.faults(request)) or Fault()

    def _count(self, request: Request) -> None:
        if request.method == "POST" and request.segments[4:] == ["logfiles"]:
            with self._lock:
                self.asked[request.target] += 1

    def _act(self, request: Request, fault: Fault) -> _Answer:
        if fault.status is not None and fault.status >= HTTPStatus.MULTIPLE_CHOICES:
            return _refusal(request, fault.status, fault.message)
        try:
            with self._lock:
                return self._route(request)
        except _RefusedError as refused:
            return _refusal(request, *refused.args)

    def _route(self, request: Request) -> _Answer:
        match request.method, request.segments:
            case "POST", ["v2.0", "tokens"]:
                return self._authenticate(request.body)
            case _, ["v2.0", "tokens"]:
                raise _RefusedError(405)
            case _, ["v2", project_id, *_]:
                self._authorize(request.auth_token, project_id)
                return self._route_project(request)
        raise _RefusedError(404)

    def _route_project(self, request: Request) -> _Answer:
        match request.method, request.segments[2:]:
            case "GET", ["ping"]:
                return _Answer(200)
            case "POST", ["events"]:
                return self._activate(request.body)
            case "GET", ["agents"]:
                return _Answer(200, {"agents": [self._details(agent_id) for agent_id in self._agents]})
            case _, ["ping"] | ["events"] | ["agents"]:
                raise _RefusedError(405)
            case method, ["agents", agent_id, *rest] if agent_id in self._agents:
                return self._route_agent(agent_id, method, rest)
        raise _RefusedError(404)

    def _route_agent(self, agent_id: str, method: str, rest: list[str]) -> _Answer:
        match method, rest:
            case "GET", []:
                return _Answer(200, self._details(agent_id))
            case "POST", ["logfiles"]:
                return self._request_log_file(agent_id)
            case "GET", ["logfiles"]:
                return _Answer(200, {"logfiles": self._list(agent_id)})
            case "GET", ["logfiles", log_file_id]:
                return _Answer(200, self._body(agent_id, self._find(agent_id, log_file_id)))
            case "DELETE", ["logfiles", log_file_id]:
                del self._agents[agent_id].log_files[self._find(agent_id, log_file_id).id]
                return _Answer(204)
            case "GET", ["status"]:
                return _Answer(200, self._status(self._agents[agent_id]))
            case _, [] | ["logfiles"] | ["logfiles", _] | ["status"]:
                raise _RefusedError(405)
        raise _RefusedError(404)

    def _activate(self, body: bytes) -> _Answer:
        """Activate every agent of the project; an agent learns of it at its next poll for work."""
        try:
            event = json.loads(body)
        except ValueError:
            event = None
        if event != {"event": "agent_activate", "mode": "active"}:
            raise _RefusedError(400, "Validation failed.")
        now = self.clock()
        for agent in self._agents.values():
            self._note_heartbeats(agent, now)
        self.activations.append(now)
        return _Answer(202)

    def _note_heartbeats(self, agent: _Agent, now: float) -> None:
        if self.activations:
            agent.note_heartbeats(self.activations[-1], now)

    def _authorize(self, auth_token: str, project_id: str) -> None:
        if self._tokens.get(auth_token, float("-inf")) <= self.clock():
            raise _RefusedError(401, "The credentials are expired or invalid.")
        if project_id != self.project_id:
            raise _RefusedError(403)

    def _authenticate(self, body: bytes) -> _Answer:
        try:
            credentials = json.loads(body)["auth"]["RAX-KSKEY:apiKeyCredentials"]
            username, api_key = str(credentials["username"]), str(credentials["apiKey"])
        except (ValueError, KeyError, TypeError) as error:
            raise _RefusedError(400, "Invalid request body.") from error
        if self._accounts.get(username) != api_key:
            raise _RefusedError(401, "Unable to authenticate user with credentials provided.")
        return _Answer(200, self._access(self._new_token(_DAY_SECONDS)))

    def _new_token(self, lives_seconds: float) -> str:
        token = uuid.uuid4().hex
        self._tokens[token] = self.clock() + lives_seconds
        return token

    def _access(self, token: str) -> Json:
        expires = _at(self._tokens[token]).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        tenant = {"id": self.project_id, "name": self.project_id}
        endpoint = {
            "region": "DFW",
            "tenantId": self.project_id,
            "publicURL": f"{self.url}/v2/{self.project_id}",
        }
        catalog = [{"type": "rax:backup", "name": "cloudBackup", "endpoints": [endpoint]}]
        return {"access": {"token": {"id": token, "expires": expires, "tenant": tenant}, "serviceCatalog": catalog}}

    def _request_log_file(self, agent_id: str) -> _Answer:
        agent = self._agents[agent_id]
        if agent.is_forbidden:
            raise _RefusedError(403)
        now = self.clock()
        log_file = _LogFile(str(uuid.uuid4()), now, now if agent.is_online else None)
        agent.log_files[log_file.id] = log_file
        self.posts[agent_id] += 1
        location = {"Location": self._location(agent_id, log_file)}
        return _Answer(202, self._body(agent_id, log_file), headers=location)

    def _find(self, agent_id: str, log_file_id: str) -> _LogFile:
        try:
            return self._agents[agent_id].log_files[log_file_id]
        except KeyError as error:
            raise _RefusedError(404) from error

    def _list(self, agent_id: str) -> list[Json]:
        return [self._body(agent_id, log_file) for log_file in self._agents[agent_id].log_files.values()]

    def _status(self, agent: _Agent) -> Json:
        now = self.clock()
        self._note_heartbeats(agent, now)
        is_busy = any(self._state(agent, log_file) == "started" for log_file in agent.log_files.values())
        # In idle mode the status means nothing. This API then says what misleads most.
        return {"busy": is_busy, "online": now - agent.last_heartbeat_at <= _HEARTBEAT_COUNTS_SECONDS}

    def _state(self, agent: _Agent, log_file: _LogFile) -> str:
        progress = log_file.progress(self.clock())
        # Asked first: an agent that is off picks nothing up, even one that would need no time for it.
        is_held = log_file.counting_since is None and not log_file.progress_seconds
        if is_held or progress < agent.pick_up_seconds:
            return "requested"
        return "started" if progress < agent.pick_up_seconds + self.upload_seconds else "completed"

    def _details(self, agent_id: str) -> Json:
        agent = self._agents[agent_id]
        host = {
            "machine": {"id": str(uuid.uuid5(uuid.NAMESPACE_URL, agent_id))},
            "os": {"name": "Debian", "version": "12"},
            "addresses": [{"version": 4, "addr": "192.0.2.1"}],
            "region": "DFW",
        }
        return {"id": agent_id, "name": agent.name, "enabled": True, "host": host}

    def _body(self, agent_id: str, log_file: _LogFile) -> Json:
        state = self._state(self._agents[agent_id], log_file)
        links = [{"href": self._location(agent_id, log_file), "rel": "self"}]
        if state == "completed":
            links += self._download_links(agent_id, log_file)
        date = f"{_at(log_file.asked_at):%Y-%m-%dT%H:%M:%S.%fZ}"
        return {"id": log_file.id, "date": date, "state": state, "links": links}

    def _location(self, agent_id: str, log_file: _LogFile) -> str:
        return f"{self.url}/v2/{self.project_id}/agents/{quote(agent_id, safe='')}/logfiles/{log_file.id}"

    def _download_links(self, agent_id: str, log_file: _LogFile) -> list[dict[str, str]]:
        container = f"https://storage.example/v1/MossoCloudFS_{uuid.uuid5(uuid.NAMESPACE_URL, self.project_id)}"
        name = f"{_at(log_file.asked_at):%Y-%m-%dT%H-%M-%S.%fZ}.gz"
        href = f"{container}/CloudBackupLogs/v2/{quote(agent_id, safe='')}/{name}"
        expires = int(self.clock()) + _DAY_SECONDS
        signature = hashlib.sha256(f"{href}{expires}".encode()).hexdigest()[:40]
        signed = f"{href}?temp_url_sig={signature}&temp_url_expires={expires}"
        return [{"href": href, "rel": "logfile"}, {"href": signed, "rel": "logfile_temp_url"}]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Otherwise a connection that is used again stalls for the 40 ms of a delayed acknowledgement.
    disable_nagle_algorithm = True
    server: "_Server"

    def __getattr__(self, name: str) -> Callable[[], None]:
        # Every method is answered, most of them with 405.
        if name.startswith("do_"):
            return self._serve
        raise AttributeError(name)

    @override
    def handle(self) -> None:
        # A connection that is dropped, by either side, is nothing to report.
        with suppress(ConnectionError):
            super().handle()

    def _serve(self) -> None:
        for piece in self.server.serve(self._request()):
            self.wfile.write(piece)

    def _request(self) -> Request:
        # Read even where nobody wants it: it would be taken for the connection's next request.
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path = urlsplit(self.path).path.removeprefix("/")
        segments = [unquote(segment) for segment in path.split("/")]
        return Request(self.command, segments, self.headers.get("X-Auth-Token", ""), body)


class _Server(ThreadingHTTPServer):
    request_queue_size = 128

    def __init__(self, serve: Callable[[Request], Iterator[bytes]]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.serve = serve
        self._connections: set[socket] = set()
        self._closed_one = threading.Condition()

    @override
    def process_request(self, request: Any, client_address: Any) -> None:
        with self._closed_one:
            self._connections.add(request)
        super().process_request(request, client_address)

    @override
    def shutdown_request(self, request: Any) -> None:
        super().shutdown_request(request)
        with self._closed_one:
            self._connections.discard(request)
            self._closed_one.notify_all()

    def stop(self) -> None:
        self.shutdown()
        self.server_close()
        with self._closed_one:
            for connection in self._connections:
                # Wakes the thread that waits on it for another request.
                with suppress(OSError):
                    connection.shutdown(SHUT_RDWR)
            self._closed_one.wait_for(lambda: not self._connections, timeout=5)


def _refusal(request: Request, status: int, message: str | None = None) -> _Answer:
    message = message or responses.get(status, "Unknown")
    if request.segments[0] == "v2.0":
        name = _IDENTITY_ERRORS.get(status, "identityFault")
        return _Answer(status, {name: {"code": status, "message": message}})
    return _Answer(status, {"message": message, "errors": []})


def _at(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
