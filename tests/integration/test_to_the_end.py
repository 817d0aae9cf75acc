"""From a request to its end on the embedded cloud: followed, asked once, and published to everybody who asked."""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import boto3
import pytest
from botocore.exceptions import ClientError

from agent_log_capture.domain.outcome import Status
from local.cloud import EmbeddedCloud
from tests.faults.faulty_api import Fault

ROOT = Path(__file__).resolve().parents[2]
ENDINGS = {status.value for status in Status} - {"requested", "waiting"}
FLEET = [f"agent-{number:03}" for number in range(100)]
HOUR_SECONDS = 3600
DAY_SECONDS = 24 * HOUR_SECONDS

# Runs one invocation in a process of its own, which is killed when the function gets to a certain point.
KILLED = """
import json, os, sys
from unittest.mock import patch
from agent_log_capture.handlers.capture import lambda_handler
from local.lambda_service import Context

with patch(sys.argv[1], lambda *_, **__: os._exit(9)):
    lambda_handler(json.load(sys.stdin), Context("CaptureFunction", 300))
"""


def killed_at(point, exit_codes):
    def handler(event):
        process = subprocess.run(
            [sys.executable, "-c", KILLED, point],
            input=json.dumps(event).encode(),
            env=os.environ | {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"},
            stdout=subprocess.DEVNULL,
            check=False,
        )
        exit_codes.append(process.returncode)
        process.check_returncode()

    return handler


def alarm(samples, name, agent_ids):
    """An alarm that names its agents in its description."""
    event = json.loads(json.dumps(samples["eventbridge-alarm"]))
    event["resources"] = [f"arn:aws:cloudwatch:us-east-1:123456789012:alarm:{name}"]
    event["detail"]["alarmName"] = name
    event["detail"]["configuration"] = {"description": json.dumps({"agent_ids": agent_ids})}
    return event


def statuses(notifications):
    return [notification["status"] for notification in notifications]


def endings(notifications):
    """How each asker's each agent ended."""
    published = [notification for notification in notifications if notification["status"] in ENDINGS]
    return {(each["trigger"]["id"], each["agent_id"]): each["status"] for each in published}


def test_a_log_file_is_published_when_it_was_asked_for_and_when_it_is_there(api, cloud):
    api.add_agents("agent")
    cloud.send('["agent"]')
    cloud.drain()
    requested, captured = cloud.notifications()
    assert statuses([requested, captured]) == ["requested", "captured"]
    assert captured["logfile"]["id"] == requested["logfile"]["id"]
    assert captured["logfile"]["download_url"].startswith("https://")
    assert captured["logfile"]["download_expires_at"] > captured["at"]
    assert [link["rel"] for link in captured["logfile"]["links"]] == ["self", "logfile", "logfile_temp_url"]


@pytest.mark.parametrize("parameters", [{"PublishDownloadUrl": "false"}])
def test_the_signed_link_is_nowhere_when_it_is_not_to_be_published(api, cloud, caplog):
    api.add_agents("agent")
    cloud.send('["agent"]')
    cloud.drain()
    notifications = cloud.notifications()
    assert statuses(notifications) == ["requested", "captured"]
    assert notifications[1]["logfile"]["download_url"] is None
    assert len(caplog.records) > 2
    assert "temp_url_sig" not in f"{notifications} {[record.__dict__ for record in caplog.records]}"


def test_an_agent_that_is_offline_is_published_once_and_captured_when_it_is_back(api, cloud):
    api.add_agents("agent", online=False)
    cloud.send('["agent"]')
    cloud.drain(seconds=2 * HOUR_SECONDS)
    api.set_online("agent", online=True)
    cloud.drain()
    assert statuses(cloud.notifications()) == ["requested", "waiting", "captured"]


def test_an_agent_that_is_online_and_slow_is_not_reported_as_offline(api, cloud):
    api.add_agents("agent", pick_up_seconds=HOUR_SECONDS)
    cloud.send('["agent"]')
    cloud.drain()
    assert statuses(cloud.notifications()) == ["requested", "captured"]
    assert len(api.activations) == 1


def test_agents_are_activated_three_times_at_most_when_no_poll_learns_their_status(api, cloud):
    api.add_agents("agent", pick_up_seconds=HOUR_SECONDS)
    api.faults = lambda request: Fault(status=503) if request.segments[-1] == "status" else None
    cloud.send('["agent"]')
    cloud.drain()
    assert statuses(cloud.notifications()) == ["requested", "captured"]
    assert len(api.activations) == 3


def test_a_log_file_that_is_not_found_once_is_captured_all_the_same(api, cloud):
    api.add_agents("agent")
    cloud.send('["agent"]')
    cloud.poll()
    api.inject("agent", Fault(status=404, method="GET"))
    cloud.drain()
    assert statuses(cloud.notifications()) == ["requested", "captured"]


def test_an_agent_that_does_not_come_back_is_expired_at_the_deadline(api, cloud, clock):
    api.add_agents("agent", online=False)
    asked_at = clock.time()
    cloud.send('["agent"]')
    cloud.drain()
    requested, waiting, expired = cloud.notifications()
    assert statuses([requested, waiting, expired]) == ["requested", "waiting", "expired"]
    assert expired["reason"] == "not_uploaded"
    assert 24 * HOUR_SECONDS <= clock.time() - asked_at < 25 * HOUR_SECONDS
    assert cloud.dead_letters() == []


def test_a_log_file_that_is_deleted_is_expired_as_gone(api, cloud):
    api.add_agents("agent")
    cloud.send('["agent"]')
    cloud.poll()
    api.add_agents("agent")  # as new, without log files
    cloud.drain()
    assert [(notification["status"], notification["reason"]) for notification in cloud.notifications()] == [
        ("requested", None),
        ("expired", "gone"),
    ]


def test_a_request_that_was_accepted_without_a_name_is_followed_all_the_same(api, cloud):
    api.add_agents("agent")
    api.inject("agent", Fault(body=b"", headers={"Location": ""}, method="POST"))
    cloud.send('["agent"]')
    cloud.drain()
    requested, captured = cloud.notifications()
    assert requested["logfile"]["id"] is None
    assert captured["logfile"]["id"] == api.log_files("agent")[0]["id"]
    assert api.asked["agent"] == 1


def test_looks_that_fail_do_not_end_a_capture(api, cloud):
    api.add_agents("agent")
    cloud.send('["agent"]')
    cloud.poll()
    api.inject("agent", Fault(status=503, method="GET", times=5))
    api.inject("agent", Fault(drop="before", method="GET", times=3))
    cloud.drain()
    assert statuses(cloud.notifications()) == ["requested", "captured"]


def test_a_second_asker_within_the_cool_down_is_published_the_first_ones_log_file(api, cloud, samples):
    api.add_agents("agent")
    cloud.put_event(alarm(samples, "backup-first", ["agent"]))
    cloud.put_event(alarm(samples, "backup-second", ["agent"]))
    cloud.drain()
    requested, duplicate, captured = cloud.notifications()
    assert statuses([requested, duplicate, captured]) == ["requested", "duplicate", "captured"]
    assert duplicate["trigger"]["name"] == "backup-second"
    assert duplicate["logfile"]["id"] == requested["logfile"]["id"]
    assert "backup-first" in duplicate["message"]
    assert api.asked["agent"] == 1


def test_after_the_cool_down_an_agent_is_asked_again(api, cloud, clock):
    api.add_agents("agent")
    cloud.send('["agent"]')
    cloud.drain()
    clock.advance(601)
    cloud.send('["agent"]')
    cloud.drain()
    assert statuses(cloud.notifications()) == ["requested", "captured"] * 2
    assert api.asked["agent"] == 2


def test_force_bypasses_the_cool_down(api, cloud):
    api.add_agents("agent")
    cloud.send('["agent"]')
    cloud.send('{"agent_id": "agent", "force": true}')
    cloud.drain()
    assert Counter(statuses(cloud.notifications())) == {"requested": 2, "captured": 2}


def test_a_refused_request_is_not_remembered(api, cloud):
    cloud.send('["agent"]')
    cloud.drain()
    api.add_agents("agent")
    cloud.send('["agent"]')
    cloud.drain()
    assert statuses(cloud.notifications()) == ["rejected", "requested", "captured"]


def test_without_the_table_log_files_are_requested_and_the_log_says_so(api, cloud, caplog):
    api.add_agents("agent", "other")
    boto3.client("dynamodb").delete_table(TableName=os.environ["CAPTURES_TABLE"])
    cloud.send('["agent", "other"]')
    cloud.drain()
    assert Counter(statuses(cloud.notifications())) == {"requested": 2, "captured": 2}
    assert caplog.text.count("the table cannot be reached") == 1


def run_fleet(api, cloud, samples, *, halfway):
    """Ask a fleet of 100: 10 offline for good, 10 that come back, 10 named by two alarms and the list."""
    gone, late, wanted = FLEET[:10], FLEET[10:20], FLEET[20:30]
    api.add_agents(*FLEET)
    api.add_agents(*gone, *late, online=False)
    cloud.put_event(alarm(samples, "backup-first", wanted))
    cloud.put_event(alarm(samples, "backup-second", wanted))
    cloud.send("\n".join(FLEET[:70]))
    cloud.poll()
    halfway()
    cloud.send("\n".join(FLEET[70:]))
    cloud.drain(seconds=2 * HOUR_SECONDS)
    for agent_id in late:
        api.set_online(agent_id, online=True)
    cloud.drain()
    return gone, late, wanted


def assert_all_is_well(api, cloud, gone, late, wanted):
    notifications = cloud.notifications()
    ended = endings(notifications)
    by_agent = {}
    for (_, agent_id), status in ended.items():
        by_agent.setdefault(agent_id, []).append(status)
    assert len(ended) == len(FLEET) + 2 * len(wanted)
    assert Counter(ended.values()) == {"captured": 90, "expired": 10, "duplicate": 20}
    assert all(by_agent[agent_id] == ["expired"] for agent_id in gone)
    assert all(by_agent[agent_id] == ["captured"] for agent_id in late)
    assert all(sorted(by_agent[agent_id]) == ["captured", "duplicate", "duplicate"] for agent_id in wanted)
    assert statuses(notifications).count("waiting") == 20
    assert api.posts == Counter(FLEET)
    assert cloud.dead_letters() == []


# A day is polled for in the test of an agent that does not come back.
@pytest.mark.parametrize("parameters", [{"CaptureDeadlineSeconds": str(4 * HOUR_SECONDS)}])
def test_every_asker_of_a_fleet_is_published_how_every_agent_ended_and_no_agent_is_asked_twice(api, cloud, samples):
    fleet = run_fleet(api, cloud, samples, halfway=lambda: None)
    assert_all_is_well(api, cloud, *fleet)


def test_a_token_that_is_revoked_in_the_middle_is_rotated_once_and_every_agent_ends_well(api, rotating, samples):
    fleet = run_fleet(api, rotating, samples, halfway=lambda: api.revoke(current_secret(rotating)["token"]))
    assert_all_is_well(api, rotating, *fleet)
    # the first token, and the one that takes the place of the revoked one
    assert rotating.rotations.asked == 2


@pytest.mark.parametrize(
    "point",
    [
        "agent_log_capture.domain.polling.PollPolicy.requested",
        "agent_log_capture.adapters.outcome_topic.OutcomeTopic.publish",
        "agent_log_capture.adapters.captures_table.CapturesTable.settle",
        "agent_log_capture.adapters.captures_table.CapturesTable.add_ended",
        "agent_log_capture.adapters.capture_queue.CaptureQueue.requeue",
    ],
    ids=["after the request", "before the notification", "before the claims", "before the job", "before it waits"],
)
def test_a_function_that_is_killed_asks_no_one_twice_and_reports_everybody(api, cloud, clock, point):
    agents = FLEET[:5]
    api.add_agents(*agents)
    cloud.send("\n".join(agents))
    exit_codes = []
    cloud.poll(killed_at(point, exit_codes))
    assert (exit_codes, cloud.waiting) == ([9], 1)
    clock.advance(1801)
    cloud.drain()
    notifications = cloud.notifications()
    assert set(endings(notifications).values()) == {"captured"}
    assert {notification["agent_id"] for notification in notifications} == set(agents)
    assert len({notification["outcome_id"] for notification in notifications}) == 2 * len(agents)
    assert api.posts == Counter(agents)


@pytest.fixture
def rotating(api, clock):
    """A stack that rotates its token, from nothing but a username and an API key."""
    api.add_account("operator", "the-api-key")
    secret = json.dumps({"username": "operator", "api_key": "the-api-key"})
    parameters = {"RotateToken": "true", "CaptureDeadlineSeconds": str(4 * HOUR_SECONDS)}
    with EmbeddedCloud(api, clock=clock, secret=secret, parameters=parameters) as cloud:
        cloud.rotate_secret()
        cloud.poll()
        yield cloud


def current_secret(cloud):
    answer = boto3.client("secretsmanager").get_secret_value(SecretId=cloud.secret_arn, VersionStage="AWSCURRENT")
    return json.loads(answer["SecretString"])


def test_from_a_username_and_an_api_key_the_first_rotation_makes_a_token(api, rotating):
    secret = current_secret(rotating)
    assert secret.keys() == {"username", "api_key", "token", "expires_at", "project_id"}
    assert secret["project_id"] == api.project_id
    api.add_agents("agent")
    rotating.send('["agent"]')
    rotating.drain()
    assert statuses(rotating.notifications()) == ["requested", "captured"]


@pytest.fixture
def deployed(api, clock):
    """A stack that rotates its token, as it is deployed: no one has put credentials yet."""
    with EmbeddedCloud(api, clock=clock, secret="{}", parameters={"RotateToken": "true"}) as cloud:
        yield cloud


def open_window(cloud, clock):
    """Let midnight UTC come, when Secrets Manager starts a rotation by the schedule; it tries it some times."""
    clock.advance(DAY_SECONDS - clock.time() % DAY_SECONDS)
    for _ in range(10):
        cloud.poll()


def put_secret(cloud, **fields):
    boto3.client("secretsmanager").put_secret_value(SecretId=cloud.secret_arn, SecretString=json.dumps(fields))


@pytest.mark.parametrize("before", [{}, {"username": "operator", "api_key": "mistyped"}], ids=["none", "wrong"])
def test_credentials_that_come_after_the_first_rotation_was_due_make_a_token_at_once(api, deployed, clock, before):
    api.add_account("operator", "the-api-key")
    put_secret(deployed, **before)
    open_window(deployed, clock)
    put_secret(deployed, username="operator", api_key="the-api-key")
    deployed.rotate_secret()
    deployed.poll()
    assert current_secret(deployed)["project_id"] == api.project_id


def test_captures_that_wait_for_credentials_start_the_rotation_by_themselves(api, deployed, clock):
    api.add_account("operator", "the-api-key")
    api.add_agents("agent")
    deployed.send('["agent"]')
    open_window(deployed, clock)
    put_secret(deployed, username="operator", api_key="the-api-key")
    deployed.drain()
    assert statuses(deployed.notifications()) == ["requested", "captured"]


def test_a_rotation_that_failed_as_often_as_it_is_tried_is_refused_again_and_tried_again(api, rotating, clock):
    before = current_secret(rotating)["token"]
    api.inject("tokens", Fault(status=503, times=5))
    open_window(rotating, clock)
    assert current_secret(rotating)["token"] == before
    refusal = r"A previous rotation isn't complete\. That rotation will be reattempted\."
    with pytest.raises(ClientError, match=refusal):
        rotating.rotate_secret()
    rotating.poll()
    assert current_secret(rotating)["token"] != before
