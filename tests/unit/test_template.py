import json
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from moto.events.models import EventPattern

from agent_log_capture.adapters.capture_queue import CAPTURES_IN_A_MESSAGE
from agent_log_capture.adapters.http_session import CONNECT_TIMEOUT_SECONDS, READ_TIMEOUT_SECONDS
from agent_log_capture.domain.auth_token import TokenFormatError, parse_auth_token, parse_credentials
from agent_log_capture.domain.job import keep_seconds
from agent_log_capture.service.invocation import CAPTURES_IN_AN_INVOCATION
from agent_log_capture.service.worker_pool import CALL_SECONDS, SAVING_SECONDS
from agent_log_capture.settings import RotationSettings, Settings
from local.template import TEMPLATE, resolve, translate

ROOT = TEMPLATE.parent
CONFIG = ROOT / "samconfig.toml"
ALARMS = sorted((ROOT / "events").glob("eventbridge-alarm*.json"))
FOURTEEN_DAYS = 14 * 24 * 3600
SETTINGS = {"CaptureFunction": Settings, "RotateTokenFunction": RotationSettings}
THE_SECRET = {"Fn::If": ["CreatesTokenSecret", {"Ref": "TokenSecret"}, {"Ref": "TokenSecretArn"}]}

both_functions = pytest.mark.parametrize("function", SETTINGS)


@pytest.fixture(scope="module")
def template():
    return translate()


@pytest.fixture(scope="module")
def parameters(template):
    return template["Parameters"]


@pytest.fixture
def properties(template):
    return lambda name: template["Resources"][name]["Properties"]


@pytest.fixture
def of_type(template):
    def named(kind: str) -> dict[str, Any]:
        return {name: each["Properties"] for name, each in template["Resources"].items() if each["Type"] == kind}

    return named


@pytest.fixture
def statements(properties):
    def of_role(function: str) -> list[dict[str, Any]]:
        (policy,) = properties(f"{function}Role")["Policies"]
        return [branch for each in policy["PolicyDocument"]["Statement"] for branch in branches(each)]

    return of_role


@pytest.fixture
def conditional(properties):
    """The condition that each conditional statement of a role hangs on."""

    def of_role(function: str) -> dict[str, str]:
        (policy,) = properties(f"{function}Role")["Policies"]
        choices = [each["Fn::If"] for each in policy["PolicyDocument"]["Statement"] if "Fn::If" in each]
        assert all(otherwise == {"Ref": "AWS::NoValue"} for _, _, otherwise in choices)
        return {statement["Sid"]: condition for condition, statement, _ in choices}

    return of_role


class RecordedEnvironment(Mapping[str, str]):
    """Remembers which variables were read."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        self.variables = variables
        self.read: set[str] = set()

    def __getitem__(self, name: str) -> str:
        self.read.add(name)
        return self.variables[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.variables)

    def __len__(self) -> int:
        return len(self.variables)


def branches(statement: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a statement, or both sides of a conditional one, anything that the condition says."""
    if "Fn::If" not in statement:
        return [statement]
    return [side for side in statement["Fn::If"][1:] if side != {"Ref": "AWS::NoValue"}]


def as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def statements_in(node: Any) -> Iterator[dict[str, Any]]:
    """Find the statements of every policy in `node`, at anything that depth, conditional ones as well."""
    if isinstance(node, dict):
        for name, inner in node.items():
            if name == "Statement":
                yield from (branch for each in as_list(inner) for branch in branches(each))
            else:
                yield from statements_in(inner)
    elif isinstance(node, list):
        for each in node:
            yield from statements_in(each)


def arn_of(name: str) -> dict[str, Any]:
    return {"Fn::GetAtt": [name, "Arn"]}


