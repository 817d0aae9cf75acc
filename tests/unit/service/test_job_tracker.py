from collections import Counter
from dataclasses import replace
from datetime import timedelta
from types import SimpleNamespace

import pytest
from botocore.exceptions import ClientError

from agent_log_capture.adapters.captures_table import TableError
from agent_log_capture.domain.capture import Job, Polling, Recorded
from agent_log_capture.domain.outcome import Reason, Status, Trigger, TriggerType
from agent_log_capture.service.job_tracker import JobTracker

CAPTURED, EXPIRED, FAILED, DUPLICATE = Status.CAPTURED, Status.EXPIRED, Status.FAILED, Status.DUPLICATE
TRIGGER = Trigger(TriggerType.SQS, "a-message")
OTHER = Trigger(TriggerType.SQS, "another-message")


@pytest.fixture
def tracker(captures_table, topic, logger, now):
    return JobTracker(
        table=captures_table,
        topic=topic,
        logger=logger,
        window=timedelta(days=1),
        now=lambda: now,
        has_time=lambda: True,
    )


@pytest.fixture
def waits(a_capture):
    """Builds a capture that waits, of a trigger that asked for two agents."""

    def build(agent_id="one", *, asked=2, rejected=0, name=None, trigger=TRIGGER, **changes):
        job = Job(name=name, asked=asked, rejected=rejected)
        return a_capture(agent_id=agent_id, trigger=trigger, **{"job": job} | changes)

    return build


@pytest.fixture
def ended(waits, now):
    """Builds a capture that has ended."""

    def build(agent_id="one", status=CAPTURED, **changes):
        return replace(waits(agent_id, **changes), phase=Recorded(status=status), retry_from=now)

    return build


@pytest.fixture
def summaries(published):
    """The summaries that were published since the last call: revision, outcome ID and counts that are not 0."""

    def read():
        return [
            (done["revision"], done["outcome_id"], {status: done[status] for status in Status if done.get(status)})
            for done in published.bodies()
            if done["status"] == "job_done"
        ]

    return read


@pytest.fixture
def counts_of(summaries):
    return lambda: [(revision, counts) for revision, _, counts in summaries()]


def result_of(works):
    """Return what all jobs together resulted in."""
    return SimpleNamespace(
        open_jobs={work.job_id for work in works if not work.error},
        unrecorded=[capture for work in works for capture in work.unrecorded],
        published=[work.summary for work in works if work.summary],
        not_published=sum(work.is_unpublished for work in works),
        error=next((work.error for work in works if work.error), None),
    )


class Calls:
    """The writes of the table and of the topic in their order; the one with this number, and all later ones, fail.

    `is_served` says whether the one that fails takes effect: then only its response is lost.
    """

    def __init__(self, client, topic_client):
        self.made = []
        self.fails_at = None
        self.is_served = False
        for operation in ("BatchWriteItem", "UpdateItem", "Query"):
            self._register(client.meta.events, f"dynamodb.{operation}")
        self._register(topic_client.meta.events, "sns.PublishBatch")

    def _register(self, events, operation):
        events.register(f"provide-client-params.{operation}", self._name)
        events.register(f"before-call.{operation}", self._before)
        events.register(f"after-call.{operation}", self._after)

    def reset(self, fails_at=None, *, is_served=False):
        self.made, self.fails_at, self.is_served = [], fails_at, is_served

    def _name(self, params, model, **_):
        self.made.append(name_of(model.name, params))

    @property
    def _number(self):
        return len(self.made) - 1

    def _before(self, **_):
        if self.fails_at is not None and (
            self._number > self.fails_at or (self._number == self.fails_at and not self.is_served)
        ):
            raise KilledError

    def _after(self, **_):
        if self._number == self.fails_at and self.is_served:
            raise KilledError


class KilledError(BaseException):
    """The invocation was killed."""


def name_of(operation, params):
    """Return what a call is for in the rules of the table."""
    if operation == "BatchWriteItem":
        [requests] = params["RequestItems"].values()
        statuses = {each["PutRequest"]["Item"]["sk"]["S"].rpartition("#")[2] for each in requests}
        return "pending facts" if statuses == {"pending"} else "facts"
    if operation == "UpdateItem":
        is_report = params["Key"]["sk"]["S"] == "REPORT"
        expression = params["UpdateExpression"]
        if not is_report:
            return "count ended" if "ADD" in expression else "look again"
        return "mark" if "#is_reported = :true" in expression else _report_name(params)
    return {"Query": "read", "PublishBatch": "publish"}[operation]


