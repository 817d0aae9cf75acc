import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_log_capture.domain.capture import Capture, Job, Polling, is_agent_id
from agent_log_capture.domain.outcome import LogFile, Status, readable, timestamp
from agent_log_capture.domain.printable import printable
from agent_log_capture.domain.trigger import Trigger, TriggerType

NOW = datetime(2026, 11, 23, 3, 12, 40, tzinfo=UTC)
CAPTURE = Capture(
    agent_id="an-agent",
    region="DFW",
    trigger=Trigger(TriggerType.ALARM, "arn@time", "an alarm"),
    asked_at=NOW - timedelta(hours=3),
    retry_from=NOW - timedelta(hours=2),
    attempts=4,
    replays=1,
    force=True,
    unconfirmed_since=NOW - timedelta(hours=1),
    polling=Polling(
        log_file_id="a-log-file", requested_at=NOW - timedelta(minutes=30), activated_at=NOW, activations=2
    ),
    job=Job(name="night shift", asked=5, rejected=1, is_open=True),
)
FIELDS = CAPTURE.to_json()
TRIGGER = FIELDS["trigger"]
FOLLOWING = FIELDS["polling"]
JOB = FIELDS["part_of_job"]
NO_MOMENTS = (
    *(7, "", "soon", "2026-11-23", "2026-11-23T03:12:40", "2026-11-23T03:12:40+01:00", "2026-13-23T03:12:40Z"),
    *("0001-01-01T00:00:00Z", "2019-12-31T23:59:59Z", "2026-11-23T05:12:40Z", "9999-12-31T23:59:59Z"),
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.datetimes().map(datetime.isoformat),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)
MOMENTS = st.datetimes(datetime(2020, 1, 2), datetime(2026, 11, 23), timezones=st.just(UTC)).map(  # noqa: DTZ001
    lambda moment: moment.replace(microsecond=moment.microsecond // 1000 * 1000)
)
IDS, NAMES, JOB_NAMES = (
    st.text(min_size=1, max_size=limit).map(lambda text, limit=limit: printable(text, limit))
    for limit in (512, 256, 128)
)


@given(
    capture=st.builds(
        Capture,
        agent_id=st.from_regex(r"[A-Za-z0-9_-]{1,128}", fullmatch=True),
        region=st.sampled_from(["DFW", "ORD", "IAD", "LON", "SYD", "HKG"]),
        trigger=st.builds(Trigger, st.sampled_from(TriggerType), IDS, st.none() | NAMES),
        asked_at=MOMENTS,
        retry_from=MOMENTS,
        attempts=st.integers(0, 1_000_000),
        replays=st.integers(0, 1_000_000),
        unconfirmed_since=st.none() | MOMENTS,
        polling=st.none()
        | st.builds(
            Polling,
            log_file_id=st.none() | st.from_regex(r"[A-Za-z0-9_-]{1,128}", fullmatch=True),
            requested_at=MOMENTS,
            is_missing=st.booleans(),
            activated_at=st.none() | MOMENTS,
            activations=st.integers(0, 1_000_000),
            is_presence_known=st.booleans(),
        ),
        job=st.none()
        | st.builds(
            Job,
            name=st.none() | JOB_NAMES,
            asked=st.integers(500, 1_000_000),
            rejected=st.integers(0, 499),
            is_open=st.booleans(),
        ),
        ended=st.none() | st.sampled_from(Status),
    )
)
def test_a_capture_is_the_same_after_a_stay_in_the_queue(capture):
    assert Capture.from_json(json.loads(json.dumps(capture.to_json())), NOW) == capture


def test_a_dead_letter_starts_anew_and_keeps_what_it_stands_for():
    replayed = Capture.from_json(CAPTURE.to_dead_letter(), NOW)
    assert replayed == replace(
        CAPTURE, attempts=0, replays=2, retry_from=NOW, job=replace(CAPTURE.job, is_open=False)
    )
    assert replayed.key != CAPTURE.key


def test_a_dead_letter_of_what_has_ended_and_was_not_counted_is_no_replay():
    ended = replace(CAPTURE, ended=Status.CAPTURED)
    replayed = Capture.from_json(ended.to_dead_letter(), NOW)
    assert (replayed.ended, replayed.key) == (Status.CAPTURED, CAPTURE.key)


def test_a_capture_from_before_there_were_jobs_is_in_none():
    before = {name: value for name, value in FIELDS.items() if name not in {"part_of_job", "ended"}}
    assert Capture.from_json(before, NOW) == replace(CAPTURE, job=None)


@pytest.mark.parametrize(
    ("job", "job_id"),
    [(None, "arn@time"), (replace(CAPTURE.job, name=None), "arn@time"), (CAPTURE.job, "night shift")],
)
def test_a_job_has_the_name_that_the_caller_gave_it_or_its_triggers_id(job, job_id):
    assert replace(CAPTURE, job=job).job_id == job_id


@pytest.mark.parametrize("name", ["asked_at", "retry_from"])
def test_a_time_that_is_not_known_yet_is_now(name):
    assert getattr(Capture.from_json(FIELDS | {name: None}, NOW), name) == NOW


def test_a_capture_from_before_log_files_were_followed_has_yet_to_be_asked_for():
    before = {name: value for name, value in FIELDS.items() if name != "polling"}
    assert Capture.from_json(before, NOW) == replace(CAPTURE, polling=None)


def test_a_log_file_of_unknown_age_counts_from_now():
    fields = FIELDS | {"polling": FOLLOWING | {"requested_at": None}}
    assert Capture.from_json(fields, NOW).polling.requested_at == NOW


@pytest.mark.parametrize(
    "fields",
    [
        None,
        [],
        "capture",
        *(FIELDS | {"agent_id": value} for value in (None, "", "a b", "a\n", "x" * 129, 7, ["a"])),
        *(FIELDS | {"region": value} for value in (None, "dfw", "XYZ", 7)),
        *(FIELDS | {"trigger": value} for value in (None, "alarm", [], {})),
        *(FIELDS | {"trigger": TRIGGER | {"type": value}} for value in (None, "email", 7)),
        *(FIELDS | {"trigger": TRIGGER | {"id": value}} for value in (None, "", "x" * 513, "a\nb", "\ud800", 7)),
        *(
            FIELDS | {"trigger": TRIGGER | {"name": value}}
            for value in ("", "x" * 257, "a\u202eb", "a" + "\u0301" * 5, 7)
        ),
        *(FIELDS | {"trigger": TRIGGER | {"more": None}}, FIELDS | {"more": None}),
        FIELDS | {"polling": FOLLOWING | {"more": None}},
        *(FIELDS | {"attempts": value} for value in (None, -1, 1_000_001, 1.0, True, "4")),
        *(FIELDS | {"replays": value} for value in (None, -1, 1_000_001, 1.0, False, "1")),
        *(FIELDS | {"force": value} for value in (None, "true", 1)),
        *(FIELDS | {name: value} for name in ("asked_at", "retry_from", "unconfirmed_since") for value in NO_MOMENTS),
        *(FIELDS | {"ended": value} for value in ("over", "", 7, True)),
        *(FIELDS | {"part_of_job": value} for value in ("a job", [], {}, True, 0)),
        FIELDS | {"part_of_job": JOB | {"more": None}},
        *(
            FIELDS | {"part_of_job": JOB | {name: value}}
            for name, values in {
                "name": ("", "x" * 129, "a\nb", 7, ["a"]),
                "asked": (None, 0, 1, -1, 1_000_001, "4"),
                "rejected": (None, 5, -1, "1", True),
                "is_open": (None, "true", 1),
            }.items()
            for value in values
        ),
        *(FIELDS | {"polling": value} for value in ("a-log-file", [], {}, True, 0)),
        *(
            FIELDS | {"polling": FOLLOWING | {name: value}}
            for name, values in {
                "logfile_id": ("", "a b", "../..", "x" * 129, 7, ["a"]),
                "requested_at": NO_MOMENTS,
                "is_missing": (None, "true", 1),
                "activated_at": [moment for moment in NO_MOMENTS if moment is not None],
                "activations": (None, -1, 1_000_001, 1.0, True, "4"),
                "is_presence_known": (None, "true", 1),
            }.items()
            for value in values
        ),
    ],
)
def test_what_is_no_capture_is_refused(fields):
    with pytest.raises(ValueError, match=r"\w"):
        Capture.from_json(fields, NOW)


@given(
    value=VALUES
    | st.builds(lambda name, value: FIELDS | {name: value}, st.sampled_from(sorted(FIELDS)), VALUES)
    | st.builds(
        lambda name, value: FIELDS | {"polling": FOLLOWING | {name: value}},
        st.sampled_from(sorted(FOLLOWING)),
        VALUES,
    )
    | st.builds(
        lambda name, value: FIELDS | {"part_of_job": JOB | {name: value}}, st.sampled_from(sorted(JOB)), VALUES
    )
)
def test_any_json_is_a_capture_or_a_value_error(value):
    try:
        capture = Capture.from_json(value, NOW)
    except ValueError:
        return
    assert Capture.from_json(capture.to_json(), NOW) == capture


@pytest.mark.parametrize(
    "change",
    [
        {"agent_id": "another"},
        {"region": "ORD"},
        {"trigger": Trigger(TriggerType.ALARM, "arn@later")},
        {"trigger": Trigger(TriggerType.SQS, "arn@time")},
        {"replays": 2},
    ],
)
def test_two_captures_differ_by_agent_region_trigger_and_replay(change):
    assert replace(CAPTURE, **change).key != CAPTURE.key


def test_how_far_a_capture_has_come_does_not_make_it_another():
    assert replace(CAPTURE, attempts=9, force=False, unconfirmed_since=None, polling=None).key == CAPTURE.key


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("a", True),
        ("A-z_0" * 25, True),
        ("", False),
        ("x" * 129, False),
        ("a\n", False),
        ("ä", False),
        ("a.b", False),
    ],
)
def test_an_agent_id_is_1_to_128_letters_digits_underscores_and_hyphens(value, expected):
    assert is_agent_id(value) is expected


