"""Asks one agent for its log file, or looks for the one that was asked for, and decides what comes of it."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime

from agent_log_capture.adapters.cloud_backup import CloudBackup
from agent_log_capture.adapters.recent_captures import RecentCaptures
from agent_log_capture.adapters.token_secret import InvocationToken
from agent_log_capture.core.auth_token import AuthToken
from agent_log_capture.core.capture import Capture, Following
from agent_log_capture.core.decision import (
    Accepted,
    Answer,
    Result,
    RetryPolicy,
    TemporaryError,
    Told,
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


class _RefusedError(Exception):
    """The API refuses a request: nothing is to be remembered of it."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.message)
        self.answer = answer


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """Works on captures on behalf of one invocation; `recent` is None when there is no cool-down."""

    api: CloudBackup
    token: InvocationToken
    recent: RecentCaptures | None
    retries: RetryPolicy
    follow: FollowPolicy
    now: Callable[[], datetime]

    def work_on(self, capture: Capture) -> Result:
        """Ask one agent for its log file, or look for the one that it was asked for: one step of a capture's life."""
        return self._look(capture, capture.following) if capture.following else self._ask(capture)

    def _ask(self, capture: Capture) -> Result:
        """Ask one agent; whatever is temporary defers the capture or, too late, gives it up."""
        tried = replace(capture, attempts=capture.attempts + 1)
        try:
            accepted = self._ask_once(tried)
        except _RefusedError as error:
            return Told(rejected(tried, error.answer, now=self.now(), project_id=self.token.project_id))
        except TemporaryError as error:
            return self.retries.defer(tried, error.trouble, now=self.now(), project_id=self.token.project_id)
        if not accepted.is_by(tried):
            return Told(duplicate(tried, accepted, now=self.now(), project_id=self.token.project_id))
        told = requested(tried, accepted, now=self.now(), project_id=self.token.project_id)
        return Told(told, self.follow.first_look(tried, accepted))

    def _ask_once(self, capture: Capture) -> Accepted:
        """Ask, unless the agent was asked within the cool-down: then return what was accepted at that time."""
        if self.recent is None or capture.force:
            return self._accepted(capture)
        project_id = self.token.current().project_id
        key = f"{project_id}#{capture.region}#{capture.agent_id}"
        return self.recent.once(key, lambda: self._accepted(capture))

    def _accepted(self, capture: Capture) -> Accepted:
        requested_at = self.now()  # before it is sent: no log file that comes of it is older
        answer = self._made_before(capture) or self._request(capture)
        return Accepted(
            trigger=capture.trigger,
            replays=capture.replays,
            requested_at=requested_at,
            answer=answer,
        )

    def _made_before(self, capture: Capture) -> Answer | None:
        """Look for the log file of a request that may have been served, so as not to ask twice."""
        since = capture.unconfirmed_since
        if since is None:
            return None
        answer = self._call(
            lambda token: self.api.find_log_file(token, capture, lambda log_file: is_dated_since(log_file, since))
        )
        if judge(answer.http_status) is Verdict.TEMPORARY:
            raise TemporaryError(busy(answer))
        return answer if answer.log_file else None

    def _request(self, capture: Capture) -> Answer:
        answer = self._call(lambda token: self.api.request_log_file(token, capture))
        match judge(answer.http_status):
            case Verdict.ACCEPTED:
                return answer
            case Verdict.REFUSED | Verdict.REDIRECTED:
                raise _RefusedError(answer)
            case Verdict.CONFLICT:
                return self._pending(capture, answer)
        raise TemporaryError(busy(answer))

    def _pending(self, capture: Capture, conflict: Answer) -> Answer:
        """Take the log file that the agent has yet to upload: the API refuses another one beside it."""
        found = self._call(lambda token: self.api.find_log_file(token, capture, is_pending))
        if found.log_file is None:
            raise TemporaryError(busy(conflict))
        return replace(conflict, log_file=found.log_file)

    def _look(self, capture: Capture, following: Following) -> Result:
        try:
            answer = self._call(lambda token: self._log_file(token, capture, following))
        except TemporaryError as error:
            return self._looked(capture, following).failed(error.trouble)
        look = self._looked(capture, following)
        return look.answered(answer, is_offline=look.is_agent_in_question(answer) and self._is_offline(capture))

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

    def _is_offline(self, capture: Capture) -> bool:
        """Tell whether the API says so; when it says nothing, the agent is taken to be there."""
        try:
            return self._call(lambda token: self.api.read_status(token, capture)).is_online is False
        except TemporaryError:
            return False

    def _call(self, call: Callable[[AuthToken], Answer]) -> Answer:
        token = self.token.current()
        while judge((answer := call(token)).http_status) is Verdict.TOKEN_REFUSED:
            token = self.token.renewed(refused=token)
        return answer
