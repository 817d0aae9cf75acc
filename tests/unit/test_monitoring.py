"""The alarms, the dashboard and the saved queries of template.yaml, against what is measured and by whom."""

import json
import re
from datetime import timedelta
from itertools import combinations
from pathlib import Path

import pytest
from moto.events.models import EventPattern

from agent_log_capture import bootstrap
from agent_log_capture.handlers import capture, rotate_token
from local.template import PSEUDO_PARAMETERS, STACK, resolve, translate
from ops.status import TOO_OLD

ROOT = Path(__file__).resolve().parents[2]
OPERATIONS = (ROOT / "docs/operations.md").read_text(encoding="utf-8")
NAMESPACE = "AgentLogCapture"
# The metrics of the functions and of AWS, each with the one dimension that identifies its source.
MEASURED = {
    NAMESPACE: (
        "service",
        {
            *capture.METRICS.values(),
            *capture.RESPONSES.values(),
            *(
                capture.CAPTURES_ASKED,
                capture.CAPTURE_SECONDS,
                capture.NOTIFICATIONS_PUBLISHED,
                capture.NOTIFICATIONS_FAILED,
            ),
            *(capture.TOKEN_REFUSED, bootstrap.COLD_STARTS, rotate_token.TOKEN_REFRESHES),
        },
    ),
    "AWS/SQS": (
        "QueueName",
        {
            *("ApproximateAgeOfOldestMessage", "ApproximateNumberOfMessagesDelayed"),
            *("ApproximateNumberOfMessagesNotVisible", "ApproximateNumberOfMessagesVisible"),
            *("NumberOfEmptyReceives", "NumberOfMessagesDeleted", "NumberOfMessagesReceived"),
            *("NumberOfMessagesSent", "SentMessageSize"),
        },
    ),
    "AWS/Lambda": (
        "FunctionName",
        {
            *("AsyncEventAge", "AsyncEventsDropped", "AsyncEventsReceived", "ConcurrentExecutions"),
            *("DeadLetterErrors", "DestinationDeliveryFailures", "Duration", "Errors", "Invocations", "Throttles"),
        },
    ),
    # With this dimension alone they are of the default bus (user guide, Monitoring Amazon EventBridge).
    "AWS/Events": (
        "RuleName",
        {"FailedInvocations", "Invocations", "InvocationsFailedToBeSentToDlq", "InvocationsSentToDlq"},
    ),
}
SIZES = {"width": range(1, 25), "height": range(1, 1001)}


@pytest.fixture(scope="module")
def template():
    return translate()


@pytest.fixture(scope="module")
def alarms(template):
    return of_type(template, "AWS::CloudWatch::Alarm")


@pytest.fixture
def age(alarms):
    [age] = [alarm for alarm in alarms.values() if alarm["MetricName"] == "ApproximateAgeOfOldestMessage"]
    return age


@pytest.fixture(scope="module")
def widgets(template):
    [dashboard] = of_type(template, "AWS::CloudWatch::Dashboard").values()
    return json.loads(dashboard["DashboardBody"])["widgets"]


def of_type(template, kind):
    return {
        name: resolve(template, each["Properties"])
        for name, each in template["Resources"].items()
        if each["Type"] == kind
    }


def sources(template):
    """Return the values that each dimension can have."""
    kinds = {
        "QueueName": ("AWS::SQS::Queue", ".QueueName"),
        "FunctionName": ("AWS::Lambda::Function", ""),
        "RuleName": ("AWS::Events::Rule", ""),
    }
    found = {name: {each + end for each in of_type(template, kind)} for name, (kind, end) in kinds.items()}
    return found | {"service": {STACK}}


def problems(template, namespace, metric, dimensions):
    """Return what is wrong with a metric that an alarm or a widget names."""
    dimension, metrics = MEASURED[namespace]
    if metric not in metrics:
        return [f"{namespace} has no {metric}"]
    if dimensions.keys() != {dimension} or dimensions[dimension] not in sources(template)[dimension]:
        return [f"{metric} is not measured by {dimensions}"]
    return []


def hidden_seconds(template):
    return template["Resources"]["CaptureQueue"]["Properties"]["VisibilityTimeout"]


