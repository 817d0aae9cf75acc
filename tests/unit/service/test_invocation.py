import json
import re
from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from datetime import timedelta
from threading import Event
from threading import enumerate as enumerate_threads

import pytest
import requests
from botocore.exceptions import ClientError

from agent_log_capture.domain import queue_message
from agent_log_capture.domain.capture import Job, Polling, Requesting
from agent_log_capture.domain.notifications.notification import to_json
from agent_log_capture.domain.outcome import Status, timestamp
from agent_log_capture.service import job_tracker, worker_pool
from agent_log_capture.service.invocation import CAPTURES_IN_AN_INVOCATION
from agent_log_capture.service.worker_pool import CALL_SECONDS, SAVING_SECONDS, SENDING_SECONDS, TooLittleTimeError

TOKEN = "first-token"
LOG_FILES = re.compile(r"https://dfw\.backup\.api\.rackspacecloud\.com/v2/110011/agents/([^/]+)/logfiles")
LOG_FILE = re.compile(LOG_FILES.pattern.replace("([^/]+)", "[^/]+") + "/log-of-([^/]+)")
STATUS = re.compile(LOG_FILES.pattern.replace("logfiles", "status"))
EVENTS = "https://dfw.backup.api.rackspacecloud.com/v2/110011/events"
DAY_SECONDS = 86_400


class Answers(dict):
    """What the API answers to each agent's request; 202 where nothing is said.

    A status, an error, or a function that returns a status.
    """

    def __init__(self):
        self.asked = Counter()


@dataclass
class Ends:
    """Where everything ends up."""

    published: object
    waiting: object
    dead: object


@pytest.fixture
def ends(published, waiting, dead):
    return Ends(published, waiting, dead)


@pytest.fixture(autouse=True)
def answers(wire):
    answers = Answers()

    def answer(request):
        agent_id = LOG_FILES.fullmatch(request.url)[1]
        answers.asked[agent_id] += 1
        found = answers.get(agent_id, 202)
        if isinstance(found, Exception):
            raise found
        found = found() if callable(found) else found
        return found, {}, json.dumps({"id": f"log-of-{agent_id}"} if found == 202 else {"message": "Its words."})

    wire.add_callback("POST", LOG_FILES, answer)
    return answers


@pytest.fixture
def looks(wire):
    """What the API answers to a look at a log file: a status, or a log file's state; such agents are offline."""
    looks = {}

    def answer(request):
        found = looks[LOG_FILE.fullmatch(request.url)[1]]
        return (found, {}, "") if isinstance(found, int) else (200, {}, json.dumps({"state": found}))

    wire.add_callback("GET", LOG_FILE, answer)
    wire.get(STATUS, json={"online": False})
    return looks


@pytest.fixture
def service(capture_service):
    return replace(capture_service, concurrency=4)


@pytest.fixture
def unfollowed(service):
    return replace(service, polls=replace(service.polls, deadline_seconds=0))


@pytest.fixture
def run(service):
    """Runs one invocation, and checks that its counts add up."""

    def run(event, service=service):
        report = service.run(event, request_id="request-id", remaining_millis=lambda: 300_000)
        assert sum(report.counts.values()) == report.asked
        return report

    return run


@pytest.fixture
def watched(a_capture, now):
    """Builds a message with captures whose log files were requested."""

    def build(*agent_ids, requested_at=now, **polling):
        captures = [
            a_capture(
                agent_id=agent_id,
                phase=Polling(log_file_id=f"log-of-{agent_id}", requested_at=requested_at, **polling),
            )
            for agent_id in agent_ids
        ]
        return {"captures": [queue_message.to_json(capture) for capture in captures]}

    return build


@pytest.fixture
def overdue(a_capture, now):
    """A capture whose retry window has passed."""
    return a_capture(agent_id="overdue", attempts=16, retry_from=now - timedelta(seconds=DAY_SECONDS))


def break_calls(client, operation, error=None):
    """Let every call of an operation end in an error."""
    error = error or ClientError({"Error": {"Code": "Broken", "Message": "it is"}}, operation)

    def fail(**_):
        raise error

    client.meta.events.register(f"before-call.*.{operation}", fail)


NOTIFICATION = {"version": "1", "status": "requested", "outcome_id": "x"}


def body_of(body):
    """Return JSON as it is, and words as a list: in a plain text, an agent ID has a digit."""
    if isinstance(body, str):
        return body if body.startswith("{") else json.dumps(re.findall(r"[^,\s]+", body))
    return json.dumps(body)


def sqs_event(**bodies):
    records = [
        {
            "eventSource": "aws:sqs",
            "messageId": message_id,
            "body": body_of(body),
        }
        for message_id, body in bodies.items()
    ]
    return {"Records": records}


def counted(report):
    return {name: count for name, count in report.counts.items() if count}


def agents_of(notifications):
    return sorted(notification["agent_id"] or "" for notification in notifications)


