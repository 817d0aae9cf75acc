"""The main path on the embedded cloud: from anything that arrives to an outcome on the topic."""

import json
from collections import Counter

import boto3
import pytest

from agent_log_capture.handlers.capture import NotSavedError, lambda_handler
from local.cloud import EmbeddedCloud
from local.lambda_service import Context
from tests.faults.faulty_api import Fault

FLEET = [f"agent-{number:04}" for number in range(1000)]


@pytest.fixture
def parameters():
    """Log files are not followed here: `requested` is an ending."""
    return {"CaptureDeadlineSeconds": "0"}


def published(cloud):
    return {notification["agent_id"]: notification["status"] for notification in cloud.notifications()}


def put_secret(value):
    secrets = boto3.client("secretsmanager")
    secrets.put_secret_value(SecretId="TokenSecret", SecretString=value)


def reasons(dead_letters):
    return [letter["MessageAttributes"]["reason"]["StringValue"] for letter in dead_letters]


@pytest.mark.parametrize("parameters", [{"CaptureDeadlineSeconds": "0", "CoolDownSeconds": "0"}])
def test_a_thousand_agents_in_ten_messages_are_asked_once_each_by_five_hundred_and_a_fan_out(api, cloud):
    api.latency_seconds = 0.1
    api.add_agents(*FLEET)
    for start in range(0, 1000, 100):
        cloud.send("\n".join(FLEET[start : start + 100]))

    assert cloud.poll() == 10
    assert sum(api.asked.values()) == 500
    assert cloud.waiting == 50
    assert len(cloud.notifications()) == 500

    cloud.drain()
    assert api.asked == Counter(FLEET)
    assert api.posts == Counter(FLEET)
    assert len(cloud.notifications()) == 500
    assert api.most_at_once <= 32
    assert cloud.dead_letters() == []
    assert [(done["revision"], done["asked"], done["requested"]) for done in cloud.sums()] == [(1, 100, 100)] * 10


def test_a_list_that_fans_out_is_one_job_with_one_sum(api, cloud):
    api.pick_up_seconds = api.upload_seconds = 0
    api.add_agents(*FLEET[:-1])
    cloud.send(json.dumps({"agent_ids": [*FLEET, "not@good"], "job": "night shift"}))
    assert cloud.poll() == 1
    assert cloud.sums() == []
    cloud.drain()
    assert {notification["job_id"] for notification in cloud.notifications()} == {"night shift"}
    [done] = cloud.sums()
    assert (done["job_id"], done["revision"], done["asked"]) == ("night shift", 1, 1001)
    assert (done["requested"], done["rejected"]) == (999, 2)


@pytest.mark.parametrize("parameters", [{"CaptureDeadlineSeconds": "0", "RetryWindowSeconds": "60"}])
def test_what_is_replayed_corrects_the_sum(api, cloud):
    api.add_agents("down", "up")
    api.faults = lambda request: Fault(status=503) if request.target == "down" else None
    cloud.send('["down", "up"]')
    cloud.drain()
    api.faults = None
    [first] = cloud.sums()
    assert (first["revision"], first["requested"], first["failed"]) == (1, 1, 1)
    [letter] = cloud.dead_letters()
    cloud.send(letter["Body"])
    cloud.drain()
    [second] = cloud.sums()
    assert (second["revision"], second["requested"], second["failed"]) == (2, 2, 0)
    assert (first["job_id"], first["asked"]) == (second["job_id"], second["asked"])


@pytest.mark.parametrize(
    ("name", "statuses"),
    [
        ("alarm-action", ["requested"]),
        ("alarm-action-contributor", ["requested"]),
        ("alarm-action-many-series", []),
        ("dead-letter-wrapped", ["requested"]),
        ("eventbridge-alarm", ["requested"]),
        ("eventbridge-alarm-contributor", ["requested"]),
        ("eventbridge-alarm-many-series", []),
        ("eventbridge-alarm-metric-math", ["requested"] * 2),
        ("eventbridge-alarm-ok", []),
        ("eventbridge-alarm-tags", ["requested"]),
        ("eventbridge-request", ["requested"] * 2),
        ("lambda-destination", ["requested"] * 2),
        ("manual", ["requested"] * 3),
        ("pipes-sqs", ["requested"] * 2),
        ("sns-alarm", ["requested"]),
        ("sns-alarm-contributor", ["requested"]),
        ("sns-alarm-many-series", []),
        ("sqs-attributes", ["requested"]),
        ("sqs-list", ["rejected"] + ["requested"] * 7),
    ],
)
def test_every_sample_gets_its_outcomes_from_the_trigger_it_is_made_for(cloud, samples, name, statuses):
    cloud.deliver(samples[name])
    cloud.drain()
    assert sorted(notification["status"] for notification in cloud.notifications()) == statuses


