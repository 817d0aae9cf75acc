"""Target: any bytes as what comes back on the wire, after a first one that chooses the call."""

import json
import re
from collections.abc import Callable, Iterable
from datetime import timedelta

from agent_log_capture.adapters.cloud_backup import CloudBackup
from agent_log_capture.adapters.http_session import MAX_ANSWER_BYTES, build_session
from agent_log_capture.adapters.identity import Identity, IdentityError
from agent_log_capture.domain.auth_token import AuthToken
from agent_log_capture.domain.capture import Capture, Polling, is_agent_id
from agent_log_capture.domain.credentials import Credentials, IssuedToken
from agent_log_capture.domain.failure import Failure, RetryableError
from agent_log_capture.domain.outcome import LogFile, Reason
from agent_log_capture.domain.polling import Poll, PollPolicy
from agent_log_capture.domain.responses import (
    Accepted,
    ApiResponse,
    Deferred,
    ResponseClass,
    busy,
    classify,
    is_dated_since,
    is_pending,
    requested,
)
from agent_log_capture.domain.retry import MAX_DELAY_SECONDS, MIN_DELAY_SECONDS, RetryPolicy
from agent_log_capture.domain.step import rejected
from agent_log_capture.domain.trigger import Trigger, TriggerType
from tests.fuzz.checks import NOW, check_capture, check_outcome, check_text
from tests.fuzz.wire import Wire, answering

TOKEN = AuthToken("the-token-itself", "110011")
CREDENTIALS = Credentials("backup-bot", "the-api-key-itself")
CAPTURE = Capture(
    agent_id="an-agent",
    region="DFW",
    trigger=Trigger(TriggerType.ALARM, "arn@time", "an alarm"),
    asked_at=NOW,
    retry_from=NOW,
)
FOLLOWING = Polling(log_file_id=None, requested_at=NOW)
RETRIES = RetryPolicy(window_seconds=3600, random=lambda: 0.5)
FOLLOW = PollPolicy(deadline_seconds=3600, grace_seconds=3600)
SESSION = build_session(1)
API = CloudBackup(SESSION, "http://{region}.api.example", lambda: NOW)
IDENTITY = Identity(SESSION, "http://identity.example")
REQUEST_LINE = re.compile(
    rb"(GET|POST) /v2/110011/(events|agents/an-agent/(logfiles(/a-log-file)?|status)) HTTP/1\.1\r\n"
)
MOST_MESSAGE_CHARACTERS = 500
DYNAMODB_BYTES = 400 * 1024
# Tells a fuzzer, which finds no such thing by itself, what a body can be.
HEAD = b"HTTP/1.1 200 OK\r\n\r\n"
ACCEPTED_HEAD = b"HTTP/1.1 202 Accepted\r\n\r\n"

CALLS: list[Callable[[], ApiResponse]] = [
    lambda: API.request_log_file(TOKEN, CAPTURE),
    lambda: API.read_log_file(TOKEN, CAPTURE, "a-log-file"),
    lambda: API.read_status(TOKEN, CAPTURE),
    lambda: API.find_log_file(TOKEN, CAPTURE, is_pending),
    lambda: API.find_log_file(TOKEN, CAPTURE, lambda log_file: is_dated_since(log_file, NOW)),
    lambda: API.activate_agents(TOKEN, "DFW"),
]
POSTS = (CALLS[0], CALLS[-1])


