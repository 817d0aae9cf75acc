"""Lambda's entry point: any event in, the response that its source expects out."""

from typing import TYPE_CHECKING, Any

from aws_lambda_powertools.metrics import MetricUnit

from agent_log_capture import bootstrap
from agent_log_capture.domain.events.envelopes import is_sqs_event
from agent_log_capture.domain.outcome import Reason, Status
from agent_log_capture.domain.responses import NO_RESPONSE, RESPONSE_CLASSES
from agent_log_capture.service.result_writer import DEFERRED

if TYPE_CHECKING:
    from aws_lambda_powertools import Metrics
    from aws_lambda_powertools.utilities.typing import LambdaContext

    from agent_log_capture.service.result_writer import InvocationResult

# A metric for each status, and for captures that are requeued. `waiting` has none: it is counted when it ends.
METRICS = {
    Status.REQUESTED: "CapturesRequested",
    Status.REJECTED: "CapturesRejected",
    DEFERRED: "CapturesDeferred",
    Status.FAILED: "CapturesFailed",
    Status.CAPTURED: "CapturesCompleted",
    Status.EXPIRED: "CapturesExpired",
    Status.DUPLICATE: "CapturesDuplicate",
}
RESPONSES = {name: f"ApiResponses{name}" for name in RESPONSE_CLASSES} | {NO_RESPONSE: "ApiNoResponse"}
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
    """Something could not be saved anywhere: Lambda must retry the event."""


def lambda_handler(event: object, context: "LambdaContext") -> dict[str, Any]:
    """Capture the log files of every agent that `event` names.

    Returns `{"batchItemFailures": […]}` for SQS, and for every other event what became of its captures. NotSavedError
    where that would be untrue, TooLittleTimeError where the function's timeout is too short: Lambda retries then.
    """
    function = bootstrap.capture_function()
    request_id = context.aws_request_id
    function.logger.append_keys(function_request_id=request_id)
    result = function.service.run(event, request_id=request_id, remaining_millis=context.get_remaining_time_in_millis)
    function.logger.info("done", asked=result.asked, counts=result.counts, ignored=result.ignored)
    _measure(result, function.metrics)
    if is_sqs_event(event) and None not in result.unsaved:
        return {"batchItemFailures": [{"itemIdentifier": record_id} for record_id in result.unsaved]}
    if result.unsaved:
        raise NotSavedError("; ".join(result.unsaved.values()))
    return result.to_json()


def _measure(result: "InvocationResult", metrics: "Metrics") -> None:
    counts = {
        CAPTURES_ASKED: result.new,
        **{metric: result.counts[name] for name, metric in METRICS.items()},
        **{metric: result.responses[name] for name, metric in RESPONSES.items()},
        TOKEN_REFUSED: int(result.failure is not None and result.failure.reason in _NO_TOKEN),
        NOTIFICATIONS_FAILED: result.notifications_failed,
        ACTIVATIONS_FAILED: result.activations_failed,
        JOBS_DONE: len(result.jobs_done),
        JOB_COUNTS_FAILED: result.not_counted,
    }
    for metric, count in counts.items():
        if count:
            metrics.add_metric(metric, MetricUnit.Count, count)
    for outcome in result.outcomes:
        if outcome.status is Status.CAPTURED:
            metrics.add_metric(CAPTURE_SECONDS, MetricUnit.Seconds, (outcome.at - outcome.asked_at).total_seconds())
    metrics.add_metric(NOTIFICATIONS_PUBLISHED, MetricUnit.Count, result.notifications_published)
    metrics.flush_metrics()
