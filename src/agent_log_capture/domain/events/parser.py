"""What arrives: any event at all is read into captures, or refused with a reason."""

import json
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import batched
from typing import Any

from agent_log_capture.domain.capture import Capture, Job, Requesting
from agent_log_capture.domain.events.agent_ids import Beside, Content, Found, InvalidValue
from agent_log_capture.domain.events.envelopes import is_sqs_event, recognize
from agent_log_capture.domain.events.finder import MAX_VALUES, AgentFinder, Finding, Ignored, TooManyValuesError
from agent_log_capture.domain.outcome import Outcome, Reason, Status
from agent_log_capture.domain.trigger import Trigger, TriggerType

# So many refused values are named in one notification: it stays readable, and far below the 256 KiB that SNS carries.
_NAMED_IN_ONE_NOTICE = 50
# A message of nothing but garbage is not worth a thousand mails.
_MOST_NOTIFICATIONS = 20
_LONGEST_LETTER_BYTES = 1024 * 1024  # of a message in a queue
# Those of a dead letter, which it still has when it is replayed.
_OWN_ATTRIBUTES = frozenset({"reason", "status", "trigger_type", "attempts"})
# What stands in a JSON text as it is, and in no message.
_NOT_IN_A_QUEUE = re.compile("[\ud800-\udfff\ufffe\uffff]")
_NUMBER = re.compile(r"[0-9]{1,14}")
_LONGEST_IN_A_QUEUE = timedelta(days=14)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejection:
    """Values that cannot be captured: `outcome` tells of all `count` of them."""

    outcome: Outcome
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ParsedRecord:
    """One SQS record, or the whole of any other event, read.

    `trigger` is the first one inside. `message_id` is the SQS record's, None for other events. `dead_letter` is
    what has to go to the dead-letter queue so that what was refused is not lost; None when nothing was. `ignored`
    is why there is nothing to do, when there is nothing to do. `first_received_at` is set for a record that was
    received before.
    """

    trigger: Trigger
    record_id: str | None
    captures: Sequence[Capture]
    rejections: Sequence[Rejection]
    dead_letter: str | None
    ignored: str | None
    first_received_at: datetime | None = None

    def must_be_requeued(self, capture: Capture) -> bool:
        """Tell whether an earlier delivery may have requested the log file, and the record itself does not say so.

        SQS forgets that a message was received, and what its ID was, when it is redriven.
        """
        if self.first_received_at is None or not isinstance(capture.phase, Requesting):
            return False
        return capture.unconfirmed_since == self.first_received_at


@dataclass(frozen=True, slots=True, kw_only=True)
class EventParser:
    """How events are read: the region that is meant when none is named, and further keys that hold agent IDs."""

    default_region: str
    agent_id_keys: Collection[str] = ()

    def parse(self, event: object, *, request_id: str, now: datetime) -> list[ParsedRecord]:
        """Read any event: an parsed for each SQS record, one for any other event. Raises nothing.

        Each agent comes once for each trigger, in the order in which the event names them.
        """
        parser = AgentFinder(self.agent_id_keys, now)
        seen: set[_Key] = set()
        return [self._arrival(record, parser, seen, now) for record in _records(event, request_id, now)]

    def _arrival(self, record: "_Record", parser: AgentFinder, seen: set["_Key"], now: datetime) -> ParsedRecord:
        gathered = _gather(record, parser, self.default_region)
        captures = dict(gathered.waiting)
        for key, capture in _in_jobs(gathered, now):
            captures.setdefault(key, capture)
        new = [_come_again(each, record) for key, each in captures.items() if key not in seen]
        seen.update(captures)
        refused = gathered.refused
        return ParsedRecord(
            trigger=gathered.trigger,
            record_id=record.message_id,
            captures=new,
            rejections=list(_outcomes(refused, now)),
            dead_letter=_dead_letter(record, refused, is_whole=not captures) if refused else None,
            ignored=None if new or refused else next(iter(gathered.ignored), "another record names the same agents"),
            first_received_at=record.first_received_at,
        )