def check(data: bytes) -> None:
    """Check what the two clients make of these bytes."""
    choice, wire = (data[0] if data else 0), data[1:]
    heads = (b"", HEAD, ACCEPTED_HEAD)
    received = heads[choice // 8 % len(heads)] + wire
    if choice % 8 < len(CALLS):
        check_call(CALLS[choice % 8], [received])
    else:
        check_authentication([received])


def check_call(call: Callable[[], ApiResponse], received: Iterable[bytes]) -> ApiResponse | None:
    """Check one call of the Cloud Backup API: an answer, or a failure that says whether it may have been served."""
    with answering(received) as wires:
        try:
            answer, failure = call(), None
        except RetryableError as error:
            answer, failure = None, error.failure
    [wire] = wires
    _check_wire(wire)
    if answer:
        check_answer(answer)
    else:
        _check_failure(failure)
    return answer


def check_authentication(received: Iterable[bytes]) -> IssuedToken | None:
    """Check one call of the Identity API: a token, or an error that shows nothing of what was received."""
    issued, problem = None, ""
    with answering(received) as wires:
        try:
            issued = IDENTITY.authenticate(CREDENTIALS)
        except IdentityError as error:
            problem = str(error)
    [wire] = wires
    assert wire.sent.startswith(b"POST /v2.0/tokens HTTP/1.1\r\n")
    assert wire.received <= MAX_ANSWER_BYTES
    check_text(problem)
    assert CREDENTIALS.api_key not in problem
    if issued:
        assert re.fullmatch(r"[\x21-\x7e]+", issued.auth_token.value)
        assert re.fullmatch(r"[A-Za-z0-9_-]+", issued.auth_token.project_id)
    return issued


def check_answer(answer: ApiResponse) -> None:
    """Check an answer, and all that is told or kept of it."""
    assert answer.http_status >= 200
    assert answer.retry_after_seconds >= 0
    check_text(answer.message or "")
    assert TOKEN.value not in str(answer)
    assert len(answer.message or "") <= MOST_MESSAGE_CHARACTERS
    _check_log_file(answer.log_file or LogFile())
    accepted = Accepted(trigger=CAPTURE.trigger, replays=0, requested_at=NOW, answer=answer)
    remembered = json.dumps(accepted.to_json())
    assert len(remembered) < DYNAMODB_BYTES
    assert Accepted.from_json(json.loads(remembered)).answer.log_file == answer.log_file
    if classify(answer.http_status) is ResponseClass.ACCEPTED:
        check_outcome(requested(CAPTURE, accepted, now=NOW, project_id="110011"))
        first_poll = FOLLOW.first_poll(CAPTURE, accepted)
        assert first_poll
        check_capture(first_poll.capture)
    else:
        check_outcome(rejected(CAPTURE, answer, now=NOW, project_id="110011"))
        _check_failure(busy(answer))
    for at in (NOW, NOW + timedelta(hours=2)):
        look = Poll(policy=FOLLOW, capture=CAPTURE, polling=FOLLOWING, at=at, project_id="110011")
        looked = look.answered(answer, is_online=False)
        if hasattr(looked, "outcome"):
            check_outcome(looked.outcome)
        else:
            check_capture(looked.capture)


def _check_failure(failure: Failure) -> None:
    check_text(failure.message)
    assert 0 < len(failure.message) <= MOST_MESSAGE_CHARACTERS
    assert TOKEN.value not in failure.message
    assert failure.retry_after_seconds >= 0
    assert (failure.unconfirmed_since is not None) == (failure.reason is Reason.UNCONFIRMED)
    deferred = RETRIES.defer(CAPTURE, failure, now=NOW, project_id=None)
    assert isinstance(deferred, Deferred)
    assert MIN_DELAY_SECONDS <= deferred.delay_seconds <= MAX_DELAY_SECONDS
    check_capture(deferred.capture)


def _check_log_file(log_file: LogFile) -> None:
    assert log_file.id is None or is_agent_id(log_file.id)
    for text in (log_file.date, log_file.state, log_file.location, *(link["href"] for link in log_file.links)):
        check_text(text or "")


def _check_wire(wire: Wire) -> None:
    assert wire.received <= MAX_ANSWER_BYTES
    assert REQUEST_LINE.match(wire.sent), wire.sent
    assert wire.sent.count(b"HTTP/1.1\r\n") == 1
    assert b"\r\nCookie:" not in wire.sent