def with_defaults(node: Any, parameters: dict[str, Any]) -> Any:
    """Return `node` with each reference to a parameter replaced by that parameter's default."""
    if isinstance(node, list):
        return [with_defaults(each, parameters) for each in node]
    if not isinstance(node, dict):
        return node
    if node.keys() == {"Ref"} and node["Ref"] in parameters:
        return parameters[node["Ref"]]["Default"]
    return {key: with_defaults(each, parameters) for key, each in node.items()}


def function_environment(template: dict[str, Any], function: str) -> dict[str, str]:
    """Return a function's variables; what only a deployed stack knows is made up."""
    variables = template["Resources"][function]["Properties"]["Environment"]["Variables"]
    made_up = {
        "ARN": "arn:aws:service:us-east-1::name",
        "URL": "https://sqs.us-east-1.amazonaws.com/queue",
        "TABLE": "table",
        "NAME": "stack",
    }
    values = with_defaults(variables, template["Parameters"])
    return {
        name: made_up[name.rpartition("_")[2]] if isinstance(value, dict) else str(value)
        for name, value in values.items()
    }


def is_matched(template: dict[str, Any], rule: str, event: dict[str, Any]) -> bool:
    pattern = template["Resources"][rule]["Properties"]["EventPattern"]
    return EventPattern.load(json.dumps(resolve(template, pattern))).matches_event(event)


def sample(name: str) -> dict[str, Any]:
    return json.loads((ROOT / "events" / name).read_text(encoding="utf-8"))


def config_environments() -> dict[str, Any]:
    return {name: each for name, each in tomllib.loads(CONFIG.read_text("utf-8")).items() if isinstance(each, dict)}


class TestTranslation:
    def test_needs_no_credentials_and_no_region_and_leaves_the_environment_alone(self, monkeypatch, tmp_path):
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            monkeypatch.delenv(name)
        monkeypatch.setenv("HOME", str(tmp_path))
        before = dict(os.environ)
        assert translate()["Resources"]["CaptureFunction"]["Type"] == "AWS::Lambda::Function"
        assert dict(os.environ) == before

    def test_a_parameter_given_becomes_the_default(self):
        assert translate(parameters={"LogLevel": "DEBUG"})["Parameters"]["LogLevel"]["Default"] == "DEBUG"

    def test_a_parameter_that_does_not_exist_is_refused(self):
        with pytest.raises(KeyError, match="NoSuchParameter"):
            translate(parameters={"NoSuchParameter": "x"})


@both_functions
class TestFunctions:
    def test_gets_every_variable_that_its_settings_read_and_no_other(self, template, function):
        environment = RecordedEnvironment(function_environment(template, function))
        SETTINGS[function].from_environment(environment)
        own = {name for name in environment if not name.startswith("POWERTOOLS_")}
        assert {name for name in environment.read if not name.startswith("POWERTOOLS_")} == own

    def test_has_a_handler_that_is_there(self, properties, function):
        module, _, name = properties(function)["Handler"].rpartition(".")
        assert callable(getattr(import_module(module), name))

    def test_logs_into_a_group_of_its_own_whose_entries_expire(self, properties, function):
        assert properties(function)["LoggingConfig"]["LogGroup"] == {"Ref": f"{function}LogGroup"}
        assert "RetentionInDays" in properties(f"{function}LogGroup")
        assert properties(function)["LoggingConfig"]["LogFormat"] == "Text"

    def test_is_packed_by_a_target_of_its_own(self, template, function):
        assert template["Resources"][function]["Metadata"] == {"BuildMethod": "makefile"}
        makefile = (ROOT / "src/Makefile").read_text("utf-8")
        assert re.search(rf"^(build-\w+ )*build-{function}( build-\w+)*:", makefile, re.MULTILINE)

    def test_has_a_role_of_its_own(self, properties, function):
        assert properties(function)["Role"] == arn_of(f"{function}Role")