def test_every_agent_is_asked_and_its_outcome_is_published(run, answers, ends):
    answers.update(unknown=404, busy=503)
    report = run({"agent_ids": ["one", "two", "unknown", "busy"]})
    assert counted(report) == {"requested": 2, "rejected": 1, "deferred": 1}
    assert answers.asked == Counter(["one", "two", "unknown", "busy"])
    notifications = {notification["agent_id"]: notification for notification in ends.published.bodies()}
    assert {agent_id: notification["status"] for agent_id, notification in notifications.items()} == {
        "one": "requested",
        "two": "requested",
        "unknown": "rejected",
    }
    assert notifications["one"]["logfile"]["id"] == "log-of-one"
    assert notifications["unknown"]["message"] == "Its words."
    assert ends.waiting.bodies(after_seconds=4) == []
    [body] = ends.waiting.bodies(after_seconds=6)
    assert [(capture["agent_id"], capture["attempts"]) for capture in body["captures"]] == [("busy", 1)]
    assert (ends.dead.messages(), report.unsaved, report.notifications_published) == ([], {}, 3)


def test_the_report_is_what_an_invocation_by_hand_answers(run, answers, ends):
    answers.update(unknown=404, busy=503)
    report = run({"agent_ids": ["one", "unknown", "busy"]}).to_json()
    outcomes = report.pop("outcomes")
    assert report.pop("ignored") is None
    assert {name: count for name, count in report.items() if count} == {
        "asked": 3,
        "requested": 1,
        "rejected": 1,
        "deferred": 1,
    }
    assert report.keys() == {"asked", "deferred", *Status}
    assert sorted(outcomes, key=str) == sorted(ends.published.bodies(), key=str)


def test_what_is_ignored_is_reported_and_published_to_no_one(run, answers, log, ends):
    report = run(NOTIFICATION | {"agent_id": "one"})
    assert (report.asked, counted(report), answers.asked) == (0, {}, {})
    assert "notification that this function published" in report.ignored
    assert "notification that this function published" in log.getvalue()
    assert ends.published.messages() == []


def test_one_of_several_records_may_be_ignored(run, ends):
    report = run(sqs_event(first="one", second=NOTIFICATION))
    assert (report.ignored, counted(report), agents_of(ends.published.bodies())) == (None, {"requested": 1}, ["one"])


def test_an_event_that_names_no_agent_is_published_and_kept(run, answers, ends):
    report = run({"detail": "nothing"})
    [notification] = ends.published.bodies()
    [letter] = ends.dead.messages()
    assert (counted(report), report.unsaved, answers.asked) == ({"rejected": 1}, {}, {})
    assert (notification["status"], notification["reason"], notification["agent_id"]) == (
        "rejected",
        "no_agent_id",
        None,
    )
    assert json.loads(letter["Body"]) == {"detail": "nothing"}
    assert letter["MessageAttributes"]["reason"]["StringValue"] == "no_agent_id"


def test_of_an_event_with_good_and_bad_ids_only_the_bad_ones_are_kept(run, ends):
    bad = [f"bad {number}" for number in range(60)]
    report = run({"agent_ids": ["one", *bad]})
    assert counted(report) == {"requested": 1, "rejected": 60}
    assert agents_of(ends.published.bodies()) == ["", "", "one"]
    [letter] = ends.dead.bodies()
    assert letter == {"rejected": [{"agent_ids": bad}]}


def test_what_is_abandoned_is_published_and_can_be_replayed(run, answers, overdue, now, ends):
    answers["overdue"] = 503
    report = run(sqs_event(record={"captures": [queue_message.to_json(overdue)]}))
    assert (counted(report), report.unsaved) == ({"failed": 1}, {})
    [notification] = ends.published.bodies()
    assert (notification["status"], notification["reason"], notification["attempts"]) == ("failed", "temporary", 17)
    [letter] = ends.dead.messages()
    attributes = {name: value["StringValue"] for name, value in letter["MessageAttributes"].items()}
    assert attributes == {"reason": "temporary", "status": "failed", "attempts": "17", "trigger_type": "alarm"}

    del answers["overdue"]
    [replayed] = json.loads(letter["Body"])["captures"]
    assert queue_message.from_json(replayed, now) == replace(overdue, attempts=0, replays=1, retry_from=now)
    assert counted(run(sqs_event(replayed=letter["Body"]))) == {"requested": 1}
    [again] = ends.published.bodies()
    assert (again["attempts"], again["trigger"]) == (1, notification["trigger"])
    assert again["outcome_id"] != notification["outcome_id"]


def test_a_capture_that_cannot_be_published_goes_back_alone_and_is_published_later(
    *, run, answers, topic_entries, ends, now
):
    answers["three"] = 404
    topic_entries.fail(lambda entry: entry["Subject"] != "requested one", calls=3)
    report = run(sqs_event(record="one two three"))
    assert (counted(report), report.unsaved) == ({"requested": 1, "deferred": 2}, {})
    assert (report.notifications_published, report.notifications_failed) == (1, 2)
    assert agents_of(ends.published.bodies()) == ["one"]
    assert [agents_of(body["captures"]) for body in ends.waiting.bodies(after_seconds=34)] == [["one"]]
    [body] = ends.waiting.bodies(after_seconds=300)
    again = {capture["agent_id"]: queue_message.from_json(capture, now) for capture in body["captures"]}
    assert {agent_id: capture.attempts for agent_id, capture in again.items()} == {"two": 1, "three": 1}
    assert (again["two"].unconfirmed_since, again["three"].unconfirmed_since) == (now, None)

    assert counted(run(sqs_event(again=body))) == {"requested": 1, "rejected": 1}
    assert agents_of(ends.published.bodies()) == ["three", "two"]
    assert answers.asked == {"one": 1, "two": 1, "three": 2}


