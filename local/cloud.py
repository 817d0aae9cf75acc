"""The embedded cloud: moto, set up from template.yaml, with the function and the fake API APIs in one process."""

import contextlib
import copy
import json
import logging
import math
import os
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace, TracebackType
from typing import Any, Self, cast, override
from unittest.mock import patch

import boto3
import requests
from botocore.awsrequest import AWSPreparedRequest
from moto import mock_aws
from moto.core.config import DefaultConfig
from moto.core.models import botocore_stubber
from moto.dynamodb.models import DynamoDBBackend
from moto.dynamodb.models.table import Table
from moto.moto_server.werkzeug_app import DomainDispatcherApplication
from moto.secretsmanager.models import FakeSecret, secretsmanager_backends
from moto.server import ThreadedMotoServer
from moto.sqs.models import Message, Queue, sqs_backends
from moto.sqs.responses import SQSResponse

from agent_log_capture import bootstrap
from agent_log_capture.domain.events.envelopes import is_sqs_event
from agent_log_capture.domain.notifications.job_summary import JOB_DONE
from agent_log_capture.handlers import capture, rotate_token
from local.clock import Clock
from local.fake_api import FakeApi
from local.lambda_service import AsynchronousInvocations, Context, EventSourceMapping, delete
from local.lineage import traced
from local.move_tasks import MoveTasks
from local.rotation import Rotations
from local.rules import is_eventbridge_event
from local.template import STACK, translate

_STEP_SECONDS = 30  # fewer than the status of an agent can be believed for, and messages come in batches
_FUNCTION = "CaptureFunction"
_ROTATION = "RotateTokenFunction"
# What moto's CloudFormation creates as the template has it; the rest it skips, or cannot run.
_CREATED_BY_MOTO = frozenset(
    {
        *("AWS::SQS::Queue", "AWS::SNS::Topic", "AWS::Events::Rule", "AWS::DynamoDB::Table"),
        "AWS::Logs::LogGroup",
    }
)
# The modules of Powertools that ask for the time when a record of the cool-down expires.
_COOL_DOWN_CLOCKS = (
    "aws_lambda_powertools.utilities.idempotency.base.dt",
    "aws_lambda_powertools.utilities.idempotency.persistence.base.dt",
    "aws_lambda_powertools.utilities.idempotency.persistence.datarecord.dt",
    "aws_lambda_powertools.utilities.idempotency.persistence.dynamodb.dt",
)
_CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "embedded",
    "AWS_SECRET_ACCESS_KEY": "embedded",
    "AWS_DEFAULT_REGION": "us-east-1",
}
# What moto is to leave alone in the process: the requests to the fake API.
_LOOPBACK: DefaultConfig = {
    "core": {"mock_credentials": False, "passthrough": {"urls": ["http://127.0.0.1"], "services": []}}
}

type Handler = Callable[[Any, Any], Any]
type Served = tuple[int, Mapping[str, str], str | bytes] | None
type Serve = Callable[[AWSPreparedRequest], Served]


class _OneAtATime(DomainDispatcherApplication):
    """moto's server, which takes requests side by side; moto itself knows nothing of threads.

    A condition and its write would be two steps, and a message that is sent while another one is deleted be lost.
    """

    @override
    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._turn = threading.Lock()

    @override
    def __call__(self, *arguments: Any) -> Any:
        with self._turn:
            return super().__call__(*arguments)


@dataclass(frozen=True, slots=True, kw_only=True)
class Interference:
    """What stands between the function and the cloud, for whoever wants to see, or break, what passes.

    `wire` gets every `request` of every AWS client, and what is to `serve` it; `around` gets the handler, the event
    and the context of every invocation. `mapping` builds what reads the queue.
    """

    wire: Callable[..., Served]
    around: Callable[[Handler, object, Context], Any]
    mapping: Callable[..., EventSourceMapping] = EventSourceMapping


