from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from threading import Barrier

import pytest
from aws_lambda_powertools.utilities.parameters import base as parameters_base
from botocore.exceptions import EndpointConnectionError

from agent_log_capture.adapters.token_secret import InvocationToken, TokenError, TokenSecret
from agent_log_capture.domain.auth_token import AuthToken
from agent_log_capture.domain.circuit_breaker import CircuitBreaker
from agent_log_capture.domain.outcome import Reason
from agent_log_capture.domain.responses import NotTriedError

WORKERS = 32
NOT_TRIED = "not tried"
FIRST = AuthToken("first-token", "110011")
SECOND = AuthToken("second-token", "110011")


@pytest.fixture
def put(secrets, secret_arn):
    """Makes another version the current one."""
    return lambda **value: secrets.put_secret_value(SecretId=secret_arn, **value)


@pytest.fixture
def put_token(put):
    return lambda token: put(SecretString=f'{{"token": "{token.value}", "project_id": "{token.project_id}"}}')


@pytest.fixture
def breaker():
    return CircuitBreaker(WORKERS, lambda: 0.5)


@pytest.fixture
def token(secret, breaker):
    return InvocationToken(secret, breaker)


@pytest.fixture
def at_once():
    """Calls the same from all workers, at the same moment."""

    def call_at_once(function):
        barrier = Barrier(WORKERS)

        def call(_):
            barrier.wait()
            return outcome_of(function)

        with ThreadPoolExecutor(WORKERS) as workers:
            return list(workers.map(call, range(WORKERS)))

    return call_at_once


def outcome_of(function):
    try:
        return function()
    except TokenError as error:
        return error.failure.reason
    except NotTriedError as error:
        return NOT_TRIED, error.failure.reason


def error_of(function):
    with pytest.raises(TokenError) as caught:
        function()
    return caught.value


def everything_said(error):
    """What any log line could show of an error: itself and what is chained to it."""
    links = []
    while error:
        links.append(f"{error} {error!r} {vars(error)}")
        error = error.__cause__ or error.__context__
    return "\n".join(links)


@pytest.mark.parametrize(
    ("value", "default", "read"),
    [
        ('{"token": "first-token", "project_id": "110011"}', None, FIRST),
        ('{"token": "first-token", "project_id": "110011", "username": "u"}', "220022", FIRST),
        (' \n{"token": "first-token"}\n', "110011", FIRST),
        ('{"token": "first-token", "project_id": null}', "110011", FIRST),
        ("first-token\n", "110011", FIRST),
    ],
)
def test_a_secret_holds_a_token_alone_or_json(secrets, value, default, read):
    arn = secrets.create_secret(Name="Other", SecretString=value)["ARN"]
    assert TokenSecret(secrets, arn, default).read(is_fresh=False) == read


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ({"SecretString": "   "}, "is empty"),
        ({"SecretBinary": b"my-content"}, "holds binary data"),
        ({"SecretString": '{"token": "my-content", '}, "begins like JSON and is not JSON"),
        ({"SecretString": "{" * 100_000 + "my-content"}, "begins like JSON and is not JSON"),
        ({"SecretString": '{"api_key": "my-content"}'}, "has no 'token'"),
        ({"SecretString": '{"token": "", "api_key": "my-content"}'}, "has a 'token' that is empty"),
        ({"SecretString": '{"token": ["my-content"]}'}, "has a 'token' that is empty or not a text"),
        (
            {"SecretString": '{"token": "my-content\\r\\nHost: evil", "project_id": "1"}'},
            "characters that an HTTP header cannot carry",
        ),
        (
            {"SecretString": '{"token": "my-content é", "project_id": "1"}'},
            "characters that an HTTP header cannot carry",
        ),
        ({"SecretString": '{"token": "my-content"}'}, "has no 'project_id'"),
        ({"SecretString": "my-content"}, "CLOUD_BACKUP_PROJECT_ID is not set"),
        (
            {"SecretString": '{"token": "my-content", "project_id": "my-content/.."}'},
            "has a 'project_id' that is not",
        ),
        (
            {"SecretString": '{"token": "my-content", "project_id": 7}'},
            "has a 'project_id' that is empty or not a text",
        ),
    ],
)
def test_an_unusable_secret_is_named_with_what_is_wrong_and_never_shown(secret, secret_arn, put, value, problem):
    put(**value)
    error = error_of(lambda: secret.read(is_fresh=False))
    assert error.failure.reason is Reason.TOKEN_UNAVAILABLE
    assert error.failure.message.startswith(f"the secret {secret_arn} ")
    assert problem in error.failure.message
    assert "my-content" not in everything_said(error)


