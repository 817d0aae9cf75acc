"""Which faults are drawn, when and how often: everything follows from the seed."""

import random
import threading
from collections import Counter
from dataclasses import dataclass

API = "api"
CONNECTION = "connection"
IDENTITY = "identity"
AWS = ("secretsmanager", "sns", "sqs", "dynamodb")

SERVER_KINDS = (
    *("status",) * 6,
    "retry after",
    "slow",
    "dripping body",
    "dripping head",
    "dropped before",
    "dropped after",
    "cut status line",
    "cut body",
    "garbage body",
    "no location",
)
CONNECTION_KINDS = ("no name", "refused")
AWS_KINDS = (
    *("throttled",) * 3,
    *("error 500",) * 2,
    "access denied",
    "not connected",
    "answer lost",
    "slow",
    *("entries failed",) * 4,
)
KINDS = {API: SERVER_KINDS, IDENTITY: SERVER_KINDS, CONNECTION: CONNECTION_KINDS} | dict.fromkeys(AWS, AWS_KINDS)

TEMPORARY_CODES = (408, 413, 425, 429, 500, 502, 503, 504, 507, 600, 999)
FINAL_CODES = (300, 301, 302, 303, 304, 307, 308, 400, 402, 403, 404, 405, 406, 410, 415, 422, 431, 451, 501)
OTHER_CODES = (401, 401, 409, 409, 200, 201, 204)

_LONGEST_OUTAGE_SECONDS = 2 * 3600


@dataclass(frozen=True, slots=True)
class Spell:
    """A time in which calls across one boundary fail, each with a chance of `rate`, in one of these ways."""

    boundary: str
    kinds: tuple[str, ...]
    rate: float
    begins_at: float
    ends_at: float


@dataclass(frozen=True, slots=True)
class Drawn:
    """A fault that is to happen, and the dice for its details."""

    kind: str
    dice: random.Random


class FaultSchedule:
    """The faults of one run. `counts` has how often each kind was drawn."""

    def __init__(self, seed, clock, spells):
        self.counts = Counter()
        self._seed = seed
        self._clock = clock
        self._spells = spells
        self._calls = Counter()
        self._lock = threading.Lock()

    def calm(self):
        """Let no further faults happen."""
        self._spells = []

    def draw(self, boundary, *call):
        """Return the fault of the next call of this kind, or None.

        What is drawn depends on the seed, the call and how many such calls there were before; not on what else
        happens at the same time.
        """
        with self._lock:
            self._calls[boundary, call] += 1
            count = self._calls[boundary, call]
        now = self._clock.time()
        active = [
            spell for spell in self._spells if spell.boundary == boundary and spell.begins_at <= now < spell.ends_at
        ]
        if not active:
            return None
        dice = random.Random(f"{self._seed} {boundary} {call} {count}")
        for spell in active:
            if dice.random() < spell.rate:
                return Drawn(dice.choice(spell.kinds), dice)
        return None

    def count(self, boundary, kind):
        """Note that a fault has happened."""
        with self._lock:
            self.counts[f"{boundary}: {kind}"] += 1


def draw_spells(dice, begins_at, seconds):
    """Draw the spells of one run: some failure all the time, and now and then an outage."""
    ends_at = begins_at + seconds
    spells = [
        Spell(boundary, KINDS[boundary], dice.choice(rates), begins_at, ends_at)
        for boundary, rates in {
            API: (0, 0.03, 0.1, 0.2, 0.4),
            IDENTITY: (0, 0.3),
            CONNECTION: (0, 0, 0.02, 0.1),
            **dict.fromkeys(AWS, (0, 0, 0.05, 0.2, 0.5)),
        }.items()
    ]
    for _ in range(dice.choice((0, 0, 1, 1, 2, 3))):
        boundary = dice.choice((API, API, CONNECTION, *AWS))
        start = begins_at + dice.random() * seconds
        length = dice.choice((60, 600, 1800, _LONGEST_OUTAGE_SECONDS))
        kind = dice.choice(KINDS[boundary])
        spells.append(Spell(boundary, (kind,), dice.choice((0.5, 1.0)), start, min(start + length, ends_at)))
    return [spell for spell in spells if spell.rate]
