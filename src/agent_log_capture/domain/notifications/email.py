"""What mails and chats say about an outcome, and the form for mail subscribers."""

import textwrap
from collections.abc import Mapping
from functools import cache
from typing import NamedTuple

from agent_log_capture.domain.outcome import (
    SIGNED_LINK,
    LogFile,
    Outcome,
    Reason,
    Status,
    Trigger,
    TriggerType,
    readable,
)
from agent_log_capture.domain.printable import printable

_SUBJECT_CHARACTERS = 100  # the most that SNS accepts
_COLUMNS = 100
_LABEL_COLUMNS = 14
# The steps are fixed texts. Wrapping them takes longer than the rest of a notification.
_wrapped = cache(textwrap.fill)
_LINKS = {"Log file", "Stored at"}  # a link that is broken over lines does not work


class Text(NamedTuple):
    """What happened, what to do next (one step a line), the command for it, and the facts by label.

    The first three never come from an event or a response. Facts may: they are one printable line each, and None if
    there is nothing to show. `link` is the signed one, with a label that says when it expires.
    """

    headline: str
    next_steps: str
    command: str | None = None
    link: str | None = None
    link_label: str = ""
    facts: Mapping[str, str | None] = {}


# An agent ID and a region are checked when a capture is created, so the command is safe in a shell.
_REQUEST_AGAIN = "echo {agent_id} | make send FILE=- BACKUP_REGION={region}"
_REQUEST_CORRECTED = "echo AGENT_ID | make send FILE=- BACKUP_REGION=REGION"
_HAS_LINK = "link"


def _failed(headline: str, fix: str) -> Text:
    return Text(headline, f"{fix}, then replay the dead-letter queue, which keeps the capture:", "make replay")


def _rejected(headline: str, fix: str, command: str = _REQUEST_AGAIN) -> Text:
    return Text(headline, f"{fix}, then request the log file again:", command)


def _unreadable(headline: str, fix: str = "Correct what the reason describes, then send it again.") -> Text:
    kept = "The dead-letter queue keeps the original; if it is replayed unchanged, it is rejected again."
    return Text(headline, f"{fix} {kept}")


# By status, reason and detail (see `text_of`). The longest key that matches an outcome is used.
TEXTS: Mapping[tuple[object, ...], Text] = {
    (Status.REQUESTED,): Text(
        "The API accepted the request for the agent's log file.",
        "No action is needed. Another notification follows when the log file is uploaded or the deadline has passed. "
        "If CaptureDeadlineSeconds is 0, this is the last notification.",
    ),
    (Status.WAITING,): Text(
        "The agent is offline and has not started to upload its log file.",
        "Check that the server and the agent are running. The agent picks up the request when it is online again. "
        "Another notification follows when the log file is uploaded or the deadline has passed.",
    ),
    (Status.CAPTURED,): Text(
        "The agent's log file was uploaded.", "Download it with a token from Cloud Files, container CloudBackupLogs."
    ),
    (Status.CAPTURED, None, _HAS_LINK): Text(
        "The agent's log file was uploaded.",
        "Download it. Until the link expires, anyone who has it can download the file without a token.",
    ),
    (Status.EXPIRED,): Text(
        "The function did not find an uploaded log file before the deadline.",
        "Check Cloud Files, container CloudBackupLogs. If the log file is not there, check that the server and the "
        "agent are running, then request it again:",
        _REQUEST_AGAIN,
    ),
    (Status.EXPIRED, Reason.NOT_UPLOADED, "requested"): Text(
        "The agent did not start to upload its log file before the deadline.",
        "Check that the server and the agent are running. The agent may still upload this log file to Cloud Files, "
        "container CloudBackupLogs, but no notification follows. To request another one:",
        _REQUEST_AGAIN,
    ),
    (Status.EXPIRED, Reason.NOT_UPLOADED, "started"): Text(
        "The agent started to upload its log file, but did not finish before the deadline.",
        "Check Cloud Files, container CloudBackupLogs: the upload may still finish, but no notification follows. If "
        "uploads often take this long, increase CaptureDeadlineSeconds.",
    ),
    (Status.EXPIRED, Reason.GONE): Text(
        "The log file no longer exists in the API.",
        "It may have been deleted. Check Cloud Files, container CloudBackupLogs. If the log file is not there, "
        'request it again (during the cool-down, send an event with "force": true instead):',
        _REQUEST_AGAIN,
    ),
    (Status.DUPLICATE,): Text(
        "The agent's log file was requested a short time ago, so it was not requested again.",
        "No action is needed: the notifications of the first request report the result. To request another log file "
        'during the cool-down, send an event with "force": true.',
    ),
    (Status.REJECTED,): _unreadable("Part of the event is invalid. No log file was requested for that part."),
    (Status.REJECTED, Reason.REFUSED): _rejected(
        "The API refused the request for the agent's log file; it is not retried.",
        "Fix the cause that the reason describes",
    ),
    (Status.REJECTED, Reason.REFUSED, 400): _rejected(
        "The API reports that the request for the agent's log file is invalid.",
        "Check the agent ID and the project",
        _REQUEST_CORRECTED,
    ),
    (Status.REJECTED, Reason.REFUSED, 403): _rejected(
        "The token's user is not allowed to request log files.",
        # The roles that the API's reference names.
        "Give the user the role cloudbackup:creator, cloudbackup:admin or admin (an observer can only read)",
    ),
    (Status.REJECTED, Reason.REFUSED, 404): _rejected(
        "The API does not know this agent.", "Check the agent ID, its region and the project", _REQUEST_CORRECTED
    ),
    (Status.REJECTED, Reason.REDIRECTED): _rejected(
        "The API responded with a redirect, which is not followed.",
        "Check the parameter CloudBackupUrl (it must be the URL of the API itself)",
    ),
    (Status.REJECTED, Reason.NO_AGENT_ID): _unreadable(
        "The event contains no agent ID, so no log file was requested.",
        "Send the event again with agent_id or agent_ids.",
    ),
    (Status.REJECTED, Reason.NO_AGENT_ID, TriggerType.ALARM): Text(
        "The alarm names no agent, so no log file was requested.",
        "Add the agent ID to the alarm, in a dimension or tag AgentId or in the description. The dead-letter queue "
        "keeps this event. To request the log file now:",
        _REQUEST_CORRECTED,
    ),
    (Status.REJECTED, Reason.TOO_LARGE): _unreadable(
        "The event contains too many values. No log file was requested.", "Send it again in smaller parts."
    ),
    (Status.FAILED,): _failed(
        "The API failed to serve the request for the agent's log file until the retry window ended.",
        "Wait until the API works again",
    ),
    (Status.FAILED, Reason.NOT_CONNECTED): _failed(
        "The API could not be reached until the retry window ended.",
        "Check the parameter CloudBackupUrl and the function's network",
    ),
    (Status.FAILED, Reason.UNCONFIRMED): _failed(
        "The API did not respond, so it is unknown whether the agent's log file was requested.",
        "A replay checks this first. Wait until the API works again",
    ),
    (Status.FAILED, Reason.CONFLICT): _failed(
        "The API reported a conflict until the retry window ended, and the agent is not uploading a log file.",
        "Check what else is running on the agent",
    ),
    (Status.FAILED, Reason.TOKEN_REFUSED): _failed(
        "The API refused the token, so the agent's log file was not requested.",
        "Put a valid token into the secret (if RotateToken is true, find out why the rotation fails)",
    ),
    (Status.FAILED, Reason.TOKEN_UNAVAILABLE): _failed(
        "The secret contains no usable token, so the agent's log file was not requested.",
        "Fix the secret as the reason describes",
    ),
}