class TestFunction:
    def test_has_at_least_half_of_its_time_for_calls(self, properties):
        assert properties("CaptureFunction")["Timeout"] >= 2 * (CALL_SECONDS + SAVING_SECONDS)

    def test_may_send_to_the_queue_that_invokes_it_and_no_other_function_may(self, of_type):
        functions = of_type("AWS::Lambda::Function")
        assert {name: each.get("RecursiveLoop") for name, each in functions.items()} == {
            "CaptureFunction": "Allow",
            "RotateTokenFunction": None,
        }

    def test_answers_for_single_records_of_a_batch(self, of_type):
        (mapping,) = of_type("AWS::Lambda::EventSourceMapping").values()
        assert mapping["EventSourceArn"] == arn_of("CaptureQueue")
        assert mapping["FunctionResponseTypes"] == ["ReportBatchItemFailures"]
        assert mapping["MaximumBatchingWindowInSeconds"] == 1
        assert mapping["ScalingConfig"] == {"MaximumConcurrency": {"Ref": "MaximumConcurrency"}}

    def test_a_batch_of_requeued_messages_is_what_one_invocation_processes(self, of_type):
        (mapping,) = of_type("AWS::Lambda::EventSourceMapping").values()
        assert mapping["BatchSize"] * CAPTURES_IN_A_MESSAGE == CAPTURES_IN_AN_INVOCATION

    def test_failed_asynchronous_invocations_end_in_the_dead_letter_queue(self, of_type):
        (config,) = of_type("AWS::Lambda::EventInvokeConfig").values()
        assert config["DestinationConfig"]["OnFailure"]["Destination"] == arn_of("CaptureDeadLetterQueue")
        assert config["MaximumRetryAttempts"] == 2


class TestQueues:
    def test_a_message_stays_hidden_for_six_times_the_timeout(self, properties):
        timeout = properties("CaptureFunction")["Timeout"]
        assert properties("CaptureQueue")["VisibilityTimeout"] >= 6 * timeout

    def test_what_crashes_the_function_is_moved_to_the_dead_letter_queue(self, properties):
        redrive = properties("CaptureQueue")["RedrivePolicy"]
        assert redrive["deadLetterTargetArn"] == arn_of("CaptureDeadLetterQueue")
        assert redrive["maxReceiveCount"] >= 5

    def test_messages_are_encrypted_and_kept_for_fourteen_days(self, of_type):
        queues = of_type("AWS::SQS::Queue")
        assert queues.keys() == {"CaptureQueue", "CaptureDeadLetterQueue"}
        for queue in queues.values():
            assert queue["MessageRetentionPeriod"] == FOURTEEN_DAYS
            assert queue["SqsManagedSseEnabled"] is True

    def test_what_is_nowhere_else_outlives_the_stack_but_not_a_deployment_that_fails(self, template):
        # UpdateReplacePolicy knows no RetainExceptOnCreate (CloudFormation template reference).
        kept = {
            name: each for name, each in template["Resources"].items() if "Retain" in each.get("DeletionPolicy", "")
        }
        assert kept.keys() == {
            *("CaptureDeadLetterQueue", "CaptureDeadLetterQueuePolicy"),
            *("CaptureFunctionLogGroup", "RotateTokenFunctionLogGroup"),
        }
        for resource in kept.values():
            assert (resource["DeletionPolicy"], resource["UpdateReplacePolicy"]) == ("RetainExceptOnCreate", "Retain")

    def test_what_outlives_the_stack_does_not_block_the_next_one(self, template):
        for resource in template["Resources"].values():
            if "Retain" in resource.get("DeletionPolicy", ""):
                assert not {"QueueName", "LogGroupName"} & resource["Properties"].keys()

    def test_a_dead_letter_holds_anything_that_the_queue_could_hold(self, properties):
        queue, dead_letters = properties("CaptureQueue"), properties("CaptureDeadLetterQueue")
        assert dead_letters["MaximumMessageSize"] == queue["MaximumMessageSize"] == 1024 * 1024


