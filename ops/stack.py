"""The stack that a command is for: its name and region from samconfig.toml, its outputs from CloudFormation."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from boto3.session import Session
from botocore.config import Config
from botocore.exceptions import ClientError, NoRegionError

from ops.errors import OperatorError, code_of

SAM_CONFIG = Path(__file__).resolve().parent.parent / "samconfig.toml"
_CONFIG = Config(connect_timeout=5, read_timeout=30, retries={"mode": "standard", "total_max_attempts": 4})


def read_stage(name: str, path: Path = SAM_CONFIG) -> Mapping[str, str]:
    """Return a stage's `stack_name` and, where set, `region` and `profile`; OperatorError when there is none."""
    try:
        config = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise OperatorError(f"{path.name} cannot be read: {error}") from error
    stages = [key for key, value in config.items() if isinstance(value, dict)]
    if name not in stages:
        raise OperatorError(f"STAGE={name}: {path.name} has no such stage; it has {', '.join(stages)}")
    # `sam deploy --guided` writes to `deploy`, which overrides `global`.
    settings: dict[str, Any] = {}
    for table in ("global", "deploy"):
        settings |= config[name].get(table, {}).get("parameters", {})
    if not settings.get("stack_name"):
        raise OperatorError(f"STAGE={name}: {path.name} does not name its stack (stack_name)")
    return {key: settings[key] for key in ("stack_name", "region", "profile") if settings.get(key)}


@dataclass(frozen=True)
class Stack:
    """A deployed stack, and the clients of its region."""

    name: str
    session: Session
    endpoint_url: str | None = None

    @property
    def region(self) -> str:
        """The region; NoRegionError when none is configured."""
        if self.session.region_name is None:
            raise NoRegionError
        return self.session.region_name

    def output(self, name: str) -> str:
        """Return an output; OperatorError when the stack does not have it."""
        if name not in self.outputs:
            raise OperatorError(f"stack {self.name} in {self.region} has no output {name}: deploy it again")
        return self.outputs[name]

    @cached_property
    def outputs(self) -> Mapping[str, str]:
        """All outputs, by name."""
        return {each["OutputKey"]: each["OutputValue"] for each in self._description.get("Outputs", [])}

    @cached_property
    def parameters(self) -> Mapping[str, str]:
        """The parameters of the deployment, by name."""
        return {each["ParameterKey"]: each["ParameterValue"] for each in self._description.get("Parameters", [])}

    def client(self, service: str) -> Any:  # noqa: ANN401 (each service has its own type)
        """Return a client of any service."""
        build: Any = self.session.client
        return build(service, region_name=self.region, endpoint_url=self.endpoint_url, config=_CONFIG)

    @cached_property
    def _description(self) -> Mapping[str, Any]:
        try:
            stacks = self.client("cloudformation").describe_stacks(StackName=self.name)["Stacks"]
        except ClientError as error:
            if code_of(error) != "ValidationError":
                raise
            raise OperatorError(
                f"there is no stack {self.name} in {self.region}: run make deploy, or choose another one "
                "(STAGE=…, STACK_NAME=…, REGION=…, AWS_PROFILE)"
            ) from error
        description: Mapping[str, Any] = stacks[0]
        return description
