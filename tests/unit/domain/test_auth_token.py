import json
import re
import string
import traceback

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_log_capture.domain.auth_token import AuthToken, TokenFormatError, parse_auth_token


@pytest.mark.parametrize(
    ("secret", "default", "expected"),
    [
        ("a-token", "110011", AuthToken("a-token", "110011")),
        ("  a-token\n", "110011", AuthToken("a-token", "110011")),
        ("[odd]", "110011", AuthToken("[odd]", "110011")),
        ('{"token": "a-token", "project_id": "220022"}', None, AuthToken("a-token", "220022")),
        ('{"token": "a-token", "project_id": "220022"}', "110011", AuthToken("a-token", "220022")),
        (' {"token": "a-token", "project_id": null, "owner": "ops"}', "110011", AuthToken("a-token", "110011")),
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
        ('{"token": "a-token"', "begins like JSON and is none"),
        ('{"token": ' + "[" * 90_000, "begins like JSON and is none"),
        ('{"project_id": "110011"}', "has no 'token'"),
        ('{"token": "", "project_id": "110011"}', "has a 'token' that is empty or not a text"),
        ('{"token": ["a-token"]}', "has a 'token' that is empty or not a text"),
        (
            '{"token": "a\\r\\nX-Evil: yes"}',
            "has a 'token' with characters that an HTTP header cannot carry, or a very long one",
        ),
        ("t" * 8193, "has a 'token' with characters that an HTTP header cannot carry, or a very long one"),
        ("a-token", "has no 'project_id', and CLOUD_BACKUP_PROJECT_ID is not set"),
        (
            '{"token": "a-token", "project_id": 110011}',
            "has a 'project_id' that is not a text of letters, digits, _ and -",
        ),
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


# Eight or more letters: none of the words that an error says of itself.
CONTENTS = st.text(string.ascii_uppercase + string.digits, min_size=8, max_size=40)


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