class TestPolicies:
    @pytest.mark.parametrize(
        ("policy", "arn", "action"),
        [
            ("CaptureQueuePolicy", arn_of("CaptureQueue"), "sqs:*"),
            ("CaptureDeadLetterQueuePolicy", arn_of("CaptureDeadLetterQueue"), "sqs:*"),
            ("OutcomeTopicPolicy", {"Ref": "OutcomeTopic"}, "sns:Publish"),
        ],
    )
    def test_plain_http_is_refused(self, properties, policy, arn, action):
        assert {
            "Sid": "RefusePlainHttp",
            "Effect": "Deny",
            "Principal": "*",
            "Action": action,
            "Resource": arn,
            "Condition": {"Bool": {"aws:SecureTransport": "false"}},
        } in properties(policy)["PolicyDocument"]["Statement"]

    def test_every_queue_and_topic_has_a_policy(self, of_type):
        guarded = [each for policy in of_type("AWS::SQS::QueuePolicy").values() for each in policy["Queues"]]
        guarded += [each for policy in of_type("AWS::SNS::TopicPolicy").values() for each in policy["Topics"]]
        owned = of_type("AWS::SQS::Queue").keys() | of_type("AWS::SNS::Topic").keys()
        assert {each["Ref"] for each in guarded} == owned

    @both_functions
    def test_every_statement_of_a_role_names_its_resources(self, statements, function):
        resources = [each for statement in statements(function) for each in as_list(statement["Resource"])]
        assert resources
        assert not [each for each in resources if "*" in json.dumps(each)]

    @both_functions
    def test_no_statement_of_a_role_allows_a_wildcard(self, statements, function):
        actions = [each for statement in statements(function) for each in as_list(statement["Action"])]
        assert actions
        assert not [each for each in actions if "*" in each]

    @both_functions
    def test_a_role_allows_by_its_own_statements_alone(self, properties, statements, function):
        assert properties(f"{function}Role").keys() == {"AssumeRolePolicyDocument", "Policies"}
        for statement in statements(function):
            assert statement["Effect"] == "Allow"
            assert statement.keys() - {"Condition"} == {"Sid", "Effect", "Action", "Resource"}
            assert ("Condition" in statement) == ("kms:" in json.dumps(statement["Action"]))

    @both_functions
    def test_lambda_alone_takes_on_a_role(self, properties, function):
        assert properties(f"{function}Role")["AssumeRolePolicyDocument"]["Statement"] == [
            {"Effect": "Allow", "Principal": {"Service": "lambda.amazonaws.com"}, "Action": "sts:AssumeRole"}
        ]

    @pytest.mark.parametrize(
        ("name", "arn"),
        [
            ("TokenSecretArn", "arn:aws:secretsmanager:us-east-1:123456789012:secret:a/token-AbCdEf"),
            ("TokenSecretKmsKeyArn", "arn:aws:kms:us-east-1:123456789012:key/0f1e2d3c-4b5a"),
        ],
    )
    def test_a_resource_is_given_without_wildcards(self, parameters, name, arn):
        pattern = parameters[name]["AllowedPattern"]
        assert re.search(pattern, arn)
        for wildcard in "*?":
            assert not re.search(pattern, wildcard)
            assert not [
                place for place in range(len(arn)) if re.search(pattern, arn[:place] + wildcard + arn[place:])
            ]

    def test_no_policy_is_there_beside_the_roles_the_queues_and_the_topic(self, template, of_type):
        found = {name for name, resource in template["Resources"].items() if list(statements_in(resource))}
        kinds = ("AWS::IAM::Role", "AWS::SQS::QueuePolicy", "AWS::SNS::TopicPolicy")
        assert found == {name for kind in kinds for name in of_type(kind)}

    def test_everybody_is_refused_and_never_admitted(self, template):
        about_everybody = [
            (name, statement["Sid"], statement["Effect"])
            for name, resource in template["Resources"].items()
            for statement in statements_in(resource)
            if "*" in json.dumps(statement.get("Principal")) or "NotPrincipal" in statement
        ]
        assert about_everybody == [
            (policy, "RefusePlainHttp", "Deny")
            for policy in ("CaptureQueuePolicy", "CaptureDeadLetterQueuePolicy", "OutcomeTopicPolicy")
        ]

    def test_a_function_is_invoked_only_by_a_service_and_for_a_source_of_this_account(self, template, of_type):
        resources = template["Resources"]
        permissions = of_type("AWS::Lambda::Permission")
        assert permissions
        for permission in permissions.values():
            assert permission["Action"] == "lambda:InvokeFunction"
            assert re.fullmatch(r"[a-z.]+\.amazonaws\.com", permission["Principal"])
            match permission["SourceArn"]:
                case {"Fn::GetAtt": [name, "Arn"]}:
                    assert name in resources
                case _:
                    # It is no resource of the stack's own, or a pattern.
                    assert permission["SourceAccount"] == {"Ref": "AWS::AccountId"}

    def test_no_role_is_there_beside_the_functions(self, of_type):
        assert of_type("AWS::Lambda::Function").keys() == SETTINGS.keys()
        assert of_type("AWS::IAM::Role").keys() == {f"{function}Role" for function in SETTINGS}

    @pytest.mark.parametrize(
        ("function", "actions"),
        [("CaptureFunction", ["kms:Decrypt"]), ("RotateTokenFunction", ["kms:Decrypt", "kms:GenerateDataKey"])],
    )
    def test_a_customer_key_is_used_only_for_the_secret(self, statements, function, actions):
        (use,) = [each for each in statements(function) if as_list(each["Action"])[0].startswith("kms:")]
        assert as_list(use["Action"]) == actions
        assert use["Resource"] == {"Ref": "TokenSecretKmsKeyArn"}
        assert use["Condition"]["StringEquals"] == {
            "kms:ViaService": {"Fn::Sub": "secretsmanager.${AWS::Region}.${AWS::URLSuffix}"},
            "kms:EncryptionContext:SecretARN": THE_SECRET,
        }

    @both_functions
    def test_no_secret_but_the_one_is_touched(self, statements, function):
        touching = [each for each in statements(function) if "secretsmanager:" in json.dumps(each["Action"])]
        assert touching
        assert all(each["Resource"] == THE_SECRET for each in touching)

    def test_what_is_switched_off_is_not_allowed(self, conditional):
        assert conditional("CaptureFunction") == {
            "DecryptTheToken": "HasTokenSecretKmsKey",
            "AskForRotation": "RotatesToken",
            "LetRotationStart": "RotatesToken",
        }
        assert conditional("RotateTokenFunction") == {"DecryptAndEncryptTheToken": "HasTokenSecretKmsKey"}

    def test_the_topic_is_encrypted(self, properties):
        assert properties("OutcomeTopic")["KmsMasterKeyId"] == "alias/aws/sns"


