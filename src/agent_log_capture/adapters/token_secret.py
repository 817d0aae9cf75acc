"""The auth token, from Secrets Manager."""

from threading import Lock
from typing import TYPE_CHECKING

from aws_lambda_powertools.utilities.parameters import SecretsProvider
from aws_lambda_powertools.utilities.parameters.exceptions import GetParameterError
from botocore.exceptions import BotoCoreError, ClientError

from agent_log_capture.domain.auth_token import AuthToken, TokenFormatError, parse_auth_token
from agent_log_capture.domain.circuit_breaker import CircuitBreaker
from agent_log_capture.domain.credentials import parse_credentials
from agent_log_capture.domain.failure import Failure, RetryableError
from agent_log_capture.domain.outcome import Reason

if TYPE_CHECKING:
    from mypy_boto3_secretsmanager import SecretsManagerClient

_CACHED_SECONDS = 300


class TokenError(RetryableError):
    """There is no auth token that the API accepts; the message names the secret and shows nothing of its content.

    It is retryable: the owner of the secret may have fixed it by the next time.
    """

    def __init__(self, reason: Reason, secret_arn: str, problem: str) -> None:
        super().__init__(Failure(reason=reason, message=f"the secret {secret_arn} {problem}"))


class TokenSecret:
    """Reads the auth token from one secret, and keeps it for five minutes."""

    def __init__(
        self,
        client: "SecretsManagerClient",
        secret_arn: str,
        default_project_id: str | None,
        *,
        is_rotated: bool = False,
    ) -> None:
        self._client = client
        self._provider = SecretsProvider(boto3_client=client)
        self.arn = secret_arn
        self._default_project_id = default_project_id
        self._is_rotated = is_rotated

    def read(self, *, is_fresh: bool) -> AuthToken:
        """Return the token; `is_fresh` bypasses the cache. TokenError when there is none to read."""
        try:
            secret = self._provider.get(
                self.arn,
                max_age=_CACHED_SECONDS,
                force_fetch=is_fresh,
                VersionStage="AWSCURRENT",
            )
            return parse_auth_token(secret, self._default_project_id)
        except GetParameterError as error:
            raise TokenError(Reason.TOKEN_UNAVAILABLE, self.arn, f"cannot be read: {error}") from error
        except TokenFormatError as error:
            # Not cached: a secret that is fixed takes effect at once.
            self._provider.store.clear()
            raise TokenError(Reason.TOKEN_UNAVAILABLE, self.arn, self._problem(secret, error)) from error

    def _problem(self, secret: object, error: TokenFormatError) -> str:
        """Return what is wrong; where there are credentials and no token, start the rotation again."""
        try:
            parse_credentials(secret)
        except TokenFormatError:
            return str(error)
        return f"{error}; {self.ask_for_rotation()}" if self._is_rotated else str(error)

    def ask_for_rotation(self) -> str:
        """Ask Secrets Manager for a new token, where it rotates this secret; return the result in words."""
        if not self._is_rotated:
            return "put another one"
        try:
            self._client.rotate_secret(SecretId=self.arn)
        except self._client.exceptions.InvalidRequestException as error:
            # The answer while the last rotation has not ended, and when rotation is not set up.
            return f"no further rotation is started: {error.response['Error']['Message']}"
        except (BotoCoreError, ClientError) as error:
            return f"its rotation could not be asked for: {error}"
        return "its rotation was asked for"


class InvocationToken:
    """The auth token as the workers of one invocation share it.

    The secret is read when the first worker needs it, and once more when the API refuses the token: by one worker,
    for all. The circuit breaker opens when there is no token that the API accepts then.
    """

    def __init__(self, secret: TokenSecret, breaker: CircuitBreaker) -> None:
        self._secret = secret
        self._breaker = breaker
        self._lock = Lock()
        self._token: AuthToken | None = None
        self._error: TokenError | None = None
        self._unreported: TokenError | None = None
        self._is_renewed = False

    @property
    def project_id(self) -> str | None:
        """The project of the token that was read last; None when none could be read."""
        return self._token.project_id if self._token else None

    def try_project_id(self) -> str | None:
        """Return the token's project; None when there is no token, which is raised to the first worker then."""
        try:
            return self.current().project_id
        except TokenError as error:
            self._unreported = error
        return None

    def current(self) -> AuthToken:
        """Return the token; TokenError when there is none to read, NotTriedError when the circuit breaker is open."""
        with self._lock:
            if self._unreported:
                error, self._unreported = self._unreported, None
                raise error.with_traceback(None)
            self._breaker.check()
            if self._token is None:
                self._token = self._read(is_fresh=False)
            return self._token

    def renewed(self, refused: AuthToken) -> AuthToken:
        """Return another token than the one that was `refused`; TokenError when there is no other."""
        with self._lock:
            if self._error:
                raise self._error.with_traceback(None)
            if self._token and self._token != refused:
                return self._token
            self._token = self._read_again(refused)
            return self._token

    def _read_again(self, refused: AuthToken) -> AuthToken:
        token = refused if self._is_renewed else self._read(is_fresh=True)
        self._is_renewed = True
        if token == refused:
            problem = f"holds a token that the API refuses; {self._secret.ask_for_rotation()}"
            raise self._opened(TokenError(Reason.TOKEN_REFUSED, self._secret.arn, problem))
        return token

    def _read(self, *, is_fresh: bool) -> AuthToken:
        try:
            return self._secret.read(is_fresh=is_fresh)
        except TokenError as error:
            raise self._opened(error) from None

    def _opened(self, error: TokenError) -> TokenError:
        self._error = error
        self._breaker.open(error.failure)
        return error
