"""The one place that reads the environment and builds clients."""

import gc
import logging
import os
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache

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

# With three tries and the pauses between them, a call takes less than SENDING_SECONDS of worker_pool.py.
_CONNECT_TIMEOUT_SECONDS = 2
_READ_TIMEOUT_SECONDS = 5
_TRIES = 3


def build_early(build: Callable[[], object]) -> None:
    """Build a function while Lambda initializes it, with a whole CPU, and not in its first invocation.

    Outside Lambda, a handler may be imported without its environment.
    """
    if "AWS_LAMBDA_RUNTIME_API" in os.environ:
        build()
        gc.freeze()  # it lives as long as the process does
    gc.enable()


@dataclass(frozen=True, slots=True)
class CaptureFunction:
    """All that the capture handler works with."""

    service: CaptureService
    logger: Logger
    metrics: Metrics


@dataclass(frozen=True, slots=True)
class RotationFunction:
    """All that the rotation's handler works with."""

    rotation: TokenRotation
    logger: Logger
    metrics: Metrics


@cache
def capture_function() -> CaptureFunction:
    """Build the capture function from the environment, once; SettingError for a setting that is missing or wrong."""
    settings = Settings.from_environment(os.environ)
    logger = _logger()
    function = CaptureFunction(_service(settings, logger), logger, Metrics())
    # Written with what the first invocation measures.
    function.metrics.add_metric(COLD_STARTS, MetricUnit.Count, 1)
    return function


def _logger() -> Logger:
    # At DEBUG, botocore logs every answer that it gets: one of them holds the secret.
    logging.getLogger("botocore").setLevel(logging.INFO)
    return Logger()


def _service(settings: Settings, logger: Logger) -> CaptureService:
    session = boto3.session.Session()
    config = _client_config()
    queues = settings.capture_queue_url, settings.dead_letter_queue_url
    return CaptureService(
        parser=EventParser(default_region=settings.cloud_backup_region, agent_id_keys=settings.agent_id_keys),
        api=CloudBackup(
            build_session(settings.concurrency),
            settings.cloud_backup_url,
            now,
            keeps_signed_links=settings.publish_download_url,
        ),
        secret=TokenSecret(
            session.client("secretsmanager", config=config),
            settings.token_secret_arn,
            settings.cloud_backup_project_id,
            is_rotated=settings.rotation_enabled,
        ),
        queue=CaptureQueue(session.client("sqs", config=config), *queues),
        topic=OutcomeTopic(
            session.client("sns", config=config), settings.outcome_topic_arn, has_chat=settings.chat_messages
        ),
        table=_table(session, settings),
        retries=RetryPolicy(window_seconds=settings.retry_window_seconds, random=random.random),
        polls=PollPolicy(
            deadline_seconds=settings.capture_deadline_seconds,
            grace_seconds=settings.retry_window_seconds,
        ),
        cool_down=timedelta(seconds=settings.cool_down_seconds),
        concurrency=settings.concurrency,
        random=random.random,
        now=now,
        logger=logger,
    )


def _client_config() -> Config:
    return Config(
        connect_timeout=_CONNECT_TIMEOUT_SECONDS,
        read_timeout=_READ_TIMEOUT_SECONDS,
        retries={"mode": "standard", "total_max_attempts": _TRIES},
    )


def _table(session: boto3.session.Session, settings: Settings) -> CapturesTable:
    keep = keep_seconds(
        retry_window_seconds=settings.retry_window_seconds, deadline_seconds=settings.capture_deadline_seconds
    )
    return CapturesTable(
        client=session.client("dynamodb", config=_client_config()),
        table=settings.captures_table,
        keep=timedelta(seconds=keep),
        now=now,
        random=random.random,
        pause=time.sleep,
    )


@cache
def token_rotation() -> RotationFunction:
    """Build the function that rotates the token, once; SettingError for a setting that is missing or wrong."""
    settings = RotationSettings.from_environment(os.environ)
    logger = _logger()
    http = build_session(1)
    rotation = TokenRotation(
        client=boto3.session.Session().client("secretsmanager", config=_client_config()),
        identity=Identity(http, settings.identity_url),
        api=CloudBackup(http, settings.cloud_backup_url, now),
        region=settings.cloud_backup_region,
        logger=logger,
    )
    return RotationFunction(rotation, logger, Metrics())


def now() -> datetime:
    """Return the time in UTC: the clock of the functions."""
    return datetime.now(UTC)
