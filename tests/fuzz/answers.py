"""Target: any bytes as what comes back on the wire, after a first one that chooses the call."""

import json
import re
from collections.abc import Callable, Iterable
from datetime import timedelta

from agent_log_capture.adapters.cloud_backup import CloudBackup
from agent_log_capture.adapters.http_session import MAX_ANSWER_BYTES, build_session
from agent_log_capture.adapters.identity import Identity, IdentityError
from agent_log_capture.core.auth_token import AuthToken
from agent_log_capture.core.capture import Capture, Following, LogFile, Reason, Trigger, TriggerType, is_agent_id
from agent_log_capture.core.credentials import Credentials, IssuedToken
from agent_log_capture.core.decision import (
    MAX_DELAY_SECONDS,
    MIN_DELAY_SECONDS,
    Accepted,
    Answer,
    Deferred,
    RetryPolicy,
    TemporaryError,
    Trouble,
    Verdict,
    busy,
    is_dated_since,
    is_pending,
    judge,
    rejected,
    requested,
)
from agent_log_capture.core.following import FollowPolicy, Look
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
FOLLOWING = Following(log_file_id=None, requested_at=NOW)
RETRIES = RetryPolicy(window_seconds=3600, random=lambda: 0.5)
FOLLOW = FollowPolicy(deadline_seconds=3600, grace_seconds=3600)
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

CALLS: list[Callable[[], Answer]] = [
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


def check_call(call: Callable[[], Answer], received: Iterable[bytes]) -> Answer | None:
    """Check one call of the Cloud Backup API: an answer, or a trouble that says whether it may have been served."""
    with answering(received) as wires:
        try:
            answer, trouble = call(), None
        except TemporaryError as error:
            answer, trouble = None, error.trouble
    [wire] = wires
    _check_wire(wire)
    if answer:
        check_answer(answer)
    else:
        _check_trouble(trouble)
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


def check_answer(answer: Answer) -> None:
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
    if judge(answer.http_status) is Verdict.ACCEPTED:
        check_outcome(requested(CAPTURE, accepted, now=NOW, project_id="110011"))
        first_look = FOLLOW.first_look(CAPTURE, accepted)
        assert first_look
        check_capture(first_look.capture)
    else:
        check_outcome(rejected(CAPTURE, answer, now=NOW, project_id="110011"))
        _check_trouble(busy(answer))
    for at in (NOW, NOW + timedelta(hours=2)):
        look = Look(policy=FOLLOW, capture=CAPTURE, following=FOLLOWING, at=at, project_id="110011")
        looked = look.answered(answer, is_online=False)
        if hasattr(looked, "outcome"):
            check_outcome(looked.outcome)
        else:
            check_capture(looked.capture)


def _check_trouble(trouble: Trouble) -> None:
    check_text(trouble.message)
    assert 0 < len(trouble.message) <= MOST_MESSAGE_CHARACTERS
    assert TOKEN.value not in trouble.message
    assert trouble.retry_after_seconds >= 0
    assert (trouble.unconfirmed_since is not None) == (trouble.reason is Reason.UNCONFIRMED)
    deferred = RETRIES.defer(CAPTURE, trouble, now=NOW, project_id=None)
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
