import json
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from moto.events.models import EventPattern

from agent_log_capture.settings import Settings
from local.template import TEMPLATE, translate

ROOT = TEMPLATE.parent
CONFIG = ROOT / "samconfig.toml"
ALARMS = sorted((ROOT / "events").glob("eventbridge-alarm*.json"))
FOURTEEN_DAYS = 14 * 24 * 3600


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
def role_statements(properties):
    (policy,) = properties("CaptureFunctionRole")["Policies"]
    return [branch for each in policy["PolicyDocument"]["Statement"] for branch in branches(each)]


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
    """Return a statement, or both sides of a conditional one, whatever the condition says."""
    if "Fn::If" not in statement:
        return [statement]
    return [side for side in statement["Fn::If"][1:] if side != {"Ref": "AWS::NoValue"}]


def as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


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


def function_environment(template: dict[str, Any]) -> dict[str, str]:
    """Return the function's variables; what only a deployed stack knows is made up."""
    variables = template["Resources"]["CaptureFunction"]["Properties"]["Environment"]["Variables"]
    made_up = {"ARN": "arn:aws:service:us-east-1::name", "URL": "https://sqs.us-east-1.amazonaws.com/queue"}
    values = with_defaults(variables, template["Parameters"])
    return {
        name: made_up[name.rpartition("_")[2]] if isinstance(value, dict) else str(value)
        for name, value in values.items()
    }


def is_matched(template: dict[str, Any], rule: str, event: dict[str, Any]) -> bool:
    pattern = template["Resources"][rule]["Properties"]["EventPattern"]
    return EventPattern.load(json.dumps(with_defaults(pattern, template["Parameters"]))).matches_event(event)


def sample(name: str) -> dict[str, Any]:
    return json.loads((ROOT / "events" / name).read_text(encoding="utf-8"))


def config_environments() -> dict[str, Any]:
    return {name: each for name, each in tomllib.loads(CONFIG.read_text("utf-8")).items() if isinstance(each, dict)}


class TestTranslation:
    def test_needs_neither_credentials_nor_a_region_and_leaves_the_environment_alone(self, monkeypatch, tmp_path):
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


class TestFunction:
    def test_gets_every_variable_that_the_settings_read_and_no_other(self, template):
        environment = RecordedEnvironment(function_environment(template))
        Settings.from_environment(environment)
        own = {name for name in environment if not name.startswith("POWERTOOLS_")}
        assert {name for name in environment.read if not name.startswith("POWERTOOLS_")} == own

    def test_logs_into_a_group_whose_entries_expire(self, properties):
        group = properties("CaptureFunction")["LoggingConfig"]["LogGroup"]
        assert "RetentionInDays" in properties(group["Ref"])

    def test_answers_for_single_records_of_a_batch(self, of_type):
        (mapping,) = of_type("AWS::Lambda::EventSourceMapping").values()
        assert mapping["EventSourceArn"] == arn_of("CaptureQueue")
        assert mapping["FunctionResponseTypes"] == ["ReportBatchItemFailures"]
        assert (mapping["BatchSize"], mapping["MaximumBatchingWindowInSeconds"]) == (100, 1)
        assert mapping["ScalingConfig"] == {"MaximumConcurrency": {"Ref": "MaximumConcurrency"}}

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

    def test_a_dead_letter_holds_whatever_the_queue_could_hold(self, properties):
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

    def test_every_statement_of_the_role_names_its_resources(self, role_statements):
        resources = [each for statement in role_statements for each in as_list(statement["Resource"])]
        assert resources
        assert not [each for each in resources if "*" in json.dumps(each)]

    def test_no_statement_of_the_role_allows_a_wildcard(self, role_statements):
        actions = [each for statement in role_statements for each in as_list(statement["Action"])]
        assert actions
        assert not [each for each in actions if "*" in each]

    def test_the_function_has_that_role_alone(self, properties, of_type):
        assert properties("CaptureFunction")["Role"] == arn_of("CaptureFunctionRole")
        assert of_type("AWS::IAM::Role").keys() == {"CaptureFunctionRole"}
        assert "ManagedPolicyArns" not in properties("CaptureFunctionRole")

    def test_a_customer_key_is_used_only_for_the_secret(self, role_statements):
        (decrypt,) = [each for each in role_statements if each["Action"] == "kms:Decrypt"]
        (read,) = [each for each in role_statements if each["Action"] == "secretsmanager:GetSecretValue"]
        assert decrypt["Condition"]["StringEquals"]["kms:EncryptionContext:SecretARN"] == read["Resource"]

    def test_the_topic_is_encrypted(self, properties):
        assert properties("OutcomeTopic")["KmsMasterKeyId"] == "alias/aws/sns"

    def test_the_created_secret_holds_no_made_up_token(self, properties):
        assert not properties("TokenSecret").keys() & {"SecretString", "GenerateSecretString"}


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
        assert is_matched(template, "RequestRule", event | {"source": "somebody.else"})

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
