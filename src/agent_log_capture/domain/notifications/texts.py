"""What a notification says to a person: what happened, what to do next, and who asked."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from agent_log_capture.domain.outcome import Outcome, Reason, Status
from agent_log_capture.domain.trigger import Trigger, TriggerType

VERSION = "1"  # of what is published

type Case = tuple[object, ...]


@dataclass(frozen=True, slots=True)
class Words:
    """What happened, and what to do next, in lines of at most 100 characters: nothing in it is from outside."""

    happened: str
    next_step: str


# The longest case that fits an outcome counts: its status, its reason, and what `_detail` says.
WORDS: Mapping[Case, Words] = {
    (Status.REQUESTED,): Words(
        "The agent was asked to upload its log files.",
        "Nothing to do. Another notification tells when they are there, unless log files are not followed\n"
        "(CaptureDeadlineSeconds 0).",
    ),
    (Status.WAITING,): Words(
        "The agent is offline: it has not begun to upload its log files.",
        "See whether its server is up and the agent runs. Once it is back, it takes up the request by itself.\n"
        "Another notification tells when the log files are there, or that they did not come in time.",
    ),
    (Status.CAPTURED, None, "link"): Words(
        "The agent has uploaded its log files.",
        "Download them. Whoever has the link can, without a token, for as long as it works.",
    ),
    (Status.CAPTURED,): Words(
        "The agent has uploaded its log files.",
        "Get them with a token: they are in Cloud Files, in the container CloudBackupLogs.",
    ),
    (Status.EXPIRED,): Words(
        "The agent's log files were not seen in time.",
        "Poll for them in Cloud Files, in the container CloudBackupLogs. If they are not there, see that the\n"
        "agent is up, then ask again.",
    ),
    (Status.EXPIRED, Reason.NOT_UPLOADED, "requested"): Words(
        "The agent's log files did not come in time: it has not taken up the request.",
        "See that the agent is up, then ask again. What it uploads later all the same is in Cloud Files, in\n"
        "the container CloudBackupLogs; no notification tells of it.",
    ),
    (Status.EXPIRED, Reason.NOT_UPLOADED, "started"): Words(
        "The agent's log files did not come in time: the upload has begun, and not ended.",
        "Poll for them in Cloud Files, in the container CloudBackupLogs: they may still come, without a\n"
        "notification. Where uploads take that long, raise CaptureDeadlineSeconds.",
    ),
    (Status.EXPIRED, Reason.GONE): Words(
        "The API no longer knows the log file that the agent was asked for.",
        "Somebody may have deleted it. If it was uploaded before that, it may still be in Cloud Files, in the\n"
        "container CloudBackupLogs. Otherwise ask again.",
    ),
    (Status.DUPLICATE,): Words(
        "The agent was asked for its log files a short while ago; it was not asked again.",
        "Nothing to do: the notifications of the first request report what becomes of them. To request them\n"
        'again all the same, send an event with "force": true.',
    ),
    (Status.REJECTED,): Words(
        "The API refused the request for the agent's log files.",
        "It is not tried again. See to the reason, which is the API's answer, then ask again.",
    ),
    (Status.REJECTED, Reason.REFUSED, 400): Words(
        "The API takes the request for the agent's log files for malformed.",
        "See to the reason. Are the agent ID and the project right? Then ask again.",
    ),
    (Status.REJECTED, Reason.REFUSED, 403): Words(
        "The API does not allow the token's user to capture the agent's log files.",
        # The roles that the API's reference names.
        "Give the user the role cloudbackup:creator, cloudbackup:admin or admin (an observer can only read),\n"
        "then ask again.",
    ),
    (Status.REJECTED, Reason.REFUSED, 404): Words(
        "The API knows no such agent.",
        "Are the agent ID, its region and the project right? Correct what is wrong, then ask again.",
    ),
    (Status.REJECTED, Reason.REDIRECTED): Words(
        "The API answered with a redirect, which is not followed.",
        "Check the parameter CloudBackupUrl: it must name the API itself. Then ask again.",
    ),
    (Status.REJECTED, "unreadable"): Words(
        "An event, or a part of it, cannot be read: no agent is asked for that.",
        "Correct it, then send it again. The dead-letter queue keeps what cannot be read; a replay brings it\n"
        "back as it is.",
    ),
    (Status.REJECTED, "unreadable", Reason.NO_AGENT_ID): Words(
        "An event names no agent: none was asked.",
        "Send it again with agent_id or agent_ids in it. The dead-letter queue keeps it; a replay brings it\n"
        "back as it is.",
    ),
    (Status.REJECTED, "unreadable", Reason.NO_AGENT_ID, TriggerType.ALARM): Words(
        "An alarm rang that names no agent: none was asked.",
        "Send the agent's ID by hand, and name it in the alarm for the next time: in a dimension or tag\n"
        "AgentId, or in the description. The dead-letter queue keeps the event.",
    ),
    (Status.FAILED,): Words(
        "The API could not serve the request for the agent's log files; it is not tried any longer.",
        "Once the API is well again, replay the dead-letter queue, which keeps the capture (make replay).",
    ),
    (Status.FAILED, Reason.NOT_CONNECTED): Words(
        "The API could not be reached; it is not tried any longer.",
        "Is CloudBackupUrl right, and does the function reach it? Then replay the dead-letter queue, which\n"
        "keeps the capture (make replay).",
    ),
    (Status.FAILED, Reason.UNCONFIRMED): Words(
        "The API did not answer: the agent may have been asked for its log files, or not.",
        "Once the API is well again, replay the dead-letter queue, which keeps the capture (make replay).\n"
        "It looks first whether the agent was asked.",
    ),
    (Status.FAILED, Reason.CONFLICT): Words(
        "The API reports a conflict, and no log file is on its way; it is not tried any longer.",
        "See what else is done with the agent. Then replay the dead-letter queue, which keeps the capture\n"
        "(make replay).",
    ),
    (Status.FAILED, Reason.TOKEN_REFUSED): Words(
        "The API refuses the token: the agent could not be asked for its log files.",
        "Put a token that works into the secret or, with RotateToken, see why the rotation fails. Then replay\n"
        "the dead-letter queue, which keeps the capture (make replay).",
    ),
    (Status.FAILED, Reason.TOKEN_UNAVAILABLE): Words(
        "There is no token to ask the API with: the agent could not be asked for its log files.",
        "Fix the secret as the reason says. Then replay the dead-letter queue, which keeps the capture\n"
        "(make replay).",
    ),
    (Status.FAILED, Reason.IN_PROGRESS): Words(
        "Others were asking the agent all the time; it is not tried any longer.",
        "Read their notifications. If none says that the agent was asked, replay the dead-letter queue, which\n"
        "keeps the capture (make replay).",
    ),
}

# By what it is called, and what its name or ID is one of.
_ASKED_BY = {
    TriggerType.ALARM: ("Alarm", ""),
    TriggerType.SQS: ("Asked by", "queue message "),
    TriggerType.EVENTBRIDGE: ("Asked by", "EventBridge event "),
    TriggerType.SNS: ("Asked by", "SNS message "),
    TriggerType.MANUAL: ("Asked by", "hand, in request "),
}


def words(outcome: Outcome) -> Words:
    """Return what is said about an outcome."""
    return next(WORDS[case] for case in _cases(outcome) if case in WORDS)


def asked_by(trigger: Trigger) -> tuple[str, str, str]:
    """Return what asked: a label, what comes before the name or ID, and that, which is from outside."""
    return *_ASKED_BY[trigger.type], trigger.name or trigger.id


def reason(outcome: Outcome) -> str | None:
    """Return why, from outside as a rule, with the status code of an API that refused; None when all is well."""
    if outcome.reason is None:
        return None
    is_refusal = outcome.status in {Status.REJECTED, Status.FAILED} and outcome.http_status
    code = f" (HTTP {outcome.http_status})" if is_refusal else ""
    return f"{outcome.message or outcome.reason}{code}"


def _cases(outcome: Outcome) -> Iterator[Case]:
    """Yield the cases that an outcome may be, the longest first."""
    case: Case = (outcome.status, outcome.reason, _detail(outcome))
    if outcome.agent_id is None:
        case = (outcome.status, "unreadable", outcome.reason, outcome.trigger.type)
    yield from (case[:length] for length in range(len(case), 0, -1))


def _detail(outcome: Outcome) -> object:
    """Return what tells apart the outcomes of one status and reason."""
    match outcome.status:
        case Status.CAPTURED:
            return "link" if outcome.log_file and outcome.log_file.download_url else None
        case Status.EXPIRED:
            return outcome.log_file and outcome.log_file.state
        case Status.REJECTED:
            return outcome.http_status
    return None