def test_only_a_record_that_cannot_be_published_or_requeued_is_kept(*, run, topic_entries, queue_entries):
    topic_entries.fail(lambda entry: entry["Subject"] == "requested two", calls=3)
    queue_entries.fail(lambda entry: '"two"' in entry["MessageBody"], is_sender_fault=True)
    report = run(sqs_event(first="one", second="two", third="three"))
    assert report.unsaved == {"second": "the capture was not requeued: Throttled: slow down"}
    assert counted(report) == {"requested": 2, "deferred": 1}


def test_what_is_abandoned_lies_in_the_dead_letter_queue_even_when_it_cannot_be_published(
    *, run, answers, overdue, topic_entries, ends
):
    answers["overdue"] = 503
    topic_entries.fail(lambda _: True, calls=6)
    report = run(sqs_event(record={"captures": [queue_message.to_json(overdue)]}, unreadable="{"))
    assert (counted(report), report.unsaved, report.notifications_published) == ({"failed": 1, "rejected": 1}, {}, 0)
    letters = [letter["MessageAttributes"]["reason"]["StringValue"] for letter in ends.dead.messages()]
    assert sorted(letters) == ["invalid_json", "temporary"]
    assert ends.waiting.messages(after_seconds=900) == []


def test_what_cannot_get_into_the_dead_letter_queue_is_not_published_either(
    *, run, answers, overdue, queue_entries, ends
):
    answers["overdue"] = 503
    queue_entries.fail(lambda entry: "MessageAttributes" in entry, calls=2, is_sender_fault=True)
    report = run(sqs_event(good="one", bad="two, not@good", abandoned={"captures": [queue_message.to_json(overdue)]}))
    assert report.unsaved == {"bad": "the dead letter was not sent: Throttled: slow down"}
    assert counted(report) == {"requested": 1, "deferred": 3}
    assert agents_of(ends.published.bodies()) == ["one"]
    assert answers.asked == {"one": 1, "overdue": 1}
    waiting = [body for seconds in (34, 300) for body in ends.waiting.bodies(after_seconds=seconds)]
    assert [agents_of(body["captures"]) for body in waiting] == [["one"], ["overdue"]]


def test_a_capture_that_is_not_requeued_keeps_its_record_and_no_other(*, run, unfollowed, answers, sqs, ends):
    answers.update(two=503, three=503)
    break_calls(sqs, "SendMessageBatch")
    report = run(sqs_event(first="one", second="two", third="three"), unfollowed)
    assert sorted(report.unsaved) == ["second", "third"]
    assert report.unsaved["second"].startswith("the capture was not requeued: ClientError: ")
    assert counted(report) == {"requested": 1, "deferred": 2}
    assert [(notification["status"], notification["job_id"]) for notification in ends.published.bodies()] == [
        ("requested", "first"),
        ("job_done", "first"),
    ]


def test_an_event_that_came_from_no_queue_is_kept_without_a_message_id(run, answers, sqs):
    answers["one"] = 503
    break_calls(sqs, "SendMessageBatch")
    assert list(run({"agent_id": "one"}).unsaved) == [None]


def test_more_than_500_captures_fan_out(run, service, answers, waiting):
    agents = [f"agent-{number}" for number in range(CAPTURES_IN_AN_INVOCATION + 250)]
    report = run(sqs_event(record=" ".join(agents)), replace(service, cool_down=timedelta()))
    assert counted(report) == {"requested": 500, "deferred": 250}
    assert answers.asked == Counter(agents[:500])
    assert agents_of(map(to_json, report.outcomes)) == sorted(agents[:500])
    bodies = waiting.bodies()
    assert [len(body["captures"]) for body in bodies] == [10] * 25
    requeue = [capture for body in bodies for capture in body["captures"]]
    assert [capture["agent_id"] for capture in requeue] == agents[500:]
    assert {capture["attempts"] for capture in requeue} == {0}


def test_captures_that_cannot_fan_out_keep_their_record(run, unfollowed, sqs):
    agents = [f"agent-{number}" for number in range(CAPTURES_IN_AN_INVOCATION + 1)]
    break_calls(sqs, "SendMessageBatch")
    report = run(
        sqs_event(first=" ".join(agents[:-1]), second=agents[-1]), replace(unfollowed, cool_down=timedelta())
    )
    assert list(report.unsaved) == ["second"]
    assert counted(report) == {"requested": 500, "deferred": 1}


def test_a_worker_that_raises_what_no_one_expected_keeps_its_record_and_no_other(run, answers, log, ends):
    answers["two"] = RuntimeError("no one expected this")
    report = run(sqs_event(first="one", second="two", third="three"))
    assert report.unsaved == {"second": "RuntimeError in a worker"}
    assert counted(report) == {"requested": 2, "deferred": 1}
    assert agents_of(ends.published.bodies()) == ["one", "three"]
    assert "no one expected this" in log.getvalue()


def test_an_error_while_publishing_ends_the_invocation_and_loses_no_one(run, sns):
    break_calls(sns, "PublishBatch", RuntimeError("no one expected this"))
    with pytest.raises(RuntimeError):
        run(sqs_event(record=" ".join(f"agent-{number}" for number in range(25))))


def test_outcomes_are_published_while_others_are_still_being_asked_for(run, answers, sns):
    is_published = Event()
    sns.meta.events.register("before-call.sns.PublishBatch", lambda **_: is_published.set())
    answers["last"] = lambda: 202 if is_published.wait(timeout=10) else 500
    agents = [f"agent-{number}" for number in range(20)]
    assert counted(run({"agent_ids": [*agents, "last"]})) == {"requested": 21}


