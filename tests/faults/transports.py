"""Between the function and everything else: where its calls fail, and where they are seen."""

import json
import socket
import threading
import time
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from http import HTTPStatus
from unittest.mock import patch
from urllib.parse import parse_qs, unquote_plus, urlsplit

from botocore.exceptions import (
    ConnectionClosedError,
    ConnectTimeoutError,
    EndpointConnectionError,
    ReadTimeoutError,
)
from moto import mock_aws
from moto.core.models import botocore_stubber
from requests.adapters import HTTPAdapter
from requests.exceptions import RequestException
from urllib3.util import connection as urllib3_connection

from agent_log_capture import bootstrap
from agent_log_capture.adapters import http_session
from tests.faults import fault_schedule
from tests.faults.faulty_api import Fault
from tests.faults.record import Post
from tests.faults.sandbox import agent_of_thread, invocation_of_thread

# moto lays a mock over this one; what goes to the fake API has no need of it.
_REAL_SEND = HTTPAdapter.send

READ_SECONDS = 0.15
CALL_SECONDS = 0.4
_ROUNDING_SECONDS = 0.02
_SLOW_SECONDS = (*(0.02,) * 9, 0.4)
_DRIP_SECONDS = 0.004
_GARBAGE = (
    b"",
    b"null",
    b"[]",
    b'"x"',
    b"{",
    b"\xff\xfe\x00",
    b'{"id": 5}',
    b'{"logfiles": 7}',
    b"[" * 500,
    b"<html>",
)
_RETRY_AFTER = ("0", "7", "120", "99999999", "-1", "soon", "Wed, 21 Oct 2099 07:28:00 GMT", "")
_THROTTLED = {
    "secretsmanager": "ThrottlingException",
    "dynamodb": "ProvisionedThroughputExceededException",
    "sqs": "RequestThrottled",
    "sns": "Throttling",
}
_DENIED = {"sns": "AuthorizationError"}
_BATCHES = {"SendMessageBatch", "PublishBatch"}


class ApiFaults:
    """What the fake API does wrong: a hook for its `faults`."""

    def __init__(self, schedule):
        self._sky = schedule

    def __call__(self, request):
        """Draw the fault of one request."""
        boundary = fault_schedule.IDENTITY if request.target == "tokens" else fault_schedule.API
        drawn = self._sky.draw(boundary, request.target, request.method, len(request.segments))
        if drawn is None:
            return None
        fault, name = _server_fault(drawn.kind, drawn.dice)
        self._sky.count(boundary, name)
        # An API may repeat in its errors what it was sent.
        repeated = drawn.dice.choice(REPEATED)(request.auth_token)
        return replace(fault, message=f"not with {repeated}") if repeated else fault


# As it is, as a part of a URL, and as a part of a page.
REPEATED = (
    str,
    lambda token: "".join(f"%{ord(character):02x}" for character in token),
    lambda token: "".join(f"&#{ord(character)};" for character in token),
)
_SIMPLE_FAULTS = {
    "dripping body": Fault(drip_seconds=_DRIP_SECONDS),
    "dripping head": Fault(drip_seconds=_DRIP_SECONDS, drips_head=True),
    "dropped before": Fault(drop="before"),
    "dropped after": Fault(drop="after"),
    "no location": Fault(headers={"Location": ""}, body=b"{}"),
}


def _server_fault(kind, dice):
    """Return a fault, and what to call it."""
    fault = _SIMPLE_FAULTS.get(kind) or Fault()
    match kind:
        case "status":
            return _status_fault(dice)
        case "retry after":
            code = dice.choice((413, 429, 503))
            return Fault(status=code, headers={"Retry-After": dice.choice(_RETRY_AFTER)}), f"{code} with {kind}"
        case "slow":
            fault = Fault(delay_seconds=READ_SECONDS * (1.2 + dice.random()))
        case "cut status line":
            fault = Fault(cut_after=dice.randrange(16))
        case "cut body":
            fault = Fault(headers={"Content-Length": "100000"}, cut_after=dice.randrange(120, 400))
        case "garbage body":
            fault = Fault(body=dice.choice(_GARBAGE))
    return fault, kind


def _status_fault(dice):
    codes = dice.choices(
        (fault_schedule.TEMPORARY_CODES, fault_schedule.FINAL_CODES, fault_schedule.OTHER_CODES), (4, 1, 2)
    )[0]
    code = dice.choice(codes)
    return Fault(status=code, body=b"" if code in {204, 304} else None, headers=_location(code)), f"{code}"


def _location(code):
    return {"Location": "http://127.0.0.1:1/elsewhere"} if 300 <= code < 400 else {}


