import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_log_capture.core.capture import Capture, Following, LogFile, Reason, Status, Trigger, TriggerType
from agent_log_capture.core.decision import Accepted, Answer, Deferred, Told, Trouble
from agent_log_capture.core.following import FollowPolicy, Look

NOW = datetime(2026, 11, 23, 3, 12, 40, tzinfo=UTC)
DAY = 86_400
TRIGGER = Trigger(TriggerType.ALARM, "arn@time", "an alarm")
FOLLOWING = Following(log_file_id="a-log-file", requested_at=NOW - timedelta(hours=1), looks=2, is_seen=True)
CAPTURE = Capture(
    agent_id="an-agent",
    region="DFW",
    trigger=TRIGGER,
    asked_at=NOW - timedelta(hours=2),
    retry_from=NOW - timedelta(hours=2),
    attempts=3,
    replays=1,
)
NO_ANSWER = Trouble(reason=Reason.TEMPORARY, message="Read timed out.")
LINKS = (
    {"rel": "logfile_temp_url", "href": "https://files.example/a.gz?temp_url_sig=0&temp_url_expires=1795490001"},
)


GRACE_SECONDS = 3600


def policy(deadline_seconds=DAY, random=0.5):
    return FollowPolicy(deadline_seconds=deadline_seconds, grace_seconds=GRACE_SECONDS, random=lambda: random)


def look(following=FOLLOWING, *, deadline_seconds=DAY, random=0.5):
    return Look(
        policy=policy(deadline_seconds, random),
        capture=replace(CAPTURE, following=following),
        following=following,
        at=NOW,
        project_id="110011",
    )


def found(state, **fields):
    return Answer(http_status=200, log_file=LogFile(**{"id": "a-log-file", "state": state} | fields))


def at_the_deadline(following=FOLLOWING):
    return replace(following, requested_at=NOW - timedelta(seconds=DAY))


def ending(told):
    assert isinstance(told, Told)
    assert told.then is None
    return told.outcome


# ------------------------------------------------------------------ the first look


def accepted(log_file):
    answer = Answer(http_status=202, log_file=log_file)
    return Accepted(trigger=TRIGGER, replays=1, requested_at=NOW - timedelta(minutes=5), answer=answer)


@pytest.mark.parametrize(
    ("log_file", "log_file_id"), [(LogFile(id="a-log-file"), "a-log-file"), (LogFile(), None), (None, None)]
)
def test_a_requested_log_file_is_looked_for_after_30_seconds(log_file, log_file_id):
    waiting = policy().first_look(replace(CAPTURE, unconfirmed_since=NOW), accepted(log_file))
    following = Following(log_file_id=log_file_id, requested_at=NOW - timedelta(minutes=5))
    assert waiting.capture == replace(CAPTURE, following=following)
    assert (waiting.delay_seconds, waiting.trouble.reason) == (30, Reason.NOT_UPLOADED)


def test_without_a_deadline_log_files_are_not_followed():
    assert policy(deadline_seconds=0).first_look(CAPTURE, accepted(LogFile(id="a-log-file"))) is None


@pytest.mark.parametrize(("deadline_seconds", "delay_seconds"), [(1, 1), (29, 29), (31, 31), (33, 33), (34, 33)])
def test_the_first_look_does_not_come_after_the_deadline(deadline_seconds, delay_seconds):
    assert policy(deadline_seconds, random=1.0).first_look(CAPTURE, accepted(None)).delay_seconds == delay_seconds


# ------------------------------------------------------------------ how far apart looks are


@pytest.mark.parametrize(
    ("looks", "shortest", "middle", "longest"),
    [
        (0, 30, 30, 33),
        (1, 54, 60, 66),
        (2, 108, 120, 132),
        (3, 216, 240, 264),
        (4, 432, 480, 528),
        (5, 810, 900, 900),
        (6, 810, 900, 900),
        (1_000_000, 810, 900, 900),
    ],
)
def test_looks_are_30_to_900_seconds_apart_with_a_tenth_of_jitter(looks, shortest, middle, longest):
    assert [policy(random=random).spacing_seconds(looks) for random in (0.0, 0.5, 1.0)] == [shortest, middle, longest]


@pytest.mark.parametrize(("looks", "delay_seconds"), [(0, 60), (1, 120), (2, 240), (3, 480), (4, 900), (9, 900)])
def test_every_look_counts_and_the_next_one_is_further_off(looks, delay_seconds):
    again = look(replace(FOLLOWING, looks=looks)).answered(found("started"), is_offline=False)
    assert (again.capture.following.looks, again.delay_seconds) == (looks + 1, delay_seconds)


