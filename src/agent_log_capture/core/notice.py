"""What SNS carries: one message for each outcome."""

import json
from typing import Any

from agent_log_capture.core.capture import Outcome, Status, timestamp
from agent_log_capture.core.printable import printable

VERSION = "1"
_SUBJECT_CHARACTERS = 100  # the most that SNS takes

_HEADLINES = {
    Status.REQUESTED: "The agent was asked to upload its log files.",
    Status.WAITING: "The agent is offline: it has not begun to upload its log files.",
    Status.CAPTURED: "The agent has uploaded its log files.",
    Status.EXPIRED: "The agent's log files did not come.",
    Status.DUPLICATE: "The agent was asked for its log files a short while ago; it was not asked again.",
    Status.REJECTED: "The request for the agent's log files was refused.",
    Status.FAILED: "The agent could not be asked for its log files, and it is not tried any longer.",
}
_NEXT_STEPS = {
    Status.REQUESTED: (
        "The log files will be in Cloud Files once the agent has uploaded them;\n"
        "an agent that is offline does so when it is back."
    ),
    Status.WAITING: (
        "Is its server up? Once the agent is back, it uploads them by itself. Another notice tells when\n"
        "they are there, or that they did not come in time."
    ),
    Status.CAPTURED: "They are in Cloud Files, in the container CloudBackupLogs.",
    Status.EXPIRED: (
        "They are not waited for any longer. See that the agent is up, then ask anew. What it uploads\n"
        "later all the same is in Cloud Files, in the container CloudBackupLogs."
    ),
    Status.DUPLICATE: (
        "The notices of the first request tell what becomes of this log file. To have the agent asked\n"
        'all the same, send an event with "force": true.'
    ),
    Status.REJECTED: "It is not tried again. See to the reason, then ask anew.",
    Status.FAILED: "It is kept in the dead-letter queue. Once the reason is gone, replay it from there.",
}
_LINK_CAUTION = "Whoever has the download link can use it, without a token, until it expires."
_UNREADABLE_HEADLINE = "Log files were asked for in a way that cannot be read."
_UNREADABLE_NEXT_STEP = "What cannot be read is kept in the dead-letter queue. Correct it, then send it anew."


def to_json(outcome: Outcome) -> dict[str, Any]:
    """Return the notice that subscribers read, version 1."""
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
        "asked_at": timestamp(outcome.asked_at),
        "at": timestamp(outcome.at),
        "outcome_id": outcome.outcome_id,
    }


def sns_message(outcome: Outcome) -> dict[str, Any]:
    """Return the parameters of `Publish` for an outcome, without the topic."""
    bodies = {"default": json.dumps(to_json(outcome), ensure_ascii=False), "email": email(outcome)}
    return {
        "Message": json.dumps(bodies, ensure_ascii=False),
        "MessageStructure": "json",
        "Subject": subject(outcome),
        "MessageAttributes": {
            name: {"DataType": "String", "StringValue": value} for name, value in _attributes(outcome).items()
        },
    }


def subject(outcome: Outcome) -> str:
    """Return a mail subject: the status and the agent first, in printable ASCII."""
    parts = [outcome.status.value, outcome.agent_id or "(no agent)"]
    if outcome.trigger.name:
        parts.append(f"- {outcome.trigger.name}")
    text = printable(" ".join(parts), 10 * _SUBJECT_CHARACTERS)
    return text.encode("ascii", "replace").decode()[:_SUBJECT_CHARACTERS].rstrip()


def email(outcome: Outcome) -> str:
    """Return the notice as a person reads it at a glance."""
    log_file = outcome.log_file
    facts = {
        "Agent": outcome.agent_id and f"{outcome.agent_id} ({outcome.region})",
        "Project": outcome.project_id,
        "Reason": outcome.reason and _reason(outcome),
        "Log file": log_file and (log_file.id or log_file.location),
        "Download": log_file and log_file.download_url,
        "Expires": log_file and log_file.download_expires_at and timestamp(log_file.download_expires_at),
        "Stored at": log_file and log_file.object_url,
        "Asked by": _trigger(outcome),
        "Asked at": timestamp(outcome.asked_at),
        "Attempts": str(outcome.attempts) if outcome.agent_id else None,
        "Outcome": outcome.outcome_id,
    }
    lines = [f"{name + ':':<10} {fact}" for name, fact in facts.items() if fact]
    headline, next_steps = _HEADLINES[outcome.status], [_NEXT_STEPS[outcome.status]]
    if log_file and log_file.download_url:
        next_steps.append(_LINK_CAUTION)
    if outcome.agent_id is None:
        headline, next_steps = _UNREADABLE_HEADLINE, [_UNREADABLE_NEXT_STEP]
    return "\n".join([headline, "", *lines, "", *next_steps, ""])


def _reason(outcome: Outcome) -> str:
    is_refusal = outcome.status in {Status.REJECTED, Status.FAILED} and outcome.http_status
    code = f" (HTTP {outcome.http_status})" if is_refusal else ""
    return f"{outcome.message or outcome.reason}{code}"


def _trigger(outcome: Outcome) -> str:
    trigger = outcome.trigger
    return f"{trigger.type.value} {trigger.name or trigger.id}"


def _attributes(outcome: Outcome) -> dict[str, str]:
    """Return what a subscriber can filter by."""
    attributes = {
        "status": outcome.status.value,
        "agent_id": outcome.agent_id,
        "project_id": outcome.project_id,
        "region": outcome.region,
        "trigger_type": outcome.trigger.type.value,
    }
    return {name: value for name, value in attributes.items() if value}