def test_every_sample_has_its_outcomes_checked(samples):
    marks = test_every_sample_gets_its_outcomes_from_the_trigger_it_is_made_for.pytestmark
    assert {name for name, _ in marks[0].args[1]} == set(samples)


def test_a_test_by_hand_is_answered_with_a_report_whose_counts_add_up(api, cloud):
    api.add_agents("there", "busy", "forbidden")
    api.add_agents("forbidden", forbidden=True)
    api.inject("busy", Fault(status=503))

    report = cloud.invoke({"agent_ids": ["there", "busy", "forbidden", "unknown", "not an ID"]})

    assert len(report.pop("outcomes")) == 4
    assert report.pop("ignored") is None
    assert report.pop("asked") == sum(report.values()) == 5
    assert {name: count for name, count in report.items() if count} == {"requested": 1, "rejected": 3, "deferred": 1}


def test_an_ok_alarm_by_hand_is_answered_with_why_it_is_ignored(cloud, samples):
    report = cloud.invoke(samples["eventbridge-alarm-ok"])
    assert report["asked"] == 0
    assert "OK" in report["ignored"]


def test_a_busy_api_is_asked_again_after_the_time_it_named(api, cloud, clock):
    api.add_agents("busy")
    api.inject("busy", Fault(status=503, headers={"Retry-After": "600"}))
    cloud.send('["busy"]')
    cloud.poll()
    clock.advance(590)
    assert cloud.poll() == 0
    clock.advance(15)
    assert cloud.poll() == 1
    assert [(notification["status"], notification["attempts"]) for notification in cloud.notifications()] == [
        ("requested", 2)
    ]


def test_an_answer_that_is_lost_after_the_server_acted_is_found_and_not_asked_twice(api, cloud):
    api.add_agents("lost")
    api.inject("lost", Fault(drop="after", method="POST"))
    cloud.send('["lost"]')
    cloud.drain()
    [notification] = cloud.notifications()
    assert notification["status"] == "requested"
    assert notification["logfile"]["id"] == api.log_files("lost")[0]["id"]
    assert api.asked["lost"] == 1


def test_without_a_token_every_capture_waits_until_someone_puts_one(api, clock, token_json, parameters):
    api.add_agents(*FLEET[:40])
    with EmbeddedCloud(api, clock=clock, secret=None, parameters=parameters) as cloud:
        cloud.send("\n".join(FLEET[:40]))
        cloud.poll()
        assert cloud.notifications() == []
        assert api.asked == {}
        assert cloud.waiting > 0
        put_secret(token_json)
        cloud.drain()
        assert published(cloud) == dict.fromkeys(FLEET[:40], "requested")
        assert cloud.dead_letters() == []


def test_a_revoked_token_costs_a_few_calls_and_nothing_is_lost(api, cloud, token_json):
    api.add_agents(*FLEET[:200])
    api.revoke(json.loads(token_json)["token"])
    cloud.send("\n".join(FLEET[:200]))
    cloud.poll()
    assert sum(api.asked.values()) <= 2 * 32
    put_secret(json.dumps({"token": api.issue_token(lives_seconds=10**7), "project_id": api.project_id}))
    cloud.drain()
    assert published(cloud) == dict.fromkeys(FLEET[:200], "requested")


def test_after_a_day_of_outage_a_capture_is_failed_and_can_be_replayed_as_it_is(api, cloud):
    api.add_agents("down")
    api.inject("down", Fault(status=503, message="Down for maintenance.", times=10_000))
    cloud.send('["down"]')
    cloud.drain()
    [failed] = cloud.notifications()
    assert (failed["status"], failed["reason"], failed["message"]) == ("failed", "temporary", "Down for maintenance.")
    [letter] = cloud.dead_letters()
    assert reasons([letter]) == ["temporary"]
    assert letter["MessageAttributes"]["status"]["StringValue"] == "failed"
    assert letter["MessageAttributes"]["attempts"]["StringValue"] == str(failed["attempts"])

    api.add_agents("up-again")
    cloud.send(letter["Body"].replace("down", "up-again"))
    cloud.drain()
    [replayed] = cloud.notifications()
    assert (replayed["status"], replayed["attempts"]) == ("requested", 1)
    assert replayed["trigger"] == failed["trigger"]
    assert replayed["asked_at"] == failed["asked_at"]
    assert replayed["outcome_id"] != failed["outcome_id"]


