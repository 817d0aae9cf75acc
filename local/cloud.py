"""The embedded cloud: moto, set up from template.yaml, with the functions and the fake API in one process."""

import json
import math
import os
import re
import uuid
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Self
from unittest.mock import patch

import boto3
from moto.sqs.models import Message, Queue, sqs_backends

from agent_log_capture import bootstrap
from agent_log_capture.domain.events.envelopes import is_sqs_event
from agent_log_capture.domain.notifications.job_summary import JOB_DONE
from agent_log_capture.handlers import capture, rotate_token
from local.aws import Moto, embedded_aws
from local.clock import Clock
from local.fake_api import FakeApi
from local.lambda_service import AsynchronousInvocations, Context, EventSourceMapping, delete, receive
from local.lineage import traced
from local.rotation import Rotations
from local.rules import is_eventbridge_event
from local.template import STACK, translate

# Shorter than the time for which an agent's status is meaningful, and long enough that messages come in batches.
_STEP_SECONDS = 30
_FUNCTION = "CaptureFunction"
_ROTATION = "RotateTokenFunction"
# What moto's CloudFormation creates with all properties; it skips the others, or cannot run them.
_CREATED_BY_MOTO = frozenset(
    {"AWS::SQS::Queue", "AWS::SNS::Topic", "AWS::Events::Rule", "AWS::DynamoDB::Table", "AWS::Logs::LogGroup"}
)

type Handler = Callable[[Any, Any], Any]


def _invoke(handler: Handler, event: object, context: Context) -> Any:  # noqa: ANN401 (the handler's answer)
    return handler(event, context)


@dataclass(frozen=True, slots=True, kw_only=True)
class Interference:
    """Hooks between the functions and the cloud, with which a test observes calls or makes them fail.

    `moto` takes the place of its server. `around` gets the handler, the event and the context of every invocation.
    `mapping` builds the event source mapping.
    """

    moto: Moto | None = None
    around: Callable[[Handler, object, Context], Any] = _invoke
    mapping: Callable[..., EventSourceMapping] = EventSourceMapping


