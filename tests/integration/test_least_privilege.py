"""Every AWS call of a function is allowed by its own role, and no role allows anything else."""

import json
from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

import boto3
import pytest
from moto import mock_aws
from moto.cloudformation.exceptions import ValidationError
from moto.cloudformation.models import cloudformation_backends
from moto.cloudformation.parsing import clean_json
from moto.core import DEFAULT_ACCOUNT_ID

from agent_log_capture.adapters.token_secret import SecretVersions
from local import demo
from local.clock import Clock
from local.cloud import EmbeddedCloud
from local.template import translate
from tests.faults.faulty_api import Fault, FaultyApi

REGION = "us-east-1"
FUNCTIONS = ("CaptureFunction", "RotateTokenFunction")
# IAM has one action for one message and for a batch of them; an operation that is not here is an action of its name.
ACTIONS = {
    "sqs:SendMessageBatch": "sqs:SendMessage",
    "sns:PublishBatch": "sns:Publish",
    "lambda:Invoke": "lambda:InvokeFunction",
}
LAMBDA_POLLS = "Lambda polls the queue with the role of the function that it invokes."
LAMBDA_WRITES = "Lambda writes what the function prints into the log."
ASKED_OF_WHO_ROTATES = "Secrets Manager invokes the function itself, but asks this of who starts a rotation."
# What no call of a function's own uses, and who needs it.
NEEDED_BY_OTHERS = {
    "CaptureFunction": {
        ("sqs:ReceiveMessage", "CaptureQueue.Arn"): LAMBDA_POLLS,
        ("sqs:DeleteMessage", "CaptureQueue.Arn"): LAMBDA_POLLS,
        ("sqs:GetQueueAttributes", "CaptureQueue.Arn"): LAMBDA_POLLS,
        ("logs:CreateLogStream", "CaptureFunctionLogGroup.Arn"): LAMBDA_WRITES,
        ("logs:PutLogEvents", "CaptureFunctionLogGroup.Arn"): LAMBDA_WRITES,
        ("lambda:InvokeFunction", "RotateTokenFunction.Arn"): ASKED_OF_WHO_ROTATES,
    },
    "RotateTokenFunction": {
        ("logs:CreateLogStream", "RotateTokenFunctionLogGroup.Arn"): LAMBDA_WRITES,
        ("logs:PutLogEvents", "RotateTokenFunctionLogGroup.Arn"): LAMBDA_WRITES,
    },
}
# The runs have no key of the user's own; the template's tests look at what is allowed with one.
FOR_A_KEY = {"CaptureFunction": "DecryptTheToken", "RotateTokenFunction": "DecryptAndEncryptTheToken"}

each_function = pytest.mark.parametrize("function", FUNCTIONS)


class Call(NamedTuple):
    """An action, and the resource by the template's name for it; by its ARN when no statement names it."""

    action: str
    resource: str


class Grant(NamedTuple):
    """One action on one resource, as a statement allows it."""

    sid: str
    action: str
    resource: str


@dataclass
class Run:
    """What each function called, and what its role allows it in the stack of that run."""

    calls: dict[str, set[Call]]
    grants: dict[str, set[Grant]]


def as_list(value):
    return value if isinstance(value, list) else [value]


def deployed_stack():
    """Return the stack of the last run, which moto keeps until the next begins; it knows what a reference is."""
    [stack] = cloudformation_backends[DEFAULT_ACCOUNT_ID][REGION].stacks.values()
    return stack.resource_map


def all_statements(function):
    """Return the statements of a function's role, each with the condition that it hangs on, if any."""
    resources = translate()["Resources"]
    role, _ = resources[function]["Properties"]["Role"]["Fn::GetAtt"]
    for policy in resources[role]["Properties"]["Policies"]:
        for statement in policy["PolicyDocument"]["Statement"]:
            condition, conditional, _ = statement.get("Fn::If", (None, statement, None))
            yield condition, conditional


def statements(function, stack):
    """Return the statements that are in force in a stack."""
    for condition, statement in all_statements(function):
        if condition is None or stack.lazy_condition_map[condition]:
            yield statement


def name_of(resource):
    """Return how the template names a resource: X for `!Ref X`, X.Arn for `!GetAtt X.Arn`."""
    match resource:
        case {"Ref": name}:
            return name
        case {"Fn::GetAtt": [name, attribute]}:
            return f"{name}.{attribute}"
        case {"Fn::If": [_, created, _]}:
            return name_of(created)
    raise AssertionError(f"{resource} is no reference to a resource")


def resources_of(in_force):
    return [resource for statement in in_force for resource in as_list(statement["Resource"])]


def resolve(resource, stack):
    """Return the ARN that CloudFormation makes of a resource in a statement."""
    match resource:
        case {"Fn::GetAtt": [name, _]} if name not in stack:
            return f"(moto does not create {name})"
    try:
        return clean_json(resource, stack)
    except ValidationError:
        return f"(not in this stack: {resource})"