def restore_topic(cloud):
    """Create the topic again, with its subscriber."""
    sns = boto3.client("sns")
    sns.create_topic(Name=cloud.topic_arn.rpartition(":")[2])
    endpoint = f"arn:aws:sqs:us-east-1:{cloud.queue_url.split('/')[-2]}:notifications"
    attributes = {"RawMessageDelivery": "true"}
    sns.subscribe(TopicArn=cloud.topic_arn, Protocol="sqs", Endpoint=endpoint, Attributes=attributes)


def test_what_cannot_be_published_waits_in_the_queue_until_it_can(api, cloud, clock, samples):
    api.add_agents("agent")
    boto3.client("sns").delete_topic(TopicArn=cloud.topic_arn)
    cloud.send('["agent"]')
    cloud.put_event(samples["eventbridge-alarm"])
    for _ in range(30):
        while cloud.poll():
            pass
        assert cloud.waiting > 0
        clock.advance(301)
    assert cloud.dead_letters() == []
    restore_topic(cloud)
    cloud.drain()
    published = sorted(notification["status"] for notification in cloud.notifications())
    # The topic that was restored has a subscriber of everything.
    assert published == ["job_done", "job_done", "requested", "requested"]
    assert set(api.asked.values()) == {1}


def test_a_message_at_which_the_function_crashes_again_and_again_lies_in_the_dead_letter_queue(cloud, clock):
    def crash(_):
        raise MemoryError

    cloud.send('["agent"]')
    for _ in range(5):
        assert (cloud.poll(crash), cloud.waiting) == (1, 1)
        clock.advance(1801)
    assert cloud.poll(crash) == 0
    assert [letter["Body"] for letter in cloud.dead_letters()] == ['["agent"]']


def test_with_too_short_a_timeout_nothing_is_done_and_the_message_ends_in_the_dead_letter_queue(api, cloud, clock):
    api.add_agents("agent")
    cloud.send('["agent"]')
    for _ in range(5):
        cloud.poll(lambda event: lambda_handler(event, Context("CaptureFunction", 60)))
        assert cloud.waiting == 1
        clock.advance(1801)
    cloud.drain()
    assert [letter["Body"] for letter in cloud.dead_letters()] == ['["agent"]']
    assert (api.asked, cloud.notifications()) == ({}, [])


def test_an_event_that_can_be_put_nowhere_is_tried_three_times_and_wrapped_so_that_it_can_be_replayed(
    api, cloud, samples
):
    boto3.client("sns").delete_topic(TopicArn=cloud.topic_arn)
    cloud.sqs.delete_queue(QueueUrl=cloud.queue_url)
    agent_id = "4ce1e131-ee75-4ec5-ac6f-7491091f2705"
    cloud.invoke_asynchronously(samples["eventbridge-alarm"])
    assert api.asked[agent_id] == 1
    [letter] = cloud.dead_letters()
    wrapped = json.loads(letter["Body"])
    assert wrapped["requestPayload"]["detail"] == samples["eventbridge-alarm"]["detail"]
    assert wrapped["responsePayload"]["errorType"] == NotSavedError.__name__

    cloud.sqs.create_queue(QueueName=cloud.queue_url.rpartition("/")[2])
    restore_topic(cloud)
    cloud.send(letter["Body"])
    cloud.drain()
    assert api.asked[agent_id] == 1
    assert [notification["status"] for notification in cloud.notifications()] == ["requested", "job_done"]
    assert cloud.dead_letters() == []


def test_what_a_topic_sends_back_by_mistake_is_ignored(api, cloud):
    api.add_agents("agent")
    boto3.client("sns").subscribe(
        TopicArn=cloud.topic_arn,
        Protocol="sqs",
        Endpoint=cloud.sqs.get_queue_attributes(QueueUrl=cloud.queue_url, AttributeNames=["QueueArn"])["Attributes"][
            "QueueArn"
        ],
    )
    cloud.send('["agent"]')
    cloud.drain()
    assert api.asked == {"agent": 1}
    assert len(cloud.notifications()) == 1
    assert cloud.dead_letters() == []