class ApiTransport:
    """The wire of the function's HTTP sessions. `posts` has every request for a log file that was begun."""

    def __init__(self, schedule, clock, say):
        self.posts = []
        self._sky = schedule
        self._clock = clock
        self._say = say

    @contextmanager
    def laid(self):
        """Lay the wire under every session that the function builds."""
        build = bootstrap.build_session

        def build_session(connections):
            session = build(connections)
            for adapter in set(session.adapters.values()):
                adapter.send = _Sending(self, adapter)
            return session

        connect = urllib3_connection.create_connection

        def create_connection(*arguments, **options):
            if error := getattr(_broken, "error", None):
                raise error
            return connect(*arguments, **options)

        exchange = http_session.exchange

        def noted_exchange(session, method, url, **options):
            if method != "POST" or not url.endswith("/logfiles"):
                return exchange(session, method, url, **options)
            with self._noted(url) as answer:
                answer[:] = exchange(session, method, url, **options)
            return tuple(answer)

        with (
            patch.object(bootstrap, "build_session", build_session),
            patch.object(http_session, "exchange", noted_exchange),
            patch.object(urllib3_connection, "create_connection", create_connection),
        ):
            yield

    @contextmanager
    def _noted(self, url):
        """Note a request for a log file; an answer that arrives when no one waits any longer does not count."""
        invocation = invocation_of_thread()
        began = time.monotonic()
        answer = []
        try:
            yield answer
        finally:
            is_late = time.monotonic() - began > CALL_SECONDS - _ROUNDING_SECONDS or invocation.is_over
            answered = answer[0].status_code if answer else None
            self.posts.append(
                Post(
                    agent_id=urlsplit(url).path.split("/")[4],
                    invocation=invocation.number,
                    at=self._clock.time(),
                    status=None if is_late else answered,
                    is_refused_token=answered == HTTPStatus.UNAUTHORIZED,
                )
            )

    def send(self, adapter, request, options):
        """Send one request, or let it fail on its way."""
        invocation = invocation_of_thread()
        path = urlsplit(request.url).path
        what = f"{request.method} {path}"
        invocation.begin_call(what)
        how = "killed"
        try:
            with self._broken_connection(adapter, request.method, path):
                response = _REAL_SEND(adapter, request, **options)
            how = response.status_code
        except RequestException as error:
            how = type(error).__name__
            raise
        finally:
            self._say(f"invocation {invocation.number}: {what}: {how}")
        invocation.end_call(what)
        return response

    @contextmanager
    def _broken_connection(self, adapter, method, path):
        drawn = self._sky.draw(fault_schedule.CONNECTION, method, path)
        if drawn is None:
            yield
            return
        self._sky.count(fault_schedule.CONNECTION, drawn.kind)
        # Only what has to be connected again can fail to connect.
        adapter.poolmanager.clear()
        refused = ConnectionRefusedError(111, "Connection refused")
        _broken.error = socket.gaierror(-2, "Name or service not known") if drawn.kind == "no name" else refused
        try:
            yield
        finally:
            del _broken.error


_broken = threading.local()


class _Sending:
    """Takes the place of an adapter's `send`."""

    def __init__(self, wire, adapter):
        self._wire = wire
        self._adapter = adapter

    def __call__(self, request, **options):
        return self._wire.send(self._adapter, request, options)


@contextmanager
def moto_in_process(transport):
    """Let moto answer in this process, several times as fast as its server.

    `transport` gets every `request` of every AWS client, and the function that would `serve` it.
    """
    process, lock = botocore_stubber.process_request, threading.RLock()

    def serve(request):
        with lock:  # one request at a time, as the server
            return process(request)

    # Requests to the fake API pass through moto.
    config = {"core": {"mock_credentials": False, "passthrough": {"urls": ["http://127.0.0.1"], "services": []}}}
    # moto answers in the first of botocore's `before-send` hooks, so that no other hook could come before it.
    hook = partial(transport, serve=serve)
    with mock_aws(config=config), patch.object(botocore_stubber, "process_request", hook):
        yield


class AwsTransport:
    """The wire of all AWS clients; only what the function sends fails.

    `on_unknown` gets what was sent, notifications or messages, without the function's knowing.
    """

    def __init__(self, schedule, on_unknown, say):
        self._sky = schedule
        self._on_unknown = on_unknown
        self._say = say

    def __call__(self, request, serve):
        """Serve one request, or let it fail on its way."""
        invocation = invocation_of_thread()
        if invocation is None:
            return serve(request)
        service, operation = _operation(request)
        what = f"{service} {operation}"
        invocation.begin_call(what)
        drawn = self._sky.draw(service, operation, agent_of_thread())
        answer = self._fail(drawn, service, operation, request, serve) if drawn else serve(request)
        invocation.end_call(what)
        return answer

    def _fail(self, drawn, service, operation, request, serve):
        kind, dice = drawn.kind, drawn.dice
        if kind == "entries failed" and operation not in _BATCHES:
            kind = "throttled"
        self._sky.count(service, kind)
        self._say(f"invocation {invocation_of_thread().number}: {service} {operation}: {kind}")
        match kind:
            case "throttled" if operation == "TransactWriteItems" and dice.random() < 0.5:
                return _conflict(dice, request)
            case "throttled":
                return _error(service, 400, _THROTTLED[service])
            case "error 500":
                return _error(service, dice.choice((500, 503)), "InternalFailure")
            case "access denied":
                return _error(
                    service, 403 if service == "sns" else 400, _DENIED.get(service, "AccessDeniedException")
                )
            case "not connected":
                raise dice.choice((EndpointConnectionError, ConnectTimeoutError))(endpoint_url=request.url)
            case "answer lost":
                serve(request)
                self._on_unknown(_sent(operation, request))
                raise _lost(dice, request)
            case "slow":
                time.sleep(dice.choice(_SLOW_SECONDS))
                return serve(request)
        return _fail_entries(operation, dice, request, serve)