@pytest.mark.parametrize(
    ("asked", "delay_seconds"), [(0, 240), (239.4, 240), (600.4, 600), (900, 900), (86_400, 900), (math.inf, 900)]
)
def test_the_wait_that_the_api_asks_for_is_honoured_up_to_the_longest_that_the_queue_takes(asked, delay_seconds):
    answer = Answer(http_status=503, retry_after_seconds=asked)
    assert look().answered(answer, is_offline=False).delay_seconds == delay_seconds


@pytest.mark.parametrize(("seconds_left", "delay_seconds"), [(0.001, 1), (1, 1), (239, 239), (240, 240), (241, 240)])
@pytest.mark.parametrize("asked", [0, 900])
def test_the_last_look_falls_on_the_deadline(seconds_left, delay_seconds, asked):
    following = replace(FOLLOWING, requested_at=NOW - timedelta(seconds=DAY - seconds_left))
    again = look(following).answered(Answer(http_status=503, retry_after_seconds=asked), is_offline=False)
    assert again.delay_seconds == (math.ceil(seconds_left) if asked else delay_seconds)


# ------------------------------------------------------------------ what a look finds


def test_a_completed_log_file_is_captured_with_its_links():
    outcome = ending(look().answered(found("completed", links=LINKS), is_offline=False))
    assert (outcome.status, outcome.reason, outcome.message, outcome.http_status) == (
        Status.CAPTURED,
        None,
        None,
        200,
    )
    assert outcome.log_file == LogFile(id="a-log-file", state="completed", links=LINKS)
    assert (outcome.agent_id, outcome.project_id, outcome.region) == ("an-agent", "110011", "DFW")
    assert (outcome.trigger, outcome.asked_at, outcome.at) == (TRIGGER, CAPTURE.asked_at, NOW)
    assert (outcome.attempts, outcome.replays) == (3, 1)


@pytest.mark.parametrize("state", ["requested", "started", "new", None])
def test_any_other_log_file_is_looked_for_again(state):
    again = look().answered(found(state), is_offline=False)
    assert again == Deferred(replace(CAPTURE, following=replace(FOLLOWING, looks=3)), 240, again.trouble)
    assert again.trouble.reason is Reason.NOT_UPLOADED


def test_a_log_file_that_no_answer_describes_is_looked_for_again():
    again = look(replace(FOLLOWING, is_seen=False)).answered(Answer(http_status=200), is_offline=False)
    assert again.capture.following == replace(FOLLOWING, looks=3)


def test_a_log_file_that_is_gone_is_expired():
    outcome = ending(look().answered(Answer(http_status=404, message="No such file."), is_offline=False))
    assert (outcome.status, outcome.reason, outcome.message) == (Status.EXPIRED, Reason.GONE, "the log file is gone")
    assert (outcome.log_file, outcome.http_status) == (LogFile(id="a-log-file"), 404)


@pytest.mark.parametrize(
    ("http_status", "reason"),
    [
        *((code, Reason.REFUSED) for code in (400, 403, 405, 410, 501)),
        *((code, Reason.REDIRECTED) for code in (300, 302, 308)),
    ],
)
def test_a_look_that_is_refused_or_redirected_is_rejected(http_status, reason):
    outcome = ending(look().answered(Answer(http_status=http_status, message="Its words."), is_offline=False))
    assert (outcome.status, outcome.reason, outcome.http_status) == (Status.REJECTED, reason, http_status)
    assert (outcome.message == "Its words.") is (reason is Reason.REFUSED)


@pytest.mark.parametrize(
    ("http_status", "reason"),
    [
        *((code, Reason.TEMPORARY) for code in (408, 413, 425, 429, 500, 502, 503, 504, 599)),
        (409, Reason.CONFLICT),
    ],
)
def test_a_temporary_answer_says_nothing_about_the_log_file(http_status, reason):
    unseen = replace(FOLLOWING, is_seen=False)
    again = look(unseen).answered(Answer(http_status=http_status, message="Busy."), is_offline=False)
    assert again.capture.following == replace(unseen, looks=3)
    assert (again.trouble.reason, again.trouble.message) == (reason, "Busy.")
    assert (again.trouble.http_status, again.delay_seconds) == (http_status, 240)


