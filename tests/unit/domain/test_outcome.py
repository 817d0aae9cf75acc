from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_log_capture.domain.outcome import SIGNED_LINK, LogFile, readable, timestamp

NOW = datetime(2026, 11, 23, 3, 12, 40, tzinfo=UTC)


def test_a_timestamp_is_in_utc_with_milliseconds():
    moment = datetime(2026, 11, 23, 5, 12, 40, 985_999, tzinfo=timezone(timedelta(hours=2)))
    assert timestamp(moment) == "2026-11-23T03:12:40.985Z"
    assert timestamp(NOW) == "2026-11-23T03:12:40.000Z"


def test_a_person_reads_a_time_in_utc_to_the_minute():
    moment = datetime(2026, 11, 23, 5, 12, 59, 985_999, tzinfo=timezone(timedelta(hours=2)))
    assert readable(moment) == "2026-11-23 03:12 UTC"


def test_a_log_file_is_published_with_what_is_known_of_it():
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


def test_the_signed_link_is_the_one_to_download_from():
    published = signed("?temp_url_sig=0&temp_url_expires=1323479485").to_json()
    assert published["download_url"] == "https://files.example/v1/a.gz?temp_url_sig=0&temp_url_expires=1323479485"
    assert published["download_expires_at"] == "2011-12-10T01:11:25.000Z"


@pytest.mark.parametrize("rel", ["logfile", "self", "LOGFILE_TEMP_URL", ""])
def test_no_other_link_is(rel):
    log_file = LogFile(links=({"rel": rel, "href": "https://x?temp_url_sig=0&temp_url_expires=1323479485"},))
    assert (log_file.link(SIGNED_LINK), log_file.download_expires_at) == (None, None)


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
def test_the_expiry_of_the_signed_link_is_read_from_its_query(query, expires):
    log_file = signed(query)
    assert log_file.link(SIGNED_LINK).endswith(query)
    assert log_file.download_expires_at == (None if expires is None else datetime.fromtimestamp(expires, UTC))


@given(query=st.text() | st.integers().map(str))
def test_no_link_is_an_error(query):
    assert signed("?temp_url_expires=" + query).to_json()["download_url"].endswith(query)


@pytest.mark.parametrize(
    ("state", "expected"),
    [("requested", True), ("started", True), ("completed", False), ("new", False), (None, False)],
)
def test_a_log_file_is_pending_until_it_is_completed(state, expected):
    assert LogFile(state=state).is_pending is expected