def _lost(dice, request):
    if dice.random() < 0.5:
        return ReadTimeoutError(endpoint_url=request.url)
    return ConnectionClosedError(endpoint_url=request.url)


def _sent(operation, request):
    """Return the messages of a request, as texts."""
    if operation == "SendMessageBatch":
        return [entry["MessageBody"] for entry in json.loads(request.body)["Entries"]]
    fields = [field.partition("=")[::2] for field in request.body.split("&")] if operation == "PublishBatch" else []
    return [json.loads(unquote_plus(value))["default"] for name, value in fields if name.endswith(".Message")]


def _operation(request):
    target = request.headers.get("X-Amz-Target")
    service = urlsplit(request.url).netloc.partition(".")[0]
    if target:
        return service, (target.decode() if isinstance(target, bytes) else target).rpartition(".")[2]
    return service, parse_qs(request.body.partition("&Version")[0])["Action"][0]


def _error(service, status, code):
    if service == "sns":
        kind = "Sender" if status < 500 else "Receiver"
        error = f"<Error><Type>{kind}</Type><Code>{code}</Code><Message>a fault</Message></Error>"
        return status, {}, f"<ErrorResponse>{error}<RequestId>r</RequestId></ErrorResponse>"
    return status, {}, json.dumps({"__type": code, "message": "a fault"})


def _conflict(dice, request):
    """Cancel a transaction because someone else is writing to one of its items."""
    reasons = [{"Code": "None"} for _ in json.loads(request.body)["TransactItems"]]
    reasons[dice.randrange(len(reasons))] = {"Code": "TransactionConflict", "Message": "a fault"}
    error = {"__type": "TransactionCanceledException", "Message": "a fault", "CancellationReasons": reasons}
    return 400, {}, json.dumps(error)


def _fail_entries(operation, dice, request, serve):
    """Serve some entries of a batch, and let the others fail in an answer that is itself a success."""
    fault = {"Code": "Fault", "Message": "a fault", "SenderFault": dice.random() < 0.3}
    return (_fail_messages if operation == "SendMessageBatch" else _fail_notifications)(dice, fault, request, serve)


def _picked(dice, entries):
    failing = set(dice.sample(range(len(entries)), dice.randint(1, len(entries))))
    served = [entry for index, entry in enumerate(entries) if index not in failing]
    return served, [entry for index, entry in enumerate(entries) if index in failing]


def _fail_messages(dice, fault, request, serve):
    content = json.loads(request.body)
    served, failing = _picked(dice, content["Entries"])
    answer = {"Successful": [], "Failed": []}
    if served:
        request.body = json.dumps(content | {"Entries": served}).encode()
        answer |= json.loads(serve(request)[2])
    answer["Failed"] = [*answer["Failed"], *(fault | {"Id": entry["Id"]} for entry in failing)]
    return 200, {}, json.dumps(answer)


def _fail_notifications(dice, fault, request, serve):
    prefix = "PublishBatchRequestEntries.member."
    fields = [field.partition("=")[::2] for field in request.body.split("&")]
    numbers = sorted({int(name.split(".")[2]) for name, _ in fields if name.startswith(prefix)})
    served, failing = _picked(dice, numbers)
    ids = {name: unquote_plus(value) for name, value in fields}
    text = (
        "<PublishBatchResponse><PublishBatchResult><Successful/><Failed/></PublishBatchResult></PublishBatchResponse>"
    )
    if served:
        left = [(name, value) for name, value in fields if not name.startswith(prefix)]
        for place, number in enumerate(served, 1):
            old, new = f"{prefix}{number}.", f"{prefix}{place}."
            left += [(name.replace(old, new), value) for name, value in fields if name.startswith(old)]
        request.body = "&".join(f"{name}={value}" for name, value in left)
        text = serve(request)[2]
        text = text if isinstance(text, str) else text.decode()
    inner = "".join(
        f"<{name}>{str(value).lower() if value in (True, False) else value}</{name}>" for name, value in fault.items()
    )
    members = "".join(f"<member><Id>{ids[f'{prefix}{number}.Id']}</Id>{inner}</member>" for number in failing)
    return 200, {}, text.replace("<Failed/>", f"<Failed>{members}</Failed>")


def no_sleep(_seconds):
    """Sleep not at all: what is waited for between two tries of a client happens at once here."""
