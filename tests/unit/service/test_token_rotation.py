import io
import json
import re
from uuid import uuid4

import pytest
import requests
from aws_lambda_powertools import Logger
from moto.core import DEFAULT_ACCOUNT_ID
from moto.secretsmanager.models import secretsmanager_backends

from agent_log_capture.adapters.identity import Identity
from agent_log_capture.domain.auth_token import parse_auth_token
from agent_log_capture.service.token_rotation import RotationError, TokenRotation

IDENTITY_URL = "https://identity.api.rackspacecloud.com"
PING_URL = "https://dfw.backup.api.rackspacecloud.com/v2/110011/ping"
STEPS = ("createSecret", "setSecret", "testSecret", "finishSecret")
API_KEY = "the-api-key-itself"
CREDENTIALS = {"username": "backup-bot", "api_key": API_KEY, "owner": "ops"}
EXPIRES = "2026-11-24T03:12:40Z"


class Secret:
    """The secret as Secrets Manager keeps it."""

    def __init__(self, client):
        self._client = client
        self.arn = client.create_secret(Name="TokenSecret", SecretString=json.dumps(CREDENTIALS))["ARN"]

    def put(self, **value):
        return self._client.put_secret_value(SecretId=self.arn, **value)["VersionId"]

    def start_rotation(self):
        """Set a version aside, and return its ID.

        RotateSecret of moto would put it into use by itself.
        """
        return self._set_aside({})

    def try_rotation(self):
        """Set a copy aside, with which Secrets Manager tries a rotation that it does not start yet."""
        return self._set_aside({"secret_string": self.text()})

    def _set_aside(self, value):
        version_id = str(uuid4())
        kept = secretsmanager_backends[DEFAULT_ACCOUNT_ID]["us-east-1"].secrets["TokenSecret"]
        kept.remove_version_stages_from_old_versions(["AWSPENDING"])
        version = {"createdate": 0, "version_id": version_id, "version_stages": ["AWSPENDING"]}
        kept.versions[version_id] = version | value
        return version_id

    def stages(self, version_id):
        return self._client.describe_secret(SecretId=self.arn)["VersionIdsToStages"][version_id]

    def text(self, stage="AWSCURRENT"):
        return self._client.get_secret_value(SecretId=self.arn, VersionStage=stage)["SecretString"]

    def fields(self, stage="AWSCURRENT"):
        return json.loads(self.text(stage))


@pytest.fixture
def stored(secrets):
    return Secret(secrets)


@pytest.fixture(autouse=True)
def tokens(wire):
    """The tokens that Identity issues, one after the other; an issued token leaves the list."""
    tokens = ["new-token", "newer-token"]

    def issue(_):
        token = {"id": tokens.pop(0), "expires": EXPIRES, "tenant": {"id": "110011"}}
        return 200, {}, json.dumps({"access": {"token": token}})

    wire.add_callback("POST", f"{IDENTITY_URL}/v2.0/tokens", issue)
    return tokens


@pytest.fixture(autouse=True)
def pings(wire):
    """The API's responses to the next pings; 200 afterwards."""
    answers = []

    def answer(_):
        found = answers.pop(0) if answers else 200
        if isinstance(found, Exception):
            raise found
        return found, {}, '{"message": "the-token: new-token"}'

    wire.add_callback("GET", PING_URL, answer)
    return answers


@pytest.fixture
def log():
    return io.StringIO()


@pytest.fixture
def rotation(*, secrets, api, log):
    return TokenRotation(
        client=secrets,
        identity=Identity(api.session, IDENTITY_URL),  # one session for both, as bootstrap has it
        api=api,
        region="DFW",
        logger=Logger(service=str(uuid4()), stream=log),
    )


@pytest.fixture
def version_id(stored):
    """The version that Secrets Manager has set aside for a rotation that it has started."""
    return stored.start_rotation()