def suffix(alarm):
    return alarm["AlarmName"].removeprefix(f"{STACK}-health-")


def runbook():
    """Return the text of each alarm's section in docs/operations.md, by its heading."""
    alarms = re.split(r"^## ", OPERATIONS.split("\n## Alarms\n", 1)[1], maxsplit=1, flags=re.MULTILINE)[0]
    _, *parts = re.split(r"^### (.+)\n", alarms, flags=re.MULTILINE)
    return dict(zip(parts[::2], parts[1::2], strict=True))


def fired(name):
    """Return the event of an alarm that goes into ALARM and names no agent."""
    partition, region, account = (PSEUDO_PARAMETERS[f"AWS::{each}"] for each in ("Partition", "Region", "AccountId"))
    arn = f"arn:{partition}:cloudwatch:{region}:{account}:alarm:{name}"
    event = {"source": "aws.cloudwatch", "detail-type": "CloudWatch Alarm State Change", "resources": [arn]}
    return event | {"detail": {"alarmName": name, "state": {"value": "ALARM"}}}


def rule(*, prefix, stack=STACK):
    """Return what AlarmRule takes in a stack of that name."""
    template = translate(parameters={"AlarmNamePrefix": prefix})
    pattern = template["Resources"]["AlarmRule"]["Properties"]["EventPattern"]
    resolved = resolve(template, pattern, PSEUDO_PARAMETERS | {"AWS::StackName": stack})
    return EventPattern.load(json.dumps(resolved))


# ------------------------------------------------------------------ the check itself


@pytest.mark.parametrize(
    "metric",
    [
        (NAMESPACE, "CapturesLost", {"service": STACK}),
        (NAMESPACE, "CapturesFailed", {"service": "another-stack"}),
        ("AWS/SQS", "ApproximateAgeOfOldestMessage", {"QueueName": "CaptureQueue"}),
        ("AWS/Lambda", "Errors", {"service": STACK}),
        ("AWS/Lambda", "Duration", {"FunctionName": "CaptureFunction", "Resource": "CaptureFunction"}),
    ],
)
def test_a_metric_that_is_not_measured_is_found(template, metric):
    assert problems(template, *metric)


def test_the_functions_measure_under_the_name_of_their_stack(template):
    for function in of_type(template, "AWS::Lambda::Function").values():
        variables = function["Environment"]["Variables"]
        assert variables["POWERTOOLS_SERVICE_NAME"] == STACK
        assert variables["POWERTOOLS_METRICS_NAMESPACE"] == NAMESPACE


# ------------------------------------------------------------------ alarms


def test_every_failure_has_its_alarm(alarms):
    assert [suffix(alarm) for alarm in alarms.values()] == [
        *("dead-letters", "queue-age", "errors", "throttles", "duration", "token-refused", "notifications-failed"),
        *("destination-failures", "alarm-rule-failures", "request-rule-failures"),
        *("rotation-errors", "rotation-duration"),
    ]


def test_every_alarm_watches_a_metric_that_is_measured(template, alarms):
    for alarm in alarms.values():
        dimensions = {each["Name"]: each["Value"] for each in alarm["Dimensions"]}
        assert problems(template, alarm["Namespace"], alarm["MetricName"], dimensions) == []


def test_an_alarm_is_missing_only_where_there_is_nothing_to_watch(template, alarms):
    for name, alarm in alarms.items():
        is_about_rotation = "RotateTokenFunction" in json.dumps(alarm["Dimensions"])
        assert template["Resources"][name].get("Condition") == ("RotatesToken" if is_about_rotation else None)


def test_what_is_not_measured_is_no_alarm(alarms):
    assert {alarm["TreatMissingData"] for alarm in alarms.values()} == {"notBreaching"}


def test_every_alarm_notifies_the_given_topic_and_no_other(template, alarms):
    topic = {"Fn::If": ["HasAlarmTopic", [{"Ref": "AlarmTopicArn"}], {"Ref": "AWS::NoValue"}]}
    assert template["Conditions"]["HasAlarmTopic"] == {"Fn::Not": [{"Fn::Equals": [{"Ref": "AlarmTopicArn"}, ""]}]}
    for name in alarms:
        raw = template["Resources"][name]["Properties"]
        assert raw["AlarmActions"] == raw["OKActions"]
        assert raw["OKActions"] == topic
        assert raw.get("ActionsEnabled", True)
        assert "InsufficientDataActions" not in raw