class EmbeddedCloud:
    """The stack of template.yaml on this machine, for the duration of the `with` block.

    Queues, topic, tables, rules and the functions' environment come from the template; only CLOUD_BACKUP_URL and
    IDENTITY_URL are the fake API's. moto runs no code: the rules deliver into a queue of their own, and `poll`
    invokes the function. `secret` is the secret's value; None leaves it without one.

    `recursive_loop` is the capture function's: `Allow`, or Lambda's default, `Terminate`.

    `endpoint_url` is that of moto's server; None where `interference` replaces it.
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
        self._api = fake_api
        self._clock = clock
        self._secret = secret
        self._parameters = parameters or {}
        self._interference = interference or Interference()
        self._exits = ExitStack()

    def __enter__(self) -> Self:
        with self._exits:
            self.rotations = Rotations(self._clock)
            aws = embedded_aws(time=self._clock.time, moto=self._interference.moto)
            self.endpoint_url = self._exits.enter_context(aws)
            self._exits.enter_context(self.rotations.installed())
            self._exits.enter_context(patch.object(bootstrap, "now", self._clock.now))
            self._deploy()
            self._exits = self._exits.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
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
        context = Context(_FUNCTION, self._timeout_seconds, request_id or str(uuid.uuid4()))
        return self._run(capture.lambda_handler, event, context)

    def invoke_asynchronously(self, event: object) -> str:
        """Invoke the function as SNS and alarms do: with retries, and the on-failure destination after them.

        Returns the request ID, which is the same for every try.
        """
        return self._asynchronous.invoke(self.invoke, event)

    def rotate_secret(self) -> None:
        """Start a rotation of the secret, as a user does after the deployment; `poll` carries it out."""
        boto3.client("secretsmanager").rotate_secret(SecretId=self.secret_arn)

    def poll(self, handler: Callable[[Any], Any] | None = None) -> int:
        """Deliver one batch of the queue, all events that a rule has matched, and rotations that are due.

        Returns the number of messages, events and rotations. `handler` replaces the function for the batch.
        """
        is_loop_allowed = self.recursive_loop == "Allow"
        delivered = self._mapping.poll(handler or self.invoke, is_loop_allowed=is_loop_allowed)
        for message in self._receive(self._deliveries_url):
            self.invoke_asynchronously(json.loads(message["Body"]))
            delivered += 1
        return delivered + self.rotations.run(self._rotate)

    def drain(self, seconds: float = math.inf) -> None:
        """Deliver until the queue is empty or `seconds` have passed; the clock is advanced to the next message."""
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
        """The number of messages in `CaptureQueue`: visible, delayed or in flight."""
        return len(self.messages)

    @property
    def messages(self) -> list[Message]:
        """The messages in `CaptureQueue`: visible, delayed or in flight; moto's own objects."""
        return list(self.moto_queue._messages)  # noqa: SLF001 (its public list holds visible messages only)

    def notifications(self) -> list[dict[str, Any]]:
        """Return the notifications about agents that were published since the last call, oldest first."""
        return [json.loads(message["Body"]) for message in self._receive(self._notifications_url)]

    def sums(self) -> list[dict[str, Any]]:
        """Return the job summaries that were published since the last call, oldest first."""
        return [json.loads(message["Body"]) for message in self._receive(self._sums_url)]

    def dead_letters(self) -> list[dict[str, Any]]:
        """Take every message out of the dead-letter queue."""
        return self._receive(self.dead_letter_queue_url)

    @property
    def moto_queue(self) -> Queue:
        """`CaptureQueue`, moto's own object."""
        account, name = self.queue_url.rsplit("/", 2)[1:]
        return sqs_backends[account][os.environ["AWS_DEFAULT_REGION"]].queues[name]

    def _run(self, handler: Handler, event: object, context: Context) -> Any:  # noqa: ANN401 (the handler's answer)
        with traced(event):
            return self._interference.around(handler, event, context)

    def _rotate(self, event: object) -> None:
        self._run(rotate_token.lambda_handler, event, Context(_ROTATION, self._timeout_seconds))

    def _deploy(self) -> None:
        secrets = boto3.client("secretsmanager")
        self.secret_arn: str = secrets.create_secret(Name="TokenSecret")["ARN"]
        if self._secret is not None:
            secrets.put_secret_value(SecretId=self.secret_arn, SecretString=self._secret)
        template = translate(parameters={**self._parameters, "TokenSecretArn": self.secret_arn})
        resources = template["Resources"]
        if self._parameters.get("RotateToken") == "true":
            rules = resources["TokenRotation"]["Properties"]["RotationRules"]
            self.rotations.schedule(self.secret_arn, rules["ScheduleExpression"])
        function, rotation = (resources[name]["Properties"] for name in (_FUNCTION, _ROTATION))
        variables = rotation["Environment"]["Variables"] | function["Environment"]["Variables"]
        values = _create_stack(template, variables | {"Deliveries": {"Ref": "Deliveries"}})
        self._deliveries_url = values.pop("Deliveries")
        self._timeout_seconds = function["Timeout"]
        self.recursive_loop: str = function.get("RecursiveLoop", "Terminate")
        self.queue_url = values["CAPTURE_QUEUE_URL"]
        self.dead_letter_queue_url = values["DEAD_LETTER_QUEUE_URL"]
        self.topic_arn = values["OUTCOME_TOPIC_ARN"]
        values["AWS_LAMBDA_FUNCTION_NAME"] = _FUNCTION
        values |= {"CLOUD_BACKUP_URL": self._api.url, "IDENTITY_URL": self._api.url}
        self._exits.enter_context(patch.dict(os.environ, values))
        self._connect(resources)
        for built in (bootstrap.capture_function, bootstrap.token_rotation):
            built.cache_clear()
            self._exits.callback(built.cache_clear)

    def _connect(self, resources: Mapping[str, Any]) -> None:
        """Set up what Lambda does for the function, with the template's figures."""
        self.sqs = boto3.client("sqs")
        self._events = boto3.client("events")
        mapping = resources["CaptureFunctionCaptureQueue"]["Properties"]
        self._mapping = self._interference.mapping(
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
        # moto loads its model of a service at the first call, which takes longer than a call may.
        boto3.client("dynamodb").list_tables()

    def _subscribe(self, name: str, status: object) -> str:
        """Subscribe a new queue to one status of the topic, as a user would; return its URL."""
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

    def _receive(self, queue_url: str) -> list[dict[str, Any]]:
        received: list[Any] = []
        while messages := receive(self.sqs, queue_url, 10):
            delete(self.sqs, queue_url, messages)
            received += messages
        return received


def _create_stack(template: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, str]:
    """Create what moto can create of a template; return the values of `wanted`, which may refer to its resources.

    CloudFormation resolves references in outputs: each wanted value is one, in addition to the template's own outputs
    of resources that exist. The rules' targets become a queue named Deliveries.
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
            **{name: output for name, output in template["Outputs"].items() if _is_resolvable(output, resources)},
            **{f"Wanted{index}": {"Value": value} for index, value in enumerate(wanted.values())},
        },
    }
    cloudformation = boto3.client("cloudformation")
    cloudformation.create_stack(StackName=STACK, TemplateBody=json.dumps(body))
    outputs = cloudformation.describe_stacks(StackName=STACK)["Stacks"][0]["Outputs"]
    values = {output["OutputKey"]: output["OutputValue"] for output in outputs}
    return {name: values[f"Wanted{index}"] for index, name in enumerate(wanted)}


def _is_resolvable(output: Mapping[str, Any], resources: Mapping[str, Any]) -> bool:
    """Return whether all resources exist that an output refers to."""
    names = re.findall(r"\$\{(\w+)\}", output["Value"].get("Fn::Sub", ""))
    names += output["Value"].get("Fn::GetAtt", [])[:1]
    return set(names) <= resources.keys()