def test_a_look_without_an_answer_says_nothing_about_the_log_file():
    unseen = replace(FOLLOWING, is_seen=False)
    assert look(unseen).failed(NO_ANSWER) == Deferred(
        replace(CAPTURE, following=replace(unseen, looks=3)), 240, NO_ANSWER
    )


# ------------------------------------------------------------------ which log file it is


@pytest.mark.parametrize(
    ("known", "answered", "kept"), [(None, "listed", "listed"), (None, None, None), ("known", "other", "known")]
)
def test_a_log_file_without_an_id_takes_the_one_that_is_found(known, answered, kept):
    following = replace(FOLLOWING, log_file_id=known)
    again = look(following).answered(found("started", id=answered), is_offline=False)
    assert again.capture.following.log_file_id == kept


def test_an_answer_without_an_id_speaks_of_the_log_file_that_was_looked_for():
    outcome = ending(look().answered(found("completed", id=None), is_offline=False))
    assert outcome.log_file == LogFile(id="a-log-file", state="completed")


# ------------------------------------------------------------------ an agent that is offline


@pytest.mark.parametrize(
    ("state", "is_seen", "expected"),
    [
        ("requested", False, True),
        ("requested", True, False),
        ("started", False, False),
        ("completed", False, False),
        (None, False, False),
    ],
)
def test_the_agent_is_in_question_at_the_first_answered_look_when_nobody_took_the_file_up(state, is_seen, expected):
    assert look(replace(FOLLOWING, is_seen=is_seen)).is_agent_in_question(found(state)) is expected


@pytest.mark.parametrize("http_status", [404, 503])
def test_an_answer_without_a_log_file_does_not_put_the_agent_in_question(http_status):
    unseen = look(replace(FOLLOWING, is_seen=False))
    assert unseen.is_agent_in_question(Answer(http_status=http_status)) is False


def test_an_agent_that_is_offline_is_told_with_how_long_it_is_waited_for():
    told = look(replace(FOLLOWING, is_seen=False)).answered(found("requested"), is_offline=True)
    assert (told.outcome.status, told.outcome.reason) == (Status.WAITING, Reason.AGENT_OFFLINE)
    assert told.outcome.message == "the agent is offline; its log file is watched until 2026-11-24 02:12 UTC"
    assert (told.outcome.log_file.state, told.outcome.http_status) == ("requested", 200)
    assert told.then == Deferred(replace(CAPTURE, following=replace(FOLLOWING, looks=3)), 240, told.then.trouble)


def test_it_is_told_once():
    unseen = look(replace(FOLLOWING, is_seen=False))
    told = unseen.answered(found("requested"), is_offline=True)
    assert not replace(unseen, following=told.then.capture.following).is_agent_in_question(found("requested"))


def test_an_agent_that_is_offline_at_the_deadline_is_expired_and_not_waited_for():
    unseen = at_the_deadline(replace(FOLLOWING, is_seen=False))
    assert ending(look(unseen).answered(found("requested"), is_offline=True)).status is Status.EXPIRED


# ------------------------------------------------------------------ the deadline


@pytest.mark.parametrize(
    ("answer", "http_status", "why"),
    [
        (found("requested"), 200, "at the last look its state was requested"),
        (found("started"), 200, "at the last look its state was started"),
        (Answer(http_status=200), 200, "at the last look its state was not known"),
    ],
)
@pytest.mark.parametrize("late", [timedelta(), timedelta(days=3)])
def test_the_look_at_the_deadline_is_the_last_one(answer, http_status, why, late):
    following = at_the_deadline()
    following = replace(following, requested_at=following.requested_at - late)
    outcome = ending(look(following).answered(answer, is_offline=False))
    assert (outcome.status, outcome.reason, outcome.http_status) == (Status.EXPIRED, Reason.NOT_UPLOADED, http_status)
    assert (outcome.message, outcome.log_file.id) == (f"not uploaded within 24 h; {why}", "a-log-file")


def late_by(seconds):
    """What is left to look for so long after the deadline."""
    following = at_the_deadline()
    return look(replace(following, requested_at=following.requested_at - timedelta(seconds=seconds)))


@pytest.mark.parametrize("seconds", [0, GRACE_SECONDS - 1])
def test_a_look_past_the_deadline_that_fails_is_made_again_for_a_while(seconds):
    again = late_by(seconds).failed(NO_ANSWER)
    assert isinstance(again, Deferred)
    assert 1 <= again.delay_seconds <= GRACE_SECONDS - seconds


