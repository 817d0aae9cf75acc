"""Recognizes what AWS wraps around an event, and which trigger an object is."""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple, TypeGuard

from agent_log_capture.domain.outcome import TRIGGER_ID_CHARACTERS, TRIGGER_NAME_CHARACTERS, Trigger, TriggerType
from agent_log_capture.domain.printable import printable

OWN_NOTIFICATION = "it is a notification that this function published"
CAPTURES = "captures"
_CONTRIBUTOR_CHANGE = "CloudWatch Alarm Contributor State Change"
_ALARM_CHANGES = ("CloudWatch Alarm State Change", _CONTRIBUTOR_CHANGE)
_WHOLE_ALARM = "it is an alarm over many time series as a whole: each of them has an event of its own"
_GROUPED = re.compile(r"\bGROUP\s+BY\b", re.IGNORECASE)
# The reason for the state of an alarm as a whole: "Alarms evaluating multiple time series" and "Log alarms" in the
# CloudWatch User Guide.
_COUNT_OF_SERIES = re.compile(r"\d+\+? (out of \d+ )?(time series|contributors) evaluated to ALARM")


class Recognized(NamedTuple):
    """An object's trigger, the key of a message's text, and why the object is ignored, always or without agents."""

    trigger: Trigger
    body: str | None = None
    ignored: str | None = None
    ignored_if_empty: str | None = None


def recognize(fields: Mapping[str, Any], outer: Trigger) -> Recognized | None:
    """Recognize an event or a message; None for any other object, which belongs to the trigger around it, `outer`."""
    recognized = None
    match fields:
        case {"version": str(), "status": str(), "outcome_id": str()}:
            recognized = Recognized(outer, ignored=OWN_NOTIFICATION)
        case {"captures": list()} if len(fields) == 1:
            recognized = Recognized(outer, body=CAPTURES)
        case {"detail-type": _} | {"NewStateValue": _} | {"alarmData": _} if alarm := _alarm(fields, outer):
            recognized = alarm
        case {"eventSource": "aws:sqs"}:
            recognized = Recognized(_trigger(TriggerType.SQS, fields.get("messageId"), outer), body="body")
        case {"MessageId": str(), "Message": str()} if "TopicArn" in fields or fields.get("Type") == "Notification":
            recognized = Recognized(_trigger(TriggerType.SNS, fields["MessageId"], outer), body="Message")
        case {"requestPayload": _}:  # what Lambda sends to a destination of an invocation
            request_id = value_at(fields, "requestContext", "requestId")
            recognized = Recognized(_trigger(TriggerType.MANUAL, request_id, outer))
        case {"id": str(), "source": str(), "detail-type": str(kind)}:
            is_configured = kind == "CloudWatch Alarm Configuration Change"
            ignored = "the alarm was configured, it did not fire" if is_configured else None
            recognized = Recognized(_trigger(TriggerType.EVENTBRIDGE, fields["id"], outer), ignored=ignored)
    return recognized


def is_sqs_event(event: object) -> TypeGuard[dict[str, Any]]:
    """Return whether Lambda reads `event` from a queue, and expects `batchItemFailures` in the response."""
    match event:
        case {"Records": [_, *_] as records}:
            return all(value_at(record, "eventSource") == "aws:sqs" for record in records)
    return False


def value_at(value: object, *path: str) -> Any:  # noqa: ANN401 (any JSON value)
    """Return the value at a path of keys, or None."""
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _trigger(kind: TriggerType, trigger_id: object, outer: Trigger, name: str | None = None) -> Trigger:
    if not isinstance(trigger_id, str) or not trigger_id:
        return outer
    name = printable(name, TRIGGER_NAME_CHARACTERS) if name else None
    return Trigger(kind, printable(trigger_id, TRIGGER_ID_CHARACTERS), name)


def _alarm(fields: Mapping[str, Any], outer: Trigger) -> Recognized | None:
    """Recognize a change of an alarm's state or of one of its time series; it is the same trigger by all routes."""
    match fields:
        case {"detail-type": kind, "detail": data, "resources": [arn, *_]} if kind in _ALARM_CHANGES:
            pass
        case {"NewStateValue": _}:
            data, arn = _from_sns(fields), fields.get("AlarmArn")
        case _:
            data, arn = fields.get("alarmData"), fields.get("alarmArn")
    name = value_at(data, "alarmName")
    state, time = (value_at(data, "state", key) for key in ("value", "timestamp"))
    if not all(isinstance(text, str) and text for text in (name, arn, state, time)):
        return None
    series = value_at(data, "alarmContributor", "id")
    suffix = f"#{series}" if isinstance(series, str) and series else ""
    trigger = _trigger(TriggerType.ALARM, f"{arn}@{time}{suffix}", outer, name)
    if state != "ALARM":
        return Recognized(trigger, ignored=f"the alarm's state is {printable(state, 40)}, not ALARM")
    if series or fields.get("detail-type") == _CONTRIBUTOR_CHANGE:
        return Recognized(trigger)
    if _is_over_many_series(data):
        return Recognized(trigger, ignored=_WHOLE_ALARM)
    # Whether EventBridge gets an event for each time series of a PromQL query is not documented.
    has_query = _configured(value_at(data, "configuration"), "evaluationCriteria")
    return Recognized(trigger, ignored_if_empty=_WHOLE_ALARM if has_query else None)


def _from_sns(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return an alarm's data from SNS in the form of its Lambda action."""
    keys = {"value": "NewStateValue", "timestamp": "StateChangeTime", "reason": "NewStateReason"}
    return {
        "alarmName": fields.get("AlarmName"),
        "state": {name: fields.get(key) for name, key in keys.items()},
        "alarmContributor": {"id": fields.get("AlarmContributorId")},
        "configuration": fields.get("Trigger"),
    }


def _is_over_many_series(data: object) -> bool:
    metrics = _configured(value_at(data, "configuration"), "metrics")
    # What is not returned is the input of another expression, which may make one time series of many.
    returned = [each for each in metrics if _configured(each, "returnData")] if isinstance(metrics, list) else []
    is_grouped = any(_GROUPED.search(str(_configured(each, "expression"))) for each in returned)
    reason = value_at(data, "state", "reason")
    return is_grouped or (isinstance(reason, str) and _COUNT_OF_SERIES.match(reason) is not None)


def _configured(value: object, key: str) -> Any:  # noqa: ANN401 (any JSON value)
    """Return a field of an alarm's configuration, whose keys begin with a capital letter in SNS."""
    return value_at(value, key) or value_at(value, key[:1].upper() + key[1:])
