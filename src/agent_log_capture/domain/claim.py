"""Who has requested an agent's log file within the cool-down, or is requesting it now."""

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import Enum, auto

from agent_log_capture.domain.capture import Capture, Step
from agent_log_capture.domain.outcome import LogFile, Reason, Status, Trigger, readable

LAPSED = datetime.fromtimestamp(0, UTC)


class ClaimMatch(Enum):
    """What a claim that is in the table already means for a capture."""

    SAME_OWNER = auto()  # its own request was accepted, in an earlier delivery
    DUPLICATE = auto()  # the request of another trigger was accepted
    LIVE = auto()  # another invocation is requesting the log file
    LAPSED = auto()  # an invocation ended without settling it: the request may have been served


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """The claim of one trigger on one agent.

    `trigger` and `replays` are its owner, `claim_id` the invocation. A log file that results from it is dated `since`
    or later. It is live until `claimed_until`, and in force until `expires`; `accepted_at`, `http_status` and, where
    the API named it, `log_file` are set once the API has accepted the request.
    """

    project_id: str
    region: str
    agent_id: str
    trigger: Trigger
    replays: int
    claim_id: str
    since: datetime
    claimed_until: datetime
    expires: datetime
    accepted_at: datetime | None = None
    http_status: int | None = None
    log_file: LogFile | None = None

    def match(self, capture: Capture, now: datetime) -> ClaimMatch:
        """Return what it means for a capture that finds it."""
        if self.accepted_at:
            is_same = (self.trigger, self.replays) == (capture.trigger, capture.replays)
            return ClaimMatch.SAME_OWNER if is_same else ClaimMatch.DUPLICATE
        return ClaimMatch.LIVE if self.claimed_until > now else ClaimMatch.LAPSED


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimPolicy:
    """How an invocation makes its claims: under which ID and until when; `cool_down` is how long one is in force."""

    project_id: str
    claim_id: str
    claimed_until: datetime
    cool_down: timedelta

    def claim(self, capture: Capture, now: datetime, lapsed: Claim | None = None) -> Claim:
        """Return a capture's claim; one that takes over a lapsed claim keeps the earlier `since`."""
        times = [moment for moment in (capture.unconfirmed_since, lapsed and lapsed.since) if moment]
        return Claim(
            project_id=self.project_id,
            region=capture.region,
            agent_id=capture.agent_id,
            trigger=capture.trigger,
            replays=capture.replays,
            claim_id=self.claim_id,
            since=min(times, default=now),
            claimed_until=self.claimed_until,
            expires=max(self.claimed_until, now + self.cool_down),
        )

    def settle(self, claim: Claim, step: Step | None) -> Claim | None:
        """Return what is left of a claim after the visit; None when it is to be deleted.

        A request that may have been served leaves a lapsed claim: the next capture lists the agent's log files first.
        """
        outcome = step and step.outcome
        if outcome and outcome.status is Status.REQUESTED:
            accepted = replace(claim, accepted_at=outcome.at, expires=outcome.at + self.cool_down)
            return replace(accepted, http_status=outcome.http_status, log_file=outcome.log_file)
        if outcome and outcome.status is Status.REJECTED:
            return None
        since = step.capture.unconfirmed_since if step else claim.since
        return replace(claim, claimed_until=LAPSED, since=min(since, claim.since)) if since else None


def duplicate(capture: Capture, claim: Claim, *, at: datetime) -> Step:
    """Return the step of a capture whose agent's log file was requested a short while ago by another trigger."""
    first = claim.trigger
    when = readable(claim.accepted_at or claim.since)
    message = f"the log file was requested at {when} already, for {first.name or first.id}"
    outcome = capture.outcome(Status.DUPLICATE, at=at, project_id=claim.project_id)
    outcome = replace(outcome, log_file=claim.log_file, reason=Reason.COOL_DOWN, message=message)
    return Step(capture=capture, outcome=outcome)
