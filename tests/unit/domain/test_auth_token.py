import json
import re
import string
import traceback
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_log_capture.domain.auth_token import (
    AuthToken,
    Credentials,
    TokenFormatError,
    is_made_from,
    parse_auth_token,
    parse_credentials,
    parse_pending_token,
    with_token,
)

TOKEN = AuthToken("a-token", "110011")
EXPIRES = datetime(2026, 11, 24, 3, 12, 40, 985000, tzinfo=UTC)
SECRET = '{"username": "backup-bot", "api_key": "a-key", "owner": {"team": "ops"}}'
RENEWED = with_token(SECRET, TOKEN, EXPIRES)
# Eight or more letters: none of the words that an error says of itself.
CONTENTS = st.text(string.ascii_uppercase + string.digits, min_size=8, max_size=40)


@pytest.mark.parametrize(
    ("secret", "default", "expected"),
    [
        ("a-token", "110011", TOKEN),
        ("  a-token\n", "110011", TOKEN),
        ("[odd]", "110011", AuthToken("[odd]", "110011")),
        ('{"token": "a-token", "project_id": "220022"}', None, AuthToken("a-token", "220022")),
        ('{"token": "a-token", "project_id": "220022"}', "110011", AuthToken("a-token", "220022")),
        (' {"token": "a-token", "project_id": null, "owner": "ops"}', "110011", TOKEN),
    ],
)
def test_a_secret_holds_a_token_or_json(secret, default, expected):
    assert parse_auth_token(secret, default) == expected


@pytest.mark.parametrize(
    ("secret", "problem"),
    [
        (b"a-token", "holds binary data, not a text"),
        (None, "holds binary data, not a text"),
        ("", "is empty"),
        (" \n", "is empty"),
        ('{"token": "a-token"', "begins like JSON and is not JSON"),
        ('{"token": ' + "[" * 90_000, "begins like JSON and is not JSON"),
        ('{"project_id": "110011"}', "has no 'token'"),
        ('{"token": "", "project_id": "110011"}', "has a 'token' that is empty or not a text"),
        ('{"token": ["a-token"]}', "has a 'token' that is empty or not a text"),
        (
            '{"token": "a\\r\\nX-Evil: yes", "project_id": "110011"}',
            "has a 'token' with characters that an HTTP header cannot carry, or a very long one",
        ),
        (
            json.dumps({"token": "t" * 8193, "project_id": "110011"}),
            "has a 'token' with characters that an HTTP header cannot carry, or a very long one",
        ),
        ("a-token", "has no 'project_id', and CLOUD_BACKUP_PROJECT_ID is not set"),
        ('{"token": "a-token", "project_id": 110011}', "has a 'project_id' that is empty or not a text"),
        (
            '{"token": "a-token", "project_id": "../1"}',
            "has a 'project_id' that is not a text of letters, digits, _ and -",
        ),
    ],
)
def test_what_is_wrong_with_a_secret_is_said(secret, problem):
    with pytest.raises(TokenFormatError, match=f"^{re.escape(problem)}$"):
        parse_auth_token(secret, None)


def test_a_token_does_not_show_itself():
    token = parse_auth_token('{"token": "v3ry-s3cret", "project_id": "110011"}', None)
    assert repr(token) == str(token) == "AuthToken(project_id='110011')"


@given(
    content=CONTENTS,
    template=st.sampled_from(
        [
            "{}",
            "{} {}",
            "\x00{}",
            '{{"token": "{}"',
            '{{"{}": 1}}',
            '{{"token": "{}"}}',
            '{{"token": "{}\\n", "project_id": "1"}}',
            '{{"token": ["{}"]}}',
            '{{"token": "t", "project_id": "{}!"}}',
            '{{"token": "t", "project_id": {{"{}": 1}}}}',
        ]
    ),
)
def test_no_error_shows_what_a_secret_holds(content, template):
    with pytest.raises(TokenFormatError) as caught:
        parse_auth_token(template.format(content, content), None)
    assert content not in "".join(traceback.format_exception(caught.value))
    assert (caught.value.__cause__, caught.value.__context__) == (None, None)


