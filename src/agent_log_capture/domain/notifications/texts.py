"""What a mail and a chat say about an outcome: what happened, what to do next, and the facts."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from agent_log_capture.domain.outcome import LogFile, Outcome, Reason, Status, Trigger, TriggerType, readable


@dataclass(frozen=True, slots=True)
class Text:
    """What happened, what to do next (one step a line), the command for it, and the facts by label.

    The first three never come from an event or a response. Facts may: they are one printable line each, and None if
    there is nothing to show. `log_file` is the one whose signed link is shown.
    """

    headline: str
    next_steps: str
    command: str | None = None
    log_file: LogFile = field(default_factory=LogFile)
    facts: Mapping[str, str | None] = field(default_factory=dict)


# An agent ID and a region are checked when a capture is created, so the command is safe in a shell.
_REQUEST_AGAIN = "echo {agent_id} | make send FILE=- BACKUP_REGION={region}"
_REQUEST_CORRECTED = "echo AGENT_ID | make send FILE=- BACKUP_REGION=REGION"
_HAS_LINK = "link"


def _failed(headline: str, fix: str) -> Text:
    return Text(headline, f"{fix}, then replay the dead-letter queue, which keeps the capture:", "make replay")


def _rejected(headline: str, fix: str, command: str = _REQUEST_AGAIN) -> Text:
    return Text(headline, f"{fix}, then request the log file again:", command)


def _unreadable(headline: str, fix: str = "Correct it, then send it again.") -> Text:
    kept = "The dead-letter queue keeps the original; if it is replayed unchanged, it is rejected again."
    return Text(headline, f"{fix} {kept}")


# By status, reason and detail (see `_detail`). The longest key that matches an outcome is used.
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
        "The agent's log file was uploaded.",
        "Download it with a token from Cloud Files, container CloudBackupLogs.",
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
    (Status.REJECTED,): _rejected(
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
    (Status.REJECTED, Reason.INVALID_AGENT_ID): _unreadable(
        "The event contains invalid agent IDs. No log file was requested for them.",
        "Correct them, then send them again.",
    ),
    (Status.REJECTED, Reason.INVALID_REGION): _unreadable("The event names an unknown region; agents were skipped."),
    (Status.REJECTED, Reason.INVALID_FORCE): _unreadable(
        "The event has an invalid force value; agents were skipped."
    ),
    (Status.REJECTED, Reason.INVALID_JOB): _unreadable("The event has an invalid job name; agents were skipped."),
    (Status.REJECTED, Reason.INVALID_JSON): _unreadable("The event contains malformed JSON, which was skipped."),
    (Status.REJECTED, Reason.TOO_DEEP): _unreadable("Parts of the event are nested too deeply and were skipped."),
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
    key = (outcome.status, outcome.reason, _detail(outcome))
    text = TEXTS.get(key) or TEXTS.get(key[:2]) or TEXTS[key[:1]]
    command = text.command and text.command.format(agent_id=outcome.agent_id, region=outcome.region)
    return replace(text, command=command, log_file=outcome.log_file or LogFile(), facts=_facts(outcome))


def source_of(trigger: Trigger) -> str:
    """Return the kind of a trigger, and its name or ID."""
    return f"{_SOURCES[trigger.type]} {trigger.name or trigger.id}"


def expiry_of(log_file: LogFile) -> str:
    """Return when the signed link expires, if the link says so."""
    expires_at = log_file.download_expires_at
    return f"expires {readable(expires_at)}" if expires_at else "expiry time unknown"


def _facts(outcome: Outcome) -> Mapping[str, str | None]:
    log_file = outcome.log_file or LogFile()
    return {
        "Requested by": source_of(outcome.trigger),
        "Agent": outcome.agent_id and f"{outcome.agent_id} ({outcome.region})",
        "Reason": outcome.reason and _reason(outcome),
        "Project": outcome.project_id,
        "Log file": log_file.id or log_file.location,
        "Stored at": log_file.object_url,
        "Received at": readable(outcome.asked_at),
        "Attempts": str(outcome.attempts) if outcome.attempts > 1 else None,
        "Outcome ID": outcome.outcome_id,
    }


def _reason(outcome: Outcome) -> str:
    """Return the reason as a sentence, with the status code if the API refused the request or failed."""
    has_code = outcome.http_status and outcome.status in {Status.REJECTED, Status.FAILED}
    return f"{outcome.message or outcome.reason}{f' (HTTP {outcome.http_status})' if has_code else ''}"


def _detail(outcome: Outcome) -> object:
    """Return what distinguishes outcomes of one status and reason that need different texts."""
    match outcome.status, outcome.reason:
        case Status.CAPTURED, _:
            return _HAS_LINK if outcome.log_file and outcome.log_file.download_url else None
        case Status.EXPIRED, _:
            return outcome.log_file and outcome.log_file.state
        case Status.REJECTED, Reason.NO_AGENT_ID:
            return outcome.trigger.type
    return outcome.http_status
