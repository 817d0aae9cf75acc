"""What SNS carries: one message for each outcome."""

import json
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from agent_log_capture.domain.notifications.chat import to_chat
from agent_log_capture.domain.notifications.texts import VERSION, asked_by, reason, words
from agent_log_capture.domain.outcome import LogFile, Outcome, readable, timestamp
from agent_log_capture.domain.printable import printable

_SUBJECT_CHARACTERS = 100  # the most that SNS takes
_MAIL_COLUMNS = 100
_LABEL_COLUMNS = 11
_LINKS = {"Log file", "Stored at"}  # broken over lines, a link is none any longer


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

    With `has_chat`, whoever subscribes over https gets what Amazon Q Developer shows in a chat, in place of the JSON.
    """
    bodies = {"default": json.dumps(to_json(outcome), ensure_ascii=False), "email": email(outcome)}
    if has_chat:
        bodies["https"] = json.dumps(to_chat(outcome), ensure_ascii=False)
    return {
        "Message": json.dumps(bodies, ensure_ascii=False),
        "MessageStructure": "json",
        "Subject": subject(outcome),
        "MessageAttributes": message_attributes(_attributes(outcome)),
    }


def message_attributes(texts: Mapping[str, str]) -> dict[str, Any]:
    """Return what a subscriber can filter by, in the form that SNS takes."""
    return {name: {"DataType": "String", "StringValue": text} for name, text in texts.items()}


def subject(outcome: Outcome) -> str:
    """Return a mail subject: the status and the agent first, in printable ASCII."""
    parts = [outcome.status.value, outcome.agent_id or "(no agent)"]
    if outcome.trigger.name:
        parts.append(f"- {outcome.trigger.name}")
    return subject_line(" ".join(parts))


def subject_line(text: str, tail: str = "") -> str:
    """Return a text as a mail subject, in printable ASCII; what is too long is cut before `tail`."""
    ascii_text = printable(text, 10 * _SUBJECT_CHARACTERS).encode("ascii", "replace").decode()
    return ascii_text[: _SUBJECT_CHARACTERS - len(tail)].rstrip() + tail


def email(outcome: Outcome) -> str:
    """Return the mail: what happened, what to do, the link, and then the rest."""
    said = words(outcome)
    parts = [said.happened, "", said.next_step, *_download(outcome.log_file), *_facts(outcome), ""]
    return "\n".join(parts)


def _download(log_file: LogFile | None) -> Sequence[str]:
    """Return the link on a line of its own, which mail programs make one that can be tapped."""
    if log_file is None or log_file.download_url is None:
        return []
    expires_at = log_file.download_expires_at
    until = f"until {readable(expires_at)}" if expires_at else "the link does not say until when"
    return ["", f"Download, {until}:", log_file.download_url]


def _facts(outcome: Outcome) -> Sequence[str]:
    log_file = outcome.log_file
    label, kind, name = asked_by(outcome.trigger)
    facts = {
        label: f"{kind}{name}",
        "Agent": outcome.agent_id and f"{outcome.agent_id} ({outcome.region})",
        "Reason": reason(outcome),
        "Project": outcome.project_id,
        "Log file": log_file and (log_file.id or log_file.location),
        "Stored at": log_file and log_file.object_url,
        "Asked at": readable(outcome.asked_at),
        "Tries": str(outcome.attempts) if outcome.attempts > 1 else None,
        "Outcome": outcome.outcome_id,
    }
    return ["", *(fact_line(name, fact) for name, fact in facts.items() if fact)]


def fact_line(name: str, fact: str) -> str:
    """Return a fact with its label, over several lines where it is long."""
    line = f"{name + ':':<{_LABEL_COLUMNS}}{fact}"
    if len(line) <= _MAIL_COLUMNS or name in _LINKS:
        return line
    # Indented, so that nothing from outside begins a line.
    return textwrap.fill(line, _MAIL_COLUMNS, subsequent_indent=" " * _LABEL_COLUMNS, break_on_hyphens=False)


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