type _Key = tuple[str, str, str, str, int]


@dataclass(frozen=True, slots=True)
class _Record:
    """An SQS record, or any other event; `as_it_came` is what may lie in the dead-letter queue, the fullest first."""

    message_id: str | None
    trigger: Trigger
    content: object
    as_it_came: Sequence[object]
    first_received_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class _Refused:
    trigger: Trigger
    refusal: InvalidValue


@dataclass(slots=True)
class _Gathered:
    """What a record says: captures that were waiting, and agents that it names, each once by its key."""

    trigger: Trigger
    waiting: dict[_Key, Capture] = field(default_factory=dict)
    named: dict[_Key, tuple[Trigger, Beside]] = field(default_factory=dict)
    refused: list[_Refused] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)

    def add(self, finding: Finding, default_region: str) -> None:
        """Take a finding."""
        trigger, what = finding
        match what:
            case Found(agent_id, beside):
                key = (trigger.type, trigger.id, beside.region or default_region, agent_id, 0)
                self.named.setdefault(key, (trigger, beside))
            case Capture():
                self.waiting.setdefault(what.key, what)
            case InvalidValue():
                self.refused.append(_Refused(trigger, what))
            case Ignored():
                self.ignored.append(what.because)


def _records(event: object, request_id: str, now: datetime) -> Iterator[_Record]:
    by_hand = Trigger(TriggerType.MANUAL, request_id)
    if not is_sqs_event(event):
        yield _Record(None, by_hand, event, [event])
        return
    for record in event["Records"]:
        message_id = record.get("messageId")
        yield _Record(
            message_id=message_id if isinstance(message_id, str) else None,
            trigger=recognize(record, by_hand).trigger,
            content=record,
            as_it_came=[*_with_attributes(record), record.get("body")],
            first_received_at=_first_received_at(record.get("attributes"), now),
        )