def grants_of(in_force):
    """Return what statements allow; nothing is allowed twice."""
    granted = [
        Grant(statement["Sid"], action, name_of(resource))
        for statement in in_force
        for action in as_list(statement["Action"])
        for resource in as_list(statement["Resource"])
    ]
    assert len({(grant.action, grant.resource) for grant in granted}) == len(granted)
    return set(granted)


def queue_arn(url):
    """Return the ARN of the queue at `https://sqs.<region>.amazonaws.com/<account>/<name>`."""
    place = urlsplit(url)
    service, region, *_ = place.netloc.split(".")
    _, account, name = place.path.split("/")
    return f"arn:aws:{service}:{region}:{account}:{name}"


def arn_in(service, request):
    """Return the ARN of what a request is about, by the rules of its service."""
    body = request["body"] if isinstance(request["body"], dict) else json.loads(request["body"])
    match service, body:
        case "sqs", {"QueueUrl": url}:
            return queue_arn(url)
        case "sns", {"TopicArn": arn}:
            return arn
        case "secretsmanager", {"SecretId": arn}:
            return arn
        case "dynamodb", _:
            [name] = body.get("RequestItems", [body.get("TableName")])
            return f"arn:aws:dynamodb:{REGION}:{DEFAULT_ACCOUNT_ID}:table/{name}"
        case "lambda", _:
            name = unquote(request["url_path"]).split("/")[3]
            return f"arn:aws:lambda:{REGION}:{DEFAULT_ACCOUNT_ID}:function:{name}"
    return f"(unknown to this test: {request['url']} {sorted(body)})"


def call_of(service, operation, request, names):
    arn = arn_in(service, request)
    action = f"{service}:{operation}"
    return Call(ACTIONS.get(action, action), names.get(arn, arn))


def calls_of(service, operation, request, names):
    """Return what a request does, by what IAM asks for it: for a transaction, each action that it is made of."""
    if operation != "TransactWriteItems":
        return {call_of(service, operation, request, names)}
    actions = [action for item in json.loads(request["body"])["TransactItems"] for action in item.items()]
    return {call_of(service, f"{name}Item", {"body": body}, names) for name, body in actions}


def observe(recorded):
    """Return what was called and what was allowed, in the stack of the run that has just ended."""
    assert None not in recorded, "a function calls AWS with a client that bootstrap did not build"
    stack = deployed_stack()
    in_force = {function: list(statements(function, stack)) for function in FUNCTIONS}
    resources = [each for function in FUNCTIONS for each in resources_of(in_force[function])]
    names = {resolve(resource, stack): name_of(resource) for resource in resources}
    return Run(
        calls={
            function: {call for each in recorded[function] for call in calls_of(*each, names)}
            for function in FUNCTIONS
        },
        grants={function: grants_of(in_force[function]) for function in FUNCTIONS},
    )


def refused(calls, grants):
    """Return the calls that no statement allows."""
    return calls - {Call(grant.action, grant.resource) for grant in grants}


def idle(calls, grants, needed_by_others):
    """Return what is allowed although no call and no one else needs it."""
    return {grant for grant in grants if (grant.action, grant.resource) not in calls | needed_by_others.keys()}


@pytest.fixture(scope="module")
def demonstrated(record_calls):
    """The whole demo."""
    with record_calls() as recorded:
        assert demo.main() == 0
    return observe(recorded)


@pytest.fixture(scope="module")
def gone_wrong(record_calls):
    """What the demo does not show: a dead letter, a token that is refused, and a rotation that is abandoned."""
    clock = Clock()
    with FaultyApi(clock=clock.time) as api, record_calls() as recorded:
        api.add_account("operator", "an-api-key")
        secret = {"username": "operator", "api_key": "an-api-key", "token": "revoked", "project_id": api.project_id}
        with EmbeddedCloud(api, clock=clock, secret=json.dumps(secret), parameters=demo.PARAMETERS) as cloud:
            cloud.invoke({"no": "agent"})
            cloud.invoke({"agent_id": "agent"})
            api.inject("ping", Fault(status=401))
            cloud.poll()
    return observe(recorded)


@pytest.fixture
def calls(demonstrated, gone_wrong):
    return {function: demonstrated.calls[function] | gone_wrong.calls[function] for function in FUNCTIONS}


@pytest.fixture
def grants(demonstrated):
    return demonstrated.grants


@each_function
def test_every_call_is_allowed_by_the_role_of_the_function_that_makes_it(calls, grants, function):
    assert refused(calls[function], grants[function]) == set()


@each_function
def test_anything_that_a_role_allows_is_called_or_needed_by_another_party(calls, grants, function):
    assert idle(calls[function], grants[function], NEEDED_BY_OTHERS[function]) == set()


@each_function
def test_what_is_said_to_be_needed_by_others_is_allowed_and_is_not_called(calls, grants, function):
    needed = NEEDED_BY_OTHERS[function].keys()
    assert needed <= {(grant.action, grant.resource) for grant in grants[function]}
    assert needed & calls[function] == set()


