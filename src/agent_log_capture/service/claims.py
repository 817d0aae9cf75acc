"""Claims agents for one invocation, so that one request for a log file is made within the cool-down."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from http import HTTPStatus
from itertools import batched
from typing import TYPE_CHECKING

from agent_log_capture.adapters.captures_table import (
    CLAIMS_IN_A_TRANSACTION,
    ITEMS_IN_A_BATCH,
    CapturesTable,
    TableError,
)
from agent_log_capture.domain.capture import Capture, Requesting, Step, not_tried
from agent_log_capture.domain.claim import Claim, ClaimMatch, ClaimPolicy, duplicate
from agent_log_capture.domain.outcome import Reason
from agent_log_capture.domain.polling import PollPolicy
from agent_log_capture.domain.responses import ApiResponse, Failure

if TYPE_CHECKING:
    from aws_lambda_powertools import Logger

_ROUNDS = 4
_IN_PROGRESS = Failure(reason=Reason.IN_PROGRESS, message="another invocation is requesting this agent's log file")
# A live claim is settled when the other invocation ends, mostly after some seconds.
_IN_PROGRESS_DELAY_SECONDS = 30


@dataclass(slots=True, kw_only=True)
class Claims:
    """The claims of one invocation; without a `policy` agents are not claimed.

    When the table cannot be reached, log files are requested all the same: an alarm is worth a second log file.
    `save` takes the steps of captures that need no visit, because of the claims that are there.
    """

    table: CapturesTable
    policy: ClaimPolicy | None
    polls: PollPolicy
    now: Callable[[], datetime]
    logger: "Logger"
    save: Callable[[Step], None]
    _own: dict[tuple[object, ...], Claim] = field(default_factory=dict)
    _settled: list[tuple[Claim, Claim | None]] = field(default_factory=list)

    def claim(self, captures: Sequence[Capture]) -> Iterator[Sequence[Capture]]:
        """Claim agents, each of which is named once, a hundred at a time; yield the captures to be processed."""
        if free := [capture for capture in captures if not self._needs_claim(capture)]:
            yield free
        to_claim = [capture for capture in captures if self._needs_claim(capture)]
        for batch in batched(to_claim, CLAIMS_IN_A_TRANSACTION, strict=False):
            yield self._claim(batch)

    def rounds(self, captures: Iterable[Capture]) -> list[list[Capture]]:
        """Split captures so that no two of a round claim the same agent: the later ones find what the first left."""
        rounds: defaultdict[int, list[Capture]] = defaultdict(list)
        claimed: Counter[tuple[str, str]] = Counter()
        for capture in captures:
            agent = (capture.region, capture.agent_id)
            needs_claim = self._needs_claim(capture)
            rounds[claimed[agent] if needs_claim else 0].append(capture)
            claimed[agent] += needs_claim
        return list(rounds.values())

    def visited(self, step: Step) -> None:
        """Settle the claim of a capture by its step; the same capture may be polled beside it.

        Claims are written as many at a time as one call takes, while others are still being processed.
        """
        if self.policy is None or not isinstance(step.capture.phase, Requesting):
            return  # claims of a table that cannot be reached lapse
        if claim := self._own.pop(step.capture.key, None):
            self._settled.append((claim, self.policy.settle(claim, step)))
            if len(self._settled) == ITEMS_IN_A_BATCH:
                self._write_settled()

    def settle(self) -> None:
        """Settle the other claims, which lapse, and write what is left."""
        if self.policy:
            self._settled += [(claim, self.policy.settle(claim, None)) for claim in self._own.values()]
        self._own = {}
        if self._settled:
            self._write_settled()

    def _write_settled(self) -> None:
        settled, self._settled = self._settled, []
        try:
            self.table.settle(
                [kept for _, kept in settled if kept], [claim for claim, kept in settled if kept is None]
            )
        except TableError as error:
            # They lapse, and the next capture of the agent lists its log files before it requests one.
            self.logger.warning("claims were not settled", count=len(settled), reason=f"{error}")

    def _needs_claim(self, capture: Capture) -> bool:
        return self.policy is not None and not capture.force and isinstance(capture.phase, Requesting)

    def _claim(self, batch: Sequence[Capture]) -> Sequence[Capture]:
        """Claim up to a hundred agents: what is found is decided, and the others are claimed again without it."""
        left: dict[Capture, Claim | None] = dict.fromkeys(batch)
        is_conflict = False
        for number in range(_ROUNDS):
            if is_conflict:
                self.table.wait(number)
            if not left:
                return []
            found = self._write(left)
            if found is None:
                # Where a claim had lapsed, its request may have been served.
                return [capture.requesting(lapsed.since if lapsed else None) for capture, lapsed in left.items()]
            captures, is_conflict = list(left), not found
            for capture, claim in ((captures[index], claim) for index, claim in found.items()):
                del left[capture]
                if (match := claim.match(capture, self.now())) is ClaimMatch.LAPSED:
                    left[capture] = claim
                else:
                    self.save(self._decided(capture, claim, match))
        for capture in left:
            self.save(not_tried(capture, _IN_PROGRESS, _IN_PROGRESS_DELAY_SECONDS))
        return []

    def _write(self, left: Mapping[Capture, Claim | None]) -> Mapping[int, Claim] | None:
        """Claim the agents of captures; return None when they are claimed, or the table cannot be reached."""
        if self.policy is None:
            return None
        now = self.now()
        claims = [(self.policy.claim(capture, now, lapsed), lapsed) for capture, lapsed in left.items()]
        try:
            found = self.table.claim(claims)
        except TableError as error:
            self.policy = None
            self.logger.warning("the table cannot be reached: log files are requested without it", reason=f"{error}")
            return None
        if found is None:
            self._own |= {capture.key: claim for capture, (claim, _) in zip(left, claims, strict=True)}
        return found

    def _decided(self, capture: Capture, claim: Claim, match: ClaimMatch) -> Step:
        """Return the step of a capture that needs no call, because of the claim that was there."""
        if match is ClaimMatch.LIVE:
            return not_tried(capture, _IN_PROGRESS, _IN_PROGRESS_DELAY_SECONDS)
        tried = capture.attempted()
        if match is ClaimMatch.DUPLICATE:
            return duplicate(tried, claim, at=self.now())
        return self.polls.requested(
            tried,
            ApiResponse(http_status=claim.http_status or HTTPStatus.ACCEPTED, log_file=claim.log_file),
            requested_at=claim.since,
            at=self.now(),
            project_id=claim.project_id,
        )
