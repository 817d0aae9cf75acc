import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_log_capture.domain.capture import Capture, Polling
from agent_log_capture.domain.failure import Failure
from agent_log_capture.domain.outcome import LogFile, Reason, Status
from agent_log_capture.domain.polling import Poll, PollPolicy
from agent_log_capture.domain.responses import Accepted, ApiResponse, Deferred, Told
from agent_log_capture.domain.trigger import Trigger, TriggerType

NOW = datetime(2026, 11, 23, 3, 12, 40, tzinfo=UTC)
DAY = 86_400
TRIGGER = Trigger(TriggerType.ALARM, "arn@time", "an alarm")
FOLLOWING = Polling(log_file_id="a-log-file", requested_at=NOW - timedelta(minutes=12))
CAPTURE = Capture(
    agent_id="an-agent",
    region="DFW",
    trigger=TRIGGER,
    asked_at=NOW - timedelta(hours=2),
    retry_from=NOW - timedelta(hours=2),
    attempts=3,
    replays=1,
)
NO_RESPONSE = Failure(reason=Reason.TEMPORARY, message="Read timed out.")
LINKS = (
    {"rel": "logfile_temp_url", "href": "https://files.example/a.gz?temp_url_sig=0&temp_url_expires=1795490001"},
)


GRACE_SECONDS = 3600


def policy(deadline_seconds=DAY):
    return PollPolicy(deadline_seconds=deadline_seconds, grace_seconds=GRACE_SECONDS)


def look(polling=FOLLOWING, *, deadline_seconds=DAY):
    return Poll(
        policy=policy(deadline_seconds),
        capture=replace(CAPTURE, polling=polling),
        polling=polling,
        at=NOW,
        project_id="110011",
    )


def found(state, **fields):
    return ApiResponse(http_status=200, log_file=LogFile(**{"id": "a-log-file", "state": state} | fields))


def at_the_deadline(polling=FOLLOWING):
    return replace(polling, requested_at=NOW - timedelta(seconds=DAY))


def ending(told):
    assert isinstance(told, Told)
    assert told.then is None
    return told.outcome


# ------------------------------------------------------------------ the first look


def accepted(log_file):
    answer = ApiResponse(http_status=202, log_file=log_file)
    return Accepted(trigger=TRIGGER, replays=1, requested_at=NOW - timedelta(minutes=5), answer=answer)


@pytest.mark.parametrize(
    ("log_file", "log_file_id"), [(LogFile(id="a-log-file"), "a-log-file"), (LogFile(), None), (None, None)]
)
def test_a_requested_log_file_is_looked_for_after_30_seconds(log_file, log_file_id):
    waiting = policy().first_poll(replace(CAPTURE, unconfirmed_since=NOW), accepted(log_file))
    polling = Polling(log_file_id=log_file_id, requested_at=NOW - timedelta(minutes=5))
    assert waiting.capture == replace(CAPTURE, polling=polling)
    assert (waiting.delay_seconds, waiting.failure.reason) == (30, Reason.NOT_UPLOADED)


def test_without_a_deadline_log_files_are_not_followed():
    assert policy(deadline_seconds=0).first_poll(CAPTURE, accepted(LogFile(id="a-log-file"))) is None


@pytest.mark.parametrize(("deadline_seconds", "delay_seconds"), [(1, 1), (29, 29), (31, 30), (DAY, 30)])
def test_the_first_look_does_not_come_after_the_deadline(deadline_seconds, delay_seconds):
    assert policy(deadline_seconds).first_poll(CAPTURE, accepted(None)).delay_seconds == delay_seconds


# ------------------------------------------------------------------ how far apart polls are


@pytest.mark.parametrize(
    ("since_request", "delay_seconds"),
    [(0, 10), (-60, 10), (30, 10), (33, 11), (60, 20), (720, 240), (2700, 900), (2703, 900), (80_000, 900)],
)
def test_the_next_poll_comes_after_a_third_of_the_time_since_the_request(since_request, delay_seconds):
    polling = replace(FOLLOWING, requested_at=NOW - timedelta(seconds=since_request))
    again = look(polling).answered(found("started"))
    assert (again.capture.polling, again.delay_seconds) == (polling, delay_seconds)


def test_an_agent_that_is_away_all_day_costs_about_a_hundred_polls():
    seconds, polls = 30, 1
    while seconds < DAY:
        polling = replace(FOLLOWING, requested_at=NOW - timedelta(seconds=seconds))
        seconds += look(polling).answered(found("requested")).delay_seconds
        polls += 1
    assert 100 <= polls <= 110


