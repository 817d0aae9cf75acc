"""The notification for a job that is done: how many of its agents have which final status."""

from typing import Any

from agent_log_capture.domain.job import JobSummary
from agent_log_capture.domain.notifications.email import Text, source_of, subject_line
from agent_log_capture.domain.notifications.notification import VERSION, to_sns
from agent_log_capture.domain.outcome import FINAL_STATUSES, Status, readable, timestamp

JOB_DONE = "job_done"
_NEXT_STEPS = {
    Status.EXPIRED: "Expired: check that these agents are running, then request their log files again.",
    Status.REJECTED: "Rejected: fix the reasons in their notifications, then request their log files again.",
    Status.FAILED: "Failed: fix the reasons in their notifications, then replay the dead-letter queue (make replay). "
    "A new revision of this summary follows.",
}


def to_json(summary: JobSummary) -> dict[str, Any]:
    """Return the notification that subscribers read, version 1."""
    agents = "agent" if summary.asked == 1 else "agents"
    counts = ", ".join(f"{count} {status}" for status, count in _counts(summary).items())
    return {
        "version": VERSION,
        "status": JOB_DONE,
        "job_id": summary.job_id,
        "revision": summary.revision,
        "asked": summary.asked,
        **{status.value: summary.counts.get(status, 0) for status in FINAL_STATUSES},
        "seconds": round((summary.at - summary.asked_at).total_seconds(), 3),
        "message": f"{summary.asked:,} {agents}: {counts}",
        "trigger": summary.trigger.to_json(),
        "asked_at": timestamp(summary.asked_at),
        "at": timestamp(summary.at),
        "outcome_id": summary.outcome_id,
    }


def sns_message(summary: JobSummary, *, has_chat: bool = False) -> dict[str, Any]:
    """Return the parameters of `Publish` for a job summary, without the topic; `has_chat` as for outcomes."""
    # The counts are always shown: a long job ID is cut.
    tail = f" - {summary.counts.get(Status.CAPTURED, 0)} of {summary.asked} captured"
    subject = subject_line(f"{JOB_DONE} {summary.job_id}", tail)
    return to_sns(to_json(summary), subject, text_of(summary), has_chat=has_chat)


def text_of(summary: JobSummary) -> Text:
    """Return the text for a mail and a chat, with the facts."""
    next_steps = [text for status, text in _NEXT_STEPS.items() if summary.counts.get(status)]
    facts = {
        "Job ID": summary.job_id,
        "Agents": f"{summary.asked:,}",
        **{status.capitalize(): count for status, count in _counts(summary).items()},
        "Requested by": source_of(summary.trigger),
        "Received at": readable(summary.asked_at),
        "Done at": readable(summary.at),
        "Revision": str(summary.revision) if summary.revision > 1 else None,
        "Outcome ID": summary.outcome_id,
    }
    headline = "The job is done: every agent has a final status."
    return Text(headline, "\n".join(next_steps) or "No action is needed.", facts=facts)


def _counts(summary: JobSummary) -> dict[Status, str]:
    return {status: f"{summary.counts[status]:,}" for status in FINAL_STATUSES if summary.counts.get(status)}