def test_a_secret_that_is_missing_is_named(secrets):
    arn = "arn:aws:secretsmanager:us-east-1:123456789012:secret:Missing-AbCdEf"
    error = error_of(lambda: TokenSecret(secrets, arn, None).read(is_fresh=False))
    assert error.failure.reason is Reason.TOKEN_UNAVAILABLE
    assert error.failure.message.startswith(f"the secret {arn} cannot be read: ")
    assert "ResourceNotFoundException" in error.failure.message


def test_a_secret_without_a_value_is_named(secrets):
    arn = secrets.create_secret(Name="Empty")["ARN"]
    error = error_of(lambda: TokenSecret(secrets, arn, None).read(is_fresh=False))
    assert (error.failure.reason, arn in error.failure.message) == (Reason.TOKEN_UNAVAILABLE, True)


def test_a_secret_is_read_once_in_five_minutes(monkeypatch, secret, put_token, reads):
    class Clock(datetime):
        passed = timedelta()

        @classmethod
        def now(cls):
            return datetime.now() + cls.passed  # noqa: DTZ005 (as the cache reads it)

    monkeypatch.setattr(parameters_base, "datetime", Clock)
    assert secret.read(is_fresh=False) == FIRST
    put_token(SECOND)
    Clock.passed = timedelta(seconds=299)
    assert (secret.read(is_fresh=False), len(reads)) == (FIRST, 1)
    Clock.passed = timedelta(seconds=301)
    assert (secret.read(is_fresh=False), len(reads)) == (SECOND, 2)


def test_a_cached_secret_is_parsed_once(secret, put_token):
    parsed = secret.read(is_fresh=False)
    assert secret.read(is_fresh=False) is parsed
    put_token(SECOND)
    assert secret.read(is_fresh=True) == SECOND


def test_a_fresh_read_replaces_the_cached_token(secret, put_token, reads):
    secret.read(is_fresh=False)
    put_token(SECOND)
    assert (secret.read(is_fresh=True), secret.read(is_fresh=False), len(reads)) == (SECOND, SECOND, 2)


def test_the_current_version_is_asked_for(secret, secret_arn, reads):
    secret.read(is_fresh=False)
    assert reads == [{"SecretId": secret_arn, "VersionStage": "AWSCURRENT"}]


def test_an_unusable_secret_is_not_cached(secret, put, put_token, reads):
    put(SecretString='{"token": 7}')
    error_of(lambda: secret.read(is_fresh=False))
    put_token(SECOND)
    assert (secret.read(is_fresh=False), len(reads)) == (SECOND, 2)


def test_all_workers_share_one_read(token, reads, at_once):
    assert (at_once(token.current), len(reads)) == ([FIRST] * WORKERS, 1)
    assert token.project_id == "110011"


def test_there_is_no_project_before_the_secret_was_read(token):
    assert token.project_id is None


def test_a_refused_token_is_read_again_once_and_the_other_one_handed_to_all(token, put_token, reads, at_once):
    token.current()
    put_token(SECOND)
    assert at_once(lambda: token.renewed(FIRST)) == [SECOND] * WORKERS
    assert (token.current(), token.renewed(FIRST), len(reads)) == (SECOND, SECOND, 2)


def test_the_same_token_again_is_refused_for_all_without_further_reads(token, secret_arn, reads, at_once):
    token.current()
    assert at_once(lambda: token.renewed(FIRST)) == [Reason.TOKEN_REFUSED] * WORKERS
    assert at_once(token.current) == [(NOT_TRIED, Reason.TOKEN_REFUSED)] * WORKERS
    assert (len(reads), token.project_id) == (2, "110011")
    error = error_of(lambda: token.renewed(FIRST))
    assert error.failure.message == f"the secret {secret_arn} holds a token that the API refuses; put another one"
    assert FIRST.value not in everything_said(error)


def test_the_renewed_token_may_be_refused_too(token, put_token, reads, at_once):
    token.current()
    put_token(SECOND)
    token.renewed(FIRST)
    put_token(AuthToken("third-token", "110011"))
    assert at_once(lambda: token.renewed(SECOND)) == [Reason.TOKEN_REFUSED] * WORKERS
    assert (outcome_of(lambda: token.renewed(FIRST)), len(reads)) == (Reason.TOKEN_REFUSED, 2)


def test_the_same_token_for_another_project_is_another_token(token, put_token):
    token.current()
    other = AuthToken(FIRST.value, "220022")
    put_token(other)
    assert token.renewed(FIRST) == other
    assert token.project_id == "220022"


def test_an_unavailable_secret_is_not_asked_again_in_the_same_invocation(token, put, put_token, reads, at_once):
    put(SecretString=" ")
    results = Counter(at_once(token.current))
    assert results == {Reason.TOKEN_UNAVAILABLE: 1, (NOT_TRIED, Reason.TOKEN_UNAVAILABLE): WORKERS - 1}
    put_token(FIRST)
    assert (outcome_of(token.current), len(reads)) == ((NOT_TRIED, Reason.TOKEN_UNAVAILABLE), 1)