class TestCapturesTable:
    def test_the_table_is_paid_by_request_and_keyed_as_it_is_written(self, properties):
        table = properties("CapturesTable")
        assert table["BillingMode"] == "PAY_PER_REQUEST"
        assert table["KeySchema"] == [
            {"AttributeName": "pk", "KeyType": "HASH"},
            {"AttributeName": "sk", "KeyType": "RANGE"},
        ]
        assert table["AttributeDefinitions"] == [
            {"AttributeName": name, "AttributeType": "S"} for name in ("pk", "sk")
        ]

    def test_items_that_have_expired_are_deleted(self, properties):
        ttl = properties("CapturesTable")["TimeToLiveSpecification"]
        assert ttl == {"AttributeName": "expires", "Enabled": True}

    def test_the_table_is_encrypted_and_may_be_recoverable_and_is_deleted_with_the_stack(self, template, properties):
        table = properties("CapturesTable")
        assert table["SSESpecification"] == {"SSEEnabled": True}
        recovery = table["PointInTimeRecoverySpecification"]
        assert recovery == {"PointInTimeRecoveryEnabled": {"Ref": "PointInTimeRecovery"}}
        resource = template["Resources"]["CapturesTable"]
        assert (resource["DeletionPolicy"], resource["UpdateReplacePolicy"]) == ("Delete", "Delete")

    def test_the_table_is_always_there_and_named_in_the_environment(self, template, properties):
        assert "Condition" not in template["Resources"]["CapturesTable"]
        variables = properties("CaptureFunction")["Environment"]["Variables"]
        assert variables["CAPTURES_TABLE"] == {"Ref": "CapturesTable"}

    def test_a_job_is_remembered_as_long_as_a_dead_letter_may_wait(self, properties):
        in_a_queue = properties("CaptureDeadLetterQueue")["MessageRetentionPeriod"]
        assert keep_seconds(retry_window_seconds=0, deadline_seconds=0) == in_a_queue