def test_the_token_is_in_no_log_line(run, answers, overdue, log, ends):
    answers.update(
        two=RuntimeError("no one expected this"), three=requests.ReadTimeout("timed out"), four=401, five=403
    )
    answers["overdue"] = requests.ConnectionError("reset")
    run(sqs_event(first="one two three five", second={"captures": [queue_message.to_json(overdue)]}, third="{"))
    run(sqs_event(first="four"))
    said = [
        log.getvalue(),
        *map(str, [*ends.waiting.messages(after_seconds=900), *ends.dead.messages(), *ends.published.messages()]),
    ]
    assert len(said) > 5
    assert not [text for text in said if TOKEN in text]


# ------------------------------------------------------------------ the breaker and the clock


def test_a_refused_token_costs_no_more_calls_than_there_are_workers(run, answers, log, ends):
    agents = [f"agent-{number:03}" for number in range(100)]
    answers.update(dict.fromkeys(agents, 401))
    assert counted(run(sqs_event(record=" ".join(agents)))) == {"deferred": 100}
    assert 1 <= answers.asked.total() <= 4
    requeue = [capture for body in ends.waiting.bodies(after_seconds=120) for capture in body["captures"]]
    assert sorted(capture["agent_id"] for capture in requeue) == agents
    tried = {capture["agent_id"] for capture in requeue if capture["attempts"]}
    assert tried == set(answers.asked)
    lines = [json.loads(line) for line in log.getvalue().splitlines()]
    [breaker] = [line for line in lines if line["message"].startswith("the circuit breaker")]
    [not_tried] = [line for line in lines if line["message"] == "not tried"]
    assert (breaker["level"], breaker["reason"]) == ("WARNING", "token_refused")
    assert not_tried["count"] == 100 - len(tried)


def test_what_is_not_tried_waits_a_minute_or_more_in_few_messages(run, answers, ends):
    agents = [f"agent-{number:03}" for number in range(300)]
    answers.update(dict.fromkeys(agents, 503))
    assert counted(run(sqs_event(record=" ".join(agents)))) == {"deferred": 300}
    assert 5 <= answers.asked.total() <= 8
    early = [capture for body in ends.waiting.bodies(after_seconds=59) for capture in body["captures"]]
    assert {capture["agent_id"] for capture in early} == set(answers.asked)
    late = ends.waiting.bodies(after_seconds=120)
    assert len(late) == 30
    assert {capture["attempts"] for body in late for capture in body["captures"]} == {0}


def remaining(*seconds):
    """How much time is left: enough when an invocation starts, and then so much, the last of it for good."""
    left = iter([300, *seconds])
    return lambda: round(1000 * next(left, seconds[-1]))


def test_an_invocation_that_has_no_time_left_for_a_call_puts_everything_back_at_once(service, answers, ends):
    report = service.run(
        sqs_event(record="one two"),
        request_id="request-id",
        remaining_millis=remaining(CALL_SECONDS + SAVING_SECONDS - 0.001),
    )
    assert (counted(report), report.unsaved, answers.asked) == ({"deferred": 2}, {}, {})
    [body] = ends.waiting.bodies()
    assert [(capture["agent_id"], capture["attempts"]) for capture in body["captures"]] == [("one", 0), ("two", 0)]


def test_an_invocation_that_has_no_time_left_to_send_anything_keeps_its_source(service, answers, ends):
    report = service.run(
        sqs_event(good="one", bad="{", overdue="two"),
        request_id="request-id",
        remaining_millis=remaining(SENDING_SECONDS - 0.001),
    )
    assert sorted(report.unsaved) == ["bad", "good", "overdue"]
    assert {why.rpartition(": ")[2] for why in report.unsaved.values()} == {"the invocation has no time left for it"}
    assert (counted(report), answers.asked) == ({"deferred": 3}, {})
    assert (ends.waiting.messages(), ends.dead.messages(), ends.published.messages()) == ([], [], [])


def test_an_invocation_that_starts_with_too_little_time_for_a_call_is_an_error_and_does_nothing(
    service, answers, ends
):
    with pytest.raises(TooLittleTimeError, match=r"starts with 84\.0 s left.* needs 85 s.*Timeout"):
        service.run(
            sqs_event(record="one", bad="{"),
            request_id="request-id",
            remaining_millis=lambda: 1000 * (CALL_SECONDS + SAVING_SECONDS - 1),
        )
    assert (answers.asked, ends.waiting.messages(), ends.dead.messages(), ends.published.messages()) == (
        {},
        [],
        [],
        [],
    )


def test_a_call_that_takes_too_long_is_abandoned_and_its_worker_does_nothing_further(
    *, run, answers, ends, items, monkeypatch, now
):
    monkeypatch.setattr(worker_pool, "CALL_SECONDS", 0.05)
    monkeypatch.setattr(worker_pool, "_CHECK_SECONDS", 0.01)
    released = Event()
    answers["hangs"] = lambda: 202 if released.wait(timeout=10) else 500
    assert counted(run(sqs_event(record="hangs one"))) == {"requested": 1, "deferred": 1}
    [body] = ends.waiting.bodies(after_seconds=29)
    [requeue] = [queue_message.from_json(capture, now) for capture in body["captures"]]
    assert (requeue.agent_id, requeue.unconfirmed_since, requeue.attempts) == ("hangs", now, 1)

    left_behind = [thread for thread in enumerate_threads() if thread.name.startswith("capture")]
    released.set()
    for thread in left_behind:
        thread.join(timeout=10)
    states = {item["pk"]: (item["state"], item["claimed_until"]) for item in items("AGENT#")}
    assert states["AGENT#110011#DFW#hangs"] == ("claimed", "1970-01-01T00:00:00.000Z")
    assert states["AGENT#110011#DFW#one"][0] == "accepted"
    assert agents_of(ends.published.bodies()) == ["one"]