def test_a_timestamp_is_in_utc_with_milliseconds():
    moment = datetime(2026, 11, 23, 5, 12, 40, 985_999, tzinfo=timezone(timedelta(hours=2)))
    assert timestamp(moment) == "2026-11-23T03:12:40.985Z"
    assert timestamp(NOW) == "2026-11-23T03:12:40.000Z"


def test_a_person_reads_a_time_in_utc_to_the_minute():
    moment = datetime(2026, 11, 23, 5, 12, 59, 985_999, tzinfo=timezone(timedelta(hours=2)))
    assert readable(moment) == "2026-11-23 03:12 UTC"


def test_a_log_file_is_told_with_what_is_known_of_it():
    assert LogFile(id="a", links=({"rel": "self", "href": "https://x"},)).to_json() == {
        "id": "a",
        "date": None,
        "state": None,
        "location": None,
        "links": [{"rel": "self", "href": "https://x"}],
        "download_url": None,
        "download_expires_at": None,
    }


# ------------------------------------------------------------------ the signed link


def signed(query):
    href = "https://files.example/v1/a.gz" + query
    links = ({"rel": "self", "href": "https://x"}, {"href": "https://y"}, {"rel": "logfile_temp_url", "href": href})
    return LogFile(id="a", date="2026-11-23T03:12:40Z", state="completed", location="https://x", links=links)


