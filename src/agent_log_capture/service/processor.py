"""One step of one capture: request its log file, or poll it."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial

from agent_log_capture.adapters.cloud_backup import CloudBackup
from agent_log_capture.adapters.token_secret import InvocationToken
from agent_log_capture.domain.auth_token import AuthToken
from agent_log_capture.domain.capture import Capture, Polling, Recorded, Requesting, Step, not_tried, rejected
from agent_log_capture.domain.circuit_breaker import CircuitBreaker
from agent_log_capture.domain.outcome import LogFile, Reason
from agent_log_capture.domain.polling import Poll, PollPolicy
from agent_log_capture.domain.responses import (
    ApiResponse,
    Failure,
    NotTriedError,
    ResponseClass,
    RetryableError,
    classify,
    is_dated_since,
)
from agent_log_capture.domain.retry import RetryPolicy
from agent_log_capture.service.worker_pool import OUT_OF_TIME, Task, TimeLeft

_TOO_LONG = "the API's response took too long; the call was abandoned"
_REFUSED = (ResponseClass.REFUSED, ResponseClass.REDIRECTED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Processor:
    """Processes captures on behalf of one invocation; its workers share it."""

    api: CloudBackup
    token: InvocationToken
    breaker: CircuitBreaker
    retries: RetryPolicy
    polls: PollPolicy
    now: Callable[[], datetime]
    failed_activations: list[str] = field(default_factory=list)

    def process(self, task: Task) -> Step:
        """Visit a capture: what its phase requires is done, and the step says what is to be saved."""
        capture, task.began_at = task.capture, self.now()
        try:
            match capture.phase:
                case Requesting(unconfirmed_since):
                    return self._request(task, unconfirmed_since)
                case Polling() as phase:
                    return self._poll(task, phase)
                case Recorded():  # a call that a final status needs would be made here
                    return Step(capture=capture)
        except NotTriedError as error:
            return not_tried(capture, error.failure, error.delay_seconds)

    def abandoned(self, task: Task) -> Step:
        """Return the step of a capture whose task was abandoned: its request may have been served."""
        capture = task.capture
        if task.began_at is None:
            return not_tried(capture, OUT_OF_TIME, 0)
        failure = Failure(reason=Reason.TEMPORARY, message=_TOO_LONG)
        if isinstance(capture.phase, Requesting):
            failure = replace(failure, reason=Reason.UNCONFIRMED, unconfirmed_since=task.began_at)
        self.breaker.called(None, failure)
        if isinstance(capture.phase, Polling):
            return self._polled(capture, capture.phase).failed(failure)
        return self._retry(capture.attempted(), failure)

    def activate(self, region: str, time_left: TimeLeft) -> datetime | None:
        """Activate the project's agents in a region, so that the API knows their status; return when.

        None when it failed. A failure is counted and has no other effect: log files are polled all the same.
        """
        if self.breaker.failure or not time_left.is_enough_for_a_call():
            return None
        try:
            response = self._send(partial(self.api.activate_agents, self.token.current(), region))
        except (RetryableError, NotTriedError) as error:
            self.failed_activations.append(f"{region}: {error}")
            return None
        if classify(response.http_status) is ResponseClass.ACCEPTED:
            return self.now()
        self.failed_activations.append(f"{region}: {response.failure.message}")
        return None

    def _request(self, task: Task, unconfirmed_since: datetime | None) -> Step:
        """Request a log file; adopt the one of an earlier request that may have been served."""
        requested_at = self.now()  # before it is sent: no log file that results from it is older
        tried = task.capture.attempted()
        try:
            earlier = self._earlier(task, unconfirmed_since) if unconfirmed_since else None
            response = earlier or self._post(task)
        except RetryableError as error:
            return self._retry(tried, error.failure)
        if response.log_file is None and classify(response.http_status) in _REFUSED:
            return rejected(tried, response, at=self.now(), project_id=self.token.project_id)
        return self.polls.requested(
            tried, response, requested_at=requested_at, at=self.now(), project_id=self.token.project_id
        )

    def _earlier(self, task: Task, since: datetime) -> ApiResponse | None:
        """Return the response that names the log file of an earlier request, or refuses to list log files."""
        response = self._list(task, lambda log_file: is_dated_since(log_file, since))
        return response if response.log_file or classify(response.http_status) in _REFUSED else None

    def _post(self, task: Task) -> ApiResponse:
        """Send the request; a conflict means a log file that the agent has not uploaded yet, when there is one."""
        response = self._call(task, lambda token: self.api.request_log_file(token, task.capture))
        if classify(response.http_status) is not ResponseClass.CONFLICT:
            return response
        pending = self._list(task, lambda log_file: log_file.is_pending)
        if pending.log_file is None:
            raise RetryableError(response.failure)
        return replace(response, log_file=pending.log_file)

    def _list(self, task: Task, is_wanted: Callable[[LogFile], bool]) -> ApiResponse:
        response = self._call(task, lambda token: self.api.find_log_file(token, task.capture, is_wanted))
        if classify(response.http_status) is ResponseClass.CONFLICT:
            raise RetryableError(response.failure)
        return response

    def _retry(self, tried: Capture, failure: Failure) -> Step:
        return self.retries.retry(tried, failure, now=self.now(), project_id=self.token.project_id)

    def _poll(self, task: Task, phase: Polling) -> Step:
        try:
            response = self._call(task, lambda token: self._log_file(token, task.capture, phase))
        except RetryableError as error:
            return self._polled(task.capture, phase).failed(error.failure)
        poll = self._polled(task.capture, phase)
        is_online = None
        if poll.needs_status(response):
            with suppress(RetryableError):
                is_online = self._call(task, lambda token: self.api.read_status(token, task.capture)).is_online
        return poll.answered(response, is_online=is_online)

    def _polled(self, capture: Capture, phase: Polling) -> Poll:
        return Poll(policy=self.polls, capture=capture, phase=phase, at=self.now(), project_id=self.token.project_id)

    def _log_file(self, token: AuthToken, capture: Capture, phase: Polling) -> ApiResponse:
        """Read a log file by its ID; one that the API did not name is the latest since it was requested."""
        if phase.log_file_id:
            return self.api.read_log_file(token, capture, phase.log_file_id)
        return self.api.find_log_file(token, capture, lambda log_file: is_dated_since(log_file, phase.requested_at))

    def _call(self, task: Task, call: Callable[[AuthToken], ApiResponse]) -> ApiResponse:
        """Make a call, once more with another token when the first is refused; RetryableError where it failed."""
        token = self.token.current()
        while True:
            response = self._send(partial(task.call, partial(call, token)))
            if classify(response.http_status) is not ResponseClass.TOKEN_REFUSED:
                return response
            token = self.token.renewed(refused=token)

    def _send(self, call: Callable[[], ApiResponse]) -> ApiResponse:
        """Make a call unless the circuit breaker is open, and let it know how the call went."""
        self.breaker.check()
        try:
            response = call()
        except RetryableError as error:
            self.breaker.called(error.failure.http_status, error.failure)
            raise
        is_retryable = classify(response.http_status) is ResponseClass.RETRYABLE
        self.breaker.called(response.http_status, response.failure if is_retryable else None)
        if is_retryable:
            raise RetryableError(response.failure)
        return response
