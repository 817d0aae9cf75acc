"""What SNS carries when a job is done: the sum of what came of it."""

import json
from collections.abc import Sequence
from typing import Any

from agent_log_capture.domain.job import JobSummary
from agent_log_capture.domain.notifications.chat import summary_to_chat
from agent_log_capture.domain.notifications.notification import fact_line, message_attributes, subject_line
from agent_log_capture.domain.notifications.texts import VERSION, asked_by
from agent_log_capture.domain.outcome import FINAL_STATUSES, Status, readable, timestamp

JOB_DONE = "job_done"
_HAPPENED = "Everything that was asked for has come to an end."
_NEXT_STEPS = {
    Status.EXPIRED: "Expired: once those agents are up, ask for them again.",
    Status.REJECTED: "Rejected: their own notifications tell why. See to it, then ask for them again.",
    Status.FAILED: (
        "Failed: once the reason is gone, replay the dead-letter queue, which keeps them (make replay). When they\n"
        "have ended, another notification corrects this sum."
    ),
}
_NOTHING_TO_DO = "Nothing to do."


def to_json(done: JobSummary) -> dict[str, Any]:
    """Return the notification that subscribers read, version 1."""
    return {
        "version": VERSION,
        "status": JOB_DONE,
        "job_id": done.job_id,
        "revision": done.revision,
        "asked": done.asked,
        **{status.value: done.counts.get(status, 0) for status in FINAL_STATUSES},
        "seconds": round((done.at - done.asked_at).total_seconds(), 3),
        "message": message(done),
        "trigger": done.trigger.to_json(),
        "asked_at": timestamp(done.asked_at),
        "at": timestamp(done.at),
        "outcome_id": done.outcome_id,
    }


def sns_message(done: JobSummary, *, has_chat: bool = False) -> dict[str, Any]:
    """Return the parameters of `Publish` for the sum of a job, without the topic; `has_chat` as for outcomes."""
    bodies = {"default": json.dumps(to_json(done), ensure_ascii=False), "email": email(done)}
    if has_chat:
        said = summary_to_chat(done, _HAPPENED, message(done), _next_steps(done))
        bodies["https"] = json.dumps(said, ensure_ascii=False)
    return {
        "Message": json.dumps(bodies, ensure_ascii=False),
        "MessageStructure": "json",
        "Subject": subject(done),
        "MessageAttributes": message_attributes({"status": JOB_DONE, "trigger_type": done.trigger.type.value}),
    }


def message(done: JobSummary) -> str:
    """Return the sum in a sentence; what nothing came to is left out."""
    counted = [f"{done.counts[status]:,} {status.value}" for status in FINAL_STATUSES if done.counts.get(status)]
    agents = "agent" if done.asked == 1 else "agents"
    return f"of the {done.asked:,} {agents} asked for: {', '.join(counted)}; nothing is missing"


def subject(done: JobSummary) -> str:
    """Return a mail subject that is never without the sum: a name that is too long for it is cut."""
    tail = f" - {done.counts.get(Status.CAPTURED, 0)} of {done.asked} captured"
    return subject_line(f"{JOB_DONE} {done.job_id}", tail)


def email(done: JobSummary) -> str:
    """Return the notification as a person reads it at a glance: what happened, what to do, and then the rest."""
    label, kind, name = asked_by(done.trigger)
    facts = {
        "Job": done.job_id,
        "Asked": f"{done.asked:,}",
        **{
            status.value.capitalize(): f"{done.counts[status]:,}"
            for status in FINAL_STATUSES
            if done.counts.get(status)
        },
        label: f"{kind}{name}",
        "Asked at": readable(done.asked_at),
        "Ended at": readable(done.at),
        "Revision": str(done.revision) if done.revision > 1 else None,
        "Outcome": done.outcome_id,
    }
    lines = [fact_line(name, fact) for name, fact in facts.items() if fact]
    return "\n".join([_HAPPENED, "", *_next_steps(done), "", *lines, ""])


def _next_steps(done: JobSummary) -> Sequence[str]:
    return [text for status, text in _NEXT_STEPS.items() if done.counts.get(status)] or [_NOTHING_TO_DO]
