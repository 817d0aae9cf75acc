"""Secrets Manager's entry point: one step of a rotation at a time."""

from typing import TYPE_CHECKING

from aws_lambda_powertools.metrics import MetricUnit

from agent_log_capture import bootstrap

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.typing import LambdaContext

TOKEN_REFRESHES = "TokenRefreshes"  # noqa: S105 (the name of a metric)

bootstrap.build_early(bootstrap.token_rotation)


def lambda_handler(event: object, context: "LambdaContext") -> None:
    """Do the step of a rotation that `event` names; an error makes Secrets Manager try the rotation again."""
    function = bootstrap.token_rotation()
    function.logger.append_keys(function_request_id=context.aws_request_id)
    if function.service.run(event):
        function.metrics.add_metric(TOKEN_REFRESHES, MetricUnit.Count, 1)
        function.metrics.flush_metrics()
