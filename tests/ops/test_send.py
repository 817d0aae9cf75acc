import io
import json
import re
import sys
from collections import Counter
from types import SimpleNamespace

import boto3
import pytest
from botocore.client import BaseClient
from botocore.exceptions import ReadTimeoutError

from ops.errors import OperatorError
from ops.send import read_list

FLEET = [f"agent-{number:05}" for number in range(6000)]


@pytest.fixture
def write(tmp_path):
    def write(text):
        path = tmp_path / "agents.txt"
        path.write_text(text, encoding="utf-8")
        return str(path)

    return write


@pytest.fixture
def lost(monkeypatch):
    """Makes the `at`th batch fail: before it is served, or after, as a response that is lost."""

    def lose(at, error, *, is_served):
        calls = Counter()
        call = BaseClient._make_api_call  # noqa: SLF001 (every call of every client passes here)

        def make_api_call(client, operation, parameters):
            calls[operation] += 1
            fails = operation == "SendMessageBatch" and calls[operation] == at
            answer = call(client, operation, parameters) if is_served or not fails else None
            if fails:
                raise error
            return answer

        monkeypatch.setattr(BaseClient, "_make_api_call", make_api_call)

    return lose


def sent(cloud):
    """Return the IDs in the queue, with the IDs of their triggers."""
    records = [json.loads(message.body)["Records"][0] for message in cloud.messages]
    return [(agent, record["messageId"]) for record in records for agent in record["body"].split(",")]


def progress_files(tmp_path):
    return list((tmp_path / "cache").rglob("*.json"))


def test_a_list_is_sent_in_messages_of_five_hundred_with_each_agent_once(run, cloud, write, tmp_path):
    code, said = run("send", write("\ufeff" + "\n".join(FLEET) + "\n" + ", ".join(FLEET[:7])))
    assert code == 0
    assert Counter(agent for agent, _ in sent(cloud)) == Counter(FLEET)
    assert len(cloud.messages) == 12
    assert "7 IDs are repeated" in said
    assert "12 of 12 messages sent" in said
    assert progress_files(tmp_path) == []


def test_ten_messages_of_the_longest_ids_fit_into_one_batch(run, cloud, write):
    longest = [f"{number:0128}" for number in range(5000)]
    code, said = run("send", write("\n".join(longest)))
    assert code == 0
    assert re.findall(r"(\d+) of 10 messages sent", said) == ["10"]
    assert len(sent(cloud)) == 5000


def test_bad_ids_are_named_with_their_lines_and_nothing_is_sent(run, cloud, write):
    code, said = run("send", write("agent_id\nagent-2\nagent/3, ähm\n"))
    assert code == 2
    assert "line 1: 'agent_id' is not an agent ID" in said
    assert "line 3: 'agent/3' is not an agent ID\nline 3: 'ähm' is not an agent ID" in said
    assert "nothing was sent" in said
    assert cloud.waiting == 0


def test_skip_bad_sends_the_rest(run, cloud, write):
    code, said = run("send", write("agent-1\nagent/3\n"), "--skip-bad")
    assert code == 0
    assert "line 2" in said
    assert [agent for agent, _ in sent(cloud)] == ["agent-1"]


def test_a_list_may_have_quotation_marks_semicolons_and_braces(run, cloud, write):
    code, _ = run("send", write('"agent-1";{agent-2}\n'))
    assert code == 0
    assert [agent for agent, _ in sent(cloud)] == ["agent-1", "agent-2"]


def test_a_list_may_come_from_the_standard_input(run, cloud, monkeypatch):
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"agent-1,agent-2")))
    code, _ = run("send", "-")
    assert code == 0
    assert [agent for agent, _ in sent(cloud)] == ["agent-1", "agent-2"]


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt(), ReadTimeoutError(endpoint_url="sqs")], ids=["stopped", "lost"]
)
def test_an_interrupted_list_continues_without_sending_confirmed_messages_again(
    run, cloud, write, lost, tmp_path, error
):
    path = write("\n".join(FLEET))
    lost(2, error, is_served=False)
    code, said = run("send", path)
    assert code == 2
    assert "un the same command again to send the rest" in said
    assert len(cloud.messages) == 10
    assert str(*progress_files(tmp_path)) in said

    code, said = run("send", path)
    assert code == 0
    assert "10 of 12 messages were sent" in said
    assert Counter(agent for agent, _ in sent(cloud)) == Counter(FLEET)
    assert progress_files(tmp_path) == []


def test_a_message_sent_again_after_a_lost_response_is_the_same_trigger_and_is_requested_once(
    run, api, cloud, write, lost
):
    agents = FLEET[:20]
    api.add_agents(*agents)
    token = json.dumps({"token": api.issue_token(lives_seconds=10**7), "project_id": api.project_id})
    boto3.client("secretsmanager").put_secret_value(SecretId=cloud.secret_arn, SecretString=token)
    path = write("\n".join(agents))
    lost(1, ReadTimeoutError(endpoint_url="sqs"), is_served=True)
    assert run("send", path)[0] == 2
    assert run("send", path)[0] == 0
    assert len(sent(cloud)) == 40
    assert len(set(sent(cloud))) == 20

    cloud.drain()
    assert api.posts == Counter(agents)
    assert {notification["status"] for notification in cloud.notifications()} == {"requested", "captured"}


def test_the_same_list_sent_later_is_a_new_trigger(run, cloud, write):
    path = write("agent-1")
    assert [run("send", path)[0], run("send", path)[0]] == [0, 0]
    assert len(set(sent(cloud))) == 2


def test_the_backup_region_is_sent_with_the_agents(run, cloud, write):
    assert run("send", write("agent-1"), "--backup-region", "ord")[0] == 0
    [message] = cloud.messages
    [record] = json.loads(message.body)["Records"]
    assert json.loads(record["body"]) == {"agent_ids": ["agent-1"], "region": "ORD"}


def test_a_missing_file_is_named(run):
    code, said = run("send", "nowhere.txt")
    assert code == 2
    assert "FILE=nowhere.txt cannot be read" in said


def test_an_empty_list_is_refused(run, write):
    code, said = run("send", write(" \n,"))
    assert code == 2
    assert "no agent ID in the list" in said


@pytest.mark.parametrize(("content", "why"), [(b"\xff\xfe", "UTF-8"), (b'{"agent_ids": []}', "JSON")])
def test_a_list_that_is_not_plain_text_is_refused(content, why):
    with pytest.raises(OperatorError, match=why):
        read_list(content, skip_bad=False)