def test_when_time_is_up_what_still_runs_is_abandoned_and_what_never_began_is_untried(
    *, service, answers, ends, monkeypatch
):
    monkeypatch.setattr(worker_pool, "_CHECK_SECONDS", 0.01)
    released, begun = Event(), Event()
    answers["hangs"] = lambda: begun.set() or (202 if released.wait(timeout=10) else 500)
    report = replace(service, concurrency=1).run(
        sqs_event(record="hangs one two"),
        request_id="request-id",
        remaining_millis=lambda: 1000 * SAVING_SECONDS if begun.is_set() else 300_000,
    )
    released.set()
    assert (counted(report), answers.asked) == ({"deferred": 3}, {"hangs": 1})
    assert [agents_of(body["captures"]) for body in ends.waiting.bodies()] == [["one", "two"]]
    assert [agents_of(body["captures"]) for body in ends.waiting.bodies(after_seconds=29)] == [["hangs"]]


def test_each_log_line_names_its_trigger_and_its_outcome(run, answers, log):
    answers.update(two=404, three=503)
    run(sqs_event(first="one", second="two", third="three"))
    lines = [json.loads(line) for line in log.getvalue().splitlines()]
    assert {
        (line["correlation_id"], line["message"], line.get("agent_id"), line.get("http_status")) for line in lines
    } == {
        ("first", "outcome", "one", 202),
        ("second", "outcome", "two", 404),
        ("second", "job done", None, None),
        ("third", "deferred", "three", 503),
    }
    assert {line["job_id"] for line in lines if line["message"] == "outcome"} == {"first", "second"}


# ------------------------------------------------------------------ polling and the cool-down


def test_a_log_file_that_was_requested_waits_for_its_first_look(run, ends, now):
    assert counted(run({"agent_ids": ["one", "two"]})) == {"requested": 2}
    assert ends.waiting.bodies(after_seconds=29) == []
    [body] = ends.waiting.bodies(after_seconds=34)
    captures = [queue_message.from_json(capture, now) for capture in body["captures"]]
    assert {capture.agent_id: capture.phase for capture in captures} == {
        agent_id: Polling(log_file_id=f"log-of-{agent_id}", requested_at=now) for agent_id in ("one", "two")
    }
    assert {capture.attempts for capture in captures} == {1}


def test_without_a_deadline_it_does_not(run, unfollowed, ends):
    assert counted(run({"agent_id": "one"}, unfollowed)) == {"requested": 1}
    assert ends.waiting.bodies(after_seconds=900) == []


def test_every_agent_that_is_watched_is_published_or_watched_further(*, run, looks, watched, answers, ends, now):
    looks.update(done="completed", gone=404, refused=403, busy=503, uploading="started", offline="requested")
    activated_at = now - timedelta(seconds=100)
    report = run(sqs_event(record=watched(*looks, is_missing=True, activated_at=activated_at, activations=1)))
    assert counted(report) == {"captured": 1, "expired": 1, "rejected": 1, "waiting": 1, "deferred": 2}
    assert {notification["agent_id"]: notification["status"] for notification in ends.published.bodies()} == {
        "done": "captured",
        "gone": "expired",
        "refused": "rejected",
        "offline": "waiting",
    }
    [body] = ends.waiting.bodies(after_seconds=60)
    assert agents_of(body["captures"]) == ["busy", "offline", "uploading"]
    assert (ends.dead.messages(), answers.asked) == ([], {})


@pytest.fixture
def activation(wire):
    return wire.post(EVENTS, status=202)


def activations_of(ends):
    [body] = ends.waiting.bodies(after_seconds=900)
    return {
        capture["agent_id"]: (capture["phase"]["activated_at"], capture["phase"]["activations"])
        for capture in body["captures"]
    }


def test_the_agents_that_have_not_begun_are_activated_once_for_each_region_and_invocation(
    *, run, looks, watched, ends, now, activation, wire
):
    looks.update(one="requested", two="requested", begun="started")
    assert counted(run(sqs_event(record=watched(*looks)))) == {"deferred": 3}
    at = timestamp(now)
    assert activations_of(ends) == {"one": (at, 1), "two": (at, 1), "begun": (None, 0)}
    assert (len(activation.calls), len(wire.calls)) == (1, 4)
    assert json.loads(activation.calls[0].request.body) == {"event": "agent_activate", "mode": "active"}


@pytest.mark.parametrize(
    "answer",
    [{"status": 401}, {"status": 403}, {"status": 409}, {"status": 503}, {"body": requests.ReadTimeout()}],
    ids=["token refused", "refused", "conflict", "busy", "no answer"],
)
def test_an_activation_that_fails_delays_and_fails_nothing(*, run, looks, watched, ends, wire, answer):
    wire.post(EVENTS, **answer)
    looks.update(one="requested", done="completed")
    report = run(sqs_event(record=watched(*looks)))
    assert (counted(report), report.activations_failed) == ({"captured": 1, "deferred": 1}, 1)
    assert activations_of(ends) == {"one": (None, 0)}