def _with_attributes(record: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Return what tells as much as the record does, where others than this function gave it attributes."""
    attributes = record.get("messageAttributes")
    if isinstance(attributes, dict) and not attributes.keys() <= _OWN_ATTRIBUTES:
        yield {name: record.get(name) for name in ("eventSource", "messageId", "body", "messageAttributes")}


def _gather(record: _Record, parser: AgentFinder, default_region: str) -> _Gathered:
    gathered = None
    try:
        for finding in parser.parse(record.content, record.trigger):
            gathered = gathered or _Gathered(finding.trigger)
            gathered.add(finding, default_region)
    except TooManyValuesError:
        gathered = None
    rule = f"more than {MAX_VALUES:,} values came at once"
    return gathered or _Gathered(
        record.trigger, refused=[_Refused(record.trigger, InvalidValue(Reason.TOO_LARGE, rule))]
    )


def _first_received_at(attributes: object, now: datetime) -> datetime | None:
    """Return when a record that comes again came first; None for one that comes for the first time."""
    fields = attributes if isinstance(attributes, dict) else {}
    count, millis = (
        _number(fields.get(name)) for name in ("ApproximateReceiveCount", "ApproximateFirstReceiveTimestamp")
    )
    moment = datetime.fromtimestamp(millis / 1000, UTC)
    return moment if count > 1 and timedelta() <= now - moment <= _LONGEST_IN_A_QUEUE else None


def _number(value: object) -> int:
    text = str(value) if isinstance(value, (str, int)) else ""
    return int(text) if _NUMBER.fullmatch(text) else 0


def _in_jobs(gathered: _Gathered, now: datetime) -> Iterator[tuple[_Key, Capture]]:
    """Make captures of agents, each with its job: it counts what its trigger asks for in it, and what is refused.

    A refused value counts in the job that stands beside it. Where no capture does, there is no sum to report.
    """
    rejected = Counter((item.trigger, item.refusal.job) for item in gathered.refused)
    asked = Counter((trigger, beside.job) for trigger, beside in gathered.named.values())
    jobs = {
        (trigger, name): Job(name=name, asked=count + rejected[trigger, name], rejected=rejected[trigger, name])
        for (trigger, name), count in asked.items()
    }
    for key, (trigger, beside) in gathered.named.items():
        _, _, region, agent_id, _ = key
        yield (
            key,
            Capture(
                agent_id=agent_id,
                region=region,
                trigger=trigger,
                asked_at=now,
                retry_from=now,
                force=beside.force,
                job=jobs[trigger, beside.job],
            ),
        )


def _come_again(capture: Capture, record: _Record) -> Capture:
    """Note the record of a capture, and that an earlier delivery may have requested its log file."""
    capture = replace(capture, record_id=record.message_id)
    is_redelivered = record.first_received_at and isinstance(capture.phase, Requesting)
    return capture.requesting(record.first_received_at) if is_redelivered else capture


def _outcomes(refusals: Sequence[_Refused], now: datetime) -> Iterator[Rejection]:
    """Group values that are rejected for the same reason, so that few notifications name them."""
    groups = list(_alike(refusals))
    for part, group in enumerate(groups[:_MOST_NOTIFICATIONS]):
        values = ", ".join(item.refusal.value for item in group if item.refusal.value)
        rule = group[0].refusal.message
        yield _told(group, f"{rule}: {values}" if values else rule, part, now)
    if further := [item for group in groups[_MOST_NOTIFICATIONS:] for item in group]:
        yield _told(
            further, f"{len(further):,} further values are refused; the dead letter holds them", len(groups), now
        )


def _alike(refusals: Sequence[_Refused]) -> Iterator[Sequence[_Refused]]:
    alike: defaultdict[tuple[Trigger, Reason, str, str | None], list[_Refused]] = defaultdict(list)
    for item in refusals:
        alike[item.trigger, item.refusal.reason, item.refusal.message, item.refusal.job].append(item)
    for items in alike.values():
        yield from batched(items, _NAMED_IN_ONE_NOTICE, strict=False)


def _told(group: Sequence[_Refused], message: str, part: int, now: datetime) -> Rejection:
    outcome = Outcome(
        status=Status.REJECTED,
        trigger=group[0].trigger,
        asked_at=now,
        at=now,
        reason=group[0].refusal.reason,
        message=message,
        part=part,
        job=group[0].refusal.job,
    )
    return Rejection(outcome=outcome, count=len(group))


def _dead_letter(record: _Record, refusals: Sequence[_Refused], *, is_whole: bool) -> str:
    """Return the event as it came; of an event from which captures were taken, only what was refused."""
    contents = [item.refusal.content for item in refusals if item.refusal.content]
    if not is_whole and len(contents) == len(refusals):
        letter = _json({"refused": _beside_the_same(contents)})
        if len(letter.encode()) <= _LONGEST_LETTER_BYTES:
            return letter
    letters = [_text(form) for form in record.as_it_came]
    fits = (each for each in letters if len(each.encode(errors="surrogatepass")) <= _LONGEST_LETTER_BYTES)
    return next(fits, letters[-1])


def _text(event: object) -> str:
    """Return a text as it is, and of anything else the JSON; no queue takes an empty text."""
    return event if isinstance(event, str) and event else _json(event)


def _beside_the_same(contents: Sequence[Content]) -> list[Mapping[str, Any]]:
    """Gather the values of one object: what stood beside all of them is told once, however long it is."""
    values: defaultdict[int, list[Any]] = defaultdict(list)
    for content in contents:
        values[id(content.beside)].append(content.value)
    besides = {id(content.beside): content.beside for content in contents}
    return [{"agent_ids": values[key], **beside} for key, beside in besides.items()]


def _json(value: object) -> str:
    """Return JSON that is no longer than it has to be: of what a queue takes, nothing is escaped."""
    try:
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    except RecursionError:
        return "{}"  # what is read at nearly the depth that Python can read may be too deep to be written again
    return _NOT_IN_A_QUEUE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)
