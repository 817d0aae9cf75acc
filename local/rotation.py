"""What Secrets Manager does to rotate a secret: a pending version, and a function invoked for each of four steps."""

import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

from moto.secretsmanager.exceptions import InvalidRequestException
from moto.secretsmanager.models import FakeSecret, SecretsManagerBackend, secretsmanager_backends

from local.clock import Clock

STEPS = ("createSecret", "setSecret", "testSecret", "finishSecret")
# "If any rotation step fails, Secrets Manager retries the entire rotation process multiple times during the open
# rotation windows" (user guide, Rotation by Lambda function); how many times is not documented.
_TRIES = 5


@dataclass(slots=True)
class _Rotation:
    """A rotation that has not succeeded yet, and the version that it creates."""

    secret: FakeSecret
    version_id: str
    tries_left: int = _TRIES


@dataclass
class Rotations:
    """All rotations of one secret; `asked` counts those that `RotateSecret` has started."""

    clock: Clock
    asked: int = 0
    _scheduled: FakeSecret | None = None
    _every_seconds: int = 0
    _window_at: int = 0
    _rotations: list[_Rotation] = field(default_factory=list)

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Serve `RotateSecret` for the duration of the `with` block."""

        def rotate_secret(backend: SecretsManagerBackend, secret_id: str, **_: object) -> str:
            return self._rotate_secret(backend.secrets[secret_id])

        # moto runs a rotation's function in Docker only, and knows no rotation that fails or is incomplete.
        with patch.object(SecretsManagerBackend, "rotate_secret", rotate_secret):
            yield

    def schedule(self, secret_arn: str, expression: str) -> None:
        """Rotate a secret at every window of a `rate(… hours)`; the first window of a day opens at midnight UTC.

        Source: API reference, RotationRulesType.
        """
        region, account = secret_arn.split(":")[3:5]
        self._scheduled = secretsmanager_backends[account][region].secrets[secret_arn]  # type: ignore[assignment]
        self._every_seconds = 3600 * int(expression.removeprefix("rate(").removesuffix(" hours)"))
        self._set_next_window()

    def _rotate_secret(self, secret: Any) -> str:  # noqa: ANN401 (moto's own)
        """Start a rotation; where one is incomplete, retry that one and refuse the call.

        It is incomplete while AWSPENDING is attached to another version than AWSCURRENT, even an empty one (API
        reference, RotateSecret).
        """
        is_complete = _pending_version(secret) is None
        self._start(secret)
        if not is_complete:
            # AWS's own words, by hashicorp/terraform-provider-aws, secret_rotation_test.go.
            raise InvalidRequestException("A previous rotation isn't complete. That rotation will be reattempted.")
        self.asked += 1
        answer: str = secret.to_short_dict()
        return answer

    def run(self, handler: Callable[[Any], Any]) -> int:
        """Invoke `handler` for the steps of each rotation in progress; return how many rotations have succeeded.

        The first step that fails ends the try. The next `run` tries the whole rotation again, up to five times.
        """
        if self._scheduled and self.clock.time() >= self._window_at:
            self._set_next_window()
            self._start(self._scheduled)
        tried, self._rotations = self._rotations, []
        failed = [rotation for rotation in tried if not _succeeds(rotation, handler)]
        for rotation in failed:
            rotation.tries_left -= 1
        self._rotations += [rotation for rotation in failed if rotation.tries_left]
        return len(tried) - len(failed)

    def _set_next_window(self) -> None:
        self._window_at = (int(self.clock.time()) // self._every_seconds + 1) * self._every_seconds

    def _start(self, secret: FakeSecret) -> None:
        """Start a rotation, or retry the incomplete one."""
        version_id = _pending_version(secret) or _new_version(secret)
        self._rotations = [each for each in self._rotations if each.version_id != version_id]
        self._rotations.append(_Rotation(secret, version_id))


def _succeeds(rotation: _Rotation, handler: Callable[[Any], Any]) -> bool:
    event = {"SecretId": rotation.secret.arn, "ClientRequestToken": rotation.version_id}
    try:
        for step in STEPS:
            handler({"Step": step, **event})
    except Exception:  # noqa: BLE001 (Secrets Manager retries after any error)
        return False
    return True


def _new_version(secret: FakeSecret) -> str:
    version_id = str(uuid.uuid4())
    secret.versions[version_id] = {"createdate": 0, "version_id": version_id, "version_stages": ["AWSPENDING"]}
    return version_id


def _pending_version(secret: FakeSecret) -> str | None:
    """Return the version of the incomplete rotation; None without one."""
    for version_id, version in secret.versions.items():
        if "AWSPENDING" in version["version_stages"] and "AWSCURRENT" not in version["version_stages"]:
            return version_id
    return None