def test_a_log_file_that_does_not_come_is_expired_and_no_dead_letter(run, looks, watched, ends, now):
    looks["one"] = "requested"
    assert counted(run(sqs_event(record=watched("one", requested_at=now - timedelta(days=1))))) == {"expired": 1}
    assert (ends.waiting.messages(after_seconds=900), ends.dead.messages()) == ([], [])


def test_what_a_kept_record_brings_again_does_not_wait_in_the_queue_as_well(
    *, run, looks, watched, queue_entries, ends, now
):
    looks.update(offline="requested", uploading="started")
    queue_entries.fail(lambda entry: "offline" in entry["MessageBody"], is_sender_fault=True)
    activated_at = now - timedelta(seconds=100)
    event = sqs_event(record="one", other=watched("offline", "uploading", activated_at=activated_at))
    report = run(event)
    assert list(report.unsaved) == ["other"]
    assert counted(report) == {"waiting": 1, "deferred": 1, "requested": 1}
    assert [agents_of(body["captures"]) for body in ends.waiting.bodies(after_seconds=900)] == [["one"]]


def test_a_watched_log_file_that_cannot_be_published_is_looked_for_again(run, looks, watched, topic_entries, ends):
    looks["done"] = "completed"
    topic_entries.fail(lambda _: True, calls=3)
    message = watched("done")
    assert counted(run(sqs_event(record=message))) == {"deferred": 1}
    assert ends.waiting.bodies(after_seconds=300) == [message]


def test_what_was_published_and_cannot_be_watched_comes_again_and_is_published_the_same(
    run, answers, queue_entries, ends
):
    queue_entries.fail(lambda _: True, is_sender_fault=True)
    report = run(sqs_event(record="one"))
    assert report.unsaved == {"record": "the capture was not requeued: Throttled: slow down"}
    assert counted(run(sqs_event(record="one"))) == counted(report) == {"requested": 1}
    first, second = ends.published.bodies()
    assert (first["outcome_id"], first["logfile"]) == (second["outcome_id"], second["logfile"])
    assert answers.asked == {"one": 1}
    assert [agents_of(body["captures"]) for body in ends.waiting.bodies(after_seconds=34)] == [["one"]]


def test_two_askers_of_one_agent_are_both_published(run, service, answers, ends):
    one_by_one = replace(service, concurrency=1)
    report = run(sqs_event(first="one two", second="two", third='{"agent_id": "two", "force": true}'), one_by_one)
    assert counted(report) == {"requested": 3, "duplicate": 1}
    assert answers.asked == {"one": 1, "two": 2}
    [duplicate] = [notification for notification in ends.published.bodies() if notification["status"] == "duplicate"]
    assert (duplicate["trigger"]["id"], duplicate["logfile"]["id"]) == ("second", "log-of-two")
    assert duplicate["message"].endswith(" already, for first")


def received_again(event, now):
    for record in event["Records"]:
        record["attributes"] = {
            "ApproximateReceiveCount": "2",
            "ApproximateFirstReceiveTimestamp": str(int(now.timestamp() * 1000)),
        }
    return event


def test_a_record_that_comes_again_is_requeued_with_what_is_known_and_looked_for_before_it_is_asked_for(
    *, run, wire, service, answers, ends, now
):
    wire.get(LOG_FILES, json={"logfiles": [{"id": "listed", "date": now.isoformat(), "state": "requested"}]})
    alone = replace(service, cool_down=timedelta())
    assert counted(run(received_again(sqs_event(record="one"), now), alone)) == {"deferred": 1}
    [requeued] = ends.waiting.bodies()
    [capture] = [queue_message.from_json(item, now) for item in requeued["captures"]]
    assert (capture.trigger.id, capture.unconfirmed_since) == ("record", now)

    report = run(sqs_event(requeued=requeued), alone)
    assert (counted(report), answers.asked) == ({"requested": 1}, {})
    assert report.outcomes[0].log_file.id == "listed"


def test_what_was_requeued_with_what_is_known_is_not_requeued_for_it_again(run, wire, a_capture, now):
    wire.get(LOG_FILES, json={"logfiles": [{"id": "listed", "date": now.isoformat(), "state": "requested"}]})
    known = a_capture(phase=Requesting(now - timedelta(hours=1)))
    event = received_again(sqs_event(record={"captures": [queue_message.to_json(known)]}), now)
    assert counted(run(event)) == {"requested": 1}


def test_each_invocation_tries_the_table_again(run, table_calls, log):
    table_calls.fail("PutItem", "InternalServerError")
    assert counted(run({"agent_id": "one"})) == {"requested": 1}
    assert log.getvalue().count("the table cannot be reached") == 1
    table_calls.errors.clear()
    assert counted(run(sqs_event(first="one"))) == {"requested": 1}
    assert counted(run(sqs_event(second="one"))) == {"duplicate": 1}


# ------------------------------------------------------------------ jobs


def sums(notifications):
    return [notification for notification in notifications if notification["status"] == "job_done"]


def requeue(ends, after_seconds=900):
    """Return the messages that wait, as the next event."""
    bodies = ends.waiting.bodies(after_seconds=after_seconds)
    return sqs_event(**{f"again-{number}": body for number, body in enumerate(bodies)})