def _report_name(params):
    return "report" if "ConditionExpression" in params else "version"


@pytest.fixture
def calls(dynamodb, sns):
    return Calls(dynamodb, sns)


# ------------------------------------------------------------------ the order of writes


def test_the_first_capture_that_waits_opens_its_trigger_and_nothing_else(tracker, waits, calls, items):
    tracked = result_of(tracker.track([], [waits()]))
    assert (calls.made, tracked.open_jobs) == (["count ended"], {"a-message"})
    assert [(item["ended"], item["look_at"]) for item in items("JOB#")] == [("0", "2")]


def test_a_trigger_that_is_open_is_not_opened_again(tracker, waits, calls):
    opened = waits(job=Job(name=None, asked=2, is_open=True))
    assert tracker.track([], [opened]) == []
    assert calls.made == []


def test_captures_without_a_job_need_no_call(tracker, waits, ended, calls):
    tracker.track([ended(job=None)], [waits(job=None)])
    assert calls.made == []


def test_facts_are_written_before_what_has_ended_is_counted(tracker, ended, calls):
    tracker.track([ended()], [])
    assert calls.made == ["facts", "count ended"]


def test_a_job_of_which_something_is_lacking_is_not_read_and_not_reported(tracker, ended, waits, calls, counts_of):
    tracker.track([ended("one")], [waits("two")])
    assert calls.made == ["facts", "count ended"]
    assert counts_of() == []


def test_the_last_capture_of_a_job_reads_it_reports_it_publishes_and_marks_it(tracker, ended, calls, counts_of):
    tracker.track([ended("one")], [])
    calls.reset()
    tracked = result_of(tracker.track([ended("two", EXPIRED)], []))
    assert calls.made == ["facts", "count ended", "read", "read", "report", "publish", "mark"]
    assert counts_of() == [(1, {CAPTURED: 1, EXPIRED: 1})]
    [done] = tracked.published
    assert (done.job_id, done.revision, done.asked) == ("a-message", 1, 2)
    assert (tracked.open_jobs, tracked.unrecorded) == ({"a-message"}, [])
    assert (tracked.not_published, tracked.error) == (0, None)


def test_a_replayed_capture_that_waits_is_pending_before_the_version_changes(tracker, waits, calls):
    tracker.track([], [waits(replays=1)])
    assert calls.made == ["count ended", "pending facts", "version"]


def test_what_waits_is_noted_before_what_has_ended_is_written(tracker, waits, ended, calls):
    tracker.track([ended("one")], [waits("two", replays=1)])
    assert calls.made == ["pending facts", "version", "facts", "count ended"]


def test_a_job_with_lacking_facts_is_looked_at_again_and_not_reported(tracker, ended, calls, items, counts_of):
    tracker.track([ended("one")], [])
    calls.reset()
    tracker.track([ended("one")], [])
    assert calls.made == ["facts", "count ended", "read", "read", "look again"]
    assert [(item["ended"], item["look_at"]) for item in items("JOB#") if "ended" in item] == [("2", "3")]
    tracker.track([ended("two")], [])
    assert counts_of() == [(1, {CAPTURED: 2})]


def test_each_trigger_of_a_named_job_is_counted_and_the_job_is_read_once(tracker, ended, calls, counts_of):
    one = [ended("one", name="night", asked=1), ended("one", DUPLICATE, name="night", asked=1, trigger=OTHER)]
    tracker.track(one, [])
    assert Counter(calls.made) == Counter(
        ["facts", "count ended"] * 2 + ["read"] + ["read"] * 10 + ["report", "publish", "mark"]
    )
    assert counts_of() == [(1, {CAPTURED: 1, DUPLICATE: 1})]


def test_a_trigger_of_a_named_job_that_lacks_something_holds_its_summary_back(tracker, waits, ended, counts_of):
    tracker.track([ended("one", name="night", asked=1)], [waits("one", name="night", asked=1, trigger=OTHER)])
    assert counts_of() == []
    tracker.track([ended("one", DUPLICATE, name="night", asked=1, trigger=OTHER)], [])
    assert counts_of() == [(1, {CAPTURED: 1, DUPLICATE: 1})]


def test_values_that_could_not_be_read_are_in_the_summary(tracker, ended, counts_of):
    tracker.track([ended(asked=4, rejected=3)], [])
    assert counts_of() == [(1, {CAPTURED: 1, Status.REJECTED: 3})]


