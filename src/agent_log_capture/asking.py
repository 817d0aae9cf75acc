"""Asks one agent for its log file, and decides what comes of it."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime

from agent_log_capture.adapters.cloud_backup import CloudBackup
from agent_log_capture.adapters.token_secret import InvocationToken
from agent_log_capture.core.auth_token import AuthToken
from agent_log_capture.core.capture import Capture, Outcome
from agent_log_capture.core.decision import (
    Answer,
    Result,
    RetryPolicy,
    TemporaryError,
    Verdict,
    busy,
    is_dated_since,
    is_pending,
    judge,
    rejected,
    requested,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """Asks agents for their log files on behalf of one invocation."""

    api: CloudBackup
    token: InvocationToken
    policy: RetryPolicy
    now: Callable[[], datetime]

    def ask(self, capture: Capture) -> Result:
        """Ask one agent, once; whatever is temporary defers the capture or, too late, gives it up."""
        tried = replace(capture, attempts=capture.attempts + 1)
        try:
            return self._made_before(tried) or self._request(tried)
        except TemporaryError as error:
            return self.policy.defer(tried, error.trouble, now=self.now(), project_id=self.token.project_id)

    def _made_before(self, capture: Capture) -> Outcome | None:
        """Look for the log file of a request whose answer was lost, so as not to ask twice."""
        since = capture.unconfirmed_since
        if since is None:
            return None
        answer = self._call(
            lambda token: self.api.find_log_file(token, capture, lambda log_file: is_dated_since(log_file, since))
        )
        if judge(answer.http_status) is Verdict.TEMPORARY:
            raise TemporaryError(busy(answer))
        return self._requested(capture, answer) if answer.log_file else None

    def _request(self, capture: Capture) -> Outcome:
        answer = self._call(lambda token: self.api.request_log_file(token, capture))
        match judge(answer.http_status):
            case Verdict.ACCEPTED:
                return self._requested(capture, answer)
            case Verdict.REFUSED | Verdict.REDIRECTED:
                return rejected(capture, answer, now=self.now(), project_id=self.token.project_id)
            case Verdict.CONFLICT:
                return self._pending(capture, answer)
        raise TemporaryError(busy(answer))

    def _pending(self, capture: Capture, conflict: Answer) -> Outcome:
        """Take the log file that the agent has yet to upload; the API refuses another beside it."""
        found = self._call(lambda token: self.api.find_log_file(token, capture, is_pending))
        if found.log_file is None:
            raise TemporaryError(busy(conflict))
        return self._requested(capture, replace(conflict, log_file=found.log_file))

    def _requested(self, capture: Capture, answer: Answer) -> Outcome:
        return requested(capture, answer, now=self.now(), project_id=self.token.project_id)

    def _call(self, call: Callable[[AuthToken], Answer]) -> Answer:
        token = self.token.current()
        while judge((answer := call(token)).http_status) is Verdict.TOKEN_REFUSED:
            token = self.token.renewed(refused=token)
        return answer