@pytest.mark.parametrize(
    ("answer", "http_status", "why"),
    [
        (Answer(http_status=503, message="Busy."), 503, "Busy."),
        (Answer(http_status=409), 409, "Conflict"),
    ],
)
def test_after_that_while_it_is_expired(answer, http_status, why):
    outcome = ending(late_by(GRACE_SECONDS).answered(answer, is_offline=False))
    assert (outcome.status, outcome.reason, outcome.http_status) == (Status.EXPIRED, Reason.NOT_UPLOADED, http_status)
    assert outcome.message == f"not uploaded within 24 h; the last look failed: {why}"


def test_a_last_look_without_an_answer_is_expired_too():
    outcome = ending(late_by(GRACE_SECONDS).failed(NO_ANSWER))
    assert (outcome.status, outcome.reason, outcome.http_status) == (Status.EXPIRED, Reason.NOT_UPLOADED, None)
    assert outcome.message == "not uploaded within 24 h; the last look failed: Read timed out."
    assert outcome.log_file == LogFile(id="a-log-file")


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (found("completed"), Status.CAPTURED),
        (Answer(http_status=404), Status.EXPIRED),
        (Answer(http_status=403), Status.REJECTED),
    ],
)
def test_what_the_last_look_finds_counts_all_the_same(answer, status):
    outcome = ending(look(at_the_deadline()).answered(answer, is_offline=False))
    assert (outcome.status, outcome.reason) != (Status.EXPIRED, Reason.NOT_UPLOADED)
    assert outcome.status is status


def test_a_deadline_that_was_switched_off_ends_what_is_still_watched():
    assert ending(look(deadline_seconds=0).answered(found("started"), is_offline=False)).status is Status.EXPIRED


@given(
    answer=st.builds(
        Answer,
        http_status=st.integers(100, 999),
        message=st.none() | st.text(),
        log_file=st.none() | st.builds(LogFile, id=st.none() | st.just("other"), state=st.none() | st.text()),
        retry_after_seconds=st.floats(min_value=0, allow_nan=False),
    ),
    following=st.builds(
        Following,
        log_file_id=st.none() | st.just("a-log-file"),
        requested_at=st.timedeltas(timedelta(), timedelta(days=3)).map(lambda since: NOW - since),
        looks=st.integers(0, 1_000_000),
        is_seen=st.booleans(),
    ),
    deadline_seconds=st.integers(0, 3 * DAY),
    random=st.floats(0, 1),
    is_offline=st.booleans(),
)
def test_a_look_ends_a_capture_or_is_followed_by_another_one_before_the_deadline_or_its_grace(
    *, answer, following, deadline_seconds, random, is_offline
):
    looked = look(following, deadline_seconds=deadline_seconds, random=random)
    result = looked.answered(answer, is_offline=is_offline)
    again = result.then if isinstance(result, Told) else result
    if again is None:
        assert result.outcome.status in {Status.CAPTURED, Status.EXPIRED, Status.REJECTED}
        return
    assert 1 <= again.delay_seconds <= 900
    grace_seconds = 1 if looked.deadline > NOW else 1 + GRACE_SECONDS
    assert NOW + timedelta(seconds=again.delay_seconds) < looked.deadline + timedelta(seconds=grace_seconds)
    kept = replace(again.capture.following, looks=following.looks, is_seen=following.is_seen)
    assert replace(kept, log_file_id=following.log_file_id) == following


@given(deadline_seconds=st.integers(1, 3 * DAY), http_status=st.sampled_from([0, 200, 409, 429, 500, 503]))
def test_a_capture_is_looked_for_until_its_deadline_and_then_ends(deadline_seconds, http_status):
    capture = policy(deadline_seconds).first_look(CAPTURE, accepted(LogFile(id="a-log-file"))).capture
    looked = replace(look(capture.following, deadline_seconds=deadline_seconds), at=NOW)
    while True:
        result = (
            looked.answered(Answer(http_status=http_status), is_offline=False)
            if http_status
            else looked.failed(NO_ANSWER)
        )
        if isinstance(result, Told):
            break
        waited = timedelta(seconds=result.delay_seconds)
        looked = replace(looked, following=result.capture.following, at=looked.at + waited)
    assert (result.outcome.status, result.outcome.reason) == (Status.EXPIRED, Reason.NOT_UPLOADED)
    grace = timedelta(seconds=0 if http_status == 200 else GRACE_SECONDS)
    assert looked.at == max(NOW, looked.deadline + grace)