class EmbeddedCloud:
    """The stack of template.yaml on this machine, for as long as the `with` block lasts.

    Queues, topic, table, rules and the functions' environment come from the template; only CLOUD_BACKUP_URL and
    IDENTITY_URL are the fake API's. The rules deliver into a queue beside it, from which `poll` invokes the function,
    since moto runs no code. `secret` is what the secret holds; None leaves it without a value.

    `recursive_loop` says what Lambda does about a recursive loop of the capture function: `Allow`, or, where the
    template says nothing, `Terminate`.

    moto is a server, as AWS is many, unless there is an `interference`: then it answers in the process.
    """

    def __init__(
        self,
        fake_api: FakeApi,
        *,
        clock: Clock,
        secret: str | None,
        parameters: Mapping[str, str] | None = None,
        interference: Interference | None = None,
    ) -> None:
        self._stand_in = fake_api
        self._clock = clock
        self._secret = secret
        self._parameters = parameters or {}
        self._interference = interference
        self._exits = ExitStack()

    def __enter__(self) -> Self:
        with self._exits:
            if self._interference:
                self._start_moto_in_process(self._interference)
            else:
                self._start_moto()
            self._exits.enter_context(_one_copy_for_a_transaction())
            self._share_the_clock()
            self.move_tasks = MoveTasks()
            self._exits.enter_context(self.move_tasks.installed())
            self._exits.enter_context(_sqs_that_keeps_trace_headers())
            self._deploy()
            self._exits = self._exits.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._exits.close()

    def send(self, body: str, **attributes: str) -> str:
        """Send a message to `CaptureQueue`, with message attributes; return its ID."""
        typed: Any = {name: {"DataType": "String", "StringValue": text} for name, text in attributes.items()}
        sent = self.sqs.send_message(QueueUrl=self.queue_url, MessageBody=body, MessageAttributes=typed)
        return sent["MessageId"]

    def put_event(self, event: Mapping[str, Any]) -> str:
        """Put an event on EventBridge's bus, whose rules decide whether it reaches the function; return its ID."""
        entry = {
            "Source": event["source"],
            "DetailType": event["detail-type"],
            "Detail": json.dumps(event["detail"]),
            "Resources": event.get("resources", []),
        }
        answer = self._events.put_events(Entries=[entry])  # type: ignore[list-item]
        return answer["Entries"][0]["EventId"]

    def deliver(self, event: object) -> str:
        """Send an event through the source that it is made for; return which one that is."""
        if is_sqs_event(event) and all(isinstance(record.get("body"), str) for record in event["Records"]):
            for record in event["Records"]:
                attributes = record.get("messageAttributes", {}).items()
                self.send(record["body"], **{name: attribute["stringValue"] for name, attribute in attributes})
            return "into CaptureQueue"
        if is_eventbridge_event(event):
            self.put_event(event)
            return "through EventBridge and its rules"
        self.invoke_asynchronously(event)
        return "straight to the function"

    def invoke(self, event: object, request_id: str | None = None) -> Any:  # noqa: ANN401 (the handler's answer)
        """Invoke the function and wait for its answer, as the console's Test does."""
        context = Context.of(_FUNCTION, self._timeout_seconds, request_id)
        return self._run(capture.lambda_handler, event, context)

    def invoke_asynchronously(self, event: object) -> str:
        """Invoke the function as SNS and alarms do: with retries, and the on-failure destination after them.

        Returns the request ID, which is the same for every try.
        """
        return self._asynchronous.invoke(self.invoke, event)

    def rotate_secret(self) -> None:
        """Ask for a rotation of the secret, as a user does after the deployment; `poll` does it."""
        boto3.client("secretsmanager").rotate_secret(SecretId=self.secret_arn)

    def poll(self, handler: Callable[[Any], Any] | None = None) -> int:
        """Deliver one batch of the queue, every event that a rule has matched, and rotations that are due.

        Returns how many there were. `handler` takes the batch in place of the function.
        """
        is_loop_allowed = self.recursive_loop == "Allow"
        delivered = self._mapping.poll(handler or self.invoke, is_loop_allowed=is_loop_allowed)
        for message in self._receive(self._deliveries_url):
            self.invoke_asynchronously(json.loads(message["Body"]))
            delivered += 1
        return delivered + self.rotations.run(self._rotate)

    def drain(self, seconds: float = math.inf) -> None:
        """Deliver until the queue is empty, or for so many seconds; time passes in steps, to the next message."""
        end = self._clock.time() + seconds
        while True:
            while self.poll():
                pass
            due = [max(message.visible_at, message.delayed_until) / 1000 for message in self.messages]
            if not due or self._clock.time() >= end:
                return
            self._clock.advance(min(max(_STEP_SECONDS, min(due) - self._clock.time()), end - self._clock.time()))

    @property
    def waiting(self) -> int:
        """How many messages are in `CaptureQueue`: visible, delayed or in flight."""
        return self._depth(self.queue_url)

    @property
    def messages(self) -> list[Message]:
        """What is in `CaptureQueue`, whether it can be received now or not; moto's own objects."""
        return list(self._queue._messages)  # noqa: SLF001 (what moto shows is what is visible)

    def deliver_again(self, message: Message, *, delay_seconds: int) -> None:
        """Put a message into `CaptureQueue` beside the one that it is a copy of: SQS delivers at least once."""
        message.visible_at = 0.0
        message.delay(delay_seconds)
        self._queue.add_message(message)

    def notifications(self) -> list[dict[str, Any]]:
        """Return the notifications about agents that were published since the last call, oldest first."""
        return [json.loads(message["Body"]) for message in self._receive(self._notifications_url)]

    def sums(self) -> list[dict[str, Any]]:
        """Return the sums of jobs that were published since the last call, oldest first."""
        return [json.loads(message["Body"]) for message in self._receive(self._sums_url)]

    def dead_letters(self) -> list[dict[str, Any]]:
        """Take every message out of the dead-letter queue."""
        return self._receive(self.dead_letter_queue_url)

    @property
    def _queue(self) -> Queue:
        account, name = self.queue_url.rsplit("/", 2)[1:]
        return sqs_backends[account][os.environ["AWS_DEFAULT_REGION"]].queues[name]

    def _start_moto(self) -> None:
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
        with patch("moto.moto_server.threaded_moto_server.DomainDispatcherApplication", _OneAtATime):
            server.start()  # which waits until it is built
        self._exits.callback(server.stop)
        host, port = server.get_host_and_port()
        self.endpoint_url = f"http://{host}:{port}"
        # moto keeps its state in the process, and would hand it on to the next server.
        requests.post(f"{self.endpoint_url}/moto-api/reset", timeout=10)
        self._set_environment(AWS_ENDPOINT_URL=self.endpoint_url, **_CREDENTIALS)

    def _start_moto_in_process(self, interference: Interference) -> None:
        self._set_environment(**_CREDENTIALS)
        self._exits.enter_context(mock_aws(config=_LOOPBACK))
        process = botocore_stubber.process_request
        lock = threading.RLock()

        def serve(request: AWSPreparedRequest) -> Served:
            with lock:  # as _OneAtATime
                return process(request)

        wired = partial(interference.wire, serve=serve)
        self._exits.enter_context(patch.object(botocore_stubber, "process_request", wired))

    def _share_the_clock(self) -> None:
        """Let delays, hidden messages and the function go by one clock, which a demo may run faster."""
        self._exits.enter_context(patch("moto.sqs.models.unix_time_millis", lambda: self._clock.time() * 1000))
        self._exits.enter_context(patch.object(bootstrap, "now", self._clock.now))
        for name in _COOL_DOWN_CLOCKS:
            self._exits.enter_context(patch(name, self._clock.datetime_module()))

    def _take_over_rotation(self, schedule: Mapping[str, Any]) -> None:
        self.rotations = Rotations(self._clock)
        if self._parameters.get("RotateToken") == "true":
            hours = int(schedule["RotationRules"]["ScheduleExpression"].removeprefix("rate(").removesuffix(" hours)"))
            region, account = self.secret_arn.split(":")[3:5]
            secret = secretsmanager_backends[account][region].secrets[self.secret_arn]
            self.rotations.schedule(cast("FakeSecret", secret), every_seconds=hours * 3600)

        def rotate_secret(backend: Any, secret_id: str, **options: object) -> str:  # noqa: ANN401 (moto's own)
            return self.rotations.rotate_secret(backend, secret_id, **options)

        self._exits.enter_context(
            patch("moto.secretsmanager.models.SecretsManagerBackend.rotate_secret", rotate_secret)
        )

    def _run(self, handler: Handler, event: object, context: Context) -> Any:  # noqa: ANN401 (the handler's answer)
        with traced(event):
            return (
                self._interference.around(handler, event, context) if self._interference else handler(event, context)
            )

    def _rotate(self, event: object) -> None:
        self._run(rotate_token.lambda_handler, event, Context.of(_ROTATION, self._timeout_seconds))

    def _deploy(self) -> None:
        self.secret_arn = self._create_secret()
        template = translate(parameters={**self._parameters, "TokenSecretArn": self.secret_arn})
        resources = template["Resources"]
        self._take_over_rotation(resources["TokenRotation"]["Properties"])
        functions = [resources[name]["Properties"] for name in (_FUNCTION, _ROTATION)]
        asking, rotating = (function["Environment"]["Variables"] for function in functions)
        values = _create_stack(template, rotating | asking | {"Deliveries": {"Ref": "Deliveries"}})
        self._deliveries_url = values.pop("Deliveries")
        self._timeout_seconds = functions[0]["Timeout"]
        self.recursive_loop: str = functions[0].get("RecursiveLoop", "Terminate")
        self.queue_url = values["CAPTURE_QUEUE_URL"]
        self.dead_letter_queue_url = values["DEAD_LETTER_QUEUE_URL"]
        self.topic_arn = values["OUTCOME_TOPIC_ARN"]
        values["AWS_LAMBDA_FUNCTION_NAME"] = _FUNCTION
        self._set_environment(**values | {"CLOUD_BACKUP_URL": self._stand_in.url, "IDENTITY_URL": self._stand_in.url})
        self._connect(resources)
        for built in (bootstrap.capture_function, bootstrap.token_rotation):
            built.cache_clear()
            self._exits.callback(built.cache_clear)

    def _create_secret(self) -> str:
        secrets = boto3.client("secretsmanager")
        arn: str = secrets.create_secret(Name="TokenSecret")["ARN"]
        if self._secret is not None:
            secrets.put_secret_value(SecretId=arn, SecretString=self._secret)
        return arn

    def _connect(self, resources: Mapping[str, Any]) -> None:
        """Do for the function what Lambda does, with the figures of the template."""
        self.sqs = boto3.client("sqs")
        self._events = boto3.client("events")
        mapping = resources["CaptureFunctionCaptureQueue"]["Properties"]
        build_mapping = self._interference.mapping if self._interference else EventSourceMapping
        self._mapping = build_mapping(
            sqs=self.sqs,
            queue_url=self.queue_url,
            queue_arn=self._arn(self.queue_url),
            batch_size=mapping["BatchSize"],
        )
        asynchronous = resources["CaptureFunctionEventInvokeConfig"]["Properties"]
        self._asynchronous = AsynchronousInvocations(
            sqs=self.sqs,
            destination_url=self.dead_letter_queue_url,
            retries=asynchronous["MaximumRetryAttempts"],
            function_name=_FUNCTION,
        )
        self._notifications_url = self._subscribe("notifications", {"anything-but": [JOB_DONE]})
        self._sums_url = self._subscribe("sums", JOB_DONE)
        # moto reads what it knows of a service at its first call, and once for each thread that makes it.
        boto3.client("dynamodb").list_tables()

    def _subscribe(self, name: str, status: object) -> str:
        """Subscribe a new queue to the topic, as a user's own subscriber would be, for one status."""
        url: str = self.sqs.create_queue(QueueName=name)["QueueUrl"]
        boto3.client("sns").subscribe(
            TopicArn=self.topic_arn,
            Protocol="sqs",
            Endpoint=self._arn(url),
            Attributes={"RawMessageDelivery": "true", "FilterPolicy": json.dumps({"status": [status]})},
        )
        return url

    def _arn(self, queue_url: str) -> str:
        answer = self.sqs.get_queue_attributes(QueueUrl=queue_url, AttributeNames=["QueueArn"])
        return answer["Attributes"]["QueueArn"]

    def _depth(self, queue_url: str) -> int:
        names = [
            "ApproximateNumberOfMessages",
            "ApproximateNumberOfMessagesDelayed",
            "ApproximateNumberOfMessagesNotVisible",
        ]
        answer = self.sqs.get_queue_attributes(QueueUrl=queue_url, AttributeNames=names)  # type: ignore[arg-type]
        return sum(int(depth) for depth in answer["Attributes"].values())

    def _receive(self, queue_url: str) -> list[dict[str, Any]]:
        received: list[Any] = []
        while messages := self.sqs.receive_message(
            QueueUrl=queue_url, MaxNumberOfMessages=10, WaitTimeSeconds=0, MessageAttributeNames=["All"]
        ).get("Messages"):
            delete(self.sqs, queue_url, messages)
            received += messages
        return received

    def _set_environment(self, **variables: str) -> None:
        self._exits.enter_context(patch.dict(os.environ, variables))