def test_several_jobs_are_recorded_at_the_same_time(tracker, ended, counts_of):
    triggers = [Trigger(TriggerType.SQS, f"message-{number}") for number in range(20)]
    tracked = result_of(tracker.track([ended(asked=1, trigger=trigger) for trigger in triggers], []))
    assert tracked.open_jobs == {trigger.id for trigger in triggers}
    assert counts_of() == [(1, {CAPTURED: 1})] * 20


# ------------------------------------------------------------------ crashes and duplicates

STEPS_OF_A_LAST_CAPTURE = ["facts", "count ended", "read", "read", "report", "publish", "mark"]
STEPS_OF_A_REPLAY = ["count ended", "pending facts", "version"]


@pytest.mark.parametrize("is_served", [False, True], ids=["before it", "after it"])
@pytest.mark.parametrize("number", range(len(STEPS_OF_A_LAST_CAPTURE)))
def test_an_invocation_that_is_killed_at_any_call_is_repeated_and_the_summary_is_right(
    *, tracker, ended, calls, summaries, number, is_served
):
    tracker.track([ended("one")], [])
    calls.reset(number, is_served=is_served)
    with pytest.raises(KilledError):
        tracker.track([ended("two", EXPIRED)], [])
    assert calls.made == STEPS_OF_A_LAST_CAPTURE[: number + 1]
    calls.reset()
    tracker.track([ended("two", EXPIRED)], [])
    found = summaries()
    assert found
    assert {(revision, str(counts)) for revision, _, counts in found} == {(1, str({CAPTURED: 1, EXPIRED: 1}))}
    assert len({outcome_id for _, outcome_id, _ in found}) == 1


@pytest.mark.parametrize("is_served", [False, True], ids=["before it", "after it"])
@pytest.mark.parametrize("number", range(len(STEPS_OF_A_REPLAY)))
def test_a_replay_that_is_killed_at_any_call_is_repeated_and_corrects_the_summary(
    *, tracker, waits, ended, calls, counts_of, number, is_served
):
    tracker.track([ended("one", FAILED, asked=1)], [])
    calls.reset(number, is_served=is_served)
    with pytest.raises(KilledError):
        tracker.track([], [waits("one", asked=1, replays=1)])
    assert calls.made == STEPS_OF_A_REPLAY[: number + 1]
    calls.reset()
    tracker.track([], [waits("one", asked=1, replays=1)])
    tracker.track([ended("one", asked=1, replays=1)], [])
    assert counts_of() == [(1, {FAILED: 1}), (2, {CAPTURED: 1})]


def test_a_job_that_was_recorded_and_reported_is_not_reported_again(tracker, ended, calls, counts_of):
    for _ in range(3):
        tracker.track([ended(asked=1)], [])
    assert counts_of() == [(1, {CAPTURED: 1})]
    assert calls.made.count("publish") == 1


def test_the_same_capture_twice_in_one_invocation_counts_once(tracker, ended, counts_of):
    tracker.track([ended("one"), ended("one")], [])
    assert counts_of() == []
    tracker.track([ended("two"), ended("one")], [])
    assert counts_of() == [(1, {CAPTURED: 2})]


def test_a_duplicate_that_ended_differently_counts_with_the_better_status_and_in_a_new_revision(
    tracker, ended, counts_of
):
    tracker.track([ended("one", EXPIRED, asked=1)], [])
    tracker.track([ended("one", CAPTURED, asked=1)], [])
    tracker.track([ended("one", EXPIRED, asked=1)], [])
    assert counts_of() == [(1, {EXPIRED: 1}), (2, {CAPTURED: 1})]


# ------------------------------------------------------------------ replays


def test_a_replay_corrects_the_summary_with_a_higher_revision(tracker, ended, summaries):
    tracker.track([ended("one"), ended("two", FAILED)], [])
    tracker.track([ended("two", replays=1)], [])
    (first, first_id, before), (second, second_id, after) = summaries()
    assert (first, before, second, after) == (1, {CAPTURED: 1, FAILED: 1}, 2, {CAPTURED: 2})
    assert first_id != second_id


def test_a_pending_capture_holds_the_summary_back(tracker, waits, ended, counts_of):
    tracker.track([ended("one", FAILED), ended("two", FAILED)], [])
    tracker.track([ended("one", replays=1)], [waits("two", replays=1)])
    assert counts_of() == [(1, {FAILED: 2})]
    tracker.track([ended("two", EXPIRED, replays=1)], [])
    assert counts_of() == [(2, {CAPTURED: 1, EXPIRED: 1})]


