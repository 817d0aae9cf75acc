"""Opens what AWS wraps around an event, and tells what kind of trigger is inside."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

from agent_log_capture.core.agent_ids import begins_like_json, is_object, opened, parse_json
from agent_log_capture.core.capture import TRIGGER_ID_CHARACTERS, TRIGGER_NAME_CHARACTERS, Trigger, TriggerType
from agent_log_capture.core.printable import printable

# A dead letter that was replayed and failed again, of an SNS message in a queue, has five.
_MOST_ENVELOPES = 16

# A tuple, because what is looked up in it may be anything, and need not have a hash.
_STATE_CHANGES = ("CloudWatch Alarm State Change", "CloudWatch Alarm Contributor State Change")
_CONFIGURATION_CHANGE = "CloudWatch Alarm Configuration Change"


class PlainText(str):
    """A message body that is no JSON: a list of agent IDs, sent as it is."""

    __slots__ = ()


class BrokenJson(str):
    """A message body that begins like JSON and is none."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Letter:
    """What was inside all envelopes, and the trigger that it stands for."""

    trigger: Trigger
    content: object


@dataclass(frozen=True, slots=True)
class _Alarm:
    name: str
    arn: str
    state: str
    state_time: str


def open_envelopes(value: object, trigger: Trigger, depth: int = 0) -> Iterator[Letter]:
    """Yield what `value` holds once every envelope is opened: SQS and SNS records, SNS messages, dead letters.

    The trigger is the innermost one that can be told, so that an alarm is the same trigger by whichever door it
    came; `trigger` is what it falls back to.
    """
    inside = list(_open(value, trigger)) if depth < _MOST_ENVELOPES else []
    for content, inner in inside:
        yield from open_envelopes(content, inner, depth + 1)
    if not inside:
        yield Letter(_trigger_of(value, trigger), value)


def is_sqs_event(event: object) -> TypeGuard[dict[str, Any]]:
    """Tell whether Lambda reads `event` from a queue, and expects `batchItemFailures` for an answer."""
    return _has_records(event, "eventSource", "aws:sqs")


def ignored_because(letter: Letter) -> str | None:
    """Return why nothing is to be done about `letter`, or None."""
    content = letter.content
    if not is_object(content):
        return None
    if "outcome_id" in content:
        return "it is a notice that this function published"
    if content.get("detail-type") == _CONFIGURATION_CHANGE:
        return "the alarm was configured, it did not fire"
    alarm = _alarm_of(content)
    if alarm and alarm.state != "ALARM":
        return f"the alarm's state is {printable(alarm.state, 40)}, not ALARM"
    return None


def is_fleet_alarm(content: object) -> bool:
    """Tell whether `content` is the event of an alarm over many time series, which names none of them.

    CloudWatch sends one `CloudWatch Alarm Contributor State Change` beside it for each of them.
    """
    if not is_object(content) or content.get("detail-type") != "CloudWatch Alarm State Change":
        return False
    metrics = _at(content, "detail", "configuration", "metrics")
    expressions = [_at(metric, "expression") for metric in metrics] if isinstance(metrics, list) else []
    return any(isinstance(text, str) and "GROUP BY" in text.upper() for text in expressions)


def _open(value: object, trigger: Trigger) -> Iterator[tuple[object, Trigger]]:
    """Open one envelope; yield nothing when there is none.

    An object that says a key twice is none: which of the two is inside, nobody can tell, and neither must be lost.
    """
    if not is_object(value):
        return
    if is_sqs_event(value):
        for record in value["Records"]:
            yield _body(record.get("body")), _trigger(TriggerType.SQS, record.get("messageId"), trigger)
    elif _has_records(value, "EventSource", "aws:sns"):
        yield from ((record.get("Sns"), trigger) for record in value["Records"])
    elif isinstance(value.get("Message"), str) and isinstance(value.get("MessageId"), str):
        yield opened(value["Message"]), _trigger(TriggerType.SNS, value["MessageId"], trigger)
    elif "requestPayload" in value and isinstance(value.get("requestContext"), dict):
        request_id = value["requestContext"].get("requestId")
        yield value["requestPayload"], _trigger(TriggerType.MANUAL, request_id, trigger)


def _body(body: object) -> object:
    if not isinstance(body, str):
        return body
    if begins_like_json(body):
        parsed = parse_json(body)
        return BrokenJson(body) if parsed is None else parsed
    return PlainText(body)


def _trigger_of(content: object, outer: Trigger) -> Trigger:
    if not is_object(content):
        return outer
    if alarm := _alarm_of(content):
        return _trigger(TriggerType.ALARM, f"{alarm.arn}@{alarm.state_time}", outer, alarm.name)
    if all(isinstance(content.get(key), str) for key in ("id", "source", "detail-type")):
        return _trigger(TriggerType.EVENTBRIDGE, content["id"], outer)
    return outer


def _trigger(kind: TriggerType, trigger_id: object, outer: Trigger, name: str | None = None) -> Trigger:
    if not isinstance(trigger_id, str) or not trigger_id:
        return outer
    name = printable(name, TRIGGER_NAME_CHARACTERS) if name else None
    return Trigger(kind, printable(trigger_id, TRIGGER_ID_CHARACTERS), name)


def _alarm_of(content: Mapping[str, Any]) -> _Alarm | None:
    """Read an alarm by whichever of its three doors it came: EventBridge, its own Lambda action, SNS."""
    if content.get("detail-type") in _STATE_CHANGES:
        fields = _alarm_fields(content.get("detail"), _first(content.get("resources")))
    elif "alarmData" in content:
        fields = _alarm_fields(content["alarmData"], content.get("alarmArn"))
    else:
        fields = [content.get(key) for key in ("AlarmName", "AlarmArn", "NewStateValue", "StateChangeTime")]
    if not all(isinstance(text, str) and text for text in fields):
        return None
    return _Alarm(*fields)


def _alarm_fields(alarm: object, arn: object) -> list[Any]:
    state = _at(alarm, "state")
    return [_at(alarm, "alarmName"), arn, _at(state, "value"), _at(state, "timestamp")]


def _has_records(event: object, key: str, source: str) -> bool:
    records = event.get("Records") if is_object(event) else None
    if not isinstance(records, list) or not records:
        return False
    return all(is_object(record) and record.get(key) == source for record in records)


def _at(value: object, *path: str) -> Any:  # noqa: ANN401 (any JSON value may stand there)
    for key in path:
        value = value.get(key) if is_object(value) else None
    return value


def _first(values: object) -> object:
    return values[0] if isinstance(values, list) and values else None
