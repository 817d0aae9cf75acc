"""The capture function as Lambda calls it: built from its environment, with all that it logs and measures."""

import json
import re
from collections import Counter
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from uuid import uuid4

import pytest
import requests

from agent_log_capture.domain import queue_message
from agent_log_capture.domain.capture import Polling
from agent_log_capture.domain.outcome import Status
from agent_log_capture.handlers.capture import METRICS, RESPONSES, NotSavedError, lambda_handler
from agent_log_capture.service.result_writer import DEFERRED
from agent_log_capture.settings import SettingError
from local.template import resolve, translate

AGENTS = "https://dfw.backup.api.rackspacecloud.com/v2/110011/agents/"
SIGNED_LINK = {"rel": "logfile_temp_url", "href": f"https://files.example/a.gz?temp_url_sig={40 * '0'}"}


@pytest.fixture(autouse=True)
def _environment(*, monkeypatch, secret_arn, topic_arn, waiting, dead, table_calls):  # noqa: ARG001 (the table has to be there)
    variables = {
        "TOKEN_SECRET_ARN": secret_arn,
        "OUTCOME_TOPIC_ARN": topic_arn,
        "CAPTURE_QUEUE_URL": waiting.url,
        "DEAD_LETTER_QUEUE_URL": dead.url,
        "CAPTURES_TABLE": "CapturesTable",
        "CLOUD_BACKUP_REGION": "DFW",
        "POWERTOOLS_SERVICE_NAME": str(uuid4()),  # loggers of one service would share the output of the first test
        "POWERTOOLS_METRICS_NAMESPACE": "AgentLogCapture",
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(autouse=True)
def answers(wire):
    """What the API answers to requests, and with which states of log files to looks; agents are offline."""
    answers = {}

    def accept(request):
        status = answers.get(request.url.split("/")[-2], 202)
        if isinstance(status, Exception):
            raise status
        return status, {}, '{"id": "made"}'

    def look(request):
        log_file = {"id": "made", "state": answers[request.url.split("/")[-3]], "links": [SIGNED_LINK]}
        return 200, {}, json.dumps(log_file)

    wire.add_callback("POST", re.compile(AGENTS + "[^/]+/logfiles"), accept)
    wire.add_callback("GET", re.compile(AGENTS + "[^/]+/logfiles/made"), look)
    wire.get(re.compile(AGENTS + "[^/]+/status"), json={"online": False})
    return answers


@pytest.fixture
def invoke():
    context = SimpleNamespace(aws_request_id="request-id", get_remaining_time_in_millis=lambda: 300_000)
    return lambda event: lambda_handler(event, context)


@pytest.fixture
def output(capsys):
    """What was logged, and what was measured: lists of lines."""

    def read():
        lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        return [line for line in lines if "_aws" not in line], [line for line in lines if "_aws" in line]

    return read


@pytest.fixture
def measured(output):
    """What was measured, by metric: each value."""

    def read():
        values = {}
        for line in output()[1]:
            for metric in line["_aws"]["CloudWatchMetrics"][0]["Metrics"]:
                values.setdefault(metric["Name"], []).extend(line[metric["Name"]])
        return values

    return read


@pytest.fixture
def watched(a_capture):
    """Builds the message of captures that were asked a minute ago, and whose log files were requested then."""

    def build(*agent_ids, ago=timedelta(minutes=1), activated_at=None):
        moment = datetime.now(UTC) - ago
        phase = Polling(log_file_id="made", requested_at=moment, activated_at=activated_at)
        captures = [
            a_capture(agent_id=agent_id, asked_at=moment, retry_from=moment, phase=phase) for agent_id in agent_ids
        ]
        return json.dumps({"captures": [queue_message.to_json(capture) for capture in captures]})

    return build


@pytest.fixture
def overdue(a_capture):
    moment = datetime.now(UTC) - timedelta(days=1)
    capture = a_capture(agent_id="overdue", asked_at=moment, retry_from=moment)
    return json.dumps({"captures": [queue_message.to_json(capture)]})


def sqs_event(**bodies):
    """Return the event of messages: of JSON, or of words that are agent IDs."""
    records = [
        {
            "eventSource": "aws:sqs",
            "messageId": message_id,
            "body": body if body.startswith("{") else json.dumps(body.split()),
        }
        for message_id, body in bodies.items()
    ]
    return {"Records": records}


# ------------------------------------------------------------------ what it answers


def test_an_event_of_the_queue_is_answered_with_no_failures(invoke, published):
    assert invoke(sqs_event(first="one", second="two not@good")) == {"batchItemFailures": []}
    assert Counter(notification["status"] for notification in published.bodies()) == {"requested": 2, "rejected": 1}


@pytest.fixture
def nothing_is_published_or_kept(sns, sqs, topic_arn, waiting):
    sns.delete_topic(TopicArn=topic_arn)
    sqs.delete_queue(QueueUrl=waiting.url)


@pytest.mark.usefixtures("nothing_is_published_or_kept")
def test_a_record_that_cannot_be_published_or_requeued_is_a_failure(invoke):
    ignored = '{"version": "1", "status": "requested", "outcome_id": "x"}'
    answer = invoke(sqs_event(first="one", second=ignored, third="three"))
    assert sorted(failure["itemIdentifier"] for failure in answer["batchItemFailures"]) == ["first", "third"]


def test_what_cannot_be_published_is_requeued_and_measured(*, invoke, sns, topic_arn, waiting, output):
    sns.delete_topic(TopicArn=topic_arn)
    assert invoke({"agent_ids": ["one", "two"]})["deferred"] == 2
    assert waiting.messages(after_seconds=299) == []
    [body] = waiting.bodies(after_seconds=300)
    assert sorted(capture["agent_id"] for capture in body["captures"]) == ["one", "two"]
    lines, metrics = output()
    [error] = [line for line in lines if line["level"] == "ERROR"]
    assert (error["message"], error["count"]) == ("notifications were not published", 2)
    assert "NotFound" in error["reason"]
    assert (metrics[0]["NotificationsFailed"], metrics[0]["NotificationsPublished"]) == ([2.0], [0.0])


def test_any_other_event_is_answered_with_a_report(invoke, answers, published):
    answers["two"] = 404
    report = invoke({"agent_ids": ["one", "two"]})
    assert sorted(report.pop("outcomes"), key=str) == sorted(published.bodies(), key=str)
    assert {name: value for name, value in report.items() if value} == {"asked": 2, "requested": 1, "rejected": 1}


@pytest.mark.parametrize(
    "event",
    [{"agent_id": "one"}, {"Records": [{"eventSource": "aws:sqs", "body": '["one"]'}]}],
    ids=["by hand", "a record without an ID"],
)
@pytest.mark.usefixtures("nothing_is_published_or_kept")
def test_an_event_that_cannot_be_requeued_ends_in_an_error(invoke, event):
    with pytest.raises(NotSavedError, match=r"^the capture was not requeued: .*NonExistentQueue"):
        invoke(event)


@pytest.mark.parametrize("event", [None, [], "", 7, {}])
def test_an_event_that_names_no_one_is_no_error(invoke, event):
    assert invoke(event)["rejected"] == 1


# ------------------------------------------------------------------ its settings


@pytest.mark.parametrize(
    "name",
    [
        *("TOKEN_SECRET_ARN", "OUTCOME_TOPIC_ARN", "CAPTURE_QUEUE_URL", "DEAD_LETTER_QUEUE_URL"),
        *("CAPTURES_TABLE", "CLOUD_BACKUP_REGION"),
    ],
)
def test_a_setting_that_is_missing_is_named(monkeypatch, invoke, name):
    monkeypatch.delenv(name)
    with pytest.raises(SettingError, match=f"^{name} is not set$"):
        invoke({"agent_id": "one"})


def test_without_a_cool_down_agents_are_not_claimed(*, monkeypatch, invoke, items, output, published):
    monkeypatch.setenv("COOL_DOWN_SECONDS", "0")
    invoke(sqs_event(first="one"))
    invoke(sqs_event(second="one"))
    assert [notification["status"] for notification in published.bodies()] == ["requested", "requested"]
    assert {line["level"] for line in output()[0]} == {"INFO"}
    assert items("AGENT#") == []


def test_without_a_deadline_log_files_are_not_watched(monkeypatch, invoke, waiting):
    monkeypatch.setenv("CAPTURE_DEADLINE_SECONDS", "0")
    invoke(sqs_event(first="one"))
    assert waiting.messages(after_seconds=900) == []


@pytest.mark.parametrize("is_published", [True, False])
def test_the_signed_link_is_nowhere_but_in_the_notification_and_only_where_it_may_be(
    *, monkeypatch, invoke, answers, watched, published, waiting, capsys, is_published
):
    monkeypatch.setenv("PUBLISH_DOWNLOAD_URL", str(is_published).lower())
    answers.update(done="completed", uploading="started")
    invoke(sqs_event(record=watched("done", "uploading")))
    [notification] = published.messages()
    [requeue] = waiting.messages(after_seconds=900)
    assert ("temp_url_sig" in notification["Body"]) is is_published
    assert "temp_url_sig" not in requeue["Body"] + capsys.readouterr().out


@pytest.mark.parametrize(("is_chat", "is_published"), [(True, True), (True, False), (False, True)])
def test_who_subscribes_over_https_gets_a_chats_form_where_it_is_wanted(
    *, monkeypatch, invoke, sns, topic_arn, wire, answers, watched, is_chat, is_published
):
    monkeypatch.setenv("CHAT_MESSAGES", str(is_chat).lower())
    monkeypatch.setenv("PUBLISH_DOWNLOAD_URL", str(is_published).lower())
    posted = wire.post("https://chat.example/")
    sns.subscribe(TopicArn=topic_arn, Protocol="https", Endpoint="https://chat.example/")
    answers["one"] = "completed"
    invoke(sqs_event(record=watched("one")))
    message = json.loads(posted.calls[-1].request.body)["Message"]
    assert json.loads(message).get("source") == ("custom" if is_chat else None)
    assert ("temp_url_sig" in message) is is_published


@pytest.mark.parametrize(
    ("is_enabled", "message"), [("true", "its rotation was asked for"), ("false", "put another one")]
)
def test_another_token_is_asked_for_where_the_secret_is_rotated(
    *, monkeypatch, invoke, answers, output, is_enabled, message
):
    monkeypatch.setenv("ROTATION_ENABLED", is_enabled)
    answers["one"] = 401
    invoke(sqs_event(record="one"))
    [deferred] = [line for line in output()[0] if line["message"] == "deferred"]
    assert deferred["detail"].endswith(f" holds a token that the API refuses; {message}")


# ------------------------------------------------------------------ what it logs and measures


def test_every_line_of_the_log_names_the_request(invoke, output):
    invoke({"agent_ids": ["one", "two"]})
    lines, _ = output()
    assert {line["function_request_id"] for line in lines} == {"request-id"}
    assert lines[-1]["message"] == "done"
    assert (lines[-1]["asked"], lines[-1]["counts"]["requested"]) == (2, 2)


def test_every_status_but_waiting_has_a_metric():
    assert METRICS.keys() == {*Status, DEFERRED} - {Status.WAITING}


def test_every_count_is_measured(*, invoke, answers, watched, overdue, measured):
    answers.update(two=404, three=503, overdue=503, done="completed", away="requested", late="started")
    event = sqs_event(
        first="one two three",
        second=watched("done", "away", activated_at=datetime.now(UTC) - timedelta(seconds=100)),
        third=watched("late", ago=timedelta(days=1)),
        fourth=overdue,
    )
    invoke(event)
    invoke(sqs_event(fifth="one"))
    values = measured()
    [seconds] = values.pop("CaptureSeconds")
    assert 60 <= seconds < 120
    assert values == {
        "ColdStarts": [1],
        "CapturesAsked": [3, 1],
        "CapturesRequested": [1],
        "CapturesRejected": [1],
        "CapturesDeferred": [1],
        "CapturesFailed": [1],
        "CapturesCompleted": [1],
        "CapturesExpired": [1],
        "CapturesDuplicate": [1],
        # The last of them is the summary of a job whose only agent is a duplicate.
        "NotificationsPublished": [6, 2],
        "JobsDone": [1],
        # A request is accepted, three looks and a question for an agent's status are answered.
        "ApiResponses2xx": [5],
        "ApiResponses4xx": [1],
        "ApiResponses5xx": [2],
    }
    assert {*METRICS.values()} < values.keys()


@pytest.mark.parametrize(("status", "measured_as"), [(202, None), (403, [1]), (503, [1])])
def test_an_activation_that_fails_is_measured_and_logged(
    *, invoke, answers, watched, wire, output, status, measured_as
):
    wire.post("https://dfw.backup.api.rackspacecloud.com/v2/110011/events", status=status, json={"message": "No."})
    answers["one"] = "requested"
    invoke(sqs_event(record=watched("one")))
    lines, metrics = output()
    assert metrics[0].get("ActivationsFailed") == measured_as
    assert [line["detail"] for line in lines if line["message"] == "agents were not activated"] == (
        ["DFW: No."] if measured_as else []
    )


def test_sums_that_are_published_are_measured_and_logged(invoke, answers, output):
    answers.update(one=404, two=404)
    invoke(sqs_event(first="one not@good", second="two three"))
    lines, metrics = output()
    assert metrics[0]["JobsDone"] == [1.0]
    assert metrics[0]["NotificationsPublished"] == [5.0]
    [done] = [line for line in lines if line["message"] == "job done"]
    assert (done["job_id"], done["revision"], done["asked"], done["counts"]["rejected"]) == ("first", 1, 2, 2)


def test_endings_that_are_not_counted_are_measured_and_measured_as_endings_once(
    *, invoke, answers, dynamodb, measured, waiting
):
    answers.update(one=404)
    dynamodb.delete_table(TableName="CapturesTable")
    invoke(sqs_event(first="one"))
    [message] = waiting.messages(after_seconds=300)
    invoke(sqs_event(again=message["Body"]))
    values = measured()
    assert values["JobCountsFailed"] == [1, 1]
    assert (values["CapturesAsked"], values["CapturesRejected"]) == ([1], [1])
    assert "JobsDone" not in values


def test_every_answer_of_the_api_is_measured_by_its_class_and_so_is_none(invoke, answers, measured):
    answers.update(moved=302, gone=404, busy=503, odd=999, cut=requests.ConnectionError("broken"))
    invoke({"agent_ids": ["one", "two", "moved", "gone", "busy", "odd", "cut"]})
    values = measured()
    assert {metric: values[metric] for metric in RESPONSES.values()} == {
        "ApiResponses2xx": [2],
        "ApiResponses3xx": [1],
        "ApiResponses4xx": [1],
        "ApiResponses5xx": [1],
        "ApiNoResponse": [2],
    }


def test_an_agent_is_asked_for_once_however_often_its_capture_comes_back(invoke, answers, waiting, measured):
    answers["one"] = 503
    invoke(sqs_event(first="one not@good"))
    [body] = waiting.messages(after_seconds=900)
    invoke(sqs_event(second=body["Body"]))
    values = measured()
    assert (values["CapturesAsked"], values["CapturesDeferred"]) == ([2], [1, 1])


@pytest.mark.parametrize("secret", ['{"token": "refused", "project_id": "110011"}', "{}"], ids=["refused", "none"])
def test_a_token_that_the_api_does_not_take_and_one_that_is_not_there_are_measured(
    *, invoke, answers, secrets, secret_arn, measured, secret
):
    secrets.put_secret_value(SecretId=secret_arn, SecretString=secret)
    answers["one"] = 401
    invoke({"agent_id": "one"})
    assert measured()["TokenRefused"] == [1]


def test_other_reasons_to_call_no_further_are_no_fault_of_the_token(monkeypatch, invoke, answers, output):
    monkeypatch.setenv("CONCURRENCY", "1")
    agents = [f"agent-{number}" for number in range(5)]
    answers.update(dict.fromkeys(agents, 503))
    invoke({"agent_ids": agents})
    lines, metrics = output()
    assert [line["reason"] for line in lines if line["message"] == "the circuit breaker is open"] == ["temporary"]
    assert "TokenRefused" not in metrics[0]


def saved_queries():
    """The queries of template.yaml, those of the dashboard included, by where they are."""
    template = translate()
    resources = {name: resolve(template, each) for name, each in template["Resources"].items()}
    queries = {
        name: each["Properties"]["QueryString"]
        for name, each in resources.items()
        if each["Type"] == "AWS::Logs::QueryDefinition"
    }
    widgets = json.loads(resources["Dashboard"]["Properties"]["DashboardBody"])["widgets"]
    [shown] = [each["properties"]["query"] for each in widgets if each["type"] == "log"]
    return queries | {"Dashboard": shown.partition("|")[2]}


QUERIES = saved_queries()
QUERY_WORDS = {
    *("fields", "filter", "sort", "limit", "stats", "by", "as", "and", "or", "in", "like", "asc", "desc"),
    *("count", "latest"),
}


def fields_of(query):
    """Return the fields that a query names, but for those that it makes itself or that CloudWatch adds."""
    bare = re.sub(r"'[^']*'|\"[^\"]*\"", "", query)
    made = re.findall(r" as (\w+)", bare)
    return set(re.findall(r"(?<![@\w])[a-z]\w*", bare)) - QUERY_WORDS - set(made)


@pytest.fixture
def logged(*, invoke, answers, watched, overdue, output):
    """What is logged of captures with every outcome, by field: each value."""
    answers.update(two=404, three=503, overdue=503, done="completed")
    invoke(sqs_event(first="one two three", second=watched("done"), third=overdue))
    lines, _ = output()
    return {name: [line[name] for line in lines if name in line] for line in lines for name in line}


@pytest.mark.parametrize("name", QUERIES)
def test_every_field_of_a_saved_query_is_logged(logged, name):
    fields = fields_of(QUERIES[name])
    assert len(fields) >= 4
    assert fields <= logged.keys()


@pytest.mark.parametrize(("name", "field"), [("SlowestQuery", "seconds"), ("RefusalsQuery", "reason")])
def test_a_field_that_a_saved_query_sorts_or_counts_by_has_values(logged, name, field):
    assert field in fields_of(QUERIES[name])
    assert [value for value in logged[field] if value]


@pytest.mark.parametrize("name", QUERIES)
def test_every_value_that_a_saved_query_looks_for_is_logged(logged, name):
    for field, value in re.findall(r"(\w+) = [\"'](\w+)[\"']", QUERIES[name]):
        assert value in logged[field] or (field, value) == ("level", "ERROR")
    for found in re.findall(r"status in \[([^]]+)\]", QUERIES[name]):
        assert set(re.findall(r"\w+", found)) <= {status.value for status in Status}


def test_only_the_first_invocation_of_an_instance_is_a_cold_start(invoke, measured):
    invoke({"agent_id": "one"})
    invoke({"agent_id": "two"})
    assert measured()["ColdStarts"] == [1]


def test_an_outcome_is_logged_with_its_alarm_and_how_long_it_took(invoke, answers, watched, output):
    answers["done"] = "completed"
    invoke(sqs_event(record=watched("done")))
    [line] = [line for line in output()[0] if line["message"] == "outcome"]
    assert (line["trigger_type"], line["trigger_name"]) == ("alarm", "backup failed")
    assert 60 <= line["seconds"] < 120


def test_each_capture_of_a_large_event_is_measured(invoke, answers, watched, measured):
    agents = [f"agent-{number}" for number in range(250)]
    answers.update(dict.fromkeys(agents, "completed"))
    invoke(sqs_event(record=watched(*agents)))
    values = measured()
    assert (len(values["CaptureSeconds"]), sum(values["CapturesCompleted"])) == (250, 250)
    assert all(60 <= seconds < 120 for seconds in values["CaptureSeconds"])


def test_metrics_are_in_one_namespace_with_their_units(invoke, output):
    invoke({"agent_id": "one"})
    [line] = output()[1]
    [metrics] = line["_aws"]["CloudWatchMetrics"]
    assert (metrics["Namespace"], metrics["Dimensions"]) == ("AgentLogCapture", [["service"]])
    assert {metric["Name"]: metric["Unit"] for metric in metrics["Metrics"]} == {
        "ColdStarts": "Count",
        "CapturesAsked": "Count",
        "ApiResponses2xx": "Count",
        "CapturesRequested": "Count",
        "NotificationsPublished": "Count",
    }