@pytest.mark.parametrize(
    ("arn", "is_taken"),
    [
        ("", True),
        (f"arn:aws:sns:eu-central-1:{12 * '1'}:on-call", True),
        (f"arn:aws-us-gov:sns:us-gov-west-1:{12 * '1'}:on-call", True),
        (f"arn:aws:sqs:eu-central-1:{12 * '1'}:on-call", False),
        (f"arn:aws:lambda:eu-central-1:{12 * '1'}:function:capture", False),
        ("on-call", False),
    ],
)
def test_alarms_notify_only_a_topic(template, arn, is_taken):
    assert bool(re.search(template["Parameters"]["AlarmTopicArn"]["AllowedPattern"], arn)) is is_taken


def test_a_function_near_its_timeout_is_one_that_has_used_nine_tenths_of_it(template, alarms):
    functions = of_type(template, "AWS::Lambda::Function")
    slow = [alarm for alarm in alarms.values() if alarm["MetricName"] == "Duration"]
    assert {alarm["Dimensions"][0]["Value"] for alarm in slow} == functions.keys()
    for alarm in slow:
        assert alarm["Statistic"] == "Maximum"
        assert alarm["Threshold"] == 0.9 * 1000 * functions[alarm["Dimensions"][0]["Value"]]["Timeout"]


def test_a_message_that_waits_crashes_the_function_once_and_is_worked_on_is_not_too_old(template, age):
    longest_delay = 900
    timeout = template["Resources"]["CaptureFunction"]["Properties"]["Timeout"]
    assert longest_delay + hidden_seconds(template) + timeout <= age["Threshold"]


def test_a_message_that_crashes_the_function_each_time_is_too_old_before_the_metric_leaves_it_out(template, age):
    # "If a message is received three or more times and not deleted, SQS moves it to the back of the queue. The metric
    # then reflects the age of the next message" (SQS developer guide, Available CloudWatch metrics for Amazon SQS).
    is_seen_until = 2 * hidden_seconds(template)
    assert age["Threshold"] + age["EvaluationPeriods"] * age["Period"] < is_seen_until


def test_what_is_too_old_for_the_alarm_is_so_for_the_operator(age):
    assert timedelta(seconds=age["Threshold"]) == TOO_OLD


def test_every_way_to_lose_an_event_has_its_alarm(template, alarms):
    watched = {(alarm["MetricName"], alarm["Dimensions"][0]["Value"]) for alarm in alarms.values()}
    for rule in of_type(template, "AWS::Events::Rule"):
        assert ("InvocationsFailedToBeSentToDlq", rule) in watched
    for config in of_type(template, "AWS::Lambda::EventInvokeConfig").values():
        assert ("DestinationDeliveryFailures", config["FunctionName"]) in watched


def test_every_alarm_says_what_to_do_and_links_its_section_of_the_runbook(alarms):
    for alarm in alarms.values():
        meaning, _, pointer = alarm["AlarmDescription"].partition(" Runbook: ")
        assert len(re.findall(r"[.:]( |$)", meaning)) >= 2
        assert pointer == f"docs/operations.md#{suffix(alarm)}"
        assert len(alarm["AlarmDescription"]) <= 1024


def test_the_runbook_has_a_section_for_each_alarm_with_its_urgency_first_and_commands(alarms):
    sections = runbook()
    assert list(sections) == [suffix(alarm) for alarm in alarms.values()]
    for section in sections.values():
        assert re.match(r"\n\*\*(Now|Today|Within|No hurry)\b", section)
        assert "\n```\naws " in section or "\n```\nmake " in section


@pytest.mark.parametrize("prefix", ["", "backup-", "agent-log", f"{STACK}-health-"])
def test_no_alarm_of_the_stack_starts_a_capture(alarms, prefix):
    taken = rule(prefix=prefix)
    assert not [each for each in alarms.values() if taken.matches_event(fired(each["AlarmName"]))]


