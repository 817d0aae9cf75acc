import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_log_capture.domain.capture import Capture, Polling, Requesting, Step
from agent_log_capture.domain.outcome import LogFile, Reason, Status, Trigger, TriggerType
from agent_log_capture.domain.polling import Poll, PollPolicy
from agent_log_capture.domain.responses import ApiResponse, Failure

NOW = datetime(2026, 11, 23, 3, 12, 40, tzinfo=UTC)
DAY = 86_400
TRIGGER = Trigger(TriggerType.ALARM, "arn@time", "an alarm")
PHASE = Polling(log_file_id="a-log-file", requested_at=NOW - timedelta(minutes=12))
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


def poll(phase=PHASE, *, deadline_seconds=DAY):
    return Poll(
        policy=policy(deadline_seconds),
        capture=replace(CAPTURE, phase=phase),
        phase=phase,
        at=NOW,
        project_id="110011",
    )


def found(state, **fields):
    return ApiResponse(http_status=200, log_file=LogFile(**{"id": "a-log-file", "state": state} | fields))


def at_the_deadline(phase=PHASE):
    return replace(phase, requested_at=NOW - timedelta(seconds=DAY))


def ended(step):
    """Return the outcome of a capture that has ended."""
    assert step.next is None
    return step.outcome


def requeued(phase, delay_seconds, failure):
    """Return the step of a capture that is polled again."""
    capture = replace(CAPTURE, phase=PHASE)
    return Step(capture=capture, next=replace(CAPTURE, phase=phase), delay_seconds=delay_seconds, failure=failure)


# ------------------------------------------------------------------ the first poll


def requested(log_file=None, *, deadline_seconds=DAY):
    return policy(deadline_seconds).requested(
        replace(CAPTURE, phase=Requesting(NOW)),
        ApiResponse(http_status=202, log_file=log_file),
        requested_at=NOW - timedelta(minutes=5),
        at=NOW,
        project_id="110011",
    )


@pytest.mark.parametrize(
    ("log_file", "log_file_id"), [(LogFile(id="a-log-file"), "a-log-file"), (LogFile(), None), (None, None)]
)
def test_a_requested_log_file_is_published_and_polled_after_30_seconds(log_file, log_file_id):
    step = requested(log_file)
    assert (step.outcome.status, step.outcome.log_file, step.outcome.http_status) == (Status.REQUESTED, log_file, 202)
    phase = Polling(log_file_id=log_file_id, requested_at=NOW - timedelta(minutes=5))
    assert (step.next, step.delay_seconds) == (replace(CAPTURE, phase=phase), 30)


def test_a_request_that_cannot_be_published_is_polled_for_from_the_time_that_it_was_made():
    assert requested().capture == replace(CAPTURE, phase=Requesting(NOW - timedelta(minutes=5)))


def test_without_a_deadline_an_accepted_request_has_ended():
    assert ended(requested(deadline_seconds=0)).status is Status.REQUESTED


@pytest.mark.parametrize(("deadline_seconds", "delay_seconds"), [(1, 1), (29, 29), (31, 30), (DAY, 30)])
def test_the_first_poll_is_not_after_the_deadline(deadline_seconds, delay_seconds):
    assert requested(deadline_seconds=deadline_seconds).delay_seconds == delay_seconds


# ------------------------------------------------------------------ how far apart polls are


@pytest.mark.parametrize(
    ("since_request", "delay_seconds"),
    [(0, 10), (-60, 10), (30, 10), (33, 11), (60, 20), (720, 240), (2700, 900), (2703, 900), (80_000, 900)],
)
def test_the_next_poll_comes_after_a_third_of_the_time_since_the_request(since_request, delay_seconds):
    phase = replace(PHASE, requested_at=NOW - timedelta(seconds=since_request))
    again = poll(phase).answered(found("started"))
    assert (again.next.phase, again.delay_seconds) == (phase, delay_seconds)


def test_an_agent_that_is_away_all_day_costs_about_a_hundred_polls():
    seconds, polls = 30, 1
    while seconds < DAY:
        phase = replace(PHASE, requested_at=NOW - timedelta(seconds=seconds))
        seconds += poll(phase).answered(found("requested")).delay_seconds
        polls += 1
    assert 100 <= polls <= 110


