"""The token's secret, in Secrets Manager."""

from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from threading import Lock
from typing import TYPE_CHECKING, Any

from aws_lambda_powertools.utilities.parameters import SecretsProvider
from aws_lambda_powertools.utilities.parameters.exceptions import GetParameterError
from botocore.exceptions import BotoCoreError, ClientError

from agent_log_capture.domain.auth_token import AuthToken, TokenFormatError, parse_auth_token, parse_credentials
from agent_log_capture.domain.circuit_breaker import CircuitBreaker
from agent_log_capture.domain.outcome import Reason
from agent_log_capture.domain.responses import Failure, RetryableError

if TYPE_CHECKING:
    from mypy_boto3_secretsmanager import SecretsManagerClient

CURRENT = "AWSCURRENT"
PENDING = "AWSPENDING"


class TokenError(RetryableError):
    """There is no token that the API accepts, until the secret is fixed; the message shows nothing of its content."""

    def __init__(self, reason: Reason, secret_arn: str, problem: str) -> None:
        super().__init__(Failure(reason=reason, message=f"the secret {secret_arn} {problem}"))


@dataclass
class TokenSecret:
    """Reads the auth token from one secret, and caches it for five minutes."""

    client: "SecretsManagerClient"
    arn: str
    default_project_id: str | None
    is_rotated: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        self._provider = SecretsProvider(boto3_client=self.client)
        # On a warm invocation, the cached secret is the one that was parsed last.
        self._parse = lru_cache(maxsize=1)(parse_auth_token)

    def read(self, *, is_fresh: bool) -> AuthToken:
        """Return the token; `is_fresh` bypasses the cache. TokenError when there is no token to read."""
        try:
            secret: Any = self._provider.get(self.arn, max_age=300, force_fetch=is_fresh, VersionStage=CURRENT)
            return self._parse(secret, self.default_project_id)
        except GetParameterError as error:
            raise TokenError(Reason.TOKEN_UNAVAILABLE, self.arn, f"cannot be read: {error}") from error
        except TokenFormatError as error:
            self._provider.store.clear()  # a secret that is fixed takes effect at once
            problem = str(error)
            # Where there are credentials and no token, the rotation is started again.
            with suppress(TokenFormatError):
                if self.is_rotated and parse_credentials(secret):
                    problem += f"; {self.ask_for_rotation()}"
            raise TokenError(Reason.TOKEN_UNAVAILABLE, self.arn, problem) from error

    def ask_for_rotation(self) -> str:
        """Ask Secrets Manager for a new token, where it rotates this secret; return the result in words."""
        if not self.is_rotated:
            return "put another one"
        try:
            self.client.rotate_secret(SecretId=self.arn)
        except self.client.exceptions.InvalidRequestException as error:
            # The last rotation has not ended, or rotation is not set up.
            return f"no further rotation is started: {error.response['Error']['Message']}"
        except (BotoCoreError, ClientError) as error:
            return f"its rotation could not be asked for: {error}"
        return "its rotation was asked for"


@dataclass(slots=True)
class InvocationToken:
    """The auth token as the workers of one invocation share it; `project_id` is that of the last token.

    The secret is read when the first worker needs it, and once more when the API refuses the token: by one worker,
    for all. The circuit breaker opens when there is no token that the API accepts then.
    """

    secret: TokenSecret
    breaker: CircuitBreaker
    project_id: str | None = field(default=None, init=False)
    _lock: Lock = field(default_factory=Lock, init=False)
    _token: AuthToken | TokenError | None = field(default=None, init=False)
    _is_renewed: bool = field(default=False, init=False)

    def try_project_id(self) -> str | None:
        """Return the token's project; None when there is no token, which the first worker reports."""
        with self._lock:
            self._read()
        return self.project_id

    def current(self) -> AuthToken:
        """Return the token; TokenError when there is no token, NotTriedError when the circuit breaker is open."""
        with self._lock:
            self.breaker.check()
            return self._checked(self._read())

    def renewed(self, refused: AuthToken) -> AuthToken:
        """Return another token than the one that was `refused`; TokenError when there is no other."""
        with self._lock:
            if self._token == refused and not self._is_renewed:
                self._is_renewed = True
                self._read(is_fresh=True)
            if self._token == refused:
                problem = f"holds a token that the API refuses; {self.secret.ask_for_rotation()}"
                self._token = TokenError(Reason.TOKEN_REFUSED, self.secret.arn, problem)
            return self._checked(self._read())

    def _read(self, *, is_fresh: bool = False) -> AuthToken | TokenError:
        if self._token is None or is_fresh:
            try:
                self._token = self.secret.read(is_fresh=is_fresh)
                self.project_id = self._token.project_id
            except TokenError as error:
                self._token = error
        return self._token

    def _checked(self, token: AuthToken | TokenError) -> AuthToken:
        if isinstance(token, TokenError):
            self.breaker.open(token.failure)
            raise token.with_traceback(None)
        return token


@dataclass(frozen=True, slots=True)
class SecretVersions:
    """One secret, and the version of it that a rotation makes; errors are those of the client."""

    client: "SecretsManagerClient"
    arn: str
    version_id: str

    def stages(self) -> list[str]:
        """Return the stages of the rotation's version; an empty list when there is no such version."""
        response = self.client.describe_secret(SecretId=self.arn)
        return response.get("VersionIdsToStages", {}).get(self.version_id, [])

    def current(self) -> tuple[str, str | None]:
        """Return the ID and the text of the version that is in use; None in place of the text for binary data."""
        response = self.client.get_secret_value(SecretId=self.arn, VersionStage=CURRENT)
        return response["VersionId"], response.get("SecretString")

    def pending(self) -> str | None:
        """Return the text of the rotation's version; None when it has no value yet."""
        try:
            response = self.client.get_secret_value(
                SecretId=self.arn, VersionId=self.version_id, VersionStage=PENDING
            )
        except self.client.exceptions.ResourceNotFoundException:
            return None
        return response.get("SecretString")

    def put_pending(self, text: str) -> None:
        """Put the text of the rotation's version, which cannot be changed afterwards."""
        self.client.put_secret_value(
            SecretId=self.arn, ClientRequestToken=self.version_id, SecretString=text, VersionStages=[PENDING]
        )

    def make_current(self, *, instead_of: str) -> None:
        """Put the rotation's version into use, unless another version than `instead_of` is in use by now."""
        self.client.update_secret_version_stage(
            SecretId=self.arn, VersionStage=CURRENT, MoveToVersionId=self.version_id, RemoveFromVersionId=instead_of
        )

    def abandon(self) -> None:
        """End the rotation without a new version, so that the next one starts with a version of its own."""
        self.client.update_secret_version_stage(
            SecretId=self.arn, VersionStage=PENDING, RemoveFromVersionId=self.version_id
        )