@contextlib.contextmanager
def _one_copy_for_a_transaction() -> Iterator[None]:
    """Let moto copy a table once for each transaction, and not once for each of its hundred items."""
    transact = DynamoDBBackend.transact_write_items
    copies: dict[int, Any] = {}

    def transact_anew(backend: DynamoDBBackend, items: list[dict[str, Any]]) -> None:
        copies.clear()
        transact(backend, items)

    def copied(value: Any) -> Any:  # noqa: ANN401 (whatever moto copies)
        if not isinstance(value, Table):
            return copy.deepcopy(value)
        if id(value) not in copies:
            copies[id(value)] = copy.deepcopy(value)
        return copies[id(value)]

    with (
        patch.object(DynamoDBBackend, "transact_write_items", transact_anew),
        patch("moto.dynamodb.models.copy", SimpleNamespace(deepcopy=copied, copy=copy.copy)),
    ):
        yield


@contextlib.contextmanager
def _sqs_that_keeps_trace_headers() -> Iterator[None]:
    """Let moto keep the trace header of a request with the messages that it sends, for Lambda to read."""

    def keeping(send: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def send_and_keep(response: Any) -> Any:  # noqa: ANN401 (moto's own)
            queue = response.sqs_backend.queues.get(response._get_queue_name())  # noqa: SLF001
            before = len(queue._messages) if queue else 0  # noqa: SLF001 (what moto shows is what is visible)
            answer = send(response)
            if header := response.headers.get("X-Amzn-Trace-Id"):
                for message in queue._messages[before:]:  # noqa: SLF001
                    message.system_attributes.setdefault("AWSTraceHeader", {"StringValue": header})
            return answer

        return send_and_keep

    with (
        patch.object(SQSResponse, "send_message", keeping(SQSResponse.send_message)),
        patch.object(SQSResponse, "send_message_batch", keeping(SQSResponse.send_message_batch)),
    ):
        yield


def _create_stack(template: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, str]:
    """Create what moto can create of a template; return the values of `wanted`, which may refer to its resources.

    The rules' targets become a queue named Deliveries. Outputs are how CloudFormation tells what a reference is; the
    template's own are beside them, but for those of resources that are not there.
    """
    resources = {name: item for name, item in template["Resources"].items() if item["Type"] in _CREATED_BY_MOTO}
    for resource in resources.values():
        for target in resource["Properties"].get("Targets", []):
            target["Arn"] = {"Fn::GetAtt": ["Deliveries", "Arn"]}
    body = {
        "Parameters": template["Parameters"],
        "Conditions": template["Conditions"],
        "Resources": resources | {"Deliveries": {"Type": "AWS::SQS::Queue", "Properties": {}}},
        "Outputs": {
            **{name: output for name, output in template["Outputs"].items() if _is_there(output, resources)},
            **{f"Wanted{index}": {"Value": value} for index, value in enumerate(wanted.values())},
        },
    }
    cloudformation = boto3.client("cloudformation")
    cloudformation.create_stack(StackName=STACK, TemplateBody=json.dumps(body))
    outputs = cloudformation.describe_stacks(StackName=STACK)["Stacks"][0]["Outputs"]
    values = {output["OutputKey"]: output["OutputValue"] for output in outputs}
    return {name: values[f"Wanted{index}"] for index, name in enumerate(wanted)}


def _is_there(output: Mapping[str, Any], resources: Mapping[str, Any]) -> bool:
    """Tell whether all resources are there that an output takes an attribute of, or names in a text."""
    names = re.findall(r"\$\{(\w+)\}", output["Value"].get("Fn::Sub", ""))
    names += output["Value"].get("Fn::GetAtt", [])[:1]
    return set(names) <= resources.keys()