@each_function
def test_every_statement_is_tried_but_the_one_for_a_key_of_the_users_own(grants, function):
    all_sids = {statement["Sid"] for _, statement in all_statements(function)}
    assert all_sids - {grant.sid for grant in grants[function]} == {FOR_A_KEY[function]}


def test_what_the_demo_does_not_show_has_gone_wrong(gone_wrong):
    assert Call("sqs:SendMessage", "CaptureDeadLetterQueue.Arn") in gone_wrong.calls["CaptureFunction"]
    assert Call("secretsmanager:RotateSecret", "TokenSecret") in gone_wrong.calls["CaptureFunction"]
    # No rotation finished: the stage was moved to abandon one.
    assert Call("secretsmanager:UpdateSecretVersionStage", "TokenSecret") in gone_wrong.calls["RotateTokenFunction"]


def test_a_call_to_another_queue_of_the_account_is_not_allowed(record_calls, cloud, monkeypatch):
    cloud.sqs.create_queue(QueueName="another")
    monkeypatch.setenv("DEAD_LETTER_QUEUE_URL", cloud.queue_url.rpartition("/")[0] + "/another")
    with record_calls() as recorded:
        cloud.invoke({"no": "agent"})
    run = observe(recorded)
    assert refused(run.calls["CaptureFunction"], run.grants["CaptureFunction"]) == {
        Call("sqs:SendMessage", f"arn:aws:sqs:{REGION}:{DEFAULT_ACCOUNT_ID}:another")
    }


def test_a_call_is_not_allowed_by_the_role_of_the_other_function(calls, grants):
    shared = {Call("secretsmanager:GetSecretValue", "TokenSecret")}
    assert refused(calls["CaptureFunction"], grants["RotateTokenFunction"]) == calls["CaptureFunction"] - shared
    assert refused(calls["RotateTokenFunction"], grants["CaptureFunction"]) == calls["RotateTokenFunction"] - shared


@pytest.mark.parametrize(
    "call",
    [
        Call("sqs:PurgeQueue", "CaptureQueue.Arn"),
        Call("sqs:ReceiveMessage", "CaptureDeadLetterQueue.Arn"),
        Call("sqs:SendMessage", "CaptureQueue"),
        Call("secretsmanager:PutSecretValue", "TokenSecret"),
    ],
)
def test_an_action_that_the_role_does_not_hold_for_the_resource_is_not_allowed(grants, call):
    assert refused({call}, grants["CaptureFunction"]) == {call}


@pytest.mark.parametrize(
    "spare",
    [
        Grant("PurgeTheQueue", "sqs:PurgeQueue", "CaptureQueue.Arn"),
        Grant("TakeFromTheQueue", "sqs:ChangeMessageVisibility", "CaptureQueue.Arn"),
        Grant("PutBackOrGiveUp", "sqs:SendMessage", "SpareQueue.Arn"),
    ],
    ids=["statement", "action", "resource"],
)
def test_what_is_allowed_and_not_called_is_found(calls, grants, spare):
    function = "CaptureFunction"
    assert spare in idle(calls[function], grants[function] | {spare}, NEEDED_BY_OTHERS[function])


def test_a_call_of_a_client_that_bootstrap_did_not_build_is_found(record_calls):
    with mock_aws(), record_calls() as recorded:
        client = boto3.client("secretsmanager")
        arn = client.create_secret(Name="TokenSecret", SecretString="{}")["ARN"]
        SecretVersions(client, arn, "a-version").stages()
    assert [operation for _, operation, _ in recorded[None]] == ["DescribeSecret"]


def test_an_invocation_is_about_the_function_in_its_path():
    request = {"url_path": "/2015-03-31/functions/rotate/invocations", "body": b"{}"}
    arn = f"arn:aws:lambda:{REGION}:{DEFAULT_ACCOUNT_ID}:function:rotate"
    assert call_of("lambda", "Invoke", request, {}) == Call("lambda:InvokeFunction", arn)
    assert call_of("lambda", "Invoke", request, {arn: "Rotate.Arn"}) == Call("lambda:InvokeFunction", "Rotate.Arn")


def test_a_transaction_is_each_action_that_it_is_made_of():
    items = [{"Put": {"TableName": "one"}}, {"Update": {"TableName": "one"}}, {"Put": {"TableName": "another"}}]
    request = {"body": json.dumps({"TransactItems": items})}
    table = f"arn:aws:dynamodb:{REGION}:{DEFAULT_ACCOUNT_ID}:table"
    assert calls_of("dynamodb", "TransactWriteItems", request, {}) == {
        Call("dynamodb:PutItem", f"{table}/one"),
        Call("dynamodb:UpdateItem", f"{table}/one"),
        Call("dynamodb:PutItem", f"{table}/another"),
    }


@pytest.mark.parametrize(("service", "body"), [("sns", {"PhoneNumber": "+15550100"}), ("kms", b'{"KeyId": "key"}')])
def test_a_call_whose_resource_no_one_knows_is_not_allowed(grants, service, body):
    call = call_of(service, "Publish", {"url": "https://aws.example", "body": body}, {})
    assert refused({call}, grants["CaptureFunction"]) == {call}
