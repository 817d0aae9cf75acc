"""The notification for an outcome: its JSON, and the message that SNS publishes."""

import json
from collections.abc import Mapping
from typing import Any

from agent_log_capture.domain.notifications.chat import to_chat
from agent_log_capture.domain.notifications.email import Text, subject_line, text_of, to_email
from agent_log_capture.domain.outcome import Outcome, timestamp

VERSION = "1"


def to_json(outcome: Outcome) -> dict[str, Any]:
    """Return the notification that subscribers read, version 1."""
    return {
        "version": VERSION,
        "status": outcome.status.value,
        "agent_id": outcome.agent_id,
        "project_id": outcome.project_id,
        "region": outcome.region,
        "logfile": outcome.log_file and outcome.log_file.to_json(),
        "reason": outcome.reason and outcome.reason.value,
        "message": outcome.message,
        "http_status": outcome.http_status,
        "attempts": outcome.attempts,
        "trigger": outcome.trigger.to_json(),
        "job_id": outcome.job_id,
        "asked_at": timestamp(outcome.asked_at),
        "at": timestamp(outcome.at),
        "outcome_id": outcome.outcome_id,
    }


def sns_message(outcome: Outcome, *, has_chat: bool = False) -> dict[str, Any]:
    """Return the parameters of `Publish` for an outcome, without the topic.

    With `has_chat`, https subscribers receive the form for Amazon Q Developer instead of the JSON.
    """
    alarm = f" - {outcome.trigger.name}" if outcome.trigger.name else ""
    subject = subject_line(f"{outcome.status} {outcome.agent_id or '(no agent)'}{alarm}")
    return to_sns(to_json(outcome), subject, text_of(outcome), has_chat=has_chat)


def to_sns(notification: Mapping[str, Any], subject: str, text: Text, *, has_chat: bool) -> dict[str, Any]:
    """Return the parameters of `Publish` for a notification in each of its forms, without the topic."""
    bodies = {"default": json.dumps(notification, ensure_ascii=False), "email": to_email(text)}
    if has_chat:
        bodies["https"] = json.dumps(to_chat(notification, text), ensure_ascii=False)
    # What filter policies can use; SNS refuses empty values.
    values = {name: notification.get(name) for name in ("status", "agent_id", "project_id", "region")}
    values["trigger_type"] = notification["trigger"]["type"]
    attributes = {name: {"DataType": "String", "StringValue": value} for name, value in values.items() if value}
    message = json.dumps(bodies, ensure_ascii=False)
    return {"Message": message, "MessageStructure": "json", "Subject": subject, "MessageAttributes": attributes}
