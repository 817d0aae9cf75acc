"""The stack that a command is about: which one a stage of samconfig.toml means, and what its outputs are."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from boto3.session import Session
from botocore.config import Config
from botocore.exceptions import ClientError, NoRegionError

from ops.errors import OperatorError, code_of

if TYPE_CHECKING:
    from mypy_boto3_secretsmanager import SecretsManagerClient
    from mypy_boto3_sqs import SQSClient

SAM_CONFIG = Path(__file__).resolve().parent.parent / "samconfig.toml"
# Those that `sam deploy --guided` writes stand with the command, those of this project under `global`.
_TABLES = ("deploy", "global")
_CONFIG = Config(connect_timeout=5, read_timeout=30, retries={"mode": "standard", "total_max_attempts": 4})


@dataclass(frozen=True, slots=True)
class Stage:
    """A stage of samconfig.toml: how its stack is named, and where it is when the file says so."""

    name: str
    stack_name: str
    region: str | None
    profile: str | None


def read_stage(name: str, path: Path = SAM_CONFIG) -> Stage:
    """Read a stage; OperatorError when samconfig.toml has none of this name."""
    try:
        config = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise OperatorError(f"{path.name} cannot be read: {error}") from error
    stages = [key for key, value in config.items() if isinstance(value, dict)]
    if name not in stages:
        raise OperatorError(f"STAGE={name}: {path.name} has no such stage; it has {', '.join(stages)}")
    stack_name = _setting(config[name], "stack_name")
    if stack_name is None:
        raise OperatorError(f"STAGE={name}: {path.name} does not name its stack (stack_name)")
    return Stage(name, stack_name, _setting(config[name], "region"), _setting(config[name], "profile"))


def _setting(stage: Mapping[str, Any], key: str) -> str | None:
    for table in _TABLES:
        value = stage.get(table, {}).get("parameters", {}).get(key)
        if isinstance(value, str) and value:
            return value
    return None


@dataclass(frozen=True)
class Stack:
    """A deployed stack, in one region, and the clients for what is in it."""

    name: str
    session: Session
    endpoint_url: str | None = None

    @property
    def region(self) -> str:
        """The region; NoRegionError when nobody has named one."""
        if self.session.region_name is None:
            raise NoRegionError
        return self.session.region_name

    def output(self, name: str) -> str:
        """Return an output; OperatorError when the stack has none of this name."""
        if name not in self.outputs:
            raise OperatorError(f"stack {self.name} in {self.region} has no output {name}: deploy it again")
        return self.outputs[name]

    @cached_property
    def outputs(self) -> Mapping[str, str]:
        """All outputs, by name."""
        return {each["OutputKey"]: each["OutputValue"] for each in self._described.get("Outputs", [])}

    @cached_property
    def parameters(self) -> Mapping[str, str]:
        """What the stack was deployed with, by name."""
        return {each["ParameterKey"]: each["ParameterValue"] for each in self._described.get("Parameters", [])}

    @cached_property
    def sqs(self) -> "SQSClient":
        """The client for the queues."""
        client: SQSClient = self.client("sqs")
        return client

    @cached_property
    def secrets(self) -> "SecretsManagerClient":
        """The client for the token's secret."""
        client: SecretsManagerClient = self.client("secretsmanager")
        return client

    def client(self, service: str) -> Any:  # noqa: ANN401 (each service has a client of its own)
        """Return the client of any service."""
        build: Any = self.session.client
        return build(service, region_name=self.region, endpoint_url=self.endpoint_url, config=_CONFIG)

    @cached_property
    def _described(self) -> Mapping[str, Any]:
        try:
            stacks = self.client("cloudformation").describe_stacks(StackName=self.name)["Stacks"]
        except ClientError as error:
            if code_of(error) != "ValidationError":
                raise
            raise OperatorError(
                f"there is no stack {self.name} in {self.region}: run make deploy, or name another one "
                "(STAGE=…, STACK_NAME=…, REGION=…, AWS_PROFILE)"
            ) from error
        described: Mapping[str, Any] = stacks[0]
        return described