class TestTokenSecret:
    def test_is_created_with_a_constant_that_holds_no_token(self, properties):
        assert properties("TokenSecret")["SecretString"] == "{}"
        assert "GenerateSecretString" not in properties("TokenSecret")

    def test_reads_as_a_secret_without_a_token_or_credentials(self, properties):
        value = properties("TokenSecret")["SecretString"]
        with pytest.raises(TokenFormatError, match=r"^has no 'token'$"):
            parse_auth_token(value, None)
        with pytest.raises(TokenFormatError, match=r"^has no 'username'"):
            parse_credentials(value)


class TestRotation:
    RESOURCES = ("TokenRotation", "RotateTokenPermission")

    @pytest.mark.parametrize("kind", ["", "LogGroup", "Role"])
    def test_nothing_of_it_is_there_unless_it_is_wanted(self, template, kind):
        for name in (*self.RESOURCES, f"RotateTokenFunction{kind}"):
            assert template["Resources"][name]["Condition"] == "RotatesToken"

    def test_begins_with_the_credentials_and_not_with_the_stack(self, template, properties):
        schedule = properties("TokenRotation")
        assert schedule["RotateImmediatelyOnUpdate"] is False
        assert schedule["SecretId"] == THE_SECRET
        assert schedule["RotationLambdaARN"] == arn_of("RotateTokenFunction")
        assert template["Resources"]["TokenRotation"]["DependsOn"] == "RotateTokenPermission"

    def test_comes_often_enough_to_fail_twice_before_a_token_ends(self, properties):
        schedule = properties("TokenRotation")["RotationRules"]["ScheduleExpression"]
        hours = int(re.fullmatch(r"rate\(([0-9]+) hours\)", schedule)[1])
        assert 4 <= hours <= 24 / 3

    def test_only_secrets_manager_may_invoke_its_function_and_for_that_secret_alone(self, properties):
        assert properties("RotateTokenPermission") == {
            "Action": "lambda:InvokeFunction",
            "FunctionName": {"Ref": "RotateTokenFunction"},
            "Principal": "secretsmanager.amazonaws.com",
            "SourceAccount": {"Ref": "AWS::AccountId"},
            "SourceArn": THE_SECRET,
        }

    def test_may_be_asked_for_by_the_capture_function(self, statements):
        ask, start = [each for each in statements("CaptureFunction") if "Rotation" in each["Sid"]]
        assert (ask["Action"], ask["Resource"]) == ("secretsmanager:RotateSecret", THE_SECRET)
        assert (start["Action"], start["Resource"]) == ("lambda:InvokeFunction", arn_of("RotateTokenFunction"))

    def test_a_step_has_time_for_identity_and_the_api(self, properties):
        assert properties("RotateTokenFunction")["Timeout"] >= 4 * (CONNECT_TIMEOUT_SECONDS + READ_TIMEOUT_SECONDS)


