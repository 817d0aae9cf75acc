from dataclasses import replace
from datetime import timedelta

import pytest
from agent_log_capture.adapters.jobs import AGENTS_IN_A_TRANSACTION, JobsError
from botocore.exceptions import ClientError, EndpointConnectionError

from agent_log_capture.adapters.batches import always
from agent_log_capture.domain.capture import Job
from agent_log_capture.domain.outcome import Status
from agent_log_capture.domain.trigger import Trigger, TriggerType

TRIGGER = Trigger(TriggerType.SQS, "a-message")
OTHER = Trigger(TriggerType.SQS, "another-message")


@pytest.fixture
def asked(a_capture):
    """Builds the captures of one trigger, which asks for all of them in one job."""

    def build(*agent_ids, trigger=TRIGGER, rejected=0, **changes):
        job = Job(name="night shift", asked=len(agent_ids) + rejected, rejected=rejected)
        return [a_capture(agent_id=agent_id, trigger=trigger, job=job, **changes) for agent_id in agent_ids]

    return build


@pytest.fixture
def end(jobs):
    """Opens the job of captures, counts what they ended in, and returns the sum, if it is there to be told."""

    def end(captures, status=Status.CAPTURED):
        endings = [(capture, status) for capture in captures]
        jobs.open(captures, always)
        jobs.count(endings, always)
        claimed = jobs.claim(endings, always)
        return claimed and claimed[1]

    return end


def counts(done):
    return {status.value: count for status, count in done.counts.items() if count}


def replayed(captures):
    return [replace(capture, replays=capture.replays + 1) for capture in captures]


def break_once(client, operation, *errors):
    """Let calls of an operation end in these errors, one after the other; then they work."""
    left = list(errors)

    def fail(**_):
        if left:
            raise left.pop(0)

    client.meta.events.register(f"before-call.dynamodb.{operation}", fail)


def lose_answers(client, operation, count):
    """Let calls of an operation be served, and the client not know it."""
    left = [EndpointConnectionError(endpoint_url="https://dynamodb") for _ in range(count)]

    def lose(**_):
        if left:
            raise left.pop()

    client.meta.events.register(f"after-call.dynamodb.{operation}", lose)


def cancelled(*codes):
    answer = {
        "Error": {"Code": "TransactionCanceledException", "Message": "cancelled"},
        "CancellationReasons": [{"Code": code} for code in codes],
    }
    return ClientError(answer, "TransactWriteItems")


# ------------------------------------------------------------------ the usual way


def test_a_job_is_done_when_the_last_of_its_agents_has_ended(asked, end, now):
    one, two, three = asked("one", "two", "three", rejected=2)
    assert end([one]) is None
    assert end([two], Status.EXPIRED) is None
    done = end([three])
    assert (done.job_id, done.revision, done.trigger, done.at) == ("night shift", 1, TRIGGER, now)
    assert counts(done) == {"captured": 2, "expired": 1, "rejected": 2}
    assert done.asked == 5


def test_a_job_without_a_name_is_its_trigger(asked, end):
    captures = [replace(capture, job=replace(capture.job, name=None)) for capture in asked("one")]
    assert end(captures).job_id == TRIGGER.id


def test_two_triggers_of_one_name_are_one_job(asked, end):
    first, second = asked("one", "two"), asked("one", trigger=OTHER)
    assert end([first[0]]) is None
    assert end(second) is None
    assert counts(end([first[1]])) == {"captured": 3}


def test_what_is_added_to_a_job_that_is_done_makes_a_new_sum(asked, end):
    assert end(asked("one")).revision == 1
    done = end(asked("two", trigger=OTHER))
    assert (done.revision, counts(done)) == (2, {"captured": 2})


def test_time_counts_from_the_first_trigger(asked, end, now):
    end(asked("one", asked_at=now - timedelta(hours=1)))
    assert end(asked("two", trigger=OTHER)).asked_at == now - timedelta(hours=1)


