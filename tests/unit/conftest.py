"""Real clients without a network: moto behind boto3, `responses` behind requests."""

import io
import json
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from threading import Lock
from unittest.mock import patch
from uuid import uuid4

import boto3
import pytest
import responses
from aws_lambda_powertools import Logger
from botocore.awsrequest import AWSResponse
from moto import mock_aws
from moto.sqs import models as sqs_models

from agent_log_capture.adapters.batches import send_in_batches
from agent_log_capture.adapters.capture_queue import CaptureQueue
from agent_log_capture.adapters.captures_table import CapturesTable
from agent_log_capture.adapters.cloud_backup import CloudBackup
from agent_log_capture.adapters.http_session import build_session
from agent_log_capture.adapters.outcome_topic import OutcomeTopic
from agent_log_capture.adapters.token_secret import TokenSecret
from agent_log_capture.domain.capture import Capture
from agent_log_capture.domain.events.parser import EventParser
from agent_log_capture.domain.outcome import Outcome, Status, Trigger, TriggerType
from agent_log_capture.domain.polling import PollPolicy
from agent_log_capture.domain.retry import RetryPolicy
from agent_log_capture.service.invocation import CaptureService

NOW = datetime(2026, 11, 23, 3, 12, 40, 985000, tzinfo=UTC)
TABLE = "CapturesTable"
AGENT = "8f135b4f-7a69-4b8a-947f-5e80d772fd97"
CAPTURE = Capture(
    agent_id=AGENT,
    region="DFW",
    trigger=Trigger(TriggerType.ALARM, "arn:alarm@2026-11-23T03:12:00Z", "backup failed"),
    asked_at=NOW,
    retry_from=NOW,
)
OUTCOME = Outcome(
    status=Status.REQUESTED,
    trigger=CAPTURE.trigger,
    asked_at=NOW,
    at=NOW,
    agent_id=AGENT,
    project_id="110011",
    region="DFW",
    http_status=202,
    attempts=1,
)


class FailedEntries:
    """Lets entries of batch calls fail inside an answer that is itself a success; the others are delivered.

    `calls` has the entries of every call, those that fail included.
    """

    def __init__(self, client, operation, entries_key):
        self._key = entries_key
        self._plans = []
        self._failed = []
        self._left = []
        self.calls = []
        service = client.meta.service_model.service_name
        client.meta.events.register(f"provide-client-params.{service}.{operation}", self._take_out)
        client.meta.events.register(f"before-call.{service}.{operation}", self._answer_an_empty_call)
        client.meta.events.register(f"after-call.{service}.{operation}", self._tell)

    def fail(self, is_failing, *, calls=1, is_sender_fault=False):
        """Fail the entries that `is_failing` picks out, in that many calls that have such ones."""
        self._plans += [(is_failing, is_sender_fault)] * calls

    def _take_out(self, params, **_):
        entries = params[self._key]
        self.calls.append(entries)
        is_failing, is_sender_fault = self._plans[0] if self._plans else (lambda _: False, False)
        why = {"Code": "Throttled", "Message": "slow down", "SenderFault": is_sender_fault}
        self._failed = [why | {"Id": entry["Id"]} for entry in entries if is_failing(entry)]
        self._left = [entry for entry in entries if not is_failing(entry)]
        if self._failed:
            self._plans.pop(0)
        return params | {self._key: self._left or entries}

    def _answer_an_empty_call(self, **_):
        return None if self._left else (AWSResponse("", 200, {}, None), {})

    def _tell(self, parsed, **_):
        parsed["Failed"] = [*parsed.get("Failed", []), *self._failed]


class BrokenCalls:
    """Lets calls of a client end in an error for as long as it is set under the operation's name; counts them all."""

    def __init__(self, client):
        self.errors = {}
        self.calls = Counter()
        self._exceptions = client.exceptions
        client.meta.events.register(f"before-call.{client.meta.service_model.service_name}", self._call)

    def fail(self, operation, code):
        """Let an operation answer with an error of this code."""
        error = self._exceptions.from_code(code)
        self.errors[operation] = error({"Error": {"Code": code, "Message": "it is broken"}}, operation)

    def _call(self, model, **_):
        self.calls[model.name] += 1
        if error := self.errors.get(model.name):
            raise error


class Inbox:
    """A queue as its reader sees it once that many seconds have passed."""

    def __init__(self, sqs, name):
        self._sqs = sqs
        attributes = {"VisibilityTimeout": "43200"}  # what was read does not come again
        self.url = sqs.create_queue(QueueName=name, Attributes=attributes)["QueueUrl"]
        self.arn = sqs.get_queue_attributes(QueueUrl=self.url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]

    def messages(self, *, after_seconds=0):
        moment = sqs_models.unix_time_millis() + 1000 * after_seconds
        found = []
        with patch.object(sqs_models, "unix_time_millis", lambda: moment):
            while batch := self._receive():
                found += batch
        return found

    def bodies(self, *, after_seconds=0):
        return [json.loads(message["Body"]) for message in self.messages(after_seconds=after_seconds)]

    def _receive(self):
        answer = self._sqs.receive_message(
            QueueUrl=self.url, MaxNumberOfMessages=10, MessageAttributeNames=["All"], WaitTimeSeconds=0
        )
        return answer.get("Messages", [])


@pytest.fixture
def now():
    return NOW


@pytest.fixture
def a_capture():
    return lambda **changes: replace(CAPTURE, **changes)


@pytest.fixture
def an_outcome():
    return lambda **changes: replace(OUTCOME, **changes)


