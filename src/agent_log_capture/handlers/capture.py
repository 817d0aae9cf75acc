"""The source that Lambda knows: any event in, the answer that its source expects out."""

from typing import TYPE_CHECKING, Any

from aws_lambda_powertools.metrics import MetricUnit

from agent_log_capture import bootstrap
from agent_log_capture.domain.capture import Reason, Status
from agent_log_capture.domain.events.envelopes import is_sqs_event
from agent_log_capture.domain.response_counts import NO_RESPONSE, RESPONSE_CLASSES

if TYPE_CHECKING:
    from aws_lambda_powertools import Metrics
    from aws_lambda_powertools.utilities.typing import LambdaContext

    from agent_log_capture.service.result_writer import Report

METRICS = {
    "requested": "CapturesRequested",
    "rejected": "CapturesRejected",
    "deferred": "CapturesDeferred",
    "failed": "CapturesFailed",
    "captured": "CapturesCompleted",
    "expired": "CapturesExpired",
    "duplicate": "CapturesDuplicate",
}
ANSWERS = {name: f"ApiResponses{name}" for name in RESPONSE_CLASSES} | {NO_RESPONSE: "ApiNoResponse"}
CAPTURES_ASKED = "CapturesAsked"
CAPTURE_SECONDS = "CaptureSeconds"
TOKEN_REFUSED = "TokenRefused"  # noqa: S105 (the name of a metric)
NOTIFICATIONS_PUBLISHED = "NotificationsPublished"
NOTIFICATIONS_FAILED = "NotificationsFailed"
ACTIVATIONS_FAILED = "ActivationsFailed"
JOBS_DONE = "JobsDone"
JOB_COUNTS_FAILED = "JobCountsFailed"

_NO_TOKEN = {Reason.TOKEN_REFUSED, Reason.TOKEN_UNAVAILABLE}

bootstrap.build_early(bootstrap.capture_function)


class NotSavedError(Exception):
    """An outcome could not be told, or a capture not be kept: Lambda must bring the event again."""


def lambda_handler(event: object, context: "LambdaContext") -> dict[str, Any]:
    """Capture the log files of every agent that `event` names.

    Returns `{"batchItemFailures": […]}` for SQS and a report for every other event; NotSavedError where a report
    would be untrue, TooLittleTimeError where the function's timeout is too short: then Lambda brings the event again.
    """
    function = bootstrap.capture_function()
    function.logger.append_keys(function_request_id=context.aws_request_id)
    report = function.service.run(
        event,
        request_id=context.aws_request_id,
        remaining_millis=context.get_remaining_time_in_millis,
    )
    function.logger.info("done", asked=report.asked, counts=report.counts, ignored=report.ignored)
    _measure(report, function.metrics)
    return _answer(event, report)


def _measure(report: "Report", metrics: "Metrics") -> None:
    counts = {
        CAPTURES_ASKED: report.new,
        **{metric: report.counts[name] for name, metric in METRICS.items()},
        **{metric: report.answers[name] for name, metric in ANSWERS.items()},
        TOKEN_REFUSED: int(report.failure is not None and report.failure.reason in _NO_TOKEN),
        NOTIFICATIONS_FAILED: report.notifications_failed,
        ACTIVATIONS_FAILED: report.activations_failed,
        JOBS_DONE: len(report.jobs_done),
        JOB_COUNTS_FAILED: report.not_counted,
    }
    for metric, count in counts.items():
        if count:
            metrics.add_metric(metric, MetricUnit.Count, count)
    for outcome in report.outcomes:
        if outcome.status is Status.CAPTURED:
            metrics.add_metric(CAPTURE_SECONDS, MetricUnit.Seconds, (outcome.at - outcome.asked_at).total_seconds())
    metrics.add_metric(NOTIFICATIONS_PUBLISHED, MetricUnit.Count, report.notifications_published)
    metrics.flush_metrics()


def _answer(event: object, report: "Report") -> dict[str, Any]:
    if is_sqs_event(event) and None not in report.unsaved:
        return {"batchItemFailures": [{"itemIdentifier": message_id} for message_id in report.unsaved]}
    if report.unsaved:
        raise NotSavedError("; ".join(report.unsaved.values()))
    return report.to_json()