def test_the_same_agent_in_two_regions_is_two(asked, end):
    one, two = asked("one", "two")
    assert counts(end([one, replace(two, agent_id="one", region="ORD")])) == {"captured": 2}


def test_everything_that_is_remembered_expires(asked, end, job_items, now):
    end(asked("one"))
    expires = {item["expires"] for kind in ("job", "trigger", "agent") for item in job_items(kind)}
    assert expires == {str(int(now.timestamp()) + 1000)}


def test_a_thousand_agents_are_counted_in_eleven_transactions(asked, end, jobs_table):
    assert end(asked(*(f"agent-{number}" for number in range(1000)))).asked == 1000
    counting = -(-1000 // AGENTS_IN_A_TRANSACTION)
    assert jobs_table.calls == {"TransactWriteItems": 1 + counting, "UpdateItem": 1}


# ------------------------------------------------------------------ at least once


def test_what_is_counted_twice_counts_once(asked, end, jobs, job_items):
    one, two = asked("one", "two")
    assert [end([one]), end([one], Status.EXPIRED)] == [None, None]
    assert counts(end([two, one])) == {"captured": 2}
    assert [item["open"] for item in job_items("job")] == ["0"]
    jobs.open([one, two], always)
    assert [item["open"] for item in job_items("job")] == ["0"]


def test_an_agent_that_comes_twice_at_once_counts_once(asked, end):
    one, two = asked("one", "two")
    assert end([one, one]) is None
    assert end([two]).asked == 2


def test_the_sum_is_for_one_to_tell(asked, jobs, end):
    one, two = asked("one", "two")
    end([one])
    assert end([two]) is not None
    assert jobs.claim([(one, Status.CAPTURED)], always) is None


def test_whoever_broke_off_before_it_could_tell_gets_the_same_sum(asked, jobs, end, now):
    captures = asked("one", "two")
    first = end(captures)
    teller, again = replace(jobs, now=lambda: now + timedelta(hours=1)).claim(
        [(capture, Status.CAPTURED) for capture in reversed(captures)], always
    )
    assert (teller, again) == (captures[0], first)
    jobs.told(teller, always)
    assert end(captures) is None


def test_a_sum_that_is_told_late_is_not_taken_for_a_newer_one(asked, jobs, end, job_items):
    [one] = asked("one")
    end([one])
    end(asked("two", trigger=OTHER))
    jobs.told(one, always)
    [job] = job_items("job")
    assert "is_told" not in job


@pytest.mark.parametrize("operation", ["TransactWriteItems", "UpdateItem"])
def test_a_call_that_was_served_without_an_answer_can_be_made_again(asked, end, jobs_client, operation):
    captures = asked("one", "two")
    lose_answers(jobs_client, operation, 1)
    with pytest.raises(JobsError):
        end(captures)
    assert counts(end(captures)) == {"captured": 2}


def test_more_agents_than_were_asked_for_correct_the_sum(asked, end):
    [one] = asked("one")
    assert end([one]).asked == 1
    done = end([replace(one, agent_id="two")])
    assert (done.revision, done.asked) == (2, 2)


def test_what_is_forgotten_is_counted_all_the_same(asked, jobs):
    endings = [(capture, Status.CAPTURED) for capture in asked("one")]
    jobs.count(endings, always)
    assert jobs.claim(endings, always)[1].asked == 1


# ------------------------------------------------------------------ replays


def test_a_replay_corrects_the_sum_once_all_that_are_asked_again_have_ended(asked, jobs, end, job_items):
    captures = asked("one", "two", "three")
    end(captures[:1])
    assert counts(end(captures[1:], Status.FAILED)) == {"captured": 1, "failed": 2}
    again = replayed(captures[1:])
    jobs.open(again, always)
    jobs.ask_again(again, always)
    [job] = job_items("job")
    assert (job["open"], job["failed"]) == ("2", "0")
    assert end(again[:1]) is None
    done = end(again[1:], Status.FAILED)
    assert (done.revision, counts(done)) == (2, {"captured": 2, "failed": 1})


def test_a_replay_that_ends_at_once_takes_the_place_of_the_failure(asked, end):
    captures = asked("one", "two")
    end(captures, Status.FAILED)
    done = end(replayed(captures[:1]), Status.DUPLICATE)
    assert (done.revision, counts(done)) == (2, {"failed": 1, "duplicate": 1})


def test_a_replay_opens_an_agent_once(asked, jobs, end, job_items):
    captures = asked("one", "two")
    end(captures, Status.FAILED)
    for again in (replayed(captures[:1]), replayed(captures)):
        jobs.ask_again(again, always)
    jobs.ask_again(captures, always)
    assert [item["open"] for item in job_items("job")] == ["2"]


def test_a_failure_that_is_counted_after_its_replay_came_does_not_count(asked, jobs, end):
    [one] = asked("one")
    jobs.open([one], always)
    jobs.ask_again(replayed([one]), always)
    assert end([one], Status.FAILED) is None
    assert counts(end(replayed([one]))) == {"captured": 1}


def test_a_replay_of_what_has_ended_otherwise_changes_nothing(asked, jobs, end):
    [one] = asked("one")
    end([one])
    jobs.ask_again(replayed([one]), always)
    assert end(replayed([one]), Status.EXPIRED) is None


def test_a_trigger_lives_on_with_what_is_replayed_of_it(asked, jobs, end, job_items, now):
    [one] = asked("one")
    end([one], Status.FAILED)
    replace(jobs, now=lambda: now + timedelta(days=1)).open(replayed([one]), always)
    assert [item["expires"] for item in job_items("trigger")] == [str(int(now.timestamp()) + 1000 + 86_400)]
    assert [item["open"] for item in job_items("job")] == ["0"]


# ------------------------------------------------------------------ failure


def test_whoever_is_in_the_way_is_waited_for(asked, end, jobs_client, pauses):
    conflict = ClientError({"Error": {"Code": "TransactionConflictException", "Message": "m"}}, "UpdateItem")
    break_once(
        jobs_client, "TransactWriteItems", cancelled("None", "TransactionConflict"), cancelled("ThrottlingError")
    )
    break_once(jobs_client, "UpdateItem", conflict)
    assert end(asked("one")).asked == 1
    assert pauses == [0.1, 0.2, 0.1]


def test_whoever_is_in_the_way_all_the_time_is_failure_of_one_job(asked, end, jobs_client):
    break_once(jobs_client, "TransactWriteItems", *[cancelled("TransactionConflict", "None")] * 10)
    with pytest.raises(JobsError, match="cancelled") as raised:
        end(asked("one"))
    assert raised.value.is_about_one_job


@pytest.mark.parametrize("code", ["AccessDeniedException", "ProvisionedThroughputExceededException", "Else"])
def test_a_table_that_does_not_work_is_failure_of_all(asked, end, jobs_table, code, pauses):
    jobs_table.fail("TransactWriteItems", code)
    with pytest.raises(JobsError, match="it is broken") as raised:
        end(asked("one"))
    assert not raised.value.is_about_one_job
    assert pauses == []


def test_without_time_nothing_is_called(asked, jobs, jobs_table):
    with pytest.raises(JobsError, match="no time left"):
        jobs.open(asked("one"), lambda: False)
    assert jobs_table.calls == {}


def test_agents_that_others_count_all_the_time_are_given_up_for_now(asked, jobs, jobs_client):
    reasons = {"Code": "ConditionalCheckFailed", "Item": {"replays": {"N": "0"}}}
    error = cancelled("ConditionalCheckFailed")
    error.response["CancellationReasons"] = [reasons]
    break_once(jobs_client, "TransactWriteItems", *[error] * 20)
    with pytest.raises(JobsError, match="others count the same agents"):
        jobs.count([(asked("one")[0], Status.CAPTURED)], always)
