"""Target: any bytes as the response that a connection receives, after a first one that chooses the call."""

import json
import re
from collections.abc import Callable, Iterable
from datetime import timedelta

from agent_log_capture.adapters.cloud_backup import CloudBackup
from agent_log_capture.adapters.http_session import build_session
from agent_log_capture.adapters.identity import Identity, IdentityError
from agent_log_capture.domain.auth_token import AuthToken, Credentials
from agent_log_capture.domain.capture import Capture, Polling, Step, is_agent_id, rejected
from agent_log_capture.domain.outcome import LogFile, Reason, Trigger, TriggerType
from agent_log_capture.domain.polling import Poll, PollPolicy
from agent_log_capture.domain.responses import (
    ApiResponse,
    Failure,
    ResponseClass,
    RetryableError,
    classify,
    is_dated_since,
)
from agent_log_capture.domain.retry import MAX_DELAY_SECONDS, MIN_DELAY_SECONDS, RetryPolicy
from tests.fuzz.checks import NOW, check_capture, check_outcome, check_text
from tests.fuzz.transport import FakeConnection, responding

TOKEN = AuthToken("the-token-itself", "110011")
CREDENTIALS = Credentials("backup-bot", "the-api-key-itself")
CAPTURE = Capture(
    agent_id="an-agent",
    region="DFW",
    trigger=Trigger(TriggerType.ALARM, "arn@time", "an alarm"),
    asked_at=NOW,
    retry_from=NOW,
)
POLLING = Polling(log_file_id=None, requested_at=NOW)
RETRIES = RetryPolicy(window_seconds=3600, random=lambda: 0.5)
POLLS = PollPolicy(deadline_seconds=3600, grace_seconds=3600)
SESSION = build_session(1)
API = CloudBackup(SESSION, "http://{region}.api.example", lambda: NOW)
IDENTITY = Identity(SESSION, "http://identity.example")
REQUEST_LINE = re.compile(
    rb"(GET|POST) /v2/110011/(events|agents/an-agent/(logfiles(/a-log-file)?|status)) HTTP/1\.1\r\n"
)
MOST_MESSAGE_CHARACTERS = 500
DYNAMODB_BYTES = 400 * 1024
# A fuzzer finds no such thing by itself, and without it never reaches a body.
HEAD = b"HTTP/1.1 200 OK\r\n\r\n"
ACCEPTED_HEAD = b"HTTP/1.1 202 Accepted\r\n\r\n"

CALLS: list[Callable[[], ApiResponse]] = [
    lambda: API.request_log_file(TOKEN, CAPTURE),
    lambda: API.read_log_file(TOKEN, CAPTURE, "a-log-file"),
    lambda: API.read_status(TOKEN, CAPTURE),
    lambda: API.find_log_file(TOKEN, CAPTURE, lambda log_file: log_file.is_pending),
    lambda: API.find_log_file(TOKEN, CAPTURE, lambda log_file: is_dated_since(log_file, NOW)),
    lambda: API.activate_agents(TOKEN, "DFW"),
]
POSTS = (CALLS[0], CALLS[-1])


def check(data: bytes) -> None:
    """Check how the two clients read these bytes."""
    choice = data[0] if data else 0
    heads = (b"", HEAD, ACCEPTED_HEAD)
    received = heads[choice // 8 % len(heads)] + data[1:]
    if choice % 8 < len(CALLS):
        check_call(CALLS[choice % 8], [received])
    else:
        check_authentication([received])


def check_call(call: Callable[[], ApiResponse], received: Iterable[bytes]) -> ApiResponse | None:
    """Check one call of the Cloud Backup API: a response, or a failure that says whether it may have been served."""
    response, failure = None, None
    with responding(received) as connections:
        try:
            response = call()
        except RetryableError as error:
            failure = error.failure
            check_chain(error, TOKEN.value)
    [connection] = connections
    _check_request(connection)
    if response:
        check_response(response)
    else:
        _check_failure(failure)
    return response


def check_authentication(received: Iterable[bytes]) -> AuthToken | None:
    """Check one call of the Identity API: a token, or an error that quotes nothing that was received."""
    token, problem = None, ""
    with responding(received) as connections:
        try:
            token, _ = IDENTITY.authenticate(CREDENTIALS)
        except IdentityError as error:
            problem = str(error)
            check_chain(error, CREDENTIALS.api_key)
    [connection] = connections
    assert connection.sent.startswith(b"POST /v2.0/tokens HTTP/1.1\r\n")
    check_text(problem)
    if token:
        assert re.fullmatch(r"[\x21-\x7e]+", token.value)
        assert re.fullmatch(r"[A-Za-z0-9_-]+", token.project_id)
    return token


def check_chain(error: BaseException | None, secret: str) -> None:
    """Check that an error, and what is chained to it, holds no request and shows no secret."""
    if error:
        assert not hasattr(error, "request")
        assert secret not in f"{error} {error!r} {vars(error)}"
        check_chain(error.__cause__, secret)
        check_chain(error.__context__, secret)


def check_response(response: ApiResponse) -> None:
    """Check a response, and all that is published or saved of it."""
    assert response.http_status >= 200
    assert response.retry_after_seconds >= 0
    check_text(response.message or "")
    assert TOKEN.value not in str(response)
    assert len(response.message or "") <= MOST_MESSAGE_CHARACTERS
    _check_log_file(response.log_file or LogFile())
    log_file = json.dumps(response.log_file.to_json()) if response.log_file else ""
    assert len(log_file) < DYNAMODB_BYTES
    if classify(response.http_status) is ResponseClass.ACCEPTED:
        requested = POLLS.requested(CAPTURE, response, requested_at=NOW, at=NOW, project_id="110011")
        assert requested.next
        _check_step(requested)
    else:
        _check_step(rejected(CAPTURE, response, at=NOW, project_id="110011"))
        _check_failure(response.failure)
    for at in (NOW, NOW + timedelta(hours=2)):
        poll = Poll(policy=POLLS, capture=CAPTURE, phase=POLLING, at=at, project_id="110011")
        _check_step(poll.answered(response, is_online=False))


def _check_step(step: Step) -> None:
    assert step.outcome or step.next
    if step.outcome:
        check_outcome(step.outcome)
    if step.next:
        check_capture(step.next)
    if step.recorded:
        check_capture(step.recorded)


def _check_failure(failure: Failure) -> None:
    check_text(failure.message)
    assert 0 < len(failure.message) <= MOST_MESSAGE_CHARACTERS
    assert TOKEN.value not in failure.message
    assert failure.retry_after_seconds >= 0
    assert (failure.unconfirmed_since is not None) == (failure.reason is Reason.UNCONFIRMED)
    retry = RETRIES.retry(CAPTURE, failure, now=NOW, project_id=None)
    assert retry.next
    assert MIN_DELAY_SECONDS <= retry.delay_seconds <= MAX_DELAY_SECONDS
    _check_step(retry)


def _check_log_file(log_file: LogFile) -> None:
    assert log_file.id is None or is_agent_id(log_file.id)
    for text in (log_file.date, log_file.state, log_file.location, *(link["href"] for link in log_file.links)):
        check_text(text or "")


def _check_request(connection: FakeConnection) -> None:
    assert REQUEST_LINE.match(connection.sent), connection.sent
    assert connection.sent.count(b"HTTP/1.1\r\n") == 1
    assert b"\r\nCookie:" not in connection.sent
