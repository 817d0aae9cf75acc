"""What Secrets Manager does to rotate a secret: a pending version, and a function invoked for each of four steps."""

import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

from moto.secretsmanager.exceptions import InvalidRequestException
from moto.secretsmanager.models import FakeSecret, SecretsManagerBackend

from local.clock import Clock

STEPS = ("createSecret", "setSecret", "testSecret", "finishSecret")
# "If any rotation step fails, Secrets Manager retries the entire rotation process multiple times during the open
# rotation windows" (user guide, Rotation by Lambda function); how many times is not documented.
_TRIES = 5


@dataclass(slots=True)
class _Rotation:
    """A rotation that has not succeeded yet, and the version that it makes."""

    secret: FakeSecret
    version_id: str
    tries_left: int = _TRIES


@dataclass
class Rotations:
    """Takes the place of moto's `rotate_secret`, which would replace the current version without any function.

    `asked` counts the rotations that `RotateSecret` has started.
    """

    clock: Clock
    asked: int = 0
    _secret: FakeSecret | None = None
    _every_seconds: int = 0
    _window_at: int = 0
    _rotations: list[_Rotation] = field(default_factory=list)

    def schedule(self, secret: FakeSecret, *, every_seconds: int) -> None:
        """Rotate a secret whenever a window opens: the first one of a day at midnight UTC, whatever it holds by then.

        So it is with `rate()` (API reference, RotationRulesType).
        """
        self._secret, self._every_seconds = secret, every_seconds
        self._set_next_window()

    def rotate_secret(self, backend: SecretsManagerBackend, secret_id: str, **_: object) -> str:
        """Start a rotation, as `RotateSecret` does; where one is not complete, try that again, and say so.

        It is not complete while AWSPENDING is attached to another version than AWSCURRENT (API reference,
        RotateSecret), be that version empty.
        """
        secret = cast("FakeSecret", backend.secrets[secret_id])
        is_complete = _pending_version(secret) is None
        self._start(secret)
        if not is_complete:
            # The exact words that AWS answers with, by hashicorp/terraform-provider-aws, secret_rotation_test.go.
            raise InvalidRequestException("A previous rotation isn't complete. That rotation will be reattempted.")
        self.asked += 1
        return secret.to_short_dict()

    def run(self, handler: Callable[[Any], Any]) -> int:
        """Invoke `handler` for the steps of each rotation that is under way; return how many have succeeded.

        The first step that fails ends the try; the whole rotation is tried again the next time, five times in all.
        """
        if self._secret and self.clock.time() >= self._window_at:
            self._set_next_window()
            self._start(self._secret)
        tried, self._rotations = self._rotations, []
        failed = [rotation for rotation in tried if not _succeeds(rotation, handler)]
        for rotation in failed:
            rotation.tries_left -= 1
        self._rotations += [rotation for rotation in failed if rotation.tries_left]
        return len(tried) - len(failed)

    def _set_next_window(self) -> None:
        self._window_at = (int(self.clock.time()) // self._every_seconds + 1) * self._every_seconds

    def _start(self, secret: FakeSecret) -> None:
        """Start a rotation, or try the one again that is not complete."""
        version_id = _pending_version(secret) or _set_aside(secret)
        self._rotations = [each for each in self._rotations if each.version_id != version_id]
        self._rotations.append(_Rotation(secret, version_id))


def _succeeds(rotation: _Rotation, handler: Callable[[Any], Any]) -> bool:
    event = {"SecretId": rotation.secret.arn, "ClientRequestToken": rotation.version_id}
    try:
        for step in STEPS:
            handler({"Step": step, **event})
    except Exception:  # noqa: BLE001 (whatever a step ends with, Secrets Manager tries again)
        return False
    return True


def _set_aside(secret: FakeSecret) -> str:
    version_id = str(uuid.uuid4())
    secret.versions[version_id] = {"createdate": 0, "version_id": version_id, "version_stages": ["AWSPENDING"]}
    return version_id


def _pending_version(secret: FakeSecret) -> str | None:
    """Return the version that a rotation which is not complete was making; None for no such rotation."""
    for version_id, version in secret.versions.items():
        if "AWSPENDING" in version["version_stages"] and "AWSCURRENT" not in version["version_stages"]:
            return version_id
    return None