@pytest.mark.parametrize(
    ("asked", "delay_seconds"), [(0, 240), (239.4, 240), (600.4, 600), (900, 900), (86_400, 900), (math.inf, 900)]
)
def test_the_wait_that_the_api_asks_for_is_honoured_up_to_the_longest_that_the_queue_takes(asked, delay_seconds):
    answer = ApiResponse(http_status=503, retry_after_seconds=asked)
    assert poll().answered(answer).delay_seconds == delay_seconds


@pytest.mark.parametrize(("seconds_left", "delay_seconds"), [(0.001, 1), (1, 1), (239, 239), (900, 900), (901, 900)])
@pytest.mark.parametrize("asked", [0, 900])
def test_the_last_poll_falls_on_the_deadline(seconds_left, delay_seconds, asked):
    phase = replace(PHASE, requested_at=NOW - timedelta(seconds=DAY - seconds_left))
    again = poll(phase).answered(ApiResponse(http_status=503, retry_after_seconds=asked))
    assert again.delay_seconds == delay_seconds


# ------------------------------------------------------------------ what a look finds


def test_a_completed_log_file_is_captured_with_its_links():
    outcome = ended(poll().answered(found("completed", links=LINKS)))
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
def test_any_other_log_file_is_polled_for_again(state):
    again = poll().answered(found(state))
    assert (again.next, again.delay_seconds) == (replace(CAPTURE, phase=PHASE), 240)
    assert again.failure.reason is Reason.NOT_UPLOADED


def test_a_log_file_that_no_answer_describes_is_polled_for_again():
    again = poll().answered(ApiResponse(http_status=200))
    assert again == requeued(PHASE, 240, again.failure)


NOT_FOUND = ApiResponse(http_status=404, message="No such file.")


def test_a_log_file_that_is_not_found_once_is_polled_for_again():
    again = poll().answered(NOT_FOUND)
    assert again.next.phase == replace(PHASE, is_missing=True)
    assert (again.delay_seconds, again.failure.reason, again.failure.http_status) == (240, Reason.GONE, 404)


def test_a_log_file_that_is_not_found_twice_is_expired():
    outcome = ended(poll(replace(PHASE, is_missing=True)).answered(NOT_FOUND))
    assert (outcome.status, outcome.reason, outcome.message) == (Status.EXPIRED, Reason.GONE, "the log file is gone")
    assert (outcome.log_file, outcome.http_status) == (LogFile(id="a-log-file"), 404)


@pytest.mark.parametrize(("answer", "is_missing"), [(found("started"), False), (ApiResponse(http_status=503), True)])
def test_only_a_log_file_that_is_there_again_was_not_missing(answer, is_missing):
    again = poll(replace(PHASE, is_missing=True)).answered(answer)
    assert again.next.phase.is_missing is is_missing


@pytest.mark.parametrize(
    ("http_status", "reason"),
    [
        *((code, Reason.REFUSED) for code in (400, 403, 405, 410, 501)),
        *((code, Reason.REDIRECTED) for code in (300, 302, 308)),
    ],
)
def test_a_poll_that_is_refused_or_redirected_is_rejected(http_status, reason):
    outcome = ended(poll().answered(ApiResponse(http_status=http_status, message="Its words.")))
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
    again = poll().answered(ApiResponse(http_status=http_status, message="Busy."))
    assert again.next.phase == PHASE
    assert (again.failure.reason, again.failure.message) == (reason, "Busy.")
    assert (again.failure.http_status, again.delay_seconds) == (http_status, 240)


def test_a_poll_without_an_answer_says_nothing_about_the_log_file():
    assert poll().failed(NO_RESPONSE) == requeued(PHASE, 240, NO_RESPONSE)


# ------------------------------------------------------------------ which log file it is


@pytest.mark.parametrize(
    ("known", "answered", "kept"), [(None, "listed", "listed"), (None, None, None), ("known", "other", "known")]
)
def test_a_log_file_without_an_id_takes_the_one_that_is_found(known, answered, kept):
    phase = replace(PHASE, log_file_id=known)
    again = poll(phase).answered(found("started", id=answered))
    assert again.next.phase.log_file_id == kept


def test_an_answer_without_an_id_speaks_of_the_log_file_that_was_polled_for():
    outcome = ended(poll().answered(found("completed", id=None)))
    assert outcome.log_file == LogFile(id="a-log-file", state="completed")


