"""The one place that reads the environment and builds what the function is made of."""

import os
import random
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache

import boto3
from aws_lambda_powertools import Logger, Metrics
from botocore.config import Config

from agent_log_capture.adapters.capture_queue import CaptureQueue
from agent_log_capture.adapters.cloud_backup import CloudBackup, build_session
from agent_log_capture.adapters.outcome_topic import OutcomeTopic
from agent_log_capture.adapters.token_secret import TokenSecret
from agent_log_capture.core.decision import RetryPolicy
from agent_log_capture.core.intake import Reader
from agent_log_capture.settings import Settings
from agent_log_capture.workflow import CaptureWorkflow

_CONNECT_TIMEOUT_SECONDS = 3
_READ_TIMEOUT_SECONDS = 10


@dataclass(frozen=True, slots=True)
class CaptureFunction:
    """All that the capture handler works with."""

    workflow: CaptureWorkflow
    logger: Logger
    metrics: Metrics


@cache
def capture_function() -> CaptureFunction:
    """Build the capture function from the environment, once; SettingError for a setting that is missing or wrong."""
    settings = Settings.from_environment(os.environ)
    logger = Logger()
    return CaptureFunction(_workflow(settings, logger), logger, Metrics())


def _workflow(settings: Settings, logger: Logger) -> CaptureWorkflow:
    session = boto3.session.Session()
    config = Config(
        connect_timeout=_CONNECT_TIMEOUT_SECONDS,
        read_timeout=_READ_TIMEOUT_SECONDS,
        retries={"mode": "standard"},
    )
    queues = settings.capture_queue_url, settings.dead_letter_queue_url
    http = build_session(settings.concurrency)
    return CaptureWorkflow(
        reader=Reader(default_region=settings.cloud_backup_region, agent_id_keys=settings.agent_id_keys),
        api=CloudBackup(http, settings.cloud_backup_url, now),
        secret=TokenSecret(
            session.client("secretsmanager", config=config),
            settings.token_secret_arn,
            settings.cloud_backup_project_id,
        ),
        queue=CaptureQueue(session.client("sqs", config=config), *queues),
        topic=OutcomeTopic(session.client("sns", config=config), settings.outcome_topic_arn),
        policy=RetryPolicy(window_seconds=settings.retry_window_seconds, random=random.random),
        concurrency=settings.concurrency,
        now=now,
        logger=logger,
    )


def now() -> datetime:
    """Return the moment, in UTC: the clock of the whole function."""
    return datetime.now(UTC)