@pytest.fixture
def counted_as(items):
    """How many agents the facts of each job name with each status, and the revision of its report."""

    def read():
        found = defaultdict(Counter)
        for item in items("JOB#"):
            job_id = item["pk"].split("#")[1]
            if item["sk"] == "REPORT":
                found[job_id]["revision"] = int(item.get("revision", 0))
            elif not item["sk"].startswith("TRIGGER#"):
                found[job_id][item["sk"].rpartition("#")[2]] += 1
        return {job_id: dict(counts) for job_id, counts in found.items()}

    return read


def test_the_sum_is_published_when_the_last_agent_has_ended(*, run, answers, looks, ends, counted_as):
    answers.update(unknown=404)
    run(sqs_event(message="one two unknown not@good"))
    assert counted_as() == {"message": {"rejected": 1}}
    looks.update(one="completed", two="started")
    run(requeue(ends))
    assert sums(ends.published.bodies()) == []
    looks.update(two=404)
    assert sums(ends.published.bodies()) == []
    run(requeue(ends))
    report = run(requeue(ends))
    [done] = sums(ends.published.bodies())
    assert done | {"outcome_id": None, "message": None, "at": None, "seconds": None} == {
        "version": "1",
        "status": "job_done",
        "job_id": "message",
        "revision": 1,
        "asked": 4,
        "captured": 1,
        "expired": 1,
        "rejected": 2,
        "failed": 0,
        "duplicate": 0,
        "requested": 0,
        "seconds": None,
        "message": None,
        "trigger": {"type": "sqs", "id": "message", "name": None},
        "asked_at": "2026-11-23T03:12:40.985Z",
        "at": None,
        "outcome_id": None,
    }
    assert [sum_of.job_id for sum_of in report.jobs_done] == ["message"]
    assert report.notifications_published == 2


def test_a_named_job_takes_in_every_message_that_names_it(run, unfollowed, ends):
    run(
        sqs_event(first={"agent_ids": ["one", "two"], "job": "night"}, second={"agent_id": "one", "job": "night"}),
        unfollowed,
    )
    run(sqs_event(third={"agent_id": "three", "job": "night"}, fourth="four"), unfollowed)
    published = [
        (done["job_id"], done["revision"], done["requested"], done["duplicate"])
        for done in sums(ends.published.bodies())
    ]
    assert sorted(published) == [("fourth", 1, 1, 0), ("night", 1, 2, 1), ("night", 2, 3, 1)]


def test_an_agent_that_two_triggers_of_a_batch_name_is_a_duplicate_for_the_second_however_late_the_answer(
    run, unfollowed, answers, ends
):
    other_was_asked = Event()
    answers["twice"] = lambda: 202 if other_was_asked.wait(timeout=10) else 500
    answers["once"] = lambda: other_was_asked.set() or 202
    run(sqs_event(first="twice", second="twice", third="once"), replace(unfollowed, concurrency=2))
    published = [
        (notification["trigger"]["id"], notification["status"])
        for notification in ends.published.bodies()
        if "agent_id" in notification
    ]
    assert sorted(published) == [("first", "requested"), ("second", "duplicate"), ("third", "requested")]


def test_an_event_without_a_readable_agent_is_no_job(run, ends, items):
    run(sqs_event(first="not@good", second={"agent_id": "a", "job": 7}))
    assert {notification["status"] for notification in ends.published.bodies()} == {"rejected"}
    assert items("JOB#") == []


def test_nothing_is_done_about_jobs_before_every_agent_is_asked(run, table_calls, answers):
    answers["one"] = lambda: 500 if table_calls.calls["UpdateItem"] else 202
    assert counted(run({"agent_id": "one"})) == {"requested": 1}
    assert table_calls.calls == {"PutItem": 1, "BatchWriteItem": 1, "UpdateItem": 1}


def test_a_job_is_opened_once_however_often_its_agents_wait(run, looks, ends, table_calls):
    run(sqs_event(message="one two"))
    looks.update(one="started", two="started")
    for _ in range(3):
        run(requeue(ends))
    assert table_calls.calls["UpdateItem"] == 1


def test_what_fans_out_belongs_to_one_sum(run, unfollowed, ends):
    agents = [f"agent-{number}" for number in range(CAPTURES_IN_AN_INVOCATION + 50)]
    alone = replace(unfollowed, cool_down=timedelta())
    run(sqs_event(message=" ".join(agents)), alone)
    assert sums(ends.published.bodies()) == []
    run(requeue(ends), alone)
    assert [done["requested"] for done in sums(ends.published.bodies())] == [550]


def test_a_capture_without_a_job_is_in_none(run, looks, watched, ends, table_calls):
    looks["one"] = "completed"
    run(sqs_event(message=watched("one")))
    assert [notification["status"] for notification in ends.published.bodies()] == ["captured"]
    assert table_calls.calls == {}


def test_what_cannot_be_counted_comes_again_to_be_counted_and_for_nothing_else(
    *, run, unfollowed, table_calls, answers, ends, log, counted_as
):
    table_calls.fail("UpdateItem", "InternalServerError")
    answers["two"] = 404
    report = run(sqs_event(message="one two", other="three"), unfollowed)
    assert (counted(report), report.not_counted) == ({"requested": 2, "rejected": 1}, 3)
    assert "jobs were not recorded" in log.getvalue()
    assert len(ends.published.bodies()) == 3
    assert ends.waiting.bodies(after_seconds=299) == []
    again = requeue(ends, after_seconds=300)
    report = run(again, unfollowed)
    assert (report.asked, report.new, counted(report), report.not_counted) == (0, 0, {}, 3)

    table_calls.errors.clear()
    report = run(requeue(ends), unfollowed)
    assert (report.asked, len(report.jobs_done)) == (0, 2)
    assert sorted((done["job_id"], done["asked"]) for done in ends.published.bodies()) == [
        ("message", 2),
        ("other", 1),
    ]
    assert answers.asked == {"one": 1, "two": 1, "three": 1}
    assert counted_as()["message"] == {"requested": 1, "rejected": 1, "revision": 1}
    assert ends.waiting.messages(after_seconds=900) == []


