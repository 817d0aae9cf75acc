import json
import re
import string
import traceback
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_log_capture.domain.auth_token import AuthToken, TokenFormatError, parse_auth_token
from agent_log_capture.domain.credentials import (
    Credentials,
    IssuedToken,
    is_made_from,
    parse_credentials,
    parse_pending_token,
    with_token,
)

TOKEN = AuthToken("a-token", "110011")
ISSUED = IssuedToken(TOKEN, datetime(2026, 11, 24, 3, 12, 40, 985000, tzinfo=UTC))
SECRET = '{"username": "backup-bot", "api_key": "a-key", "owner": {"team": "ops"}}'
CONTENTS = st.text(string.ascii_uppercase + string.digits, min_size=8, max_size=40)


def test_credentials_are_read_anything_that_stands_beside_them():
    assert parse_credentials(f" {SECRET}\n") == Credentials("backup-bot", "a-key")


def test_credentials_do_not_show_the_api_key():
    credentials = parse_credentials(SECRET)
    assert repr(credentials) == str(credentials) == "Credentials(username='backup-bot')"
    assert repr(ISSUED).startswith("IssuedToken(auth_token=AuthToken(project_id='110011'), ")


@pytest.mark.parametrize(
    ("secret", "problem"),
    [
        (b"a-token", "holds binary data, not a text"),
        (None, "holds binary data, not a text"),
        (" ", "is empty"),
        ("a-token", "holds no JSON; put one with 'username' and 'api_key' into it"),
        ('["a-key"]', "holds no JSON; put one with 'username' and 'api_key' into it"),
        ('{"username": "a', "begins like JSON and is none"),
        ("{}", "has no 'username'; put 'username' and 'api_key' into it"),
        ('{"username": "backup-bot"}', "has no 'api_key'; put 'username' and 'api_key' into it"),
        ('{"username": "", "api_key": "a-key"}', "has a 'username' that is empty or not a text"),
        ('{"username": "backup-bot", "api_key": ["a-key"]}', "has a 'api_key' that is empty or not a text"),
    ],
)
def test_what_is_wrong_with_a_secret_is_said(secret, problem):
    with pytest.raises(TokenFormatError, match=f"^{re.escape(problem)}$"):
        parse_credentials(secret)


@given(
    content=CONTENTS,
    template=st.sampled_from(
        ["{}", '{{"{}": 1}}', '{{"username": "{}"', '{{"username": ["{}"]}}', '{{"username": "{}"}}']
    ),
)
def test_no_error_shows_what_a_secret_holds(content, template):
    with pytest.raises(TokenFormatError) as caught:
        parse_credentials(template.format(content))
    assert content not in "".join(traceback.format_exception(caught.value))
    assert (caught.value.__cause__, caught.value.__context__) == (None, None)


def test_a_token_is_written_beside_what_a_person_put():
    assert json.loads(with_token(SECRET, ISSUED)) == json.loads(SECRET) | {
        "token": "a-token",
        "expires_at": "2026-11-24T03:12:40.985000Z",
        "project_id": "110011",
    }


def test_a_token_takes_the_place_of_the_one_before():
    before = '{"token": "old", "project_id": "220022", "expires_at": "2026-11-23T00:00:00Z"}'
    assert json.loads(with_token(before, ISSUED)) == json.loads(with_token("{}", ISSUED))


def test_what_is_written_is_what_the_capture_function_reads():
    assert parse_auth_token(with_token(SECRET, ISSUED), None) == TOKEN


def test_a_token_that_was_written_can_be_tested():
    assert parse_pending_token(with_token(SECRET, ISSUED)) == TOKEN


@pytest.mark.parametrize("copy", ["{}", SECRET, "a-token", '{"token": "put-by-hand", "project_id": "110011"}'])
def test_a_copy_of_what_a_person_put_holds_no_token_to_test(copy):
    assert parse_pending_token(copy) is None


OTHER_KEY = SECRET.replace("a-key", "another-key")


@pytest.mark.parametrize(
    ("pending", "current", "is_made"),
    [
        (with_token(SECRET, ISSUED), SECRET, True),
        (with_token(SECRET, ISSUED), with_token(SECRET, ISSUED), True),
        (with_token(SECRET, ISSUED), '{"token": "older", ' + SECRET[1:], True),
        (with_token(SECRET, ISSUED), OTHER_KEY, False),
        (with_token(SECRET, ISSUED), SECRET.replace("ops", "devs"), False),
        (with_token(SECRET, ISSUED), "{}", False),
        (SECRET, SECRET, False),
        ("a-token", SECRET, False),
    ],
)
def test_a_version_is_made_from_another_when_only_what_rotation_writes_differs(pending, current, is_made):
    assert is_made_from(pending, current) is is_made
