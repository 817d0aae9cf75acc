"""Each check finds what it is there for, and nothing in a run that went well."""

import threading
from collections import Counter
from dataclasses import replace

import pytest

from tests.faults.checks import COUNTED, check, places
from tests.faults.record import Ended, Key, Letter, Post, Published, Record
from tests.faults.sandbox import Invocation, KilledError

KEY = Key("sqs", "message", "agent")
BAD = Key("sqs", "message", "no!id")


def notification(status, *, key=KEY, outcome_id=None, log_file_id="file", message=None):
    return {
        "status": status,
        "agent_id": key.agent_id or None,
        "region": "DFW",
        "trigger": {"type": key.trigger_type, "id": key.trigger_id, "name": None},
        "job_id": key.trigger_id,
        "logfile": {"id": log_file_id},
        "message": message,
        "outcome_id": outcome_id or f"{status} of {key.agent_id} {log_file_id}",
    }


def job_done(job_id="message", revision=1, outcome_id="sum", **counts):
    published = dict.fromkeys(COUNTED, 0) | counts
    return {
        "job_id": job_id,
        "revision": revision,
        "outcome_id": outcome_id,
        "asked": sum(published.values()),
        **published,
    }


def letter(**changes):
    whole = {"keys": frozenset({KEY}), "text": "agent", "reason": "temporary", "is_wrapped": False, "deliveries": 0}
    return Letter(**whole | changes)


def ended(**changes):
    whole = {"number": 0, "keys": frozenset({KEY}), "is_from_queue": True, "asked": 1, "counted": 1}
    return Ended(**whole | changes)


def post(**changes):
    return Post(**{"agent_id": "agent", "invocation": 0, "at": 0.0, "status": 202} | changes)


def published(status, key=KEY):
    return Published(key=key, status=status, outcome_id=f"{status} of {key.agent_id} file")


@pytest.fixture
def record():
    """One agent that one message names, asked once and captured."""
    return Record(
        seed=1,
        is_followed=True,
        cool_down_seconds=600,
        is_table_sound=True,
        keys={KEY},
        notifications=[notification("requested"), notification("captured")],
        invocations=[ended(published=(published("captured"),))],
        posts=[post()],
        asked=Counter(agent=1),
        made=Counter(agent=1),
    )


def rules(record):
    return {violation.rule for violation in check(record)}


def test_a_run_that_went_well_has_no_violations(record):
    assert check(record) == []


def test_a_capture_without_ending_and_dead_letter_is_lost(record):
    record.notifications.pop()
    assert "lost" in rules(record)


def test_a_capture_in_the_dead_letter_queue_is_not_lost(record):
    record.notifications.pop()
    record.invocations = [ended()]
    record.letters = [letter()]
    assert rules(record) == set()


def test_two_endings_are_found(record):
    record.notifications.append(notification("expired"))
    assert rules(record) == {"ended more than once"}


def test_two_endings_of_what_there_may_be_two_of_are_none_of_the_functions_doing(record):
    record.notifications.append(notification("expired"))
    record.double([KEY], "sent twice")
    assert rules(record) == set()


def test_one_ending_published_twice_is_one(record):
    record.notifications.append(notification("captured"))
    assert rules(record) == set()


def test_without_following_a_request_is_an_ending(record):
    record.is_followed = False
    assert rules(record) == {"ended more than once"}


@pytest.mark.parametrize(
    ("status", "found"), [("captured", {"ended and kept"}), ("failed", set()), ("rejected", set())]
)
def test_what_is_captured_and_a_dead_letter_is_in_both_places(record, status, found):
    record.notifications = [notification(status)]
    record.invocations = [ended()]
    record.letters = [letter()]
    assert rules(record) == found


def test_what_has_failed_is_kept(record):
    record.notifications = [notification("failed")]
    record.invocations = [ended()]
    assert rules(record) == {"failed and not kept"}


def test_a_refused_value_is_published_and_kept(record):
    record.refused = {BAD}
    assert "lost" in rules(record)
    record.letters = [letter(keys=frozenset(), text='{"rejected": ["no!id"]}', reason="invalid_agent_id")]
    record.notifications.append(notification("rejected", key=KEY._replace(agent_id=""), message="'no!id'"))
    assert rules(record) == set()
    record.letters = []
    assert rules(record) == {"lost"}


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"reason": None}, {"no reason"}),
        ({"reason": None, "deliveries": 4}, {"no reason"}),
        ({"reason": None, "deliveries": 5}, set()),
        ({"reason": None, "is_wrapped": True}, set()),
    ],
)
def test_a_dead_letter_says_why_it_lies_there(record, changes, found):
    record.letters = [letter(keys=frozenset(), **changes)]
    assert rules(record) == found