@pytest.mark.parametrize(
    ("asked", "delay_seconds"), [(0, 240), (239.4, 240), (600.4, 600), (900, 900), (86_400, 900), (math.inf, 900)]
)
def test_the_wait_that_the_api_asks_for_is_honoured_up_to_the_longest_that_the_queue_takes(asked, delay_seconds):
    answer = ApiResponse(http_status=503, retry_after_seconds=asked)
    assert look().answered(answer).delay_seconds == delay_seconds


@pytest.mark.parametrize(("seconds_left", "delay_seconds"), [(0.001, 1), (1, 1), (239, 239), (900, 900), (901, 900)])
@pytest.mark.parametrize("asked", [0, 900])
def test_the_last_look_falls_on_the_deadline(seconds_left, delay_seconds, asked):
    polling = replace(FOLLOWING, requested_at=NOW - timedelta(seconds=DAY - seconds_left))
    again = look(polling).answered(ApiResponse(http_status=503, retry_after_seconds=asked))
    assert again.delay_seconds == delay_seconds


# ------------------------------------------------------------------ what a look finds


def test_a_completed_log_file_is_captured_with_its_links():
    outcome = ending(look().answered(found("completed", links=LINKS)))
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
    again = look().answered(found(state))
    assert (again.capture, again.delay_seconds) == (replace(CAPTURE, polling=FOLLOWING), 240)
    assert again.failure.reason is Reason.NOT_UPLOADED


def test_a_log_file_that_no_answer_describes_is_looked_for_again():
    again = look().answered(ApiResponse(http_status=200))
    assert again == Deferred(replace(CAPTURE, polling=FOLLOWING), 240, again.failure)


NOT_FOUND = ApiResponse(http_status=404, message="No such file.")


def test_a_log_file_that_is_not_found_once_is_polled_for_again():
    again = look().answered(NOT_FOUND)
    assert again.capture.polling == replace(FOLLOWING, is_missing=True)
    assert (again.delay_seconds, again.failure.reason, again.failure.http_status) == (240, Reason.GONE, 404)


def test_a_log_file_that_is_not_found_twice_is_expired():
    outcome = ending(look(replace(FOLLOWING, is_missing=True)).answered(NOT_FOUND))
    assert (outcome.status, outcome.reason, outcome.message) == (Status.EXPIRED, Reason.GONE, "the log file is gone")
    assert (outcome.log_file, outcome.http_status) == (LogFile(id="a-log-file"), 404)


@pytest.mark.parametrize(("answer", "is_missing"), [(found("started"), False), (ApiResponse(http_status=503), True)])
def test_only_a_log_file_that_is_there_again_was_not_missing(answer, is_missing):
    again = look(replace(FOLLOWING, is_missing=True)).answered(answer)
    assert again.capture.polling.is_missing is is_missing


@pytest.mark.parametrize(
    ("http_status", "reason"),
    [
        *((code, Reason.REFUSED) for code in (400, 403, 405, 410, 501)),
        *((code, Reason.REDIRECTED) for code in (300, 302, 308)),
    ],
)
def test_a_look_that_is_refused_or_redirected_is_rejected(http_status, reason):
    outcome = ending(look().answered(ApiResponse(http_status=http_status, message="Its words.")))
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
    again = look().answered(ApiResponse(http_status=http_status, message="Busy."))
    assert again.capture.polling == FOLLOWING
    assert (again.failure.reason, again.failure.message) == (reason, "Busy.")
    assert (again.failure.http_status, again.delay_seconds) == (http_status, 240)


def test_a_look_without_an_answer_says_nothing_about_the_log_file():
    assert look().failed(NO_RESPONSE) == Deferred(replace(CAPTURE, polling=FOLLOWING), 240, NO_RESPONSE)


# ------------------------------------------------------------------ which log file it is


@pytest.mark.parametrize(
    ("known", "answered", "kept"), [(None, "listed", "listed"), (None, None, None), ("known", "other", "known")]
)
def test_a_log_file_without_an_id_takes_the_one_that_is_found(known, answered, kept):
    polling = replace(FOLLOWING, log_file_id=known)
    again = look(polling).answered(found("started", id=answered))
    assert again.capture.polling.log_file_id == kept


def test_an_answer_without_an_id_speaks_of_the_log_file_that_was_looked_for():
    outcome = ending(look().answered(found("completed", id=None)))
    assert outcome.log_file == LogFile(id="a-log-file", state="completed")


# ------------------------------------------------------------------ an agent that is offline