@pytest.fixture
def run(rotation, stored):
    def run_step(step, version_id):
        return rotation.run({"Step": step, "SecretId": stored.arn, "ClientRequestToken": version_id})

    return run_step


@pytest.fixture
def do(run, version_id):
    return lambda step: run(step, version_id)


@pytest.fixture
def rotate(run, stored):
    """Does a whole rotation, as Secrets Manager would, and returns the token that is in use after it."""

    def rotate_all():
        version_id = stored.start_rotation()
        for step in STEPS:
            run(step, version_id)
        return stored.fields()["token"]

    return rotate_all


@pytest.fixture
def logged(log):
    return lambda: [json.loads(line)["message"] for line in log.getvalue().splitlines()]


def error_of(call, *arguments):
    with pytest.raises(RotationError) as caught:
        call(*arguments)
    return caught.value


def test_the_four_steps_put_a_new_token_beside_what_a_person_has_put(stored, do, version_id):
    assert [do(step) for step in STEPS] == [False, False, False, True]
    assert stored.fields() == CREDENTIALS | {"token": "new-token", "expires_at": EXPIRES, "project_id": "110011"}
    assert stored.fields("AWSPREVIOUS") == CREDENTIALS
    assert "AWSCURRENT" in stored.stages(version_id)


def test_nothing_is_in_use_before_the_last_step(stored, do):
    for step in STEPS[:-1]:
        do(step)
        assert stored.fields() == CREDENTIALS


def test_the_new_token_is_tried_on_the_api(wire, do):
    for step in STEPS:
        do(step)
    [ping] = [made.request for made in wire.calls if made.request.method == "GET"]
    assert ping.headers["X-Auth-Token"] == "new-token"


def test_one_rotation_follows_another(stored, rotate):
    assert [rotate(), rotate()] == ["new-token", "newer-token"]
    assert stored.fields("AWSPREVIOUS")["token"] == "new-token"


@pytest.mark.parametrize("repeated", STEPS)
def test_a_step_may_be_repeated(stored, do, tokens, repeated):
    for step in STEPS:
        do(step)
        if step == repeated:
            assert do(step) is False
    assert stored.fields()["token"] == "new-token"
    assert tokens == ["newer-token"]


def test_the_whole_rotation_may_be_repeated_after_it_is_done(stored, do, tokens, logged):
    results = [do(step) for step in STEPS * 2]
    assert results == [False, False, False, True, *[False] * 4]
    assert (stored.fields()["token"], tokens) == ("new-token", ["newer-token"])
    assert logged()[4:] == ["the new token is in use already"] * 4


@pytest.mark.parametrize("answer", [503, 429, 404, requests.ReadTimeout("timed out")], ids=str)
def test_a_rotation_that_failed_half_way_goes_on_with_the_token_that_it_has(stored, do, pings, tokens, answer):
    pings.append(answer)
    do("createSecret")
    error_of(do, "testSecret")
    assert [do(step) for step in STEPS] == [False, False, False, True]
    assert (stored.fields()["token"], tokens) == ("new-token", ["newer-token"])


@pytest.mark.parametrize("status", [302, 400, 403, 404, 413, 429, 500, 503])
def test_an_api_that_does_not_take_the_call_ends_the_step(stored, do, version_id, pings, status):
    pings.append(status)
    do("createSecret")
    message = str(error_of(do, "testSecret"))
    assert message == (
        f"testSecret: the secret {stored.arn} is not rotated: the API answers the new token with HTTP status {status}"
    )
    assert stored.stages(version_id) == ["AWSPENDING"]


def test_an_api_that_does_not_answer_ends_the_step(stored, do, version_id, pings):
    pings.append(requests.exceptions.ConnectTimeout("timed out"))
    do("createSecret")
    message = str(error_of(do, "testSecret"))
    assert message == f"testSecret: the secret {stored.arn} is not rotated: ConnectTimeout: timed out"
    assert stored.stages(version_id) == ["AWSPENDING"]


