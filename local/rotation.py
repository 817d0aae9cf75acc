"""What Secrets Manager does to rotate a secret: a pending version, and a function invoked for each of four steps."""

import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

from moto.secretsmanager.exceptions import InvalidRequestException
from moto.secretsmanager.models import FakeSecret, SecretsManagerBackend

from local.clock import Clock

STEPS = ("createSecret", "setSecret", "testSecret", "finishSecret")


@dataclass
class Rotations:
    """Takes the place of moto's `rotate_secret`, which would give up the current version without any function.

    Once a secret was rotated, it is rotated again every `every_seconds`, as its schedule has it. `asked` counts the
    calls of `RotateSecret`.
    """

    clock: Clock
    every_seconds: float
    asked: int = 0
    _waiting: list[tuple[FakeSecret, str]] = field(default_factory=list)
    _due: list[tuple[FakeSecret, float]] = field(default_factory=list)

    def rotate_secret(self, backend: SecretsManagerBackend, secret_id: str, **_: object) -> str:
        """Note that a secret is to be rotated, as `RotateSecret` does, unless another rotation has not ended."""
        secret = cast("FakeSecret", backend.secrets[secret_id])
        if _is_being_rotated(secret):
            raise InvalidRequestException("A previous rotation isn't complete.")
        self.asked += 1
        self._start(secret)
        return secret.to_short_dict()

    def run(self, handler: Callable[[Any], Any]) -> int:
        """Invoke `handler` for the steps of each rotation that waits or is due; return how many have ended.

        The first step that fails ends the try; the whole rotation is tried again the next time.
        """
        self._start_due()
        waiting, self._waiting = self._waiting, []
        for secret, version_id in waiting:
            try:
                for step in STEPS:
                    handler({"Step": step, "SecretId": secret.arn, "ClientRequestToken": version_id})
            except Exception:  # noqa: BLE001 (whatever a step ends with, Secrets Manager tries again)
                self._waiting.append((secret, version_id))
            else:
                self._due = [(secret, self.clock.time() + self.every_seconds)]
        return len(waiting) - len(self._waiting)

    def _start_due(self) -> None:
        for secret, moment in self._due:
            if moment <= self.clock.time() and not _is_being_rotated(secret):
                self._start(secret)

    def _start(self, secret: FakeSecret) -> None:
        version_id = str(uuid.uuid4())
        secret.versions[version_id] = {"createdate": 0, "version_id": version_id, "version_stages": ["AWSPENDING"]}
        self._waiting.append((secret, version_id))


def _is_being_rotated(secret: FakeSecret) -> bool:
    stages = [version["version_stages"] for version in secret.versions.values()]
    return any("AWSPENDING" in labels and "AWSCURRENT" not in labels for labels in stages)