def test_a_late_duplicate_of_the_time_before_a_replay_changes_nothing(tracker, ended, counts_of):
    tracker.track([ended(asked=1, status=FAILED)], [])
    tracker.track([ended(asked=1, status=EXPIRED, replays=1)], [])
    tracker.track([ended(asked=1, status=CAPTURED)], [])
    assert counts_of() == [(1, {FAILED: 1}), (2, {EXPIRED: 1})]


# ------------------------------------------------------------------ two invocations


def between(client, operation, act, *, when=lambda _: True):
    """Let something happen before the next call of an operation that fits, once."""
    acts = [act]

    def run(params, **_):
        if acts and when(params):
            acts.pop()()

    client.meta.events.register(f"provide-client-params.dynamodb.{operation}", run)


def is_report(params):
    return params["Key"]["sk"]["S"] == "REPORT" and "ConditionExpression" in params


def test_a_summary_that_another_invocation_has_counted_first_is_not_published_twice(
    tracker, ended, dynamodb, counts_of, calls
):
    def other_ends():
        tracker.track([ended("one"), ended("two")], [])

    between(dynamodb, "UpdateItem", other_ends, when=is_report)
    tracker.track([ended("one"), ended("two")], [])
    assert counts_of() == [(1, {CAPTURED: 2})]
    assert calls.made.count("publish") == 1


def test_a_summary_that_is_out_of_date_when_it_is_written_is_counted_again(tracker, ended, dynamodb, counts_of):
    def other_corrects():
        tracker.track([ended("two", replays=1)], [])

    between(dynamodb, "UpdateItem", other_corrects, when=is_report)
    tracker.track([ended("one"), ended("two", FAILED)], [])
    assert counts_of() == [(1, {CAPTURED: 2})]


def test_a_replay_that_begins_while_a_job_is_counted_holds_its_summary_back(
    tracker, waits, ended, dynamodb, counts_of
):
    between(dynamodb, "UpdateItem", lambda: tracker.track([], [waits("two", replays=1)]), when=is_report)
    tracker.track([ended("one"), ended("two", FAILED)], [])
    assert counts_of() == []
    tracker.track([ended("two", replays=1)], [])
    assert counts_of() == [(1, {CAPTURED: 2})]


def test_what_ends_while_a_job_is_found_incomplete_is_not_overlooked(tracker, ended, dynamodb, counts_of):
    """The other invocation has counted before `look_at` is raised, and reads the job itself."""
    tracker.track([ended("one")], [])
    between(
        dynamodb,
        "UpdateItem",
        lambda: tracker.track([ended("two")], []),
        when=lambda params: "#look_at = :look_at" in params["UpdateExpression"],
    )
    tracker.track([ended("one")], [])
    assert counts_of() == [(1, {CAPTURED: 2})]


def test_a_report_that_changes_all_the_time_is_recorded_later(tracker, ended, dynamodb, captures_table, pauses):
    def change(params, **_):
        if is_report(params):
            captures_table.change_version("a-message")

    dynamodb.meta.events.register("provide-client-params.dynamodb.UpdateItem", change)
    tracked = result_of(tracker.track([ended("one"), ended("two")], []))
    assert (tracked.error, tracked.unrecorded) == ("the job's report changes all the time", [ended("one")])
    assert pauses == [0.1, 0.2, 0.3, 0.4]


# ------------------------------------------------------------------ what fails


def test_a_summary_that_is_not_published_is_published_later_with_the_same_revision_and_outcome_id(
    tracker, ended, topic_entries, summaries
):
    topic_entries.fail(lambda _: True, calls=3)
    tracked = result_of(tracker.track([ended("one"), ended("two")], []))
    assert (tracked.unrecorded, tracked.published, tracked.not_published) == ([ended("one")], [], 1)
    assert (tracked.error, tracked.open_jobs, summaries()) == (None, {"a-message"}, [])
    [first] = [entry["Message"] for entry in topic_entries.calls[0]]

    again = result_of(tracker.track(tracked.unrecorded, []))
    assert (again.unrecorded, len(again.published)) == ([], 1)
    assert summaries() == [(1, again.published[0].outcome_id, {CAPTURED: 2})]
    assert again.published[0].outcome_id in first


def test_one_summary_of_several_that_is_not_published_is_recorded_again(tracker, ended, topic_entries):
    topic_entries.fail(lambda entry: "another-message" in entry["Message"], calls=3)
    captures = [ended(asked=1), ended(asked=1, trigger=OTHER)]
    tracked = result_of(tracker.track(captures, []))
    assert tracked.unrecorded == captures[1:]
    assert [done.job_id for done in tracked.published] == ["a-message"]


