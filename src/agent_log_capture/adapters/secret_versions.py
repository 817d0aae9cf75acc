"""The versions of a secret while Secrets Manager rotates it."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mypy_boto3_secretsmanager import SecretsManagerClient

CURRENT = "AWSCURRENT"
PENDING = "AWSPENDING"


@dataclass(frozen=True, slots=True)
class CurrentVersion:
    """The version that is in use; `value` is None when it holds no text."""

    version_id: str
    value: str | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class SecretVersions:
    """One secret, and the version of it that a rotation makes; errors are those of the client."""

    client: "SecretsManagerClient"
    arn: str
    version_id: str

    def stages(self) -> list[str]:
        """Return the stages of the version that the rotation makes; none when there is no such version."""
        answer = self.client.describe_secret(SecretId=self.arn)
        return answer.get("VersionIdsToStages", {}).get(self.version_id, [])

    def current(self) -> CurrentVersion:
        """Return the version that is in use."""
        answer = self.client.get_secret_value(SecretId=self.arn, VersionStage=CURRENT)
        return CurrentVersion(answer["VersionId"], answer.get("SecretString"))

    def pending(self) -> str | None:
        """Return what the rotation has put so far; None for nothing yet."""
        try:
            answer = self.client.get_secret_value(SecretId=self.arn, VersionId=self.version_id, VersionStage=PENDING)
        except self.client.exceptions.ResourceNotFoundException:
            return None
        return answer.get("SecretString")

    def put_pending(self, value: str) -> None:
        """Put the value of the version that the rotation makes, once: it cannot be changed."""
        self.client.put_secret_value(
            SecretId=self.arn, ClientRequestToken=self.version_id, SecretString=value, VersionStages=[PENDING]
        )

    def make_current(self, *, instead_of: CurrentVersion) -> None:
        """Put the version into use, unless another than `instead_of` has come into use in the meantime."""
        self.client.update_secret_version_stage(
            SecretId=self.arn,
            VersionStage=CURRENT,
            MoveToVersionId=self.version_id,
            RemoveFromVersionId=instead_of.version_id,
        )

    def give_up(self) -> None:
        """End the rotation without a new version, so that the next one begins with a version of its own."""
        self.client.update_secret_version_stage(
            SecretId=self.arn, VersionStage=PENDING, RemoveFromVersionId=self.version_id
        )