@pytest.mark.parametrize("rule", ["AlarmRule", "RequestRule"])
class TestRules:
    def test_tries_again_and_keeps_what_it_cannot_deliver(self, properties, rule):
        (target,) = properties(rule)["Targets"]
        assert target["Arn"] == arn_of("CaptureFunction")
        assert target["RetryPolicy"]["MaximumRetryAttempts"] > 0
        assert target["DeadLetterConfig"] == {"Arn": arn_of("CaptureDeadLetterQueue")}

    def test_the_dead_letter_queue_admits_it(self, properties, rule):
        (allow,) = [
            each
            for each in properties("CaptureDeadLetterQueuePolicy")["PolicyDocument"]["Statement"]
            if each["Effect"] == "Allow"
        ]
        assert (allow["Principal"], allow["Action"]) == ({"Service": "events.amazonaws.com"}, "sqs:SendMessage")
        assert arn_of(rule) in allow["Condition"]["ArnEquals"]["aws:SourceArn"]

    def test_may_invoke_the_function(self, properties, rule):
        permission = properties(f"{rule}Permission")
        assert permission["Principal"] == "events.amazonaws.com"
        assert permission["FunctionName"] == {"Ref": "CaptureFunction"}
        assert permission["SourceArn"] == arn_of(rule)


class TestPatterns:
    def test_there_are_samples(self):
        assert len(ALARMS) >= 5

    @pytest.mark.parametrize("path", ALARMS, ids=lambda path: path.stem)
    def test_the_alarm_rule_takes_alarms_that_fire_and_no_others(self, template, path):
        event = sample(path.name)
        assert is_matched(template, "AlarmRule", event) == (event["detail"]["state"]["value"] == "ALARM")

    def test_an_alarm_that_recovers_is_not_taken(self, template):
        assert not is_matched(template, "AlarmRule", sample("eventbridge-alarm-ok.json"))

    def test_a_change_of_an_alarms_configuration_is_not_taken(self, template):
        event = sample("eventbridge-alarm.json") | {"detail-type": "CloudWatch Alarm Configuration Change"}
        assert not is_matched(template, "AlarmRule", event)

    @pytest.mark.parametrize(("prefix", "expected"), [("backup-", False), ("", True), ("web", True)])
    def test_the_prefix_chooses_the_alarms(self, prefix, expected):
        event = sample("eventbridge-alarm.json")
        event["detail"]["alarmName"] = "web-latency"
        template = translate(parameters={"AlarmNamePrefix": prefix})
        assert is_matched(template, "AlarmRule", event) is expected

    def test_the_request_rule_takes_requests_of_any_source(self, template):
        event = sample("eventbridge-request.json")
        assert is_matched(template, "RequestRule", event)
        assert is_matched(template, "RequestRule", event | {"source": "someone.else"})

    @pytest.mark.parametrize("path", ALARMS, ids=lambda path: path.stem)
    def test_the_request_rule_takes_no_alarm(self, template, path):
        assert not is_matched(template, "RequestRule", sample(path.name))

    def test_an_alarm_of_this_account_may_invoke_the_function_by_itself(self, properties):
        permission = properties("AlarmActionPermission")
        assert permission["Principal"] == "lambda.alarms.cloudwatch.amazonaws.com"
        assert permission["SourceAccount"] == {"Ref": "AWS::AccountId"}
        assert permission["SourceArn"]["Fn::Sub"].endswith(":alarm:${AlarmNamePrefix}*")