def test_what_is_reported_and_not_published_is_found(record):
    record.invocations = [ended(published=(published("captured"), published("waiting")))]
    assert rules(record) == {"not published"}


def test_what_a_killed_invocation_would_have_reported_is_no_matter(record):
    record.invocations = [ended(published=(published("waiting"),), why_dead="at a line")]
    assert rules(record) == set()


def test_one_id_for_two_outcomes_is_found(record):
    record.notifications = [notification("requested", outcome_id="same"), notification("captured", outcome_id="same")]
    record.invocations = [ended()]
    assert rules(record) == {"one ID for two outcomes"}


def test_two_ids_for_one_outcome_are_found(record):
    record.notifications.append(notification("requested", outcome_id="another"))
    assert rules(record) == {"two IDs for one outcome"}


def test_a_second_accepted_request_is_found(record):
    record.posts.append(post(invocation=1, at=700.0))
    record.invocations.append(ended(number=1))
    record.made["agent"] = 2
    assert rules(record) == {"asked too often"}


@pytest.mark.parametrize("changes", [{"status": None}, {"status": 202, "invocation": 1}])
def test_a_request_that_may_or_may_not_have_been_served_can_be_sent_again(record, changes):
    record.posts.insert(0, post(**changes))
    record.invocations.append(ended(number=1, why_dead="after a call"))
    record.posts[1] = post(invocation=0, at=700.0)
    record.invocations[0] = replace(record.invocations[0], keys=frozenset({KEY, KEY._replace(trigger_id="other")}))
    record.made["agent"] = 2
    assert rules(record) == set()


def test_log_files_that_no_one_has_asked_for_are_found(record):
    record.made["agent"] = 2
    assert rules(record) == {"asked too often"}


def test_a_second_request_in_one_delivery_is_found(record):
    record.posts.insert(0, post(status=503))
    assert rules(record) == {"asked twice in one delivery"}
    record.posts[0] = post(status=401, is_refused_token=True)
    assert rules(record) == set()


def test_a_second_request_within_the_cool_down_is_found(record):
    other = KEY._replace(trigger_id="other")
    record.keys.add(other)
    record.notifications.append(notification("captured", key=other, log_file_id="second"))
    record.posts.append(post(invocation=1, at=599.0 - 1))
    record.invocations.append(ended(number=1, keys=frozenset({other})))
    record.made["agent"] = 2
    assert rules(record) == {"asked within the cool-down"}
    record.is_table_sound = False
    assert rules(record) == set()


def test_an_agent_that_is_online_and_reported_as_offline_is_found(record):
    record.notifications.insert(1, notification("waiting"))
    assert rules(record) == {"reported as offline"}
    record.offline.add("agent")
    assert rules(record) == set()


def test_what_waits_twice_or_waits_and_is_ended_is_in_two_places():
    assert list(places(Counter({KEY: 2}), set(), Counter())) == [f"{KEY} waits 2 times"]
    assert list(places(Counter({KEY: 1}), {KEY}, Counter())) == [f"{KEY} waits and has ended"]
    assert list(places(Counter({KEY: 2}), {KEY}, Counter({KEY: 1}))) == []
    assert list(places(Counter({KEY: 1}), set(), Counter())) == []


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"error": "NotSavedError: it was not saved", "is_from_queue": False}, set()),
        ({"error": "TooLittleTimeError: the time is too short"}, set()),
        ({"error": "NotSavedError: it was not saved"}, {"escaped"}),
        ({"error": "KeyError: 'id'", "is_from_queue": False}, {"escaped"}),
        ({"is_hung": True, "why_dead": "by its timeout"}, {"hung"}),
        ({"acted_after_end": ("sqs SendMessageBatch",)}, {"acted after its end"}),
        ({"counted": 2}, {"does not add up"}),
    ],
)
def test_an_invocation_that_ends_as_it_must_not_is_found(record, changes, found):
    record.invocations = [ended(**changes)]
    assert rules(record) == found


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"in_two_places": ["agent waits twice"]}, {"in two places"}),
        ({"left": ["agent"]}, {"left in the queue"}),
    ],
)
def test_what_is_where_it_must_not_be_is_found(record, changes, found):
    for name, value in changes.items():
        setattr(record, name, value)
    assert rules(record) == found


@pytest.fixture
def invocation():
    return Invocation(0, "CaptureFunction", {}, "request")


def test_a_dead_invocation_can_do_nothing(invocation):
    assert invocation.kill("by its timeout")
    with pytest.raises(KilledError):
        invocation.begin_call("sqs SendMessageBatch")
    invocation.finish(answer="late")
    assert (invocation.answer, invocation.is_over) == (None, False)