def activated(seconds_ago, activations=1):
    return replace(FOLLOWING, activated_at=NOW - timedelta(seconds=seconds_ago), activations=activations)


@pytest.mark.parametrize(
    ("seconds_ago", "is_wanted"), [(0, False), (74.9, False), (75, True), (130, True), (130.1, False), (900, False)]
)
def test_the_status_of_an_agent_is_asked_for_between_75_and_130_seconds_after_its_activation(seconds_ago, is_wanted):
    assert look(activated(seconds_ago)).is_status_wanted(found("requested")) is is_wanted


@pytest.mark.parametrize(
    "answer",
    [*map(found, ("started", "completed", None)), ApiResponse(http_status=404), ApiResponse(http_status=503)],
)
def test_no_status_is_asked_for_when_the_upload_has_begun_or_nothing_is_known_of_it(answer):
    assert not look(activated(100)).is_status_wanted(answer)


def test_without_an_activation_no_status_is_asked_for():
    assert not look(FOLLOWING).is_status_wanted(found("requested"))


@pytest.mark.parametrize("is_online", [True, False])
def test_a_status_is_asked_for_once(is_online):
    result = look(activated(100)).answered(found("requested"), is_online=is_online)
    again = result.then if isinstance(result, Told) else result
    assert not look(again.capture.polling).is_status_wanted(found("requested"))
    assert again.needs_activation is False


@pytest.mark.parametrize(
    ("polling", "is_needed"),
    [
        (FOLLOWING, True),
        (activated(60), False),
        (activated(130), False),
        (activated(131), True),
        (activated(131, activations=2), True),
        (activated(131, activations=3), False),
        (replace(activated(900), is_presence_known=True), False),
    ],
)
def test_an_agent_that_has_not_begun_to_upload_is_activated_until_its_status_is_known_at_most_three_times(
    polling, is_needed
):
    assert look(polling).answered(found("requested")).needs_activation is is_needed


@pytest.mark.parametrize(
    "answer", [found("started"), found(None), ApiResponse(http_status=404), ApiResponse(http_status=503)]
)
def test_no_agent_is_activated_when_its_upload_has_begun_or_nothing_is_known_of_it(answer):
    assert look().answered(answer).needs_activation is False


def test_an_agent_that_is_offline_is_told_with_how_long_it_is_waited_for():
    told = look(activated(100)).answered(found("requested"), is_online=False)
    assert (told.outcome.status, told.outcome.reason) == (Status.WAITING, Reason.AGENT_OFFLINE)
    assert told.outcome.message == "the agent is offline; its log file is watched until 2026-11-24 03:00 UTC"
    assert (told.outcome.log_file.state, told.outcome.http_status) == ("requested", 200)
    polling = replace(activated(100), is_presence_known=True)
    assert told.then == Deferred(replace(CAPTURE, polling=polling), 240, told.then.failure)


def test_an_agent_that_is_offline_at_the_deadline_is_expired_and_not_waited_for():
    late = at_the_deadline(activated(100))
    assert ending(look(late).answered(found("requested"), is_online=False)).status is Status.EXPIRED


# ------------------------------------------------------------------ the deadline


@pytest.mark.parametrize(
    ("answer", "http_status", "why"),
    [
        (found("requested"), 200, "at the last look its state was requested"),
        (found("started"), 200, "at the last look its state was started"),
        (ApiResponse(http_status=200), 200, "at the last look its state was not known"),
    ],
)
@pytest.mark.parametrize("late", [timedelta(), timedelta(days=3)])
def test_the_look_at_the_deadline_is_the_last_one(answer, http_status, why, late):
    polling = at_the_deadline()
    polling = replace(polling, requested_at=polling.requested_at - late)
    outcome = ending(look(polling).answered(answer))
    assert (outcome.status, outcome.reason, outcome.http_status) == (Status.EXPIRED, Reason.NOT_UPLOADED, http_status)
    assert (outcome.message, outcome.log_file.id) == (f"not uploaded within 24 h; {why}", "a-log-file")


def late_by(seconds):
    """What is left to look for so long after the deadline."""
    polling = at_the_deadline()
    return look(replace(polling, requested_at=polling.requested_at - timedelta(seconds=seconds)))


@pytest.mark.parametrize("seconds", [0, GRACE_SECONDS - 1])
def test_a_look_past_the_deadline_that_fails_is_made_again_for_a_while(seconds):
    again = late_by(seconds).failed(NO_RESPONSE)
    assert isinstance(again, Deferred)
    assert 1 <= again.delay_seconds <= GRACE_SECONDS - seconds