# ------------------------------------------------------------------ an agent that is offline


def activated(seconds_ago, activations=1):
    return replace(PHASE, activated_at=NOW - timedelta(seconds=seconds_ago), activations=activations)


@pytest.mark.parametrize(
    ("seconds_ago", "is_wanted"), [(0, False), (74.9, False), (75, True), (130, True), (130.1, False), (900, False)]
)
def test_the_status_of_an_agent_is_asked_for_between_75_and_130_seconds_after_its_activation(seconds_ago, is_wanted):
    assert poll(activated(seconds_ago)).needs_status(found("requested")) is is_wanted


@pytest.mark.parametrize(
    "answer",
    [*map(found, ("started", "completed", None)), ApiResponse(http_status=404), ApiResponse(http_status=503)],
)
def test_no_status_is_asked_for_when_the_upload_has_begun_or_nothing_is_known_of_it(answer):
    assert not poll(activated(100)).needs_status(answer)


def test_without_an_activation_no_status_is_asked_for():
    assert not poll(PHASE).needs_status(found("requested"))


@pytest.mark.parametrize("is_online", [True, False])
def test_a_status_is_asked_for_once(is_online):
    again = poll(activated(100)).answered(found("requested"), is_online=is_online)
    assert not poll(again.next.phase).needs_status(found("requested"))
    assert again.needs_activation is False


@pytest.mark.parametrize(
    ("phase", "is_needed"),
    [
        (PHASE, True),
        (activated(60), False),
        (activated(130), False),
        (activated(131), True),
        (activated(131, activations=2), True),
        (activated(131, activations=3), False),
        (replace(activated(900), is_presence_known=True), False),
    ],
)
def test_an_agent_that_has_not_begun_to_upload_is_activated_until_its_status_is_known_at_most_three_times(
    phase, is_needed
):
    assert poll(phase).answered(found("requested")).needs_activation is is_needed


@pytest.mark.parametrize(
    "answer", [found("started"), found(None), ApiResponse(http_status=404), ApiResponse(http_status=503)]
)
def test_no_agent_is_activated_when_its_upload_has_begun_or_nothing_is_known_of_it(answer):
    assert poll().answered(answer).needs_activation is False


def test_an_agent_that_is_offline_is_published_with_how_long_it_is_waited_for():
    published = poll(activated(100)).answered(found("requested"), is_online=False)
    assert (published.outcome.status, published.outcome.reason) == (Status.WAITING, Reason.AGENT_OFFLINE)
    assert published.outcome.message == "the agent is offline; its log file is polled until 2026-11-24 03:00 UTC"
    assert (published.outcome.log_file.state, published.outcome.http_status) == ("requested", 200)
    phase = replace(activated(100), is_presence_known=True)
    assert (published.next, published.delay_seconds) == (replace(CAPTURE, phase=phase), 240)


def test_an_agent_that_is_offline_at_the_deadline_is_expired_and_not_waited_for():
    late = at_the_deadline(activated(100))
    assert ended(poll(late).answered(found("requested"), is_online=False)).status is Status.EXPIRED


# ------------------------------------------------------------------ the deadline


@pytest.mark.parametrize(
    ("answer", "http_status", "why"),
    [
        (found("requested"), 200, "at the last poll its state was requested"),
        (found("started"), 200, "at the last poll its state was started"),
        (ApiResponse(http_status=200), 200, "at the last poll its state was not known"),
    ],
)
@pytest.mark.parametrize("late", [timedelta(), timedelta(days=3)])
def test_the_poll_at_the_deadline_is_the_last_one(answer, http_status, why, late):
    phase = at_the_deadline()
    phase = replace(phase, requested_at=phase.requested_at - late)
    outcome = ended(poll(phase).answered(answer))
    assert (outcome.status, outcome.reason, outcome.http_status) == (Status.EXPIRED, Reason.NOT_UPLOADED, http_status)
    assert (outcome.message, outcome.log_file.id) == (f"not uploaded within 24 h; {why}", "a-log-file")


def late_by(seconds):
    """What is left to look for so long after the deadline."""
    phase = at_the_deadline()
    return poll(replace(phase, requested_at=phase.requested_at - timedelta(seconds=seconds)))


