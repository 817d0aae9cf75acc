import json

import pytest
from botocore.exceptions import ClientError

from agent_log_capture.adapters.outcome_topic import MAX_BYTES, OutcomeTopic
from agent_log_capture.domain.notifications import job_summary
from agent_log_capture.domain.notifications.notification import sns_message, to_json
from agent_log_capture.domain.outcome import Reason, Status
from tests.unit.domain.notifications.samples import JOB_DONE


@pytest.fixture
def subscriber(published):
    """A queue that is subscribed to the topic."""
    return published


@pytest.fixture
def outcomes(an_outcome):
    return lambda count, **changes: [an_outcome(agent_id=f"agent-{number}", **changes) for number in range(count)]


def agents_of(notifications):
    return [notification["agent_id"] for notification in notifications]


def size_of(entry):
    """Return the bytes that SNS counts: the message, and the names, types and values of the attributes."""
    attributes = entry["MessageAttributes"].items()
    texts = [entry["Message"], *(name + value["DataType"] + value["StringValue"] for name, value in attributes)]
    return sum(len(text.encode()) for text in texts)


def test_ten_outcomes_are_published_with_one_call(topic, topic_entries, subscriber, outcomes):
    assert topic.publish(outcomes(25)) == {}
    assert [len(call) for call in topic_entries.calls] == [10, 10, 5]
    assert agents_of(subscriber.bodies()) == agents_of(map(to_json, outcomes(25)))


def test_without_outcomes_there_is_no_call(topic, topic_entries):
    assert (topic.publish([]), topic_entries.calls) == ({}, [])


def test_a_job_summary_is_published_like_an_outcome(topic, subscriber):
    assert topic.publish_summaries([JOB_DONE]) == {}
    assert subscriber.bodies() == [job_summary.to_json(JOB_DONE)]


def test_a_subscriber_reads_the_notification_and_can_filter_by_its_attributes(topic, subscriber, an_outcome):
    outcome = an_outcome(message="é \U0001f600")
    topic.publish([outcome])
    [message] = subscriber.messages()
    assert json.loads(message["Body"]) == to_json(outcome)
    attributes = {
        name: (each["DataType"], each["StringValue"]) for name, each in message["MessageAttributes"].items()
    }
    assert attributes == {
        "status": ("String", "requested"),
        "agent_id": ("String", outcome.agent_id),
        "project_id": ("String", "110011"),
        "region": ("String", "DFW"),
        "trigger_type": ("String", "alarm"),
    }


def test_a_message_has_json_for_programs_and_a_mail_for_people(topic, topic_entries, an_outcome):
    outcome = an_outcome()
    topic.publish([outcome])
    [[entry]] = topic_entries.calls
    texts = json.loads(entry["Message"])
    assert entry["MessageStructure"] == "json"
    assert entry["Subject"] == f"requested {outcome.agent_id} - backup failed"
    assert sorted(texts) == ["default", "email"]
    assert json.loads(texts["default"]) == to_json(outcome)
    assert outcome.agent_id in texts["email"]


def test_with_a_chat_https_subscribers_receive_its_form_and_queues_the_json(
    sns, topic_arn, topic_entries, subscriber, an_outcome
):
    outcome = an_outcome()
    assert OutcomeTopic(sns, topic_arn, has_chat=True).publish([outcome]) == {}
    [[entry]] = topic_entries.calls
    assert entry["Message"] == sns_message(outcome, has_chat=True)["Message"]
    assert sorted(json.loads(entry["Message"])) == ["default", "email", "https"]
    assert subscriber.bodies() == [to_json(outcome)]


def test_a_filter_policy_picks_a_status(sns, topic, subscriber, an_outcome):
    [subscription] = sns.list_subscriptions()["Subscriptions"]
    sns.set_subscription_attributes(
        SubscriptionArn=subscription["SubscriptionArn"],
        AttributeName="FilterPolicy",
        AttributeValue=json.dumps({"status": ["rejected", "failed"]}),
    )
    topic.publish([an_outcome(status=status) for status in (Status.REQUESTED, Status.REJECTED, Status.FAILED)])
    assert [notification["status"] for notification in subscriber.bodies()] == ["rejected", "failed"]


def test_an_outcome_without_an_agent_has_no_empty_attribute(topic, subscriber, an_outcome):
    no_agent = {"agent_id": None, "region": None, "project_id": None}
    assert topic.publish([an_outcome(status=Status.REJECTED, reason=Reason.NO_AGENT_ID, **no_agent)]) == {}
    [message] = subscriber.messages()
    assert sorted(message["MessageAttributes"]) == ["status", "trigger_type"]


def test_a_call_carries_no_more_than_256_kib(topic, topic_entries, subscriber, outcomes):
    assert topic.publish(outcomes(10, message="é" * 30_000)) == {}
    sizes = [sum(map(size_of, call)) for call in topic_entries.calls]
    assert len(sizes) > 1
    assert max(sizes) <= MAX_BYTES
    assert len(subscriber.messages()) == 10


def test_an_entry_that_fails_in_a_successful_response_is_published_again(
    topic, topic_entries, subscriber, outcomes, pauses
):
    topic_entries.fail(lambda entry: entry["Subject"].split()[1] == "agent-11")
    assert topic.publish(outcomes(15)) == {}
    assert [len(call) for call in topic_entries.calls] == [10, 5, 1]
    assert sorted(agents_of(subscriber.bodies())) == sorted(agents_of(map(to_json, outcomes(15))))
    assert pauses == [0.2]


def test_entries_that_fail_three_times_are_reported(topic, topic_entries, subscriber, outcomes, pauses):
    topic_entries.fail(lambda entry: entry["Subject"].split()[1] in {"agent-1", "agent-3"}, calls=3)
    assert topic.publish(outcomes(4)) == dict.fromkeys([1, 3], "Throttled: slow down")
    assert agents_of(subscriber.bodies()) == ["agent-0", "agent-2"]
    assert pauses == [0.2, 0.6]


def test_an_entry_with_a_sender_fault_is_not_published_again(topic, topic_entries, outcomes, pauses):
    topic_entries.fail(lambda entry: entry["Subject"].split()[1] == "agent-1", is_sender_fault=True)
    assert topic.publish(outcomes(3)) == {1: "Throttled: slow down"}
    assert (len(topic_entries.calls), pauses) == (1, [])


def test_a_call_that_fails_does_not_affect_the_others(sns, topic, subscriber, outcomes):
    calls = []

    def fail_the_first(params, **_):
        calls.append(params)
        if len(calls) == 1:
            raise ClientError({"Error": {"Code": "KMSDisabled", "Message": "no key"}}, "PublishBatch")

    sns.meta.events.register("before-call.sns.PublishBatch", fail_the_first)
    failed = topic.publish(outcomes(12))
    assert (list(failed), len(calls)) == (list(range(10)), 2)
    assert "KMSDisabled" in failed[0]
    assert agents_of(subscriber.bodies()) == ["agent-10", "agent-11"]


def test_a_missing_topic_is_reported(sns, topic_arn, outcomes):
    failed = OutcomeTopic(sns, f"{topic_arn}-gone").publish(outcomes(2))
    assert (list(failed), "NotFound" in failed[0]) == ([0, 1], True)