@pytest.mark.parametrize(
    ("answer", "http_status", "why"),
    [
        (ApiResponse(http_status=503, message="Busy."), 503, "Busy."),
        (ApiResponse(http_status=409), 409, "Conflict"),
    ],
)
def test_after_that_while_it_is_expired(answer, http_status, why):
    outcome = ending(late_by(GRACE_SECONDS).answered(answer))
    assert (outcome.status, outcome.reason, outcome.http_status) == (Status.EXPIRED, Reason.NOT_UPLOADED, http_status)
    assert outcome.message == f"not uploaded within 24 h; the last look failed: {why}"


def test_a_last_look_without_an_answer_is_expired_too():
    outcome = ending(late_by(GRACE_SECONDS).failed(NO_RESPONSE))
    assert (outcome.status, outcome.reason, outcome.http_status) == (Status.EXPIRED, Reason.NOT_UPLOADED, None)
    assert outcome.message == "not uploaded within 24 h; the last look failed: Read timed out."
    assert outcome.log_file == LogFile(id="a-log-file")


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (found("completed"), Status.CAPTURED),
        (ApiResponse(http_status=404), Status.EXPIRED),
        (ApiResponse(http_status=403), Status.REJECTED),
    ],
)
def test_what_the_last_look_finds_counts_all_the_same(answer, status):
    outcome = ending(look(at_the_deadline()).answered(answer))
    assert (outcome.status, outcome.reason) != (Status.EXPIRED, Reason.NOT_UPLOADED)
    assert outcome.status is status


def test_a_deadline_that_was_switched_off_ends_what_is_still_watched():
    assert ending(look(deadline_seconds=0).answered(found("started"))).status is Status.EXPIRED


MOMENTS = st.timedeltas(timedelta(), timedelta(days=3)).map(lambda since: NOW - since)


@given(
    answer=st.builds(
        ApiResponse,
        http_status=st.integers(100, 999),
        message=st.none() | st.text(),
        log_file=st.none() | st.builds(LogFile, id=st.none() | st.just("other"), state=st.none() | st.text()),
        retry_after_seconds=st.floats(min_value=0, allow_nan=False),
    ),
    polling=st.builds(
        Polling,
        log_file_id=st.none() | st.just("a-log-file"),
        requested_at=MOMENTS,
        is_missing=st.booleans(),
        activated_at=st.none() | MOMENTS,
        activations=st.integers(0, 3),
        is_presence_known=st.booleans(),
    ),
    deadline_seconds=st.integers(0, 3 * DAY),
    is_online=st.none() | st.booleans(),
)
def test_a_look_ends_a_capture_or_is_followed_by_another_one_before_the_deadline_or_its_grace(
    *, answer, polling, deadline_seconds, is_online
):
    looked = look(polling, deadline_seconds=deadline_seconds)
    result = looked.answered(answer, is_online=is_online)
    again = result.then if isinstance(result, Told) else result
    if again is None:
        assert result.outcome.status in {Status.CAPTURED, Status.EXPIRED, Status.REJECTED}
        return
    assert 1 <= again.delay_seconds <= 900
    grace_seconds = 1 if looked.deadline > NOW else 1 + GRACE_SECONDS
    assert NOW + timedelta(seconds=again.delay_seconds) < looked.deadline + timedelta(seconds=grace_seconds)
    kept = again.capture.polling
    assert (kept.requested_at, kept.activated_at, kept.activations) == (
        polling.requested_at,
        polling.activated_at,
        polling.activations,
    )


@given(deadline_seconds=st.integers(1, 3 * DAY), http_status=st.sampled_from([0, 200, 409, 429, 500, 503]))
def test_a_capture_is_looked_for_until_its_deadline_and_then_ends(deadline_seconds, http_status):
    capture = policy(deadline_seconds).first_poll(CAPTURE, accepted(LogFile(id="a-log-file"))).capture
    looked = replace(look(capture.polling, deadline_seconds=deadline_seconds), at=NOW)
    while True:
        result = looked.answered(ApiResponse(http_status=http_status)) if http_status else looked.failed(NO_RESPONSE)
        if isinstance(result, Told):
            break
        waited = timedelta(seconds=result.delay_seconds)
        looked = replace(looked, polling=result.capture.polling, at=looked.at + waited)
    assert (result.outcome.status, result.outcome.reason) == (Status.EXPIRED, Reason.NOT_UPLOADED)
    grace = timedelta(seconds=0 if http_status == 200 else GRACE_SECONDS)
    assert looked.at == max(NOW, looked.deadline + grace)
