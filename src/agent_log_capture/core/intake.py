"""What arrives: any event at all is read into captures, or refused with a reason."""

import json
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import batched
from typing import Any

from agent_log_capture.core.agent_ids import (
    Content,
    Found,
    Refusal,
    find,
    find_in_list,
    find_in_text,
    is_object,
    shown,
)
from agent_log_capture.core.capture import Capture, Job, Outcome, Reason, Status, Trigger, TriggerType
from agent_log_capture.core.envelope import (
    BrokenJson,
    Letter,
    PlainText,
    ignored_because,
    is_fleet_alarm,
    is_sqs_event,
    open_envelopes,
)

# So many refused values are named in one notice: it stays readable, and far below the 256 KiB that SNS carries.
_NAMED_IN_ONE_NOTICE = 50
# A message of nothing but garbage is not worth a thousand mails.
_MOST_NOTICES = 20
_LONGEST_LETTER_BYTES = 1024 * 1024  # of a message in a queue
# What stands in a JSON text as it is, and in no message.
_NOT_IN_A_QUEUE = re.compile("[\ud800-\udfff\ufffe\uffff]")
_NUMBER = re.compile(r"[0-9]{1,14}")
_LONGEST_IN_A_QUEUE = timedelta(days=14)


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """Values that cannot be captured: `outcome` tells of all `count` of them."""

    outcome: Outcome
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """One SQS record, or the whole of any other event, read.

    `trigger` is the first one inside. `message_id` is the SQS record's, None for other events. `dead_letter` is
    what has to go to the dead-letter queue so that what was refused is not lost; None when nothing was. `ignored`
    is why there is nothing to do, when there is nothing to do. `first_received_at` is set for a record that was
    received before.
    """

    trigger: Trigger
    message_id: str | None
    captures: Sequence[Capture]
    refused: Sequence[Refused]
    dead_letter: str | None
    ignored: str | None
    first_received_at: datetime | None = None

    def must_be_requeued(self, capture: Capture) -> bool:
        """Tell whether an earlier delivery may have requested the log file, and the record itself does not say so.

        SQS forgets that a message was received, and what its ID was, when it is redriven.
        """
        if self.first_received_at is None or capture.following or capture.ended:
            return False
        return capture.unconfirmed_since == self.first_received_at


@dataclass(frozen=True, slots=True, kw_only=True)
class Reader:
    """How events are read: the region that is meant when none is named, and further keys that hold agent IDs."""

    default_region: str
    agent_id_keys: Collection[str] = ()

    def read(self, event: object, *, request_id: str, now: datetime) -> list[Arrival]:
        """Read any event: an arrival for each SQS record, one for any other event. Raises nothing.

        Each agent comes once for each trigger, in the order in which the event names them.
        """
        seen: set[object] = set()
        return [self._arrival(record, seen, now) for record in _records(event, request_id, now)]

    def _arrival(self, record: "_Record", seen: set[object], now: datetime) -> Arrival:
        captures: dict[object, Capture] = {}
        named: dict[object, _Named] = {}
        refusals: list[_Refused] = []
        ignored: list[str] = []
        letters = list(open_envelopes(record.content, record.outer))
        for finding in self._findings(letters, now):
            match finding:
                case Capture():
                    captures.setdefault(finding.key, _come_again(finding, record.first_received_at))
                case _Named(capture):
                    if captures.setdefault(capture.key, capture) is capture:
                        named[capture.key] = finding
                case _Refused():
                    refusals.append(finding)
                case _Ignored():
                    ignored.append(finding.because)
        for key, capture in _in_jobs(named, refusals):
            captures[key] = _come_again(capture, record.first_received_at)
        new = [capture for key, capture in captures.items() if key not in seen]
        seen.update(captures)
        return Arrival(
            trigger=letters[0].trigger,
            message_id=record.message_id,
            captures=new,
            refused=list(_outcomes(refusals, now)),
            dead_letter=_dead_letter(record, refusals, is_whole=not captures) if refusals else None,
            ignored=None if new or refusals else next(iter(ignored), "another record names the same agents"),
            first_received_at=record.first_received_at,
        )

    def _findings(self, letters: Sequence[Letter], now: datetime) -> Iterator["_Finding"]:
        for letter in letters:
            if because := ignored_because(letter):
                yield _Ignored(because)
            elif waiting := _waiting(letter.content):
                for item in waiting:
                    yield from self._put_back(item, letter.trigger, now)
            else:
                yield from self._found(letter, now)

    def _put_back(self, item: object, trigger: Trigger, now: datetime) -> Iterator["_Finding"]:
        """Read what this function itself put into the queue; what it did not write is read as any event is."""
        try:
            yield Capture.from_json(item, now)
        except ValueError:
            yield from self._found(Letter(trigger, item), now)

    def _found(self, letter: Letter, now: datetime) -> Iterator["_Finding"]:
        findings = self._find(letter.content)
        if not findings and is_fleet_alarm(letter.content):
            yield _Ignored("an alarm over many time series: the event of each one names its agent")
            return
        for finding in findings or [Refusal(Reason.NO_AGENT_ID, "the event holds no agent ID")]:
            if isinstance(finding, Refusal):
                yield _Refused(letter.trigger, finding)
            else:
                yield _Named(self._capture(finding, letter.trigger, now), finding.job)

    def _find(self, content: object) -> list[Found | Refusal]:
        if isinstance(content, BrokenJson):
            return [Refusal(Reason.INVALID_JSON, "the body begins like JSON and is none", shown(content))]
        if isinstance(content, PlainText):
            return find_in_text(content)
        if isinstance(content, list) and all(isinstance(item, str) for item in content):
            return find_in_list(content, self.agent_id_keys)
        return find(content, self.agent_id_keys)

    def _capture(self, found: Found, trigger: Trigger, now: datetime) -> Capture:
        return Capture(
            agent_id=found.agent_id,
            region=found.region or self.default_region,
            trigger=trigger,
            asked_at=now,
            retry_from=now,
            force=found.force,
        )


