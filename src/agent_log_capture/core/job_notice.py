"""What SNS carries when a job is done: the sum of what came of it."""

import json
from typing import Any

from agent_log_capture.core.capture import Status, timestamp
from agent_log_capture.core.job import COUNTED, JobDone
from agent_log_capture.core.notice import VERSION, message_attributes, subject_line

JOB_DONE = "job_done"
_HEADLINE = "Everything that was asked for has come to an end."
_NEXT_STEPS = {
    Status.EXPIRED: "Expired: once those agents are up, ask for them anew.",
    Status.REJECTED: "Rejected: their own notices tell why. See to it, then ask for them anew.",
    Status.FAILED: (
        "Failed: they are kept in the dead-letter queue. Once the reason is gone, replay them from there;\n"
        "when they have ended, another notice corrects this sum."
    ),
}
_NOTHING_TO_DO = "There is nothing to do."


def to_json(done: JobDone) -> dict[str, Any]:
    """Return the notice that subscribers read, version 1."""
    return {
        "version": VERSION,
        "status": JOB_DONE,
        "job_id": done.job_id,
        "revision": done.revision,
        "asked": done.asked,
        **{status.value: done.counts.get(status, 0) for status in COUNTED},
        "seconds": round((done.at - done.asked_at).total_seconds(), 3),
        "message": message(done),
        "trigger": done.trigger.to_json(),
        "asked_at": timestamp(done.asked_at),
        "at": timestamp(done.at),
        "outcome_id": done.outcome_id,
    }


def sns_message(done: JobDone) -> dict[str, Any]:
    """Return the parameters of `Publish` for the sum of a job, without the topic."""
    bodies = {"default": json.dumps(to_json(done), ensure_ascii=False), "email": email(done)}
    return {
        "Message": json.dumps(bodies, ensure_ascii=False),
        "MessageStructure": "json",
        "Subject": subject(done),
        "MessageAttributes": message_attributes({"status": JOB_DONE, "trigger_type": done.trigger.type.value}),
    }


def message(done: JobDone) -> str:
    """Return the sum in a sentence; what nothing came to is left out."""
    counted = [f"{done.counts[status]:,} {status.value}" for status in COUNTED if done.counts.get(status)]
    agents = "agent" if done.asked == 1 else "agents"
    return f"of the {done.asked:,} {agents} asked for: {', '.join(counted)}; nothing is missing"


def subject(done: JobDone) -> str:
    """Return a mail subject that is never without the sum: a name that is too long for it is cut."""
    tail = f" - {done.counts.get(Status.CAPTURED, 0)} of {done.asked} captured"
    return subject_line(f"{JOB_DONE} {done.job_id}", tail)


def email(done: JobDone) -> str:
    """Return the notice as a person reads it at a glance."""
    facts = {
        "Job": done.job_id,
        "Asked": f"{done.asked:,}",
        **{status.value.capitalize(): f"{done.counts[status]:,}" for status in COUNTED if done.counts.get(status)},
        "Asked by": f"{done.trigger.type.value} {done.trigger.name or done.trigger.id}",
        "Asked at": timestamp(done.asked_at),
        "Ended at": timestamp(done.at),
        "Revision": str(done.revision) if done.revision > 1 else None,
        "Outcome": done.outcome_id,
    }
    lines = [f"{name + ':':<10} {fact}" for name, fact in facts.items() if fact]
    next_steps = [text for status, text in _NEXT_STEPS.items() if done.counts.get(status)] or [_NOTHING_TO_DO]
    return "\n".join([_HEADLINE, "", *lines, "", *next_steps, ""])