_SOURCES = {
    TriggerType.ALARM: "alarm",
    TriggerType.SQS: "queue message",
    TriggerType.EVENTBRIDGE: "EventBridge event",
    TriggerType.SNS: "SNS message",
    TriggerType.MANUAL: "manual invocation",
}


def text_of(outcome: Outcome) -> Text:
    """Return the text for an outcome, with its facts."""
    log_file, status, reason = outcome.log_file or LogFile(), outcome.status, outcome.reason
    link, expires_at = log_file.link(SIGNED_LINK), log_file.download_expires_at
    expiry = f"expires {readable(expires_at)}" if expires_at else "expiry time unknown"
    details = (link and _HAS_LINK, log_file.state, outcome.http_status, outcome.trigger.type)
    keys = [*((status, reason, detail) for detail in details), (status, reason), (status,)]
    text = next(TEXTS[key] for key in keys if key in TEXTS)
    has_code = outcome.http_status and status in {Status.REJECTED, Status.FAILED}
    code = f" (HTTP {outcome.http_status})" if has_code else ""
    facts = {
        "Requested by": source_of(outcome.trigger),
        "Agent": outcome.agent_id and f"{outcome.agent_id} ({outcome.region})",
        "Reason": reason and f"{outcome.message or reason}{code}",
        "Project": outcome.project_id,
        "Log file": log_file.id or log_file.location,
        "Stored at": log_file.link("logfile"),
        "Received at": readable(outcome.asked_at),
        "Attempts": str(outcome.attempts) if outcome.attempts > 1 else None,
        "Outcome ID": outcome.outcome_id,
    }
    command = text.command and text.command.format(agent_id=outcome.agent_id, region=outcome.region)
    return text._replace(command=command, link=link, link_label=f"Download link ({expiry}):", facts=facts)


def source_of(trigger: Trigger) -> str:
    """Return the kind of a trigger, and its name or ID."""
    return f"{_SOURCES[trigger.type]} {trigger.name or trigger.id}"


def subject_line(text: str, tail: str = "") -> str:
    """Return `text` and `tail` in printable ASCII; if they are too long together, `text` is cut."""
    ascii_text = printable(text, 10 * _SUBJECT_CHARACTERS).encode("ascii", "replace").decode()
    return ascii_text[: _SUBJECT_CHARACTERS - len(tail)].rstrip() + tail


def to_email(text: Text) -> str:
    """Return the mail: what happened, what to do next, the link, and the facts.

    Lines have at most 100 columns; only links, and commands with a very long agent ID, can be longer.
    """
    lines = []
    for label, fact in text.facts.items():
        line = f"{label + ':':<{_LABEL_COLUMNS}}{fact}"
        if len(line) > _COLUMNS and label not in _LINKS:
            # Indented, so that text from outside cannot look like a fact of its own.
            line = textwrap.fill(line, _COLUMNS, subsequent_indent=" " * _LABEL_COLUMNS, break_on_hyphens=False)
        lines += [line] if fact else []
    parts = [
        text.headline,
        "\n".join(_wrapped(step, _COLUMNS) for step in text.next_steps.splitlines()),
        text.command and f"    {text.command}",
        text.link and f"{text.link_label}\n{text.link}",  # on a line of its own, which mail programs make clickable
        "\n".join(lines),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"