@dataclass(frozen=True, slots=True)
class _Record:
    message_id: str | None
    outer: Trigger
    content: object
    as_it_came: object
    first_received_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class _Named:
    """A capture that an event asks for, and the job that it names."""

    capture: Capture
    job: str | None


@dataclass(frozen=True, slots=True)
class _Refused:
    trigger: Trigger
    refusal: Refusal


@dataclass(frozen=True, slots=True)
class _Ignored:
    because: str


type _Finding = Capture | _Named | _Refused | _Ignored


def _records(event: object, request_id: str, now: datetime) -> Iterator[_Record]:
    by_hand = Trigger(TriggerType.MANUAL, request_id)
    if not is_sqs_event(event):
        yield _Record(None, by_hand, event, event)
        return
    for record in event["Records"]:
        message_id = record.get("messageId")
        yield _Record(
            message_id=message_id if isinstance(message_id, str) else None,
            outer=by_hand,
            content={"Records": [record]},
            as_it_came=record.get("body"),
            first_received_at=_first_received_at(record.get("attributes"), now),
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


def _in_jobs(named: Mapping[object, _Named], refusals: Sequence[_Refused]) -> Iterator[tuple[object, Capture]]:
    """Give each capture its job, which counts what its trigger asks for in it, and what is refused of that.

    A refused value counts in the job that stands beside it. Where no capture does, there is no sum to tell.
    """
    rejected = Counter((item.trigger, item.refusal.job) for item in refusals)
    captures = Counter((item.capture.trigger, item.job) for item in named.values())
    jobs = {
        (trigger, name): Job(name=name, asked=count + rejected[trigger, name], rejected=rejected[trigger, name])
        for (trigger, name), count in captures.items()
    }
    for key, item in named.items():
        yield key, replace(item.capture, job=jobs[item.capture.trigger, item.job])


def _come_again(capture: Capture, first_received_at: datetime | None) -> Capture:
    """Note that an earlier delivery may have asked the agent before it broke off."""
    if first_received_at is None:
        return capture
    return replace(capture, unconfirmed_since=min(first_received_at, capture.unconfirmed_since or first_received_at))


def _waiting(content: object) -> list[object]:
    """Return what is in a message of this function's own making, which says nothing but `captures`."""
    if not is_object(content) or content.keys() != {"captures"}:
        return []
    captures = content["captures"]
    return captures if isinstance(captures, list) else []


def _outcomes(refusals: Sequence[_Refused], now: datetime) -> Iterator[Refused]:
    """Gather what was refused for the same reason, so that few notices name every value, or as many as is useful."""
    groups = list(_alike(refusals))
    for part, group in enumerate(groups[:_MOST_NOTICES]):
        values = ", ".join(item.refusal.value for item in group if item.refusal.value)
        rule = group[0].refusal.message
        yield _told(group, f"{rule}: {values}" if values else rule, part, now)
    if further := [item for group in groups[_MOST_NOTICES:] for item in group]:
        yield _told(
            further, f"{len(further):,} further values are refused; the dead letter holds them", len(groups), now
        )


def _alike(refusals: Sequence[_Refused]) -> Iterator[Sequence[_Refused]]:
    alike: defaultdict[tuple[Trigger, Reason, str, str | None], list[_Refused]] = defaultdict(list)
    for item in refusals:
        alike[item.trigger, item.refusal.reason, item.refusal.message, item.refusal.job].append(item)
    for items in alike.values():
        yield from batched(items, _NAMED_IN_ONE_NOTICE, strict=False)


def _told(group: Sequence[_Refused], message: str, part: int, now: datetime) -> Refused:
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
    return Refused(outcome=outcome, count=len(group))


def _dead_letter(record: _Record, refusals: Sequence[_Refused], *, is_whole: bool) -> str:
    """Return the event as it came; of an event from which captures were taken, only what was refused."""
    contents = [item.refusal.content for item in refusals if item.refusal.content]
    if not is_whole and len(contents) == len(refusals):
        letter = _json({"refused": _beside_the_same(contents)})
        if len(letter.encode()) <= _LONGEST_LETTER_BYTES:
            return letter
    is_body = isinstance(record.as_it_came, str) and record.as_it_came != ""  # which no queue takes
    return str(record.as_it_came) if is_body else _json(record.as_it_came)


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