@pytest.fixture(autouse=True)
def pauses(monkeypatch):
    """What would have been waited between the tries of a batch, in place of waiting."""
    waited = []
    monkeypatch.setitem(send_in_batches.__kwdefaults__, "pause", waited.append)
    return waited


@pytest.fixture(scope="session")
def aws_session():
    """One for all tests: it reads botocore's descriptions of the services once."""
    return boto3.session.Session(region_name="us-east-1")


@pytest.fixture
def aws(aws_session):
    with mock_aws():
        yield aws_session.client


@pytest.fixture
def wire(aws):  # noqa: ARG001 (moto lays itself over requests too, and has to be there first)
    """What the API answers."""
    with responses.RequestsMock(assert_all_requests_are_fired=False) as wire:
        yield wire


@pytest.fixture
def api(now):
    with build_session(4) as session:
        yield CloudBackup(session, "https://{region}.backup.api.rackspacecloud.com", lambda: now)


@pytest.fixture
def secrets(aws):
    return aws("secretsmanager")


@pytest.fixture
def secret_calls(secrets):
    return BrokenCalls(secrets)


@pytest.fixture
def reads(secrets):
    """What was asked of Secrets Manager: one dictionary for each GetSecretValue that went out."""
    asked = []

    def note(params, **_):
        asked.append(json.loads(params["body"]))

    secrets.meta.events.register("before-call.secretsmanager.GetSecretValue", note)
    return asked


@pytest.fixture
def secret_arn(secrets):
    value = '{"token": "first-token", "project_id": "110011"}'
    return secrets.create_secret(Name="TokenSecret", SecretString=value)["ARN"]


@pytest.fixture
def secret(secrets, secret_arn):
    return TokenSecret(secrets, secret_arn, None)


@pytest.fixture
def log():
    """What is logged, a line of JSON each."""
    return io.StringIO()


@pytest.fixture
def logger(log):
    return Logger(service=str(uuid4()), stream=log)


@pytest.fixture
def dynamodb(aws):
    """One call at a time: moto reads its table while another thread changes it."""
    client, lock = aws("dynamodb"), Lock()
    # Moto serves a request between these two.
    client.meta.events.register_first("before-send", lambda **_: lock.acquire() and None)
    client.meta.events.register_last("before-send", lambda **_: lock.release())
    return client


@pytest.fixture
def table_calls(dynamodb):
    """The table, with what can go wrong with it."""
    dynamodb.create_table(
        TableName=TABLE,
        BillingMode="PAY_PER_REQUEST",
        KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}, {"AttributeName": "sk", "KeyType": "RANGE"}],
        AttributeDefinitions=[{"AttributeName": name, "AttributeType": "S"} for name in ("pk", "sk")],
    )
    return BrokenCalls(dynamodb)


@pytest.fixture
def captures_table(dynamodb, table_calls, now, pauses):  # noqa: ARG001 (the table has to be there)
    return CapturesTable(
        client=dynamodb,
        table=TABLE,
        keep=timedelta(days=20),
        now=lambda: now,
        wait=lambda seconds: pauses.append(seconds) if seconds else None,
    )


@pytest.fixture
def items(dynamodb, table_calls):  # noqa: ARG001 (the table has to be there)
    """The table's items as plain values whose partition key starts with a text, in the order of their keys."""

    def read(start=""):
        found = dynamodb.scan(TableName=TABLE)["Items"]
        plain = [{name: next(iter(value.values())) for name, value in item.items()} for item in found]
        chosen = [item for item in plain if item["pk"].startswith(start)]
        return sorted(chosen, key=lambda item: (item["pk"], item["sk"]))

    return read


@pytest.fixture
def sqs(aws):
    return aws("sqs")


@pytest.fixture
def waiting(sqs):
    return Inbox(sqs, "CaptureQueue")


@pytest.fixture
def dead(sqs):
    return Inbox(sqs, "CaptureDeadLetterQueue")


@pytest.fixture
def queue(sqs, waiting, dead):
    return CaptureQueue(sqs, waiting.url, dead.url)


@pytest.fixture
def queue_entries(sqs):
    return FailedEntries(sqs, "SendMessageBatch", "Entries")


@pytest.fixture
def sns(aws):
    return aws("sns")


@pytest.fixture
def topic_arn(sns):
    return sns.create_topic(Name="OutcomeTopic")["TopicArn"]


@pytest.fixture
def published(sqs, sns, topic_arn):
    """What a subscriber of the topic reads."""
    inbox = Inbox(sqs, "Subscriber")
    attributes = {"RawMessageDelivery": "true"}
    sns.subscribe(TopicArn=topic_arn, Protocol="sqs", Endpoint=inbox.arn, Attributes=attributes)
    return inbox


@pytest.fixture
def topic(sns, topic_arn):
    return OutcomeTopic(sns, topic_arn)


@pytest.fixture
def topic_entries(sns):
    return FailedEntries(sns, "PublishBatch", "PublishBatchRequestEntries")


@pytest.fixture
def capture_service(*, api, secret, queue, topic, captures_table, now, logger):
    """Everything that an invocation works with, with one worker."""
    return CaptureService(
        parser=EventParser(default_region="DFW"),
        api=api,
        secret=secret,
        queue=queue,
        topic=topic,
        table=captures_table,
        retries=RetryPolicy(window_seconds=86_400, random=lambda: 0.0),
        polls=PollPolicy(deadline_seconds=86_400, grace_seconds=0),
        cool_down=timedelta(seconds=600),
        concurrency=1,
        random=lambda: 0.5,
        now=lambda: now,
        logger=logger,
    )
