"""What one run leaves behind for the checks: nothing of it can act any more."""

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import NamedTuple

ENDINGS = frozenset({"captured", "expired", "rejected", "failed", "duplicate"})


class Key(NamedTuple):
    """One agent that one trigger has named; for a value that is no agent ID, the value."""

    trigger_type: str
    trigger_id: str
    agent_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Letter:
    """A message in the dead-letter queue. `deliveries` counts how often it was handed to the function before.

    `uncounted` are captures in it that have ended and were published, and wait for nothing but to be counted.
    """

    keys: frozenset[Key]
    uncounted: frozenset[Key] = frozenset()
    text: str
    reason: str | None
    is_wrapped: bool
    deliveries: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """An outcome as a report has it."""

    key: Key
    status: str
    outcome_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How one invocation ended. `asked`, `counted` and `published` are of its report, None and empty without one."""

    number: int
    keys: frozenset[Key]
    is_from_queue: bool
    why_dead: str | None = None
    is_hung: bool = False
    error: str | None = None
    asked: int | None = None
    counted: int | None = None
    published: tuple[Published, ...] = ()
    acted_after_end: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Post:
    """A request for a log file as the function saw it.

    `status` is None when there was no answer, or one so late that the function may not have waited for it.
    """

    agent_id: str
    invocation: int
    at: float
    status: int | None
    is_refused_token: bool = False


@dataclass(kw_only=True)
class Record:
    """One run. `doublings` reports why there may be a second one of a capture; `jobs` has the names of jobs, by the
    triggers that named one, None where jobs do not matter, and `sums` what was published of them.

    `asked` and `made` are the fake API's: POSTs for a log file that reached it, and log files that it made.
    `forced` are the agents that some trigger has forced, `forgotten` counts log files that were deleted, `offline`
    are the agents that are or were off.
    """

    seed: int
    is_followed: bool
    cool_down_seconds: int
    is_table_sound: bool
    keys: set[Key] = field(default_factory=set)
    refused: set[Key] = field(default_factory=set)
    doublings: defaultdict[Key, list[str]] = field(default_factory=lambda: defaultdict(list))
    notifications: list[dict] = field(default_factory=list)
    jobs: dict[tuple[str, str], str] | None = None
    sums: list[dict] = field(default_factory=list)
    letters: list[Letter] = field(default_factory=list)
    invocations: list[Ended] = field(default_factory=list)
    posts: list[Post] = field(default_factory=list)
    asked: Counter[str] = field(default_factory=Counter)
    made: Counter[str] = field(default_factory=Counter)
    forced: set[str] = field(default_factory=set)
    forgotten: Counter[str] = field(default_factory=Counter)
    offline: set[str] = field(default_factory=set)
    in_two_places: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    faults: Counter[str] = field(default_factory=Counter)
    history: list[str] = field(default_factory=list)

    @property
    def doubled(self):
        """How often there may be one more of each capture."""
        return Counter({key: len(causes) for key, causes in self.doublings.items()})

    def double(self, keys, cause):
        """Note that there may be one more of these captures."""
        for key in keys:
            self.doublings[key].append(cause)

    @property
    def endings(self):
        """The statuses that are endings: without polling, an accepted request is one."""
        return ENDINGS if self.is_followed else ENDINGS | {"requested"}