def test_a_new_token_that_is_refused_ends_the_rotation_and_the_next_one_gets_another(
    stored, do, rotate, version_id, pings
):
    pings.append(401)
    do("createSecret")
    message = str(error_of(do, "testSecret"))
    assert message.endswith("the API refuses the new token (401); this rotation is abandoned, start a new one")
    assert stored.stages(version_id) == []
    assert stored.fields() == CREDENTIALS
    assert rotate() == "newer-token"


@pytest.mark.parametrize("step", ["createSecret", "finishSecret"])
def test_credentials_that_were_put_during_a_rotation_stay(stored, do, rotate, version_id, step):
    do("createSecret")
    changed = CREDENTIALS | {"api_key": "another-key"}
    stored.put(SecretString=json.dumps(changed))
    message = str(error_of(do, step))
    assert "was made before the secret was changed; this rotation is abandoned, start a new one" in message
    assert stored.fields() == changed
    assert stored.stages(version_id) == []
    assert rotate() == "newer-token"
    assert stored.fields()["api_key"] == "another-key"


def test_credentials_that_are_put_while_the_last_step_is_under_way_stay(secrets, stored, do):
    changed = json.dumps(CREDENTIALS | {"api_key": "another-key"})

    def put(**_):
        stored.put(SecretString=changed)

    do("createSecret")
    secrets.meta.events.register("provide-client-params.secretsmanager.UpdateSecretVersionStage", put)
    with pytest.raises(secrets.exceptions.InvalidParameterException):
        do("finishSecret")
    assert stored.text() == changed


def test_nothing_that_was_not_made_is_put_into_use(stored, do):
    message = str(error_of(do, "finishSecret"))
    assert message == (
        f"finishSecret: the secret {stored.arn} is not rotated: "
        "there is no new token yet; createSecret has to come first"
    )
    assert stored.fields() == CREDENTIALS


@pytest.mark.parametrize("value", [{}, CREDENTIALS, {"token": "put-by-hand", "project_id": "110011"}])
def test_a_rotation_that_is_only_tried_has_nothing_to_test(wire, stored, run, logged, value):
    stored.put(SecretString=json.dumps(value))
    tried = stored.try_rotation()
    assert stored.fields("AWSPENDING") == value
    assert run("testSecret", tried) is False
    assert logged() == ["nothing to test yet: the pending version has no new token"]
    assert len(wire.calls) == 0


def test_a_version_without_a_value_has_nothing_to_test(do, logged):
    assert do("testSecret") is False
    assert logged() == ["nothing to test yet: the pending version has no new token"]


def test_a_copy_that_was_left_behind_is_never_put_into_use(stored, run):
    left = stored.try_rotation()
    message = str(error_of(run, "finishSecret", left))
    assert "the pending version has no new token" in message
    assert "AWSCURRENT" not in stored.stages(left)


@pytest.mark.parametrize("step", STEPS)
def test_a_version_that_is_not_pending_is_not_rotated(wire, stored, run, step):
    other = str(uuid4())
    message = str(error_of(run, step, other))
    assert message == (
        f"{step}: the secret {stored.arn} is not rotated: its version {other} is not AWSPENDING; start a new rotation"
    )
    assert len(wire.calls) == 0


def test_a_step_that_does_not_exist_is_named_with_those_that_do(do):
    assert str(error_of(do, "dropSecret\n")) == (
        "'dropSecret ' is not one of a rotation's steps createSecret, setSecret, testSecret, finishSecret"
    )


