"""What a chat shows: an outcome in the schema of custom notifications of Amazon Q Developer in chat applications."""

import re
import uuid
from collections.abc import Sequence
from typing import Any

from agent_log_capture.domain.job import JobSummary
from agent_log_capture.domain.notifications.texts import VERSION, asked_by, reason, words
from agent_log_capture.domain.outcome import LogFile, Outcome, readable
from agent_log_capture.domain.printable import printable
from agent_log_capture.domain.trigger import Trigger

# The schema is that of https://docs.aws.amazon.com/chatbot/latest/adminguide/custom-notifs.html. Cut at these, texts
# from outside keep a description far below 8,000 characters, and a summary below the 250 of a title.
_REASON_CHARACTERS = 1000
_NAME_CHARACTERS = 150

_EVENT_TYPE = "agent-log-capture"
_THREADS = uuid.uuid5(uuid.NAMESPACE_URL, "https://agent-log-capture/thread")
# Slack and Teams escape differently, and neither in a way that the other reads; in both, nothing in a code span is
# formatted. What ends a code span, or Slack reads even there (links, mentions, entities), becomes a character that
# looks like it.
_LOOK_ALIKES = str.maketrans({"`": "'", "<": "\u2039", ">": "\u203a", "&": "\uff06", "@": "\uff20"})
# Of what RFC 3986 allows, what neither chat reads as anything but a part of the link.
_PLAIN_LINK = re.compile(r"https://[A-Za-z0-9][A-Za-z0-9._~:/?#&+,;=%-]*", re.ASCII)


def to_chat(outcome: Outcome) -> dict[str, Any]:
    """Return the custom notification for an outcome: one thread for each trigger.

    Whatever is from outside is in a code span, where it can be no link, no mention and no format.
    """
    said = words(outcome)
    return {
        "version": "1.0",
        "source": "custom",
        "id": outcome.outcome_id,
        "content": {
            "textType": "client-markdown",
            "title": said.happened,
            "description": "\n".join(_lines(outcome)),
            "nextSteps": [said.next_step.replace("\n", " ")],
            "keywords": [outcome.status.value, *([outcome.region] if outcome.region else [])],
        },
        "metadata": {
            "threadId": _thread_id(outcome.trigger),
            "summary": f"Log files of backup agents. {_asked_by(outcome.trigger)}",
            "eventType": _EVENT_TYPE,
            "relatedResources": [outcome.agent_id] if outcome.agent_id else [],
            "additionalContext": _context(outcome),
        },
    }


def summary_to_chat(done: JobSummary, happened: str, message: str, next_steps: Sequence[str]) -> dict[str, Any]:
    """Return the custom notification for the sum of a job, in the thread of the trigger that completed it."""
    lines = [message, _asked_by(done.trigger), f"Job: {_quoted(done.job_id, _NAME_CHARACTERS)}"]
    return {
        "version": "1.0",
        "source": "custom",
        "id": done.outcome_id,
        "content": {
            "textType": "client-markdown",
            "title": happened,
            "description": "\n".join([*lines, f"Asked at: {readable(done.asked_at)}"]),
            "nextSteps": [step.replace("\n", " ") for step in next_steps],
            "keywords": ["job_done"],
        },
        "metadata": {
            "threadId": _thread_id(done.trigger),
            "summary": f"Log files of backup agents. {_asked_by(done.trigger)}",
            "eventType": _EVENT_TYPE,
            "relatedResources": [],
            "additionalContext": {
                "version": VERSION,
                "status": "job_done",
                "trigger_type": done.trigger.type.value,
                "outcome_id": done.outcome_id,
            },
        },
    }


def _lines(outcome: Outcome) -> Sequence[str]:
    why = reason(outcome)
    lines = {
        "asked by": _asked_by(outcome.trigger),
        "agent": outcome.agent_id and f"Agent: `{outcome.agent_id}` ({outcome.region})",
        "reason": why and f"Reason: {_quoted(why, _REASON_CHARACTERS)}",
        "download": _download(outcome.log_file),
        "asked at": f"Asked at: {readable(outcome.asked_at)}",
    }
    return [line for line in lines.values() if line]


def _download(log_file: LogFile | None) -> str | None:
    if log_file is None or log_file.download_url is None:
        return None
    if not _PLAIN_LINK.fullmatch(log_file.download_url):
        return "Download: the link has characters that a chat may misread; it is in the mail and in the JSON"
    expires_at = log_file.download_expires_at
    until = f"until {readable(expires_at)}" if expires_at else "the link does not say until when"
    return f"Download, {until}: <{log_file.download_url}>"


def _asked_by(trigger: Trigger) -> str:
    label, kind, name = asked_by(trigger)
    return f"{label}: {kind}{_quoted(name, _NAME_CHARACTERS)}"


def _quoted(text: str, limit: int) -> str:
    # A code span of nothing is none.
    return f"`{printable(text, limit).translate(_LOOK_ALIKES).strip() or '?'}`"


def _thread_id(trigger: Trigger) -> str:
    """Return the same for all notifications of a trigger, of which nothing can be read."""
    return str(uuid.uuid5(_THREADS, repr((trigger.type.value, trigger.id))))


def _context(outcome: Outcome) -> dict[str, str]:
    """Return what custom actions can take their variables from; nothing in it is text from outside.

    By `version`, `status` and `outcome_id` the function knows a notification that is forwarded to it in this form.
    """
    context = {
        "version": VERSION,
        "status": outcome.status.value,
        "reason": outcome.reason and outcome.reason.value,
        "agent_id": outcome.agent_id,
        "project_id": outcome.project_id,
        "region": outcome.region,
        "trigger_type": outcome.trigger.type.value,
        "outcome_id": outcome.outcome_id,
    }
    return {name: value for name, value in context.items() if value}
