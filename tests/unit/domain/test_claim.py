from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from agent_log_capture.domain.capture import Capture, Requesting, Step, not_tried
from agent_log_capture.domain.claim import LAPSED, Claim, ClaimMatch, ClaimPolicy, duplicate
from agent_log_capture.domain.outcome import LogFile, Reason, Status, Trigger, TriggerType
from agent_log_capture.domain.responses import Failure

NOW = datetime(2026, 11, 23, 3, 12, 40, tzinfo=UTC)
EARLIER = NOW - timedelta(minutes=5)
TRIGGER = Trigger(TriggerType.ALARM, "an-alarm", "backup failed")
CAPTURE = Capture(agent_id="an-agent", region="DFW", trigger=TRIGGER, asked_at=NOW, retry_from=NOW)
POLICY = ClaimPolicy(
    project_id="110011",
    claim_id="an-invocation",
    claimed_until=NOW + timedelta(seconds=330),
    cool_down=timedelta(seconds=600),
)
CLAIM = POLICY.claim(CAPTURE, NOW)
BUSY = Failure(reason=Reason.TEMPORARY, message="busy", http_status=503)


def unconfirmed(since):
    return replace(CAPTURE, phase=Requesting(since))


def step_of(status, *, at=NOW, log_file=None):
    outcome = CAPTURE.outcome(status, at=at, project_id="110011")
    return Step(capture=CAPTURE, outcome=replace(outcome, http_status=202, log_file=log_file))


def test_a_claim_names_its_agent_its_owner_and_its_invocation():
    assert POLICY.claim(replace(CAPTURE, replays=2), NOW) == Claim(
        project_id="110011",
        region="DFW",
        agent_id="an-agent",
        trigger=TRIGGER,
        replays=2,
        claim_id="an-invocation",
        since=NOW,
        claimed_until=NOW + timedelta(seconds=330),
        expires=NOW + timedelta(seconds=600),
    )


def test_a_claim_is_in_force_for_the_cool_down_and_no_shorter_than_it_is_live():
    short = replace(POLICY, cool_down=timedelta(seconds=1))
    assert short.claim(CAPTURE, NOW).expires == short.claimed_until


@pytest.mark.parametrize(
    ("capture_since", "lapsed_since", "since"),
    [
        (None, None, NOW),
        (EARLIER, None, EARLIER),
        (None, EARLIER, EARLIER),
        (EARLIER, EARLIER + timedelta(minutes=1), EARLIER),
        (EARLIER + timedelta(minutes=1), EARLIER, EARLIER),
    ],
)
def test_a_claim_keeps_the_earliest_time_of_a_request_that_may_have_been_served(capture_since, lapsed_since, since):
    lapsed = lapsed_since and replace(CLAIM, claim_id="another", since=lapsed_since, claimed_until=LAPSED)
    claim = POLICY.claim(unconfirmed(capture_since), NOW, lapsed)
    assert (claim.since, claim.claim_id) == (since, "an-invocation")


ACCEPTED = replace(CLAIM, accepted_at=NOW)


@pytest.mark.parametrize(
    ("claim", "capture", "found"),
    [
        (ACCEPTED, CAPTURE, ClaimMatch.SAME_OWNER),
        (replace(ACCEPTED, claimed_until=LAPSED), CAPTURE, ClaimMatch.SAME_OWNER),
        (ACCEPTED, replace(CAPTURE, replays=1), ClaimMatch.DUPLICATE),
        (ACCEPTED, replace(CAPTURE, trigger=Trigger(TriggerType.SQS, "a-message")), ClaimMatch.DUPLICATE),
        (CLAIM, CAPTURE, ClaimMatch.LIVE),
        (replace(CLAIM, claimed_until=NOW), CAPTURE, ClaimMatch.LAPSED),
        (replace(CLAIM, claimed_until=LAPSED), replace(CAPTURE, replays=1), ClaimMatch.LAPSED),
    ],
)
def test_what_a_claim_means_depends_on_its_owner_its_state_and_the_time(claim, capture, found):
    assert claim.match(capture, NOW) is found


def test_an_accepted_request_is_kept_for_the_cool_down_after_it():
    at, log_file = NOW + timedelta(seconds=3), LogFile(id="a-log-file")
    kept = POLICY.settle(CLAIM, step_of(Status.REQUESTED, at=at, log_file=log_file))
    assert kept == replace(
        CLAIM, accepted_at=at, http_status=202, log_file=log_file, expires=at + timedelta(seconds=600)
    )


def test_a_refused_request_leaves_nothing_even_when_an_earlier_one_was_unconfirmed():
    assert POLICY.settle(replace(CLAIM, since=EARLIER), step_of(Status.REJECTED)) is None


@pytest.mark.parametrize(
    "step",
    [
        Step(capture=CAPTURE, next=CAPTURE, failure=BUSY),
        not_tried(CAPTURE, BUSY, 60),
        replace(step_of(Status.FAILED), is_dead_letter=True),
    ],
    ids=["retryable", "not tried", "failed"],
)
def test_a_request_that_was_certainly_not_served_leaves_nothing(step):
    assert POLICY.settle(CLAIM, step) is None


@pytest.mark.parametrize("since", [EARLIER, NOW + timedelta(seconds=2)])
def test_a_request_that_may_have_been_served_leaves_a_lapsed_claim_with_the_earliest_time(since):
    waiting = unconfirmed(since)
    kept = POLICY.settle(CLAIM, Step(capture=waiting, next=waiting, failure=BUSY))
    assert kept == replace(CLAIM, claimed_until=LAPSED, since=min(since, NOW))
    assert kept.match(CAPTURE, NOW) is ClaimMatch.LAPSED


def test_a_failed_capture_whose_request_may_have_been_served_leaves_a_lapsed_claim():
    failed = replace(step_of(Status.FAILED), capture=unconfirmed(NOW), is_dead_letter=True)
    assert POLICY.settle(CLAIM, failed) == replace(CLAIM, claimed_until=LAPSED)


def test_a_claim_without_a_step_lapses():
    assert POLICY.settle(replace(CLAIM, since=EARLIER), None) == replace(CLAIM, since=EARLIER, claimed_until=LAPSED)


@pytest.mark.parametrize(("name", "said"), [("backup failed", "backup failed"), (None, "an-alarm")])
def test_a_duplicate_has_the_log_file_of_the_first_request_and_says_for_what_it_was(name, said):
    first = replace(
        ACCEPTED, trigger=replace(TRIGGER, name=name), accepted_at=EARLIER, log_file=LogFile(id="a-log-file")
    )
    second = replace(CAPTURE, trigger=Trigger(TriggerType.SQS, "a-message"), attempts=1)
    step = duplicate(second, first, at=NOW)
    assert (step.capture, step.next, step.outcome.status) == (second, None, Status.DUPLICATE)
    assert (step.outcome.reason, step.outcome.at, step.outcome.attempts) == (Reason.COOL_DOWN, NOW, 1)
    assert (step.outcome.log_file.id, step.outcome.project_id) == ("a-log-file", "110011")
    assert step.outcome.message == f"the log file was requested at 2026-11-23 03:07 UTC already, for {said}"
