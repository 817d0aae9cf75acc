"""The one place that reads the environment and builds clients."""

import gc
import logging
import os
import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache, partial

import boto3
from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.metrics import MetricUnit
from botocore.config import Config

from agent_log_capture.adapters.capture_queue import CaptureQueue
from agent_log_capture.adapters.captures_table import CapturesTable
from agent_log_capture.adapters.cloud_backup import CloudBackup
from agent_log_capture.adapters.http_session import build_session
from agent_log_capture.adapters.identity import Identity
from agent_log_capture.adapters.outcome_topic import OutcomeTopic
from agent_log_capture.adapters.token_secret import TokenSecret
from agent_log_capture.domain.events.parser import EventParser
from agent_log_capture.domain.job import keep_seconds
from agent_log_capture.domain.polling import PollPolicy
from agent_log_capture.domain.retry import RetryPolicy
from agent_log_capture.service.invocation import CaptureService
from agent_log_capture.service.token_rotation import TokenRotation
from agent_log_capture.settings import RotationSettings, Settings

COLD_STARTS = "ColdStarts"
# With three attempts and the pauses between them, a call takes less than SENDING_SECONDS of worker_pool.py.
# The services validate parameters, and so do the clients of the tests: here it would take a tenth of the CPU time.
_CONFIG = Config(
    connect_timeout=2,
    read_timeout=5,
    retries={"mode": "standard", "total_max_attempts": 3},
    parameter_validation=False,
)

now = partial(datetime.now, UTC)  # the clock of both functions


@dataclass(frozen=True, slots=True)
class Function[Service]:
    """All that a handler works with."""

    service: Service
    logger: Logger
    metrics: Metrics


def build_early(build: Callable[[], object]) -> None:
    """Build a function while Lambda initializes it, with a whole CPU, and not in its first invocation.

    Outside Lambda, a handler may be imported without its environment.
    """
    if "AWS_LAMBDA_RUNTIME_API" in os.environ:
        build()
        gc.freeze()  # it lives as long as the process does
    gc.enable()


@cache
def capture_function() -> Function[CaptureService]:
    """Build the capture function from the environment, once; SettingError for a setting that is missing or wrong."""
    settings = Settings.from_environment(os.environ)
    logger, metrics, client = _logger(), Metrics(), partial(boto3.session.Session().client, config=_CONFIG)
    window_seconds, deadline_seconds = settings.retry_window_seconds, settings.capture_deadline_seconds
    keep = timedelta(seconds=keep_seconds(retry_window_seconds=window_seconds, deadline_seconds=deadline_seconds))
    http, is_rotated = build_session(settings.concurrency), settings.rotation_enabled
    secret_arn, project_id = settings.token_secret_arn, settings.cloud_backup_project_id
    service = CaptureService(
        parser=EventParser(default_region=settings.cloud_backup_region, agent_id_keys=settings.agent_id_keys),
        api=CloudBackup(http, settings.cloud_backup_url, now, keeps_signed_links=settings.publish_download_url),
        secret=TokenSecret(client("secretsmanager"), secret_arn, project_id, is_rotated=is_rotated),
        queue=CaptureQueue(client("sqs"), settings.capture_queue_url, settings.dead_letter_queue_url),
        topic=OutcomeTopic(client("sns"), settings.outcome_topic_arn, has_chat=settings.chat_messages),
        table=CapturesTable(client=client("dynamodb"), table=settings.captures_table, keep=keep, now=now),
        retries=RetryPolicy(window_seconds=window_seconds, random=random.random),
        polls=PollPolicy(deadline_seconds=deadline_seconds, grace_seconds=window_seconds),
        cool_down=timedelta(seconds=settings.cool_down_seconds),
        concurrency=settings.concurrency,
        random=random.random,
        now=now,
        logger=logger,
    )
    metrics.add_metric(COLD_STARTS, MetricUnit.Count, 1)  # written with what the first invocation measures
    return Function(service, logger, metrics)


@cache
def token_rotation() -> Function[TokenRotation]:
    """Build the function that rotates the token, once; SettingError for a setting that is missing or wrong."""
    settings = RotationSettings.from_environment(os.environ)
    logger, http = _logger(), build_session(1)
    rotation = TokenRotation(
        client=boto3.session.Session().client("secretsmanager", config=_CONFIG),
        identity=Identity(http, settings.identity_url),
        api=CloudBackup(http, settings.cloud_backup_url, now),
        region=settings.cloud_backup_region,
        logger=logger,
    )
    return Function(rotation, logger, Metrics())


def _logger() -> Logger:
    # At DEBUG, botocore logs every response: one of them holds the secret.
    logging.getLogger("botocore").setLevel(logging.INFO)
    return Logger()