def test_an_invocation_dies_at_the_line_or_call_that_was_drawn(invocation):
    invocation.lines_left = 2
    code = test_a_dead_invocation_can_do_nothing.__code__
    invocation.run_line(code, 1)
    with pytest.raises(KilledError):
        invocation.run_line(code, 2)
    other = Invocation(1, "CaptureFunction", {}, "request", calls_left=1)
    with pytest.raises(KilledError):
        other.end_call("POST")
    assert (other.why_dead, other.ended.is_set()) == ("after POST", True)


def test_what_is_done_after_the_end_is_noted(invocation):
    invocation.finish(answer={})
    assert not invocation.kill("too late")
    invocation.begin_call("sqs SendMessageBatch")
    assert invocation.acted_after_end == ["sqs SendMessageBatch"]


def test_what_has_ended_wakes_who_waits_for_it(invocation):
    threading.Timer(0.01, invocation.finish).start()
    assert invocation.ended.wait(5)


# ------------------------------------------------------------------ jobs


@pytest.fixture
def counted(record):
    """The same, with the sum of its job."""
    record.jobs, record.sums = {}, [job_done(captured=1)]
    return record


def test_a_run_whose_sums_are_published_has_no_violations(counted):
    assert check(counted) == []


def test_what_is_abandoned_counts_as_failed_although_it_could_not_be_published(counted):
    counted.notifications, counted.invocations, counted.letters = [notification("requested")], [ended()], [letter()]
    assert rules(counted) == {"wrong sum"}
    counted.sums = [job_done(failed=1)]
    assert rules(counted) == set()


def test_a_job_that_has_ended_and_is_not_published_is_found(counted):
    counted.sums = []
    assert rules(counted) == {"job not published"}


@pytest.mark.parametrize(
    "waiting",
    [
        letter(reason=None, deliveries=5),
        letter(is_wrapped=True),
        letter(keys=frozenset(), uncounted=frozenset({KEY}), reason="not_counted"),
    ],
)
def test_a_job_that_waits_for_a_person_need_not_be_published(counted, waiting):
    counted.sums, counted.letters = [], [waiting]
    assert rules(counted) <= {"ended and kept"}


def test_a_run_without_jobs_reports_no_sums(counted):
    counted.jobs, counted.sums = None, []
    assert rules(counted) == set()


@pytest.mark.parametrize(
    "published",
    [
        job_done(expired=1),
        job_done(captured=1, expired=1),
        job_done(captured=2),
        job_done(),
    ],
)
def test_a_sum_of_something_else_is_found(counted, published):
    counted.sums = [published]
    assert rules(counted) == {"wrong sum"}


def test_a_sum_of_what_no_one_asked_for_is_found(counted):
    counted.sums.append(job_done("another", captured=1))
    assert rules(counted) == {"wrong sum"}


def test_a_sum_that_does_not_add_up_is_found(counted):
    counted.sums[0]["asked"] = 2
    assert rules(counted) == {"sum does not add up", "wrong sum"}


def test_either_ending_of_a_doubled_capture_may_count(counted):
    counted.notifications.append(notification("expired"))
    counted.double([KEY], "sent twice")
    assert rules(counted) == set()
    counted.sums = [job_done(expired=1)]
    assert rules(counted) == set()
    counted.sums = [job_done(captured=1, expired=1)]
    assert rules(counted) == {"wrong sum"}


def test_refused_values_belong_to_the_sum(counted):
    counted.refused = {BAD}
    counted.letters = [letter(keys=frozenset(), text='{"rejected": ["no!id"]}', reason="invalid_agent_id")]
    counted.notifications.append(notification("rejected", key=KEY._replace(agent_id=""), message="'no!id'"))
    assert rules(counted) == {"wrong sum"}
    counted.sums = [job_done(captured=1, rejected=1)]
    assert rules(counted) == set()


def test_two_sums_of_one_revision_are_found(counted):
    counted.sums.append(dict(counted.sums[0]))
    assert rules(counted) == set()
    counted.sums[1]["outcome_id"] = "other"
    assert rules(counted) == {"two sums for one revision"}


def test_a_job_that_is_published_before_it_is_done_is_found(counted):
    counted.sums.append(job_done(revision=2, outcome_id="other", captured=1))
    assert rules(counted) == {"published too early"}


def test_a_job_that_was_named_may_be_published_again_with_what_came_later(counted):
    other = KEY._replace(trigger_id="other")
    counted.keys.add(other)
    counted.jobs = {KEY[:2]: "night", other[:2]: "night"}
    counted.notifications = [
        notification(status, key=key, log_file_id=key.trigger_id) | {"job_id": "night"}
        for key in (KEY, other)
        for status in ("requested", "captured")
    ]
    counted.invocations = [ended()]
    counted.sums = [job_done("night", captured=1), job_done("night", 2, "other", captured=2)]
    assert rules(counted) == set()


def test_a_notification_of_another_job_is_found(counted):
    counted.notifications[0]["job_id"] = "another"
    assert rules(counted) == {"wrong job"}
