"""The four steps in which Secrets Manager rotates the token; each is safe to repeat."""

from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING

from agent_log_capture.adapters.cloud_backup import CloudBackup
from agent_log_capture.adapters.identity import CredentialsRefusedError, Identity, IdentityError
from agent_log_capture.adapters.token_secret import CURRENT, PENDING, SecretVersions
from agent_log_capture.domain import auth_token
from agent_log_capture.domain.auth_token import TokenFormatError
from agent_log_capture.domain.printable import printable
from agent_log_capture.domain.responses import ResponseClass, RetryableError, classify

if TYPE_CHECKING:
    from aws_lambda_powertools import Logger
    from mypy_boto3_secretsmanager import SecretsManagerClient

_STEPS = ("createSecret", "setSecret", "testSecret", "finishSecret")
_ABANDONED = "this rotation is abandoned, start a new one"


class RotationError(Exception):
    """A step cannot be done; the message says what to do, and shows nothing of what the secret holds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRotation:
    """Renews the token in a secret with the username and the API key that are stored beside it."""

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
        match event:
            case {"Step": str(step), "SecretId": str(arn), "ClientRequestToken": str(version_id)}:
                secret = SecretVersions(self.client, arn, version_id)
            case _:
                raise RotationError("not a rotation's event; start one with aws secretsmanager rotate-secret")
        if step not in _STEPS:
            raise RotationError(f"'{printable(step, 80)}' is not one of a rotation's steps {', '.join(_STEPS)}")
        self.logger.append_keys(step=step, secret_arn=arn, version_id=version_id)
        try:
            return self._do(step, secret)
        except TokenFormatError as error:
            problem = str(error)
        except (IdentityError, RetryableError, RotationError) as error:
            problem = f"is not rotated: {error}"
        # Nothing is chained to it: what requests raises holds the request, with the token.
        raise RotationError(f"{step}: the secret {arn} {problem}")

    def _do(self, step: str, secret: SecretVersions) -> bool:
        stages = secret.stages()
        if CURRENT in stages:
            self.logger.info("the new token is in use already")
            return False
        if PENDING not in stages:
            raise RotationError(f"its version {secret.version_id} is not {PENDING}; start a new rotation")
        if step == "createSecret":
            self._create(secret)
        elif step == "setSecret":
            self.logger.info("nothing to set: Identity knows the tokens that it issues")
        elif step == "testSecret":
            self._test(secret)
        else:
            self._finish(secret)
        return step == "finishSecret"

    def _create(self, secret: SecretVersions) -> None:
        """Get a token, unless this rotation has one already."""
        _, current = secret.current()
        if (pending := secret.pending()) is not None:
            _check_is_made_from(pending, current, secret)
            self.logger.info("there is a new token already")
            return
        try:
            token, expires_at = self.identity.authenticate(auth_token.parse_credentials(current))
        except (TokenFormatError, CredentialsRefusedError):
            # Only a person can put other credentials, and Secrets Manager refuses the rotation that they start then
            # while this version is pending. After a temporary failure it stays, and Secrets Manager tries again.
            secret.abandon()
            raise
        secret.put_pending(auth_token.with_token(current, token, expires_at))
        self.logger.info("there is a new token", expires_at=expires_at.isoformat())

    def _test(self, secret: SecretVersions) -> None:
        """Call the API with the new token."""
        token = auth_token.parse_pending_token(secret.pending())
        if token is None:
            # Secrets Manager calls this step alone when a rotation is set up and does not start yet.
            self.logger.info("nothing to test yet: the pending version has no new token")
            return
        http_status = self.api.ping(token, self.region).http_status
        if http_status == HTTPStatus.UNAUTHORIZED:
            # The value of a version cannot be changed: every further test would be refused too.
            secret.abandon()
            raise RotationError(f"the API refuses the new token (401); {_ABANDONED}")
        if classify(http_status) is not ResponseClass.ACCEPTED:
            raise RotationError(f"the API answers the new token with HTTP status {http_status}")
        self.logger.info("the API accepts the new token")

    def _finish(self, secret: SecretVersions) -> None:
        """Put the new token into use."""
        current_id, current = secret.current()
        if (pending := secret.pending()) is None:
            raise RotationError("there is no new token yet; createSecret has to come first")
        _check_is_made_from(pending, current, secret)
        secret.make_current(instead_of=current_id)
        self.logger.info("the new token is in use")


def _check_is_made_from(pending: str, current: str | None, secret: SecretVersions) -> None:
    """Check that the rotation would not overwrite what a person has put since it began."""
    if not auth_token.is_made_from(pending, current):
        secret.abandon()
        problem = "the pending version has no new token, or was made before the secret was changed"
        raise RotationError(f"{problem}; {_ABANDONED}")