@pytest.mark.parametrize("seconds", [0, GRACE_SECONDS - 1])
def test_a_poll_past_the_deadline_that_fails_is_made_again_for_a_while(seconds):
    again = late_by(seconds).failed(NO_RESPONSE)
    assert again.outcome is None
    assert 1 <= again.delay_seconds <= GRACE_SECONDS - seconds


@pytest.mark.parametrize(
    ("answer", "http_status", "why"),
    [
        (ApiResponse(http_status=503, message="Busy."), 503, "Busy."),
        (ApiResponse(http_status=409), 409, "Conflict"),
    ],
)
def test_after_that_while_it_is_expired(answer, http_status, why):
    outcome = ended(late_by(GRACE_SECONDS).answered(answer))
    assert (outcome.status, outcome.reason, outcome.http_status) == (Status.EXPIRED, Reason.NOT_UPLOADED, http_status)
    assert outcome.message == f"not uploaded within 24 h; the last poll failed: {why}"


def test_a_last_poll_without_an_answer_is_expired_too():
    outcome = ended(late_by(GRACE_SECONDS).failed(NO_RESPONSE))
    assert (outcome.status, outcome.reason, outcome.http_status) == (Status.EXPIRED, Reason.NOT_UPLOADED, None)
    assert outcome.message == "not uploaded within 24 h; the last poll failed: Read timed out."
    assert outcome.log_file == LogFile(id="a-log-file")


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (found("completed"), Status.CAPTURED),
        (ApiResponse(http_status=404), Status.EXPIRED),
        (ApiResponse(http_status=403), Status.REJECTED),
    ],
)
def test_what_the_last_poll_finds_counts_all_the_same(answer, status):
    outcome = ended(poll(at_the_deadline()).answered(answer))
    assert (outcome.status, outcome.reason) != (Status.EXPIRED, Reason.NOT_UPLOADED)
    assert outcome.status is status


def test_a_deadline_that_was_switched_off_ends_what_is_still_watched():
    assert ended(poll(deadline_seconds=0).answered(found("started"))).status is Status.EXPIRED


MOMENTS = st.timedeltas(timedelta(), timedelta(days=3)).map(lambda since: NOW - since)


@given(
    answer=st.builds(
        ApiResponse,
        http_status=st.integers(100, 999),
        message=st.none() | st.text(),
        log_file=st.none() | st.builds(LogFile, id=st.none() | st.just("other"), state=st.none() | st.text()),
        retry_after_seconds=st.floats(min_value=0, allow_nan=False),
    ),
    phase=st.builds(
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
def test_a_poll_ends_a_capture_or_is_followed_by_another_one_before_the_deadline_or_its_grace(
    *, answer, phase, deadline_seconds, is_online
):
    polled = poll(phase, deadline_seconds=deadline_seconds)
    result = polled.answered(answer, is_online=is_online)
    again = result
    if again.next is None:
        assert result.outcome.status in {Status.CAPTURED, Status.EXPIRED, Status.REJECTED}
        return
    assert 1 <= again.delay_seconds <= 900
    grace_seconds = 1 if polled.deadline > NOW else 1 + GRACE_SECONDS
    assert NOW + timedelta(seconds=again.delay_seconds) < polled.deadline + timedelta(seconds=grace_seconds)
    kept = again.next.phase
    assert (kept.requested_at, kept.activated_at, kept.activations) == (
        phase.requested_at,
        phase.activated_at,
        phase.activations,
    )


@given(deadline_seconds=st.integers(1, 3 * DAY), http_status=st.sampled_from([0, 200, 409, 429, 500, 503]))
def test_a_capture_is_polled_for_until_its_deadline_and_then_ends(deadline_seconds, http_status):
    capture = requested(LogFile(id="a-log-file"), deadline_seconds=deadline_seconds).next
    polled = replace(poll(capture.phase, deadline_seconds=deadline_seconds), at=NOW)
    while True:
        result = polled.answered(ApiResponse(http_status=http_status)) if http_status else polled.failed(NO_RESPONSE)
        if result.outcome:
            break
        waited = timedelta(seconds=result.delay_seconds)
        polled = replace(polled, phase=result.next.phase, at=polled.at + waited)
    assert (result.outcome.status, result.outcome.reason) == (Status.EXPIRED, Reason.NOT_UPLOADED)
    grace = timedelta(seconds=0 if http_status == 200 else GRACE_SECONDS)
    assert polled.at == max(NOW, polled.deadline + grace)
