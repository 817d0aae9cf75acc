"""Parses any event into captures, and rejects with a reason what is not an agent ID."""

import json
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import batched, chain, groupby
from typing import Any

from agent_log_capture.domain.capture import Capture, Job, Requesting
from agent_log_capture.domain.events.agent_ids import AgentFinder, Finding, Found, Ignored, InvalidValue
from agent_log_capture.domain.events.envelopes import is_sqs_event, value_at
from agent_log_capture.domain.outcome import Outcome, Status, Trigger, TriggerType

# A notification of this many values is readable, and far below the 256 KiB that SNS carries.
_VALUES_IN_A_NOTIFICATION = 50
_MOST_NOTIFICATIONS = 20  # a message of invalid values alone is not worth a thousand mails
_MOST_DEAD_LETTER_BYTES = 1024 * 1024  # of a message in a queue
_OWN_ATTRIBUTES = frozenset({"reason", "status", "trigger_type", "attempts"})  # of a dead letter that is replayed
_NOT_IN_A_QUEUE = re.compile("[\ud800-\udfff\ufffe\uffff]")
_NUMBER = re.compile(r"[0-9]{1,14}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejection:
    """`count` values that cannot be captured, and the one outcome that reports them."""

    outcome: Outcome
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ParsedRecord:
    """One SQS record, or the whole of any other event.

    `trigger` is the first one in it. `record_id` is None for an event that is not from SQS, `dead_letter` if nothing
    is rejected. `ignored` is why there is nothing to do. `first_received_at` is set if SQS delivered it before.
    """

    trigger: Trigger
    record_id: str | None
    captures: Sequence[Capture]
    rejections: Sequence[Rejection]
    dead_letter: str | None
    ignored: str | None
    first_received_at: datetime | None = None

    def must_be_requeued(self, capture: Capture) -> bool:
        """Return whether an earlier delivery may have requested the log file, and only SQS knows it."""
        # SQS forgets the first delivery of a message, and its ID, when the message is redriven.
        return self.first_received_at is not None and capture.unconfirmed_since == self.first_received_at


@dataclass(frozen=True, slots=True, kw_only=True)
class EventParser:
    """Parses events; `agent_id_keys` are further keys for agent IDs, `default_region` is for IDs without a region."""

    default_region: str
    agent_id_keys: Collection[str] = ()

    def parse(self, event: object, *, request_id: str, now: datetime) -> list[ParsedRecord]:
        """Parse any event, with each agent once for each trigger, in the event's order. Raises nothing."""
        finder = AgentFinder(self.agent_id_keys, Trigger(TriggerType.MANUAL, request_id), now)
        records = event["Records"] if is_sqs_event(event) else [event]
        seen: set[object] = set()
        return [self._record(record, finder, seen, now, is_sqs=record is not event) for record in records]

    def _record(
        self, record: object, finder: AgentFinder, seen: set[object], now: datetime, *, is_sqs: bool
    ) -> ParsedRecord:
        first = _first_received_at(record, now) if is_sqs else None
        message_id = value_at(record, "messageId") if is_sqs else None
        record_id = message_id if isinstance(message_id, str) else None
        findings = finder.find(record)
        invalid = [each for each in findings if isinstance(each, InvalidValue)]
        found = self._captures(findings, invalid, now)
        captures = [replace(capture, record_id=record_id) for key, capture in found.items() if key not in seen]
        if first:  # an earlier delivery may have requested the log files
            captures = [each.requesting(first) if isinstance(each.phase, Requesting) else each for each in captures]
        seen.update(found)
        reasons = (each.because for each in findings if isinstance(each, Ignored))
        return ParsedRecord(
            trigger=findings[0].trigger,
            record_id=record_id,
            captures=captures,
            rejections=_rejections(invalid, now) if invalid else [],
            dead_letter=_dead_letter(record, invalid, is_sqs=is_sqs, is_whole=not found) if invalid else None,
            ignored=None if captures or invalid else next(reasons, "another record names the same agents"),
            first_received_at=first,
        )

    def _captures(self, findings: list[Finding], invalid: list[InvalidValue], now: datetime) -> dict[Any, Capture]:
        """Return new captures, and those that waited in the queue; invalid values count in the job beside them."""
        found: dict[tuple[Any, ...], Found] = {}
        for each in findings:
            if isinstance(each, Found):
                region = each.options.region or self.default_region
                found.setdefault((each.trigger.type, each.trigger.id, region, each.agent_id, 0), each)
        rejected = Counter((each.trigger, each.options.job) for each in invalid)
        asked = rejected + Counter((each.trigger, each.options.job) for each in found.values())
        jobs = {key: Job(name=key[1], asked=count, rejected=rejected[key]) for key, count in asked.items()}
        captures = {}
        for key, (trigger, agent_id, options) in found.items():
            force, job = options.force, jobs[trigger, options.job]
            captures[key] = Capture(
                agent_id=agent_id, region=key[2], trigger=trigger, asked_at=now, retry_from=now, force=force, job=job
            )
        return captures | {each.key: each for each in findings if isinstance(each, Capture)}


def _first_received_at(record: object, now: datetime) -> datetime | None:
    """Return when SQS first delivered a record, None if this is the first delivery."""
    names = ("ApproximateReceiveCount", "ApproximateFirstReceiveTimestamp")
    values = [value_at(record, "attributes", name) for name in names]
    count, millis = (int(text) if isinstance(text, str) and _NUMBER.fullmatch(text) else 0 for text in values)
    moment = datetime.fromtimestamp(millis / 1000, UTC)
    return moment if count > 1 and timedelta() <= now - moment <= timedelta(days=14) else None


def _rejections(invalid: Sequence[InvalidValue], now: datetime) -> list[Rejection]:
    """Report values together that are invalid for the same reason, and last the values of all further groups."""
    alike: defaultdict[tuple[object, ...], list[InvalidValue]] = defaultdict(list)
    for each in invalid:
        alike[each.trigger, each.reason, each.message, each.options.job].append(each)
    sizes = ((values, _VALUES_IN_A_NOTIFICATION if values[0].shown else len(values)) for values in alike.values())
    groups = [list(some) for values, size in sizes for some in batched(values, size, strict=False)]
    if further := list(chain.from_iterable(groups[_MOST_NOTIFICATIONS:])):
        groups = [*groups[:_MOST_NOTIFICATIONS], further]
    rejections = []
    for part, values in enumerate(groups):
        first, names = values[0], ", ".join(each.shown for each in values if each.shown)
        message = f"{first.message}: {names}" if names else first.message
        if part == _MOST_NOTIFICATIONS:
            message = f"{len(values):,} further values are rejected; the dead letter holds them"
        outcome = Outcome(status=Status.REJECTED, trigger=first.trigger, asked_at=now, at=now, reason=first.reason)
        outcome = replace(outcome, message=message, part=part, job=first.options.job)
        rejections.append(Rejection(outcome=outcome, count=len(values)))
    return rejections


def _dead_letter(record: object, invalid: Sequence[InvalidValue], *, is_sqs: bool, is_whole: bool) -> str:
    """Return the whole event, or only the invalid values if it has captures, in the first form that SQS can carry."""
    forms = [record]
    if is_sqs:
        fields = {name: value_at(record, name) for name in ("eventSource", "messageId", "body", "messageAttributes")}
        attributes = fields["messageAttributes"]
        has_others = isinstance(attributes, dict) and not attributes.keys() <= _OWN_ATTRIBUTES
        forms = [fields, fields["body"]] if has_others else [fields["body"]]
    if not is_whole:
        # The options of an object once, however long they are.
        objects = groupby(invalid, lambda each: id(each.options) if each.options.raw else None)
        groups = [list(values) for _, values in objects]
        rejected = [{"agent_ids": [each.value for each in values], **values[0].options.raw} for values in groups]
        forms = [{"rejected": rejected}, *forms]
    letters = [_text(form) for form in forms]
    fits = (each for each in letters if 0 < len(each.encode(errors="surrogatepass")) <= _MOST_DEAD_LETTER_BYTES)
    return next(fits, letters[-1] or "{}")


def _text(form: object) -> str:
    """Return a text unchanged, and the JSON of anything else for a queue: empty if it is too deep to be written."""
    if isinstance(form, str) and form:
        return form
    try:
        text = json.dumps(form, ensure_ascii=False, separators=(",", ":"))
    except RecursionError:
        return ""
    return _NOT_IN_A_QUEUE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)