@given(content=CONTENTS)
def test_no_token_shows_its_value(content):
    token = parse_auth_token(json.dumps({"token": content, "project_id": "110011"}), None)
    assert token.value == content
    assert content not in f"{token!r} {token!s}"


# ------------------------------------------------------------------ credentials, and rotation


def test_credentials_are_read_beside_other_fields():
    assert parse_credentials(f" {SECRET}\n") == Credentials("backup-bot", "a-key")


def test_credentials_do_not_show_the_api_key():
    credentials = parse_credentials(SECRET)
    assert repr(credentials) == str(credentials) == "Credentials(username='backup-bot')"


@pytest.mark.parametrize(
    ("secret", "problem"),
    [
        (b"a-token", "holds binary data, not a text"),
        (None, "holds binary data, not a text"),
        (" ", "is empty"),
        ("a-token", "has no 'username'; put JSON with 'username' and 'api_key' into it"),
        ('["a-key"]', "has no 'username'; put JSON with 'username' and 'api_key' into it"),
        ('{"username": "a', "begins like JSON and is not JSON"),
        ("{}", "has no 'username'; put JSON with 'username' and 'api_key' into it"),
        ('{"username": "backup-bot"}', "has no 'api_key'; put JSON with 'username' and 'api_key' into it"),
        ('{"username": "", "api_key": "a-key"}', "has a 'username' that is empty or not a text"),
        ('{"username": "backup-bot", "api_key": ["a-key"]}', "has a 'api_key' that is empty or not a text"),
    ],
)
def test_what_is_wrong_with_credentials_is_said(secret, problem):
    with pytest.raises(TokenFormatError, match=f"^{re.escape(problem)}$"):
        parse_credentials(secret)


@given(
    content=CONTENTS,
    template=st.sampled_from(
        ["{}", '{{"{}": 1}}', '{{"username": "{}"', '{{"username": ["{}"]}}', '{{"username": "{}"}}']
    ),
)
def test_no_error_shows_the_credentials(content, template):
    with pytest.raises(TokenFormatError) as caught:
        parse_credentials(template.format(content))
    assert content not in "".join(traceback.format_exception(caught.value))
    assert (caught.value.__cause__, caught.value.__context__) == (None, None)


def test_a_token_is_added_to_what_a_person_put():
    assert json.loads(RENEWED) == json.loads(SECRET) | {
        "token": "a-token",
        "expires_at": "2026-11-24T03:12:40.985000Z",
        "project_id": "110011",
    }


def test_a_token_replaces_the_one_before():
    before = '{"token": "old", "project_id": "220022", "expires_at": "2026-11-23T00:00:00Z"}'
    assert json.loads(with_token(before, TOKEN, EXPIRES)) == json.loads(with_token("{}", TOKEN, EXPIRES))


def test_what_is_written_is_what_the_capture_function_reads():
    assert parse_auth_token(RENEWED, None) == TOKEN


def test_a_token_that_was_written_can_be_tested():
    assert parse_pending_token(RENEWED) == TOKEN


@pytest.mark.parametrize("copy", ["{}", SECRET, "a-token", '{"token": "put-by-hand", "project_id": "110011"}'])
def test_a_copy_of_what_a_person_put_holds_no_token_to_test(copy):
    assert parse_pending_token(copy) is None


OTHER_KEY = SECRET.replace("a-key", "another-key")


@pytest.mark.parametrize(
    ("pending", "current", "is_made"),
    [
        (RENEWED, SECRET, True),
        (RENEWED, RENEWED, True),
        (RENEWED, '{"token": "older", ' + SECRET[1:], True),
        (RENEWED, OTHER_KEY, False),
        (RENEWED, SECRET.replace("ops", "devs"), False),
        (RENEWED, "{}", False),
        (SECRET, SECRET, False),
        ("a-token", SECRET, False),
    ],
)
def test_a_version_is_made_from_another_when_only_what_rotation_writes_differs(pending, current, is_made):
    assert is_made_from(pending, current) is is_made