@pytest.mark.parametrize(
    "event",
    [None, [], {}, {"Step": "createSecret"}, {"Step": 1, "SecretId": "arn", "ClientRequestToken": "id"}],
    ids=str,
)
def test_an_event_of_another_kind_is_refused_with_how_to_start_a_rotation(rotation, event):
    assert str(error_of(rotation.run, event)) == (
        "not a rotation's event; start one with aws secretsmanager rotate-secret"
    )


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ({"SecretString": "{}"}, "has no 'username'; put JSON with 'username' and 'api_key' into it"),
        (
            {"SecretString": '{"username": "backup-bot"}'},
            "has no 'api_key'; put JSON with 'username' and 'api_key' into it",
        ),
        ({"SecretString": "my-content"}, "has no 'username'; put JSON with 'username' and 'api_key' into it"),
        ({"SecretString": '{"api_key": "my-content'}, "begins like JSON and is not JSON"),
        ({"SecretBinary": b"my-content"}, "holds binary data, not a text"),
    ],
)
def test_a_secret_without_credentials_is_named_with_what_is_wrong(wire, stored, run, value, problem):
    stored.put(**value)
    error = error_of(run, "createSecret", stored.start_rotation())
    assert str(error) == f"createSecret: the secret {stored.arn} {problem}"
    assert len(wire.calls) == 0


@pytest.mark.parametrize("value", ["{}", '{"username": "backup-bot"}', "a-bare-token"])
def test_a_rotation_without_credentials_leaves_nothing_that_the_next_one_would_wait_for(stored, run, rotate, value):
    stored.put(SecretString=value)
    version_id = stored.start_rotation()
    error_of(run, "createSecret", version_id)
    assert stored.stages(version_id) == []
    stored.put(SecretString=json.dumps(CREDENTIALS))
    assert rotate() == "new-token"


@pytest.mark.parametrize(("status", "stages"), [(401, []), (413, ["AWSPENDING"]), (503, ["AWSPENDING"])])
def test_only_a_rotation_that_may_succeed_without_a_person_stays(wire, stored, do, version_id, status, stages):
    wire.replace("POST", f"{IDENTITY_URL}/v2.0/tokens", status=status)
    error_of(do, "createSecret")
    assert stored.stages(version_id) == stages


@pytest.mark.parametrize(
    ("status", "what_to_do"),
    [
        (401, r"refuses the API key of 'backup-bot' \(401\): put the right username and api_key into the secret"),
        (413, r"limits the rate \(413\): rotate again in some seconds"),
        (200, "answer has no token, expiry and project ID that can be used"),
    ],
)
def test_identity_may_issue_no_token(wire, stored, do, status, what_to_do):
    wire.replace("POST", f"{IDENTITY_URL}/v2.0/tokens", status=status, json={"message": API_KEY})
    message = str(error_of(do, "createSecret"))
    assert message.startswith(f"createSecret: the secret {stored.arn} is not rotated: Identity")
    assert re.search(f"{what_to_do}$", message)
    assert stored.fields() == CREDENTIALS


def everything_said(error):
    """What any log line could show of an error: itself and what is chained to it."""
    links = []
    while error:
        links.append(f"{error} {error!r} {vars(error)}")
        error = error.__cause__ or error.__context__
    return links


@pytest.mark.parametrize("answer", [401, 503, requests.ConnectionError("reset")], ids=str)
def test_the_token_and_the_api_key_are_absent_from_errors_and_the_log(do, pings, log, answer):
    pings.append(answer)
    do("createSecret")
    error = error_of(do, "testSecret")
    said = everything_said(error)
    assert len(said) == 1
    for secret_value in (API_KEY, "new-token"):
        assert secret_value not in said[0]
        assert secret_value not in log.getvalue()


def test_every_line_of_the_log_names_the_step_the_secret_and_the_version(stored, do, version_id, log):
    for step in STEPS:
        do(step)
    lines = [json.loads(line) for line in log.getvalue().splitlines()]
    assert [line["step"] for line in lines] == list(STEPS)
    assert {(line["secret_arn"], line["version_id"]) for line in lines} == {(stored.arn, version_id)}


def test_what_a_rotation_leaves_is_a_secret_that_the_capture_function_reads(stored, rotate):
    rotate()
    assert parse_auth_token(stored.text(), None).value == "new-token"