def test_a_missing_token_is_reported_by_the_first_worker_when_only_its_project_was_read_before(
    token, breaker, put, reads, at_once
):
    put(SecretString=" ")
    assert (token.try_project_id(), breaker.failure) == (None, None)
    results = Counter(at_once(token.current))
    assert results == {Reason.TOKEN_UNAVAILABLE: 1, (NOT_TRIED, Reason.TOKEN_UNAVAILABLE): WORKERS - 1}
    assert (token.try_project_id(), len(reads)) == (None, 1)


def test_the_project_is_read_with_the_token_once(token, reads):
    assert (token.try_project_id(), token.current(), len(reads)) == ("110011", FIRST, 1)


def test_a_secret_that_is_gone_when_it_is_read_again_is_unavailable_for_all(token, put, reads, at_once):
    token.current()
    put(SecretString=" ")
    assert at_once(lambda: token.renewed(FIRST)) == [Reason.TOKEN_UNAVAILABLE] * WORKERS
    assert (outcome_of(token.current), len(reads)) == ((NOT_TRIED, Reason.TOKEN_UNAVAILABLE), 2)


def test_the_next_invocation_uses_a_secret_that_was_fixed(secret, put, put_token):
    def an_invocation():
        return InvocationToken(secret, CircuitBreaker(WORKERS, lambda: 0.5))

    put(SecretString="{")
    assert outcome_of(an_invocation().current) is Reason.TOKEN_UNAVAILABLE
    put_token(SECOND)
    assert an_invocation().current() == SECOND


# ------------------------------------------------------------------ asking for another token


@pytest.fixture
def rotated(secrets, secret_arn):
    return TokenSecret(secrets, secret_arn, None, is_rotated=True)


def test_a_rotation_is_asked_for_where_there_is_one(secret, rotated, secret_calls):
    assert (secret.ask_for_rotation(), secret_calls.calls) == ("put another one", {})
    assert (rotated.ask_for_rotation(), secret_calls.calls) == ("its rotation was asked for", {"RotateSecret": 1})


CREDENTIALS = '{"username": "someone", "api_key": "the-api-key"}'


def test_a_rotation_is_asked_for_once_where_there_are_credentials_and_no_token(
    *, rotated, breaker, put, secret_calls, at_once
):
    put(SecretString=CREDENTIALS)
    token = InvocationToken(rotated, breaker)
    results = at_once(token.current)
    assert results.count(Reason.TOKEN_UNAVAILABLE) == 1
    assert secret_calls.calls["RotateSecret"] == 1
    assert breaker.failure.message.endswith(" has no 'token'; its rotation was asked for")


@pytest.mark.parametrize("value", ["{}", '{"username": "someone"}', "{", "a b"])
def test_without_credentials_none_is_asked_for(rotated, put, secret_calls, value):
    put(SecretString=value)
    assert outcome_of(lambda: rotated.read(is_fresh=False)) is Reason.TOKEN_UNAVAILABLE
    assert secret_calls.calls["RotateSecret"] == 0


def test_without_rotation_none_is_asked_for(secret, put, secret_calls):
    put(SecretString=CREDENTIALS)
    assert outcome_of(lambda: secret.read(is_fresh=False)) is Reason.TOKEN_UNAVAILABLE
    assert secret_calls.calls["RotateSecret"] == 0


def test_a_rotation_that_has_not_ended_is_no_error(rotated, secret_calls):
    secret_calls.fail("RotateSecret", "InvalidRequestException")
    assert rotated.ask_for_rotation().startswith("no further rotation is started: ")


@pytest.mark.parametrize("code", ["AccessDeniedException", "ResourceNotFoundException", "InternalServiceError"])
def test_a_rotation_that_cannot_be_asked_for_is_reported_with_the_reason(rotated, secret_calls, code):
    secret_calls.fail("RotateSecret", code)
    assert rotated.ask_for_rotation().startswith("its rotation could not be asked for: ")
    assert code in rotated.ask_for_rotation()


def test_a_rotation_request_without_a_response_is_reported_with_the_reason(rotated, secret_calls):
    secret_calls.errors["RotateSecret"] = EndpointConnectionError(endpoint_url="https://secretsmanager.example")
    assert "secretsmanager.example" in rotated.ask_for_rotation()


def test_all_workers_ask_for_one_rotation(*, rotated, breaker, secret_arn, secret_calls, at_once):
    token = InvocationToken(rotated, breaker)
    token.current()
    assert at_once(lambda: token.renewed(FIRST)) == [Reason.TOKEN_REFUSED] * WORKERS
    assert secret_calls.calls["RotateSecret"] == 1
    assert error_of(lambda: token.renewed(FIRST)).failure.message == (
        f"the secret {secret_arn} holds a token that the API refuses; its rotation was asked for"
    )
