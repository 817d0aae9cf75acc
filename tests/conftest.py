"""What holds for every test: no network but loopback, no one's credentials, and nothing kept from another test."""

import os
from pathlib import Path

import pytest
from aws_lambda_powertools import Metrics
from aws_lambda_powertools.utilities import parameters
from hypothesis import settings

from agent_log_capture import bootstrap

_UNIT_TESTS = Path(__file__).parent / "unit"

settings.register_profile("default", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("default")


def pytest_collection_modifyitems(items):
    for item in items:
        is_unit_test = _UNIT_TESTS in item.path.parents
        item.add_marker(pytest.mark.disable_socket if is_unit_test else pytest.mark.allow_hosts(["127.0.0.1"]))


@pytest.fixture(scope="session", autouse=True)
def _no_credentials():
    with pytest.MonkeyPatch.context() as environment:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            environment.delenv(name)
        environment.setenv("AWS_ACCESS_KEY_ID", "testing")
        environment.setenv("AWS_SECRET_ACCESS_KEY", "testing")
        environment.setenv("AWS_DEFAULT_REGION", "us-east-1")
        environment.setenv("AWS_EC2_METADATA_DISABLED", "true")
        environment.setenv("AWS_CONFIG_FILE", os.devnull)
        environment.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
        yield


@pytest.fixture(autouse=True)
def _nothing_kept():
    parameters.clear_caches()
    Metrics().clear_metrics()  # all instances share what a test has not flushed
    bootstrap.capture_function.cache_clear()
    bootstrap.token_rotation.cache_clear()


@pytest.fixture
def function_environment():
    """What both functions must have in their environment to start; nothing in it is there."""
    return {
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "TOKEN_SECRET_ARN": "arn",
        "OUTCOME_TOPIC_ARN": "arn",
        "CAPTURE_QUEUE_URL": "https://sqs.us-east-1.amazonaws.com/queue",
        "DEAD_LETTER_QUEUE_URL": "https://sqs.us-east-1.amazonaws.com/queue",
        "CAPTURES_TABLE": "table",
        "CLOUD_BACKUP_REGION": "DFW",
        "POWERTOOLS_METRICS_NAMESPACE": "AgentLogCapture",
    }