def test_a_table_that_is_out_of_reach_is_tried_with_one_job_alone(*, run, unfollowed, table_calls, ends, monkeypatch):
    monkeypatch.setattr(job_tracker, "JOBS_AT_ONCE", 1)
    table_calls.fail("UpdateItem", "AccessDeniedException")
    run(sqs_event(**{f"message-{number}": f"agent-{number}" for number in range(5)}), unfollowed)
    assert table_calls.calls["UpdateItem"] == 1
    assert len(requeue(ends)["Records"]) == 1


def test_what_cannot_be_counted_for_the_whole_retry_window_is_kept_and_can_be_replayed(
    *, run, unfollowed, table_calls, ends, now
):
    table_calls.fail("UpdateItem", "InternalServerError")
    run(sqs_event(message="one"), unfollowed)
    later = replace(unfollowed, now=lambda: now + timedelta(days=1))
    report = run(requeue(ends), later)
    assert (report.unsaved, ends.waiting.messages(after_seconds=900)) == ({}, [])
    [letter] = ends.dead.messages()
    attributes = {name: value["StringValue"] for name, value in letter["MessageAttributes"].items()}
    assert attributes == {"reason": "not_counted", "status": "requested", "trigger_type": "sqs", "attempts": "1"}
    table_calls.errors.clear()
    ends.published.bodies()
    run(sqs_event(replayed=letter["Body"]), later)
    assert [(done["job_id"], done["requested"]) for done in ends.published.bodies()] == [("message", 1)]


def test_a_sum_that_cannot_be_published_is_published_later(*, run, unfollowed, topic_entries, ends, answers):
    is_sum = lambda entry: "job_done" in entry["Subject"]  # noqa: E731 (it has a name only to be said twice)
    topic_entries.fail(is_sum, calls=3)
    report = run(sqs_event(message="one two"), unfollowed)
    assert (report.notifications_published, report.notifications_failed, report.jobs_done) == (2, 1, [])
    assert counted(report) == {"requested": 2}
    again = requeue(ends)
    [capture] = json.loads(again["Records"][0]["body"])["captures"]
    assert capture["phase"]["status"] == "requested"
    run(again, unfollowed)
    run(again, unfollowed)
    assert [done["requested"] for done in sums(ends.published.bodies())] == [2]
    assert answers.asked == {"one": 1, "two": 1}


def test_a_record_that_comes_again_is_counted_once_and_reports_its_sum_once(run, unfollowed, ends, counted_as):
    for _ in range(2):
        run(sqs_event(message="one two"), unfollowed)
    assert len(ends.published.bodies()) == 2 + 1 + 2
    assert counted_as() == {"message": {"requested": 2, "revision": 1}}


def test_a_capture_that_cannot_be_counted_or_requeued_keeps_its_record(run, unfollowed, table_calls, sqs):
    table_calls.fail("UpdateItem", "InternalServerError")
    break_calls(sqs, "SendMessageBatch")
    report = run(sqs_event(message="one"), unfollowed)
    assert list(report.unsaved) == ["message"]


def test_a_replayed_failure_corrects_the_sum(*, run, unfollowed, answers, ends, overdue, counted_as):
    answers["overdue"] = 503
    job = replace(overdue, job=Job(name=None, asked=2))
    run(
        sqs_event(
            message={"captures": [queue_message.to_json(job), queue_message.to_json(replace(job, agent_id="fine"))]}
        ),
        unfollowed,
    )
    [first] = sums(ends.published.bodies())
    assert (first["revision"], first["failed"], first["requested"]) == (1, 1, 1)
    assert first["message"] == "2 agents: 1 failed, 1 requested"
    answers["overdue"] = 503
    [letter] = ends.dead.messages()
    run(sqs_event(replayed=letter["Body"]), unfollowed)
    assert counted_as()[job.job_id] == {"failed": 1, "pending": 1, "requested": 1, "revision": 1}
    answers["overdue"] = 202
    run(requeue(ends), unfollowed)
    [second] = sums(ends.published.bodies())
    assert (second["revision"], second["failed"], second["requested"]) == (2, 0, 2)
    assert first["outcome_id"] != second["outcome_id"]


def test_without_time_to_count_what_has_ended_waits_to_be_counted(unfollowed, ends, table_calls, sns):
    is_published = Event()
    sns.meta.events.register("before-call.sns.PublishBatch", lambda **_: is_published.set())
    report = unfollowed.run(
        sqs_event(message="one"),
        request_id="request-id",
        remaining_millis=lambda: 1000 * (2 * SENDING_SECONDS - 1) if is_published.is_set() else 300_000,
    )
    assert (report.not_counted, report.unsaved, table_calls.calls["UpdateItem"]) == (1, {}, 0)
    assert len(requeue(ends)["Records"]) == 1