@pytest.mark.parametrize("operation", ["BatchWriteItem", "UpdateItem"])
def test_what_is_not_written_is_unrecorded_as_a_whole(tracker, ended, waits, table_calls, operation):
    table_calls.fail(operation, "InternalServerError")
    captures = [ended("one"), ended("two")]
    tracked = result_of(tracker.track(captures, [waits("one", trigger=OTHER)]))
    assert tracked.unrecorded == captures
    assert "a-message" not in tracked.open_jobs
    assert "InternalServerError" in tracked.error
    table_calls.errors.clear()
    assert len(result_of(tracker.track(tracked.unrecorded, [])).published) == 1


def test_a_trigger_that_is_not_opened_is_no_open_job(tracker, waits, table_calls):
    table_calls.fail("UpdateItem", "InternalServerError")
    tracked = result_of(tracker.track([], [waits()]))
    assert (tracked.open_jobs, tracked.unrecorded) == (set(), [])
    assert "InternalServerError" in tracked.error


def test_of_a_job_that_cannot_be_read_one_capture_is_recorded_again(tracker, ended, table_calls, counts_of):
    table_calls.fail("Query", "InternalServerError")
    tracked = result_of(tracker.track([ended("one"), ended("two")], []))
    assert tracked.unrecorded == [ended("one")]
    table_calls.errors.clear()
    tracker.track(tracked.unrecorded, [])
    assert counts_of() == [(1, {CAPTURED: 2})]


def test_a_summary_that_is_not_marked_is_published_again_with_the_same_id(tracker, ended, dynamodb, log, summaries):
    errors = [ClientError({"Error": {"Code": "InternalServerError", "Message": "once"}}, "UpdateItem")]

    def fail(params, **_):
        if errors and "#is_reported = :true" in params["UpdateExpression"]:
            raise errors.pop()

    dynamodb.meta.events.register("provide-client-params.dynamodb.UpdateItem", fail)
    tracked = result_of(tracker.track([ended(asked=1)], []))
    assert (len(tracked.published), tracked.unrecorded, tracked.error) == (1, [], None)
    assert "a job summary was not marked" in log.getvalue()
    tracker.track([ended(asked=1)], [])
    first, second = summaries()
    assert first == second


@pytest.mark.parametrize("enough_for", range(8))
def test_when_time_runs_out_the_rest_is_recorded_later_and_the_summary_is_right(
    *, tracker, ended, counts_of, topic_entries, enough_for
):
    left = iter([True] * enough_for)
    hurried = replace(tracker, has_time=lambda: next(left, False))
    captures = [ended("one"), ended("two")]
    tracked = result_of(hurried.track(captures, []))
    assert bool(tracked.unrecorded) == (not tracked.published)
    assert len(topic_entries.calls) == len(tracked.published)
    assert bool(tracked.error) == (enough_for < 4)  # with 4, only the summary is not published
    if tracked.unrecorded:
        tracker.track(tracked.unrecorded, [])
    assert counts_of() == [(1, {CAPTURED: 2})]


def test_recording_is_retried_for_the_retry_window_and_five_minutes_at_least(tracker, ended, now):
    capture = ended(asked=1)
    for window, seconds in ((timedelta(), 300), (timedelta(days=1), 86_400)):
        at = lambda later, window=window: replace(  # noqa: E731
            tracker, window=window, now=lambda: now + timedelta(seconds=later)
        )
        assert not at(seconds - 1).is_too_late(capture)
        assert at(seconds).is_too_late(capture)


def test_a_reason_and_a_log_file_are_kept_with_the_fact(tracker, ended, items, now):
    phase = Recorded(status=EXPIRED, reason=Reason.GONE, log_file_id="a-log-file")
    tracker.track([replace(ended(asked=2), phase=phase)], [])
    [fact] = [item for item in items("JOB#") if item["sk"].endswith("#expired")]
    assert (fact["reason"], fact["log_file_id"]) == ("gone", "a-log-file")
    polling = Polling(log_file_id=None, requested_at=now)
    assert result_of(tracker.track([], [replace(ended(), phase=polling)])).open_jobs == {"a-message"}


def test_without_time_left_it_is_not_read_whether_a_log_file_was_captured(tracker, waits, table_calls):
    with pytest.raises(TableError, match="no time left"):
        replace(tracker, has_time=lambda: False).captured_before(waits())
    assert not table_calls.calls
