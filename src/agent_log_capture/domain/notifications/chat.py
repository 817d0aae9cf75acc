"""A notification as Amazon Q Developer in chat applications shows it: the schema of its custom notifications."""

import re
import uuid
from collections.abc import Mapping
from typing import Any

from agent_log_capture.domain.notifications.email import Text
from agent_log_capture.domain.printable import printable

# https://docs.aws.amazon.com/chatbot/latest/adminguide/custom-notifs.html: a description has at most 8,000
# characters, a summary 250. Facts are cut so that both limits are kept.
_FACT_CHARACTERS = 1000
_SUMMARY_CHARACTERS = 200

_THREADS = uuid.uuid5(uuid.NAMESPACE_URL, "https://agent-log-capture/thread")
_MAIL_ONLY = {"Project", "Log file", "Stored at", "Attempts", "Outcome ID"}
# Without text from outside: custom actions take their variables from these fields, and the event parser recognizes a
# forwarded notification by them.
_CONTEXT = ("version", "status", "reason", "agent_id", "project_id", "region", "outcome_id")
# Slack and Teams escape differently, but both leave a code span unformatted. Characters that end a code span, or that
# Slack interprets even there (links, mentions, entities), are replaced by similar ones.
_LOOK_ALIKES = str.maketrans({"`": "'", "<": "\u2039", ">": "\u203a", "&": "\uff06", "@": "\uff20"})
# The part of RFC 3986 that both chats read as nothing but a part of the link.
_PLAIN_LINK = re.compile(r"https://[A-Za-z0-9][A-Za-z0-9._~:/?#&+,;=%-]*", re.ASCII)
_LINK_ELSEWHERE = "Download link: see the mail or the JSON; it contains characters that a chat may misread"


def to_chat(notification: Mapping[str, Any], text: Text) -> dict[str, Any]:
    """Return the custom notification: all of a trigger are in one thread, and facts are in code spans."""
    context = {name: notification[name] for name in _CONTEXT if notification.get(name)}
    trigger, source = notification["trigger"], text.facts["Requested by"] or ""
    lines = [f"{label}: {_quoted(fact)}" for label, fact in text.facts.items() if fact and label not in _MAIL_ONLY]
    if text.link:
        is_plain = _PLAIN_LINK.fullmatch(text.link)
        lines.append(f"{text.link_label} <{text.link}>" if is_plain else _LINK_ELSEWHERE)
    return {
        "version": "1.0",
        "source": "custom",
        "id": notification["outcome_id"],
        "content": {
            "textType": "client-markdown",
            "title": text.headline,
            "description": "\n".join(lines),
            "nextSteps": [*text.next_steps.splitlines(), *([f"`{text.command}`"] if text.command else [])],
            "keywords": [context[name] for name in ("status", "region") if name in context],
        },
        "metadata": {
            "threadId": str(uuid.uuid5(_THREADS, repr((trigger["type"], trigger["id"])))),
            "summary": f"Log files of backup agents, requested by {_quoted(source, _SUMMARY_CHARACTERS)}",
            "eventType": "agent-log-capture",
            "relatedResources": [context["agent_id"]] if "agent_id" in context else [],
            "additionalContext": context | {"trigger_type": trigger["type"]},
        },
    }


def _quoted(text: str, limit: int = _FACT_CHARACTERS) -> str:
    """Return text from outside in a code span, which is not empty: a chat does not recognize an empty one."""
    return f"`{printable(text, limit).translate(_LOOK_ALIKES).strip() or '?'}`"
