"""Asks one agent for its log file, or looks for the one that was asked for, and decides what comes of it."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime
from threading import Semaphore

from agent_log_capture.adapters.cloud_backup import CloudBackup
from agent_log_capture.adapters.recent_captures import RecentCaptures
from agent_log_capture.adapters.token_secret import InvocationToken
from agent_log_capture.core.answers import AnswerCounts
from agent_log_capture.core.auth_token import AuthToken
from agent_log_capture.core.brake import Brake
from agent_log_capture.core.capture import Capture, Following, Reason
from agent_log_capture.core.decision import (
    Accepted,
    Answer,
    Deferred,
    GivenUp,
    NotTried,
    NotTriedError,
    Result,
    RetryPolicy,
    TemporaryError,
    Told,
    Trouble,
    Verdict,
    busy,
    duplicate,
    is_dated_since,
    is_pending,
    judge,
    rejected,
    requested,
)
from agent_log_capture.core.following import FollowPolicy, Look
from agent_log_capture.workers import OUT_OF_TIME, TimeLeft, Turn

_TOO_LONG = "the API's answer took too long; it is not waited for any longer"


class _RefusedError(Exception):
    """The API refuses a request: nothing is to be remembered of it."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.message)
        self.answer = answer


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """Works on captures on behalf of one invocation; `recent` is None when there is no cool-down.

    There are as many `slots` as calls may be made to the API at a time.
    """

    api: CloudBackup
    token: InvocationToken
    brake: Brake
    slots: Semaphore
    recent: RecentCaptures | None
    retries: RetryPolicy
    follow: FollowPolicy
    now: Callable[[], datetime]
    answers: AnswerCounts = field(default_factory=AnswerCounts)
    failed_activations: list[str] = field(default_factory=list)

    def work_on(self, turn: Turn) -> Result:
        """Ask one agent for its log file, or look for the one that it was asked for: one step of a capture's life."""
        capture = turn.capture
        try:
            turn.begin(self.now())
            return self._look(turn, capture.following) if capture.following else self._ask(turn)
        except NotTriedError as error:
            return NotTried(capture, error.delay_seconds, error.trouble)

    def given_up(self, turn: Turn) -> Result:
        """Decide what becomes of a capture whose turn was given up: its request may have been served."""
        capture = turn.capture
        if turn.began_at is None:
            return NotTried(capture, 0, OUT_OF_TIME)
        self.answers.add(None)
        if capture.following:
            trouble = Trouble(reason=Reason.TEMPORARY, message=_TOO_LONG)
            self.brake.failed(trouble)
            return self._looked(capture, capture.following).failed(trouble)
        trouble = Trouble(reason=Reason.UNCONFIRMED, message=_TOO_LONG, unconfirmed_since=turn.began_at)
        self.brake.failed(trouble)
        return self._defer(_tried(capture), trouble)

    def activate(self, region: str, time_left: TimeLeft) -> datetime | None:
        """Activate the project's agents in a region, so that the API knows their status; return when it was done.

        None when it was not. A failure is counted and has no other effect: the polls go on.
        """
        if self.brake.trouble or not time_left.is_enough_for_a_call:
            return None
        try:
            answer = self.api.activate_agents(self.token.current(), region)
            self.answers.add(answer.http_status)
            _check(answer)
        except (_RefusedError, TemporaryError, NotTriedError) as error:
            self.failed_activations.append(f"{region}: {error}")
            return None
        return self.now()

    def _ask(self, turn: Turn) -> Result:
        """Ask one agent; whatever is temporary defers the capture or, too late, gives it up."""
        tried = _tried(turn.capture)
        try:
            accepted = self._ask_once(turn)
        except _RefusedError as error:
            told = rejected(tried, error.answer, now=self.now(), project_id=self.token.project_id)
            return Told(told, turn.capture)
        except TemporaryError as error:
            return self._defer(tried, error.trouble)
        if not accepted.is_by(tried):
            told = duplicate(tried, accepted, now=self.now(), project_id=self.token.project_id)
            return Told(told, turn.capture)
        told = requested(tried, accepted, now=self.now(), project_id=self.token.project_id)
        return Told(told, _unconfirmed(turn.capture, accepted.requested_at), self.follow.first_look(tried, accepted))

    def _defer(self, tried: Capture, trouble: Trouble) -> Deferred | GivenUp:
        return self.retries.defer(tried, trouble, now=self.now(), project_id=self.token.project_id)

    def _ask_once(self, turn: Turn) -> Accepted:
        """Ask, unless the agent was asked within the cool-down: then return what was accepted at that time."""
        capture = turn.capture
        if self.recent is None or capture.force:
            return self._accepted(turn)
        project_id = self.token.current().project_id
        key = f"{project_id}#{capture.region}#{capture.agent_id}"
        return self.recent.once(key, lambda: self._accepted(turn))

    def _accepted(self, turn: Turn) -> Accepted:
        requested_at = self.now()  # before it is sent: no log file that comes of it is older
        answer = self._made_before(turn) or self._request(turn)
        return Accepted(
            trigger=turn.capture.trigger,
            replays=turn.capture.replays,
            requested_at=requested_at,
            answer=answer,
        )

    def _made_before(self, turn: Turn) -> Answer | None:
        """Look for the log file of a request that may have been served, so as not to ask twice."""
        capture, since = turn.capture, turn.capture.unconfirmed_since
        if since is None:
            return None
        answer = self._call(
            turn,
            lambda token: self.api.find_log_file(token, capture, lambda log_file: is_dated_since(log_file, since)),
        )
        _check(answer)
        return answer if answer.log_file else None

    def _request(self, turn: Turn) -> Answer:
        answer = self._call(turn, lambda token: self.api.request_log_file(token, turn.capture))
        if judge(answer.http_status) is Verdict.CONFLICT:
            return self._pending(turn, answer)
        return _check(answer)

    def _pending(self, turn: Turn, conflict: Answer) -> Answer:
        """Take the log file that the agent has yet to upload: the API refuses another one beside it."""
        found = self._call(turn, lambda token: self.api.find_log_file(token, turn.capture, is_pending))
        if found.log_file is None:
            raise TemporaryError(busy(conflict))
        return replace(conflict, log_file=found.log_file)

    def _look(self, turn: Turn, following: Following) -> Result:
        capture = turn.capture
        try:
            answer = self._call(turn, lambda token: self._log_file(token, capture, following))
        except TemporaryError as error:
            return self._looked(capture, following).failed(error.trouble)
        look = self._looked(capture, following)
        return look.answered(answer, is_online=self._is_online(turn) if look.is_status_wanted(answer) else None)

    def _looked(self, capture: Capture, following: Following) -> Look:
        return Look(
            policy=self.follow,
            capture=capture,
            following=following,
            at=self.now(),
            project_id=self.token.project_id,
        )

    def _log_file(self, token: AuthToken, capture: Capture, following: Following) -> Answer:
        """Read a log file by its ID; one that the API did not name is the latest since it was requested."""
        if following.log_file_id:
            return self.api.read_log_file(token, capture, following.log_file_id)
        since = following.requested_at
        return self.api.find_log_file(token, capture, lambda log_file: is_dated_since(log_file, since))

    def _is_online(self, turn: Turn) -> bool | None:
        """Ask for the agent's status; None when the API does not say."""
        try:
            return self._call(turn, lambda token: self.api.read_status(token, turn.capture)).is_online
        except TemporaryError:
            return None

    def _call(self, turn: Turn, call: Callable[[AuthToken], Answer]) -> Answer:
        token = self.token.current()
        while judge((answer := self._braked(turn, call, token)).http_status) is Verdict.TOKEN_REFUSED:
            token = self.token.renewed(refused=token)
        return answer

    def _braked(self, turn: Turn, call: Callable[[AuthToken], Answer], token: AuthToken) -> Answer:
        """Make a call, count its answer, and let the brake know how it went."""
        try:
            answer = self._in_a_slot(turn, lambda: call(token))
        except TemporaryError as error:
            self.answers.add(error.trouble.http_status)
            self.brake.failed(error.trouble)
            raise
        self.answers.add(answer.http_status)
        if judge(answer.http_status) is Verdict.TEMPORARY:
            self.brake.failed(busy(answer))
        else:
            self.brake.answered()
        return answer

    def _in_a_slot(self, turn: Turn, call: Callable[[], Answer]) -> Answer:
        with self.slots:
            self.brake.check()  # it may have been pulled meanwhile
            return turn.call(call)


def _check(answer: Answer) -> Answer:
    """Return an answer that is a success; _RefusedError or TemporaryError for any other."""
    match judge(answer.http_status):
        case Verdict.ACCEPTED:
            return answer
        case Verdict.REFUSED | Verdict.REDIRECTED:
            raise _RefusedError(answer)
    raise TemporaryError(busy(answer))


def _tried(capture: Capture) -> Capture:
    return replace(capture, attempts=capture.attempts + 1)


def _unconfirmed(capture: Capture, requested_at: datetime) -> Capture:
    return replace(capture, unconfirmed_since=capture.unconfirmed_since or requested_at)
