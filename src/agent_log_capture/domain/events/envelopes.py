"""Recognizes what AWS wraps around an event, and what kind of trigger is inside."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeGuard

from agent_log_capture.domain.printable import printable
from agent_log_capture.domain.trigger import TRIGGER_ID_CHARACTERS, TRIGGER_NAME_CHARACTERS, Trigger, TriggerType

_ALARM_CHANGE = "CloudWatch Alarm State Change"
_CONTRIBUTOR_CHANGE = "CloudWatch Alarm Contributor State Change"
_CONFIGURATION_CHANGE = "CloudWatch Alarm Configuration Change"
_NOTIFICATION_KEYS = ("version", "status", "outcome_id")
OWN_NOTIFICATION = "it is a notification that this function published"
# How the state of an alarm as a whole is explained: "Alarms evaluating multiple time series" and "Log alarms" in the
# CloudWatch User Guide.
_COUNT_OF_SERIES = re.compile(r"\d+\+? (out of \d+ )?(time series|contributors) evaluated to ALARM")
_ALARM_IN_SNS = (
    *("AlarmName", "AlarmArn", "NewStateValue", "StateChangeTime"),
    *("AlarmContributorId", "NewStateReason", "Trigger"),
)
_GROUPED = re.compile(r"\bGROUP\s+BY\b", re.IGNORECASE)
_WHOLE_ALARM = "it is an alarm over many time series as a whole: each of them has an event of its own"


class Recognized(NamedTuple):
    """What an object is.

    `body` is the key of a message's text, which may be plain. `ignored` is why nothing is to be done about it, and
    `ignored_if_empty` why not when it names no agent.
    """

    trigger: Trigger
    body: str | None = None
    ignored: str | None = None
    ignored_if_empty: str | None = None


def recognize(fields: Mapping[str, Any], outer: Trigger) -> Recognized:
    """Tell what an object is; what is not an event or a message of its own belongs to the trigger around it.

    An alarm is the same trigger by whichever route it comes.
    """
    if all(isinstance(fields.get(key), str) for key in _NOTIFICATION_KEYS):
        return Recognized(outer, ignored=OWN_NOTIFICATION)
    if alarm := _alarm_of(fields):
        return alarm.recognized(outer)
    return _message(fields, outer) or _event(fields, outer)


def is_sqs_event(event: object) -> TypeGuard[dict[str, Any]]:
    """Tell whether Lambda reads `event` from a queue, and expects `batchItemFailures` for an answer."""
    records = _at(event, "Records")
    sources = [_at(record, "eventSource") for record in records] if isinstance(records, list) else []
    return bool(sources) and all(source == "aws:sqs" for source in sources)


def _message(fields: Mapping[str, Any], outer: Trigger) -> Recognized | None:
    """Recognize a message in a queue or of a topic."""
    if fields.get("eventSource") == "aws:sqs":
        return Recognized(_trigger(TriggerType.SQS, fields.get("messageId"), outer), body="body")
    is_message = all(isinstance(fields.get(key), str) for key in ("MessageId", "Message"))
    if is_message and ("TopicArn" in fields or fields.get("Type") == "Notification"):
        return Recognized(_trigger(TriggerType.SNS, fields["MessageId"], outer), body="Message")
    return None


def _event(fields: Mapping[str, Any], outer: Trigger) -> Recognized:
    """Recognize what Lambda tells a destination of an invocation, and an event of EventBridge."""
    if "requestPayload" in fields:
        return Recognized(_trigger(TriggerType.MANUAL, _at(fields, "requestContext", "requestId"), outer))
    if not all(isinstance(fields.get(key), str) for key in ("id", "source", "detail-type")):
        return Recognized(outer)
    is_change = fields["detail-type"] == _CONFIGURATION_CHANGE
    ignored = "the alarm was configured, it did not fire" if is_change else None
    return Recognized(_trigger(TriggerType.EVENTBRIDGE, fields["id"], outer), ignored=ignored)


def _trigger(kind: TriggerType, trigger_id: object, outer: Trigger, name: str | None = None) -> Trigger:
    if not isinstance(trigger_id, str) or not trigger_id:
        return outer
    name = printable(name, TRIGGER_NAME_CHARACTERS) if name else None
    return Trigger(kind, printable(trigger_id, TRIGGER_ID_CHARACTERS), name)


@dataclass(frozen=True, slots=True)
class _Alarm:
    """A change of an alarm's state, or of one time series of it: then `contributor` is the ID of that, not None."""

    name: str
    arn: str
    state: str
    state_time: str
    contributor: object
    reason: object
    configuration: object

    def recognized(self, outer: Trigger) -> Recognized:
        """Tell what is to be done about it."""
        series = f"#{self.contributor}" if isinstance(self.contributor, str) and self.contributor else ""
        trigger = _trigger(TriggerType.ALARM, f"{self.arn}@{self.state_time}{series}", outer, self.name)
        if self.state != "ALARM":
            return Recognized(trigger, ignored=f"the alarm's state is {printable(self.state, 40)}, not ALARM")
        if self.contributor is None and self._is_over_many_series():
            return Recognized(trigger, ignored=_WHOLE_ALARM)
        # Whether EventBridge gets an event for each time series of a PromQL query is not documented.
        has_query = self.contributor is None and bool(_either(self.configuration, "evaluationCriteria"))
        return Recognized(trigger, ignored_if_empty=_WHOLE_ALARM if has_query else None)

    def _is_over_many_series(self) -> bool:
        metrics = _either(self.configuration, "metrics")
        # What is not returned is the input of another expression, which may make one time series of many.
        returned = [each for each in metrics if _either(each, "returnData")] if isinstance(metrics, list) else []
        expressions = [_either(each, "expression") for each in returned]
        is_grouped = any(isinstance(text, str) and _GROUPED.search(text) for text in expressions)
        return is_grouped or (isinstance(self.reason, str) and _COUNT_OF_SERIES.match(self.reason) is not None)


def _alarm_of(fields: Mapping[str, Any]) -> _Alarm | None:
    """Read an alarm by whichever of its three routes it came: EventBridge, its own Lambda action, SNS."""
    if fields.get("detail-type") in (_ALARM_CHANGE, _CONTRIBUTOR_CHANGE):
        resources = fields.get("resources")
        arn = resources[0] if isinstance(resources, list) and resources else None
        is_one_series = fields["detail-type"] == _CONTRIBUTOR_CHANGE
        values = _values(fields.get("detail"), arn, is_one_series=is_one_series)
    elif "alarmData" in fields:
        values = _values(fields["alarmData"], fields.get("alarmArn"))
    else:
        values = [fields.get(key) for key in _ALARM_IN_SNS]
    is_alarm = all(isinstance(text, str) and text for text in values[:4])
    return _Alarm(*values) if is_alarm else None


def _values(alarm: object, arn: object, *, is_one_series: bool = False) -> list[Any]:
    is_one_series = is_one_series or bool(_at(alarm, "alarmContributor"))
    contributor = _at(alarm, "alarmContributor", "id") or ("" if is_one_series else None)
    state, time, reason = (_at(alarm, "state", key) for key in ("value", "timestamp", "reason"))
    return [_at(alarm, "alarmName"), arn, state, time, contributor, reason, _at(alarm, "configuration")]


def _either(value: object, key: str) -> Any:  # noqa: ANN401 (any JSON value may stand there)
    """Return a field of an alarm's configuration, as events spell it or as SNS does."""
    return _at(value, key) or _at(value, key[:1].upper() + key[1:])


def _at(value: object, *path: str) -> Any:  # noqa: ANN401 (any JSON value may stand there)
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return value
