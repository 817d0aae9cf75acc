"""The four steps in which Secrets Manager rotates the token: each may come again, whatever became of it before."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent_log_capture.adapters.cloud_backup import CloudBackup
from agent_log_capture.adapters.identity import CredentialsRefusedError, Identity, IdentityError
from agent_log_capture.adapters.secret_versions import CURRENT, PENDING, SecretVersions
from agent_log_capture.domain.auth_token import TokenFormatError
from agent_log_capture.domain.credentials import (
    IssuedToken,
    is_made_from,
    parse_credentials,
    parse_pending_token,
    with_token,
)
from agent_log_capture.domain.failure import RetryableError
from agent_log_capture.domain.printable import printable
from agent_log_capture.domain.responses import ResponseClass, classify

if TYPE_CHECKING:
    from aws_lambda_powertools import Logger
    from mypy_boto3_secretsmanager import SecretsManagerClient


_STEPS = ("createSecret", "setSecret", "testSecret", "finishSecret")
_STEP_CHARACTERS = 80


class RotationError(Exception):
    """A step cannot be done; the message says what to do, and shows nothing of what the secret holds."""


class _NotRotatedError(Exception):
    """What stands in the way of a step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRotation:
    """Keeps the token in a secret alive, with the username and the API key beside it."""

    client: "SecretsManagerClient"
    identity: Identity
    api: CloudBackup
    region: str
    logger: "Logger"

    def run(self, event: object) -> bool:
        """Do the step that `event` names; return whether it made a new token the current one.

        RotationError when it cannot be done. It and the client's own errors end the rotation, which Secrets Manager
        tries again from its first step.
        """
        step, secret = self._read(event)
        self.logger.append_keys(step=step, secret_arn=secret.arn, version_id=secret.version_id)
        try:
            return self._do(step, secret)
        except TokenFormatError as error:
            problem = str(error)
        except (IdentityError, RetryableError, _NotRotatedError) as error:
            problem = f"is not rotated: {error}"
        # Raised out here so that nothing is chained to it: what requests raises holds the request, with the token.
        raise RotationError(f"{step}: the secret {secret.arn} {problem}")

    def _read(self, event: object) -> tuple[str, SecretVersions]:
        match event:
            case {"Step": str(step), "SecretId": str(arn), "ClientRequestToken": str(version_id)}:
                if step in _STEPS:
                    return step, SecretVersions(self.client, arn, version_id)
                shown = printable(step, _STEP_CHARACTERS)
                raise RotationError(f"'{shown}' is no step of a rotation, which are {', '.join(_STEPS)}")
        raise RotationError("this is no event of a rotation; start one with aws secretsmanager rotate-secret")

    def _do(self, step: str, secret: SecretVersions) -> bool:
        stages = secret.stages()
        if CURRENT in stages:
            self.logger.info("the new token is in use already")
            return False
        if PENDING not in stages:
            raise _NotRotatedError(f"its version {secret.version_id} is not {PENDING}; start a new rotation")
        match step:
            case "createSecret":
                self._create(secret)
            case "setSecret":
                self.logger.info("nothing to set: Identity knows the tokens that it issues")
            case "testSecret":
                self._test(secret)
            case _:
                self._finish(secret)
                return True
        return False

    def _create(self, secret: SecretVersions) -> None:
        """Get a token, unless this rotation has one already."""
        current = secret.current().value
        pending = secret.pending()
        if pending is None:
            issued = self._issue(current, secret)
            secret.put_pending(with_token(current, issued))
            self.logger.info("there is a new token", expires_at=issued.expires_at.isoformat())
        else:
            self._check_is_made_from(pending, current, secret)
            self.logger.info("there is a new token already")

    def _issue(self, current: str | None, secret: SecretVersions) -> IssuedToken:
        """Get a token from Identity; without credentials that it accepts, remove the pending version.

        Only a person can put such credentials. The rotation that they start then is refused by Secrets Manager while
        the version of an earlier one is pending. After a temporary failure it stays, and Secrets Manager tries again.
        """
        try:
            return self.identity.authenticate(parse_credentials(current))
        except (TokenFormatError, CredentialsRefusedError):
            secret.give_up()
            raise

    def _test(self, secret: SecretVersions) -> None:
        """Call the API with the new token."""
        pending = secret.pending()
        token = None if pending is None else parse_pending_token(pending)
        if token is None:
            # So it is when Secrets Manager tries a rotation that was set up, and starts none.
            self.logger.info("nothing to test yet: the pending version has no new token")
            return
        answer = self.api.ping(token, self.region)
        match classify(answer.http_status):
            case ResponseClass.ACCEPTED:
                self.logger.info("the API takes the new token")
            case ResponseClass.TOKEN_REFUSED:
                # The value of a version cannot be changed: to test it again would be to be refused again.
                secret.give_up()
                raise _NotRotatedError("the API refuses the new token (401); it is given up, start a new rotation")
            case _:
                raise _NotRotatedError(f"the API answers the new token with HTTP status {answer.http_status}")

    def _finish(self, secret: SecretVersions) -> None:
        """Put the new token into use."""
        current = secret.current()
        pending = secret.pending()
        if pending is None:
            raise _NotRotatedError("there is no new token yet; createSecret has to come first")
        self._check_is_made_from(pending, current.value, secret)
        secret.make_current(instead_of=current)
        self.logger.info("the new token is in use")

    @staticmethod
    def _check_is_made_from(pending: str, current: str | None, secret: SecretVersions) -> None:
        """Keep what a person has put in the meantime from being replaced by what was there before."""
        if not is_made_from(pending, current):
            secret.give_up()
            problem = "the pending version has no new token, or was made before the secret was changed"
            raise _NotRotatedError(f"{problem}; it is given up, start a new rotation")
