"""Asks one agent for its log file, or looks for the one that was asked for, and decides what comes of it."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime
from threading import Semaphore

from agent_log_capture.adapters.cloud_backup import CloudBackup
from agent_log_capture.adapters.recent_captures import RecentCaptures
from agent_log_capture.adapters.token_secret import InvocationToken
from agent_log_capture.domain.auth_token import AuthToken
from agent_log_capture.domain.capture import Capture, Polling, Reason
from agent_log_capture.domain.circuit_breaker import CircuitBreaker
from agent_log_capture.domain.polling import Poll, PollPolicy
from agent_log_capture.domain.response_counts import ResponseCounts
from agent_log_capture.domain.responses import (
    Accepted,
    ApiResponse,
    Deferred,
    Failure,
    GivenUp,
    NotTried,
    NotTriedError,
    ResponseClass,
    Result,
    RetryableError,
    RetryPolicy,
    Told,
    busy,
    classify,
    duplicate,
    is_dated_since,
    is_pending,
    rejected,
    requested,
)
from agent_log_capture.service.worker_pool import OUT_OF_TIME, Task, TimeLeft

_TOO_LONG = "the API's answer took too long; it is not waited for any longer"


class _RefusedError(Exception):
    """The API refuses a request: nothing is to be remembered of it."""

    def __init__(self, answer: ApiResponse) -> None:
        super().__init__(answer.message)
        self.answer = answer


@dataclass(frozen=True, slots=True, kw_only=True)
class Processor:
    """Works on captures on behalf of one invocation; `recent` is None when there is no cool-down.

    There are as many `slots` as calls may be made to the API at a time.
    """

    api: CloudBackup
    token: InvocationToken
    breaker: CircuitBreaker
    slots: Semaphore
    recent: RecentCaptures | None
    retries: RetryPolicy
    follow: PollPolicy
    now: Callable[[], datetime]
    answers: ResponseCounts = field(default_factory=ResponseCounts)
    failed_activations: list[str] = field(default_factory=list)

    def work_on(self, task: Task) -> Result:
        """Ask one agent for its log file, or look for the one that it was asked for: one step of a capture's life."""
        capture = task.capture
        try:
            task.begin(self.now())
            return self._look(task, capture.polling) if capture.polling else self._ask(task)
        except NotTriedError as error:
            return NotTried(capture, error.delay_seconds, error.failure)

    def given_up(self, task: Task) -> Result:
        """Decide what becomes of a capture whose task was given up: its request may have been served."""
        capture = task.capture
        if task.began_at is None:
            return NotTried(capture, 0, OUT_OF_TIME)
        self.answers.add(None)
        if capture.polling:
            failure = Failure(reason=Reason.TEMPORARY, message=_TOO_LONG)
            self.breaker.failed(failure)
            return self._looked(capture, capture.polling).failed(failure)
        failure = Failure(reason=Reason.UNCONFIRMED, message=_TOO_LONG, unconfirmed_since=task.began_at)
        self.breaker.failed(failure)
        return self._defer(_tried(capture), failure)

    def activate(self, region: str, time_left: TimeLeft) -> datetime | None:
        """Activate the project's agents in a region, so that the API knows their status; return when it was done.

        None when it was not. A failure is counted and has no other effect: the polls go on.
        """
        if self.breaker.failure or not time_left.is_enough_for_a_call:
            return None
        try:
            answer = self.api.activate_agents(self.token.current(), region)
            self.answers.add(answer.http_status)
            _check(answer)
        except (_RefusedError, RetryableError, NotTriedError) as error:
            self.failed_activations.append(f"{region}: {error}")
            return None
        return self.now()

    def _ask(self, task: Task) -> Result:
        """Ask one agent; whatever is temporary defers the capture or, too late, gives it up."""
        tried = _tried(task.capture)
        try:
            accepted = self._ask_once(task)
        except _RefusedError as error:
            told = rejected(tried, error.answer, now=self.now(), project_id=self.token.project_id)
            return Told(told, task.capture)
        except RetryableError as error:
            return self._defer(tried, error.failure)
        if not accepted.is_by(tried):
            told = duplicate(tried, accepted, now=self.now(), project_id=self.token.project_id)
            return Told(told, task.capture)
        told = requested(tried, accepted, now=self.now(), project_id=self.token.project_id)
        return Told(told, _unconfirmed(task.capture, accepted.requested_at), self.follow.first_poll(tried, accepted))

    def _defer(self, tried: Capture, failure: Failure) -> Deferred | GivenUp:
        return self.retries.defer(tried, failure, now=self.now(), project_id=self.token.project_id)

    def _ask_once(self, task: Task) -> Accepted:
        """Ask, unless the agent was asked within the cool-down: then return what was accepted at that time."""
        capture = task.capture
        if self.recent is None or capture.force:
            return self._accepted(task)
        project_id = self.token.current().project_id
        key = f"{project_id}#{capture.region}#{capture.agent_id}"
        return self.recent.once(key, lambda: self._accepted(task))

    def _accepted(self, task: Task) -> Accepted:
        requested_at = self.now()  # before it is sent: no log file that comes of it is older
        answer = self._made_before(task) or self._request(task)
        return Accepted(
            trigger=task.capture.trigger,
            replays=task.capture.replays,
            requested_at=requested_at,
            answer=answer,
        )

    def _made_before(self, task: Task) -> ApiResponse | None:
        """Poll for the log file of a request that may have been served, so as not to ask twice."""
        capture, since = task.capture, task.capture.unconfirmed_since
        if since is None:
            return None
        answer = self._call(
            task,
            lambda token: self.api.find_log_file(token, capture, lambda log_file: is_dated_since(log_file, since)),
        )
        _check(answer)
        return answer if answer.log_file else None

    def _request(self, task: Task) -> ApiResponse:
        answer = self._call(task, lambda token: self.api.request_log_file(token, task.capture))
        if classify(answer.http_status) is ResponseClass.CONFLICT:
            return self._pending(task, answer)
        return _check(answer)

    def _pending(self, task: Task, conflict: ApiResponse) -> ApiResponse:
        """Take the log file that the agent has yet to upload: the API refuses another one beside it."""
        found = self._call(task, lambda token: self.api.find_log_file(token, task.capture, is_pending))
        if found.log_file is None:
            raise RetryableError(busy(conflict))
        return replace(conflict, log_file=found.log_file)

    def _look(self, task: Task, polling: Polling) -> Result:
        capture = task.capture
        try:
            answer = self._call(task, lambda token: self._log_file(token, capture, polling))
        except RetryableError as error:
            return self._looked(capture, polling).failed(error.failure)
        look = self._looked(capture, polling)
        return look.answered(answer, is_online=self._is_online(task) if look.is_status_wanted(answer) else None)

    def _looked(self, capture: Capture, polling: Polling) -> Poll:
        return Poll(
            policy=self.follow,
            capture=capture,
            polling=polling,
            at=self.now(),
            project_id=self.token.project_id,
        )

    def _log_file(self, token: AuthToken, capture: Capture, polling: Polling) -> ApiResponse:
        """Read a log file by its ID; one that the API did not name is the latest since it was requested."""
        if polling.log_file_id:
            return self.api.read_log_file(token, capture, polling.log_file_id)
        since = polling.requested_at
        return self.api.find_log_file(token, capture, lambda log_file: is_dated_since(log_file, since))

    def _is_online(self, task: Task) -> bool | None:
        """Ask for the agent's status; None when the API does not say."""
        try:
            return self._call(task, lambda token: self.api.read_status(token, task.capture)).is_online
        except RetryableError:
            return None

    def _call(self, task: Task, call: Callable[[AuthToken], ApiResponse]) -> ApiResponse:
        token = self.token.current()
        while classify((answer := self._braked(task, call, token)).http_status) is ResponseClass.TOKEN_REFUSED:
            token = self.token.renewed(refused=token)
        return answer

    def _braked(self, task: Task, call: Callable[[AuthToken], ApiResponse], token: AuthToken) -> ApiResponse:
        """Make a call, count its answer, and let the breaker know how it went."""
        try:
            answer = self._in_a_slot(task, lambda: call(token))
        except RetryableError as error:
            self.answers.add(error.failure.http_status)
            self.breaker.failed(error.failure)
            raise
        self.answers.add(answer.http_status)
        if classify(answer.http_status) is ResponseClass.RETRYABLE:
            self.breaker.failed(busy(answer))
        else:
            self.breaker.answered()
        return answer

    def _in_a_slot(self, task: Task, call: Callable[[], ApiResponse]) -> ApiResponse:
        with self.slots:
            self.breaker.check()  # it may have been pulled meanwhile
            return task.call(call)


def _check(answer: ApiResponse) -> ApiResponse:
    """Return an answer that is a success; _RefusedError or RetryableError for any other."""
    match classify(answer.http_status):
        case ResponseClass.ACCEPTED:
            return answer
        case ResponseClass.REFUSED | ResponseClass.REDIRECTED:
            raise _RefusedError(answer)
    raise RetryableError(busy(answer))


def _tried(capture: Capture) -> Capture:
    return replace(capture, attempts=capture.attempts + 1)


def _unconfirmed(capture: Capture, requested_at: datetime) -> Capture:
    return replace(capture, unconfirmed_since=capture.unconfirmed_since or requested_at)