def test_a_log_file_is_the_same_after_it_was_remembered():
    log_file = signed("?temp_url_sig=0&temp_url_expires=1795490001")
    assert LogFile.from_json(json.loads(json.dumps(log_file.to_json()))) == log_file


def test_the_signed_link_is_the_one_to_download_from():
    told = signed("?temp_url_sig=0&temp_url_expires=1323479485").to_json()
    assert told["download_url"] == "https://files.example/v1/a.gz?temp_url_sig=0&temp_url_expires=1323479485"
    assert told["download_expires_at"] == "2011-12-10T01:11:25.000Z"


@pytest.mark.parametrize("rel", ["logfile", "self", "LOGFILE_TEMP_URL", ""])
def test_no_other_link_is(rel):
    log_file = LogFile(links=({"rel": rel, "href": "https://x?temp_url_sig=0&temp_url_expires=1323479485"},))
    assert (log_file.download_url, log_file.download_expires_at) == (None, None)


@pytest.mark.parametrize(
    ("query", "expires"),
    [
        ("?temp_url_expires=1323479485", 1323479485),
        ("?temp_url_sig=0&temp_url_expires=1323479485&filename=a.gz", 1323479485),
        ("?temp_url_expires=1323479485&temp_url_expires=1795490001", 1323479485),
        ("?temp_url_expires=soon&temp_url_expires=1795490001", None),
        ("?temp_url_expires=0", 0),
        ("?temp_url_expires=99999999999", 99_999_999_999),
        ("?temp_url_expires=100000000000", None),
        ("?temp_url_expires=" + "9" * 5000, None),
        ("?temp_url_expires=-1", None),
        ("?temp_url_expires=1.5", None),
        ("?temp_url_expires=%D9%A3", None),
        ("?temp_url_expires=2011-12-10T01:11:25Z", None),
        ("?temp_url_expires=", None),
        ("?temp_url_expires", None),
        ("?temp_url_sig=0", None),
        ("?", None),
        ("", None),
    ],
    ids=lambda value: str(value)[:60],
)
def test_the_link_says_until_when_it_works_or_nobody_knows(query, expires):
    log_file = signed(query)
    assert log_file.download_url.endswith(query)
    assert log_file.download_expires_at == (None if expires is None else datetime.fromtimestamp(expires, UTC))


@given(query=st.text() | st.integers().map(str))
def test_no_link_is_an_error(query):
    log_file = signed("?temp_url_expires=" + query)
    assert LogFile.from_json(log_file.to_json()) == log_file