class TestParameters:
    def test_each_is_described_in_a_sentence(self, parameters):
        for parameter in parameters.values():
            assert re.fullmatch(r"[A-Z].+\.", parameter["Description"])

    def test_each_is_bounded_and_says_how(self, parameters):
        ways = [{"AllowedValues"}, {"MinValue", "MaxValue"}, {"AllowedPattern", "MaxLength"}]
        for parameter in parameters.values():
            assert any(way <= parameter.keys() for way in ways)
            assert parameter["ConstraintDescription"].startswith("must ")

    def test_each_default_is_within_its_bounds(self, parameters):
        for parameter in parameters.values():
            default = parameter["Default"]
            assert default in parameter.get("AllowedValues", [default])
            assert parameter.get("MinValue", default) <= default <= parameter.get("MaxValue", default)
            assert re.search(parameter.get("AllowedPattern", ""), str(default))

    def test_each_is_in_exactly_one_group(self, template, parameters):
        groups = template["Metadata"]["AWS::CloudFormation::Interface"]["ParameterGroups"]
        assert sorted(each for group in groups for each in group["Parameters"]) == sorted(parameters)

    @pytest.mark.parametrize(
        ("url", "is_taken"),
        [
            ("https://{region}.backup.api.rackspacecloud.com", True),
            ("https://proxy.example.com:8443/backup", True),
            ("http://{region}.backup.api.rackspacecloud.com", False),
            ("https://{other}.example.com", False),
            ("https://user@example.com", False),
            ("https://example.com/?x=1", False),
        ],
    )
    def test_the_api_is_called_over_https_alone(self, parameters, url, is_taken):
        assert bool(re.search(parameters["CloudBackupUrl"]["AllowedPattern"], url)) is is_taken

    @pytest.mark.parametrize(
        ("url", "is_taken"),
        [
            ("https://identity.api.rackspacecloud.com", True),
            ("https://proxy.example.com:8443/identity", True),
            ("http://identity.api.rackspacecloud.com", False),
            ("https://{region}.identity.api.rackspacecloud.com", False),
            ("https://user@example.com", False),
            ("https://example.com/?x=1", False),
        ],
    )
    def test_identity_is_called_over_https_alone(self, parameters, url, is_taken):
        assert bool(re.search(parameters["IdentityUrl"]["AllowedPattern"], url)) is is_taken


class TestOutputs:
    def test_each_says_what_it_is_for(self, template):
        for output in template["Outputs"].values():
            assert re.fullmatch(r"For .+\.", output["Description"])


class TestConfig:
    def test_has_the_three_environments(self):
        assert config_environments().keys() == {"default", "staging", "prod"}

    def test_each_environment_is_a_stack_of_its_own(self):
        names = [each["global"]["parameters"]["stack_name"] for each in config_environments().values()]
        assert len(set(names)) == len(names)

    @pytest.mark.parametrize("name", ["default", "staging", "prod"])
    def test_overrides_parameters_within_their_bounds(self, parameters, name):
        for override in config_environments()[name]["deploy"]["parameters"].get("parameter_overrides", []):
            key, _, value = override.partition("=")
            parameter = parameters[key]
            assert value in map(str, parameter.get("AllowedValues", [value]))
            assert re.search(parameter.get("AllowedPattern", ""), value)
            if parameter["Type"] == "Number":
                limits = parameter.get("MinValue", 0), parameter.get("MaxValue", float("inf"))
                assert limits[0] <= int(value) <= limits[1]

    def test_a_change_to_prod_waits_for_a_yes(self):
        assert config_environments()["prod"]["deploy"]["parameters"]["confirm_changeset"] is True


@pytest.mark.parametrize("path", [TEMPLATE, CONFIG], ids=lambda path: path.name)
class TestSecrecy:
    def test_holds_no_account_number(self, path: Path):
        assert not re.search(r"\b[0-9]{12}\b", path.read_text("utf-8"))

    def test_holds_nothing_that_looks_like_a_token(self, path: Path):
        assert not re.search(
            r"\b(?:[0-9a-fA-F]{24,}|AKIA[0-9A-Z]{16}|AAA[A-Za-z0-9_-]{40,})\b", path.read_text("utf-8")
        )