def test_other_alarms_start_captures_for_every_stack_name():
    for stack in (STACK, "backup"):
        assert rule(prefix="backup-", stack=stack).matches_event(fired("backup-failed-web-01"))
    assert rule(prefix="").matches_event(fired(f"{STACK}-web-01"))


def test_the_alarms_of_two_stacks_have_different_names(template):
    names = [each["Properties"]["AlarmName"] for each in of_raw(template, "AWS::CloudWatch::Alarm")]
    assert len(names) == len({json.dumps(name) for name in names})
    assert all(name["Fn::Sub"].startswith("${AWS::StackName}-health-") for name in names)


def of_raw(template, kind):
    return [each for each in template["Resources"].values() if each["Type"] == kind]


# ------------------------------------------------------------------ the dashboard


def test_every_widget_is_in_the_grid_and_widgets_do_not_overlap(widgets):
    for widget in widgets:
        assert widget["x"] >= 0
        assert widget["y"] >= 0
        assert widget["x"] + widget["width"] <= 24
        assert all(widget[side] in sizes for side, sizes in SIZES.items())
    cells = [
        {
            (x, y)
            for x in range(widget["x"], widget["x"] + widget["width"])
            for y in range(widget["y"], widget["y"] + widget["height"])
        }
        for widget in widgets
    ]
    assert not [1 for one, other in combinations(cells, 2) if one & other]


def test_every_metric_of_the_dashboard_is_measured(template, widgets):
    named = [metric for widget in widgets for metric in widget["properties"].get("metrics", [])]
    assert len(named) > 20
    for namespace, metric, dimension, value, _ in named:
        assert problems(template, namespace, metric, {dimension: value}) == []


def test_everything_that_the_capture_function_measures_is_on_the_dashboard(widgets):
    named = {metric[1] for widget in widgets for metric in widget["properties"].get("metrics", [])}
    assert MEASURED[NAMESPACE][1] <= named


def test_every_metric_has_its_own_color_and_name_in_a_widget(widgets):
    for widget in widgets:
        options = [metric[-1] for metric in widget["properties"].get("metrics", [])]
        for option in ("label", "color"):
            assert len({each[option] for each in options}) == len(options)


def test_the_dashboard_is_of_the_stack_and_region_that_it_is_in(template, widgets):
    [raw] = of_raw(template, "AWS::CloudWatch::Dashboard")
    pseudo = PSEUDO_PARAMETERS | {"AWS::StackName": "a-stack", "AWS::Region": "eu-west-3"}
    name, body = (resolve(template, raw["Properties"][key], pseudo) for key in ("DashboardName", "DashboardBody"))
    assert name == "a-stack-eu-west-3"
    assert "$" not in body
    assert not re.search(rf"{STACK}|us-east-1", body)
    regions = [each["properties"].get("region") for each in json.loads(body)["widgets"]]
    assert set(regions[1:]) == {"eu-west-3"}
    assert widgets[0]["type"] == "alarm"


def test_the_dashboard_shows_every_alarm_that_is_always_there(template, alarms, widgets):
    [shown] = [widget["properties"]["alarms"] for widget in widgets if widget["type"] == "alarm"]
    always = [name for name in alarms if "Condition" not in template["Resources"][name]]
    assert shown == [f"{name}.Arn" for name in always]


def test_nothing_on_the_dashboard_is_missing_without_a_condition(template):
    [raw] = of_raw(template, "AWS::CloudWatch::Dashboard")
    named = re.findall(r"\$\{(\w+)", raw["Properties"]["DashboardBody"]["Fn::Sub"])
    assert {"CaptureQueue", "CaptureFunction"} <= set(named)
    assert not [name for name in named if "Condition" in template["Resources"].get(name, {})]


# ------------------------------------------------------------------ the saved queries


def test_the_questions_to_the_log_are_saved_in_a_folder_of_the_stack(template):
    queries = of_type(template, "AWS::Logs::QueryDefinition").values()
    assert [query["Name"] for query in queries] == [
        f"{STACK}/what happened to an agent",
        f"{STACK}/everything for an alarm",
        f"{STACK}/slowest captures",
        f"{STACK}/refusals by reason",
    ]
    assert {tuple(query["LogGroupNames"]) for query in queries} == {("CaptureFunctionLogGroup",)}
