"""The stack that a command is for: its name and region from samconfig.toml, its outputs from CloudFormation."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from boto3.session import Session
from botocore.config import Config
from botocore.exceptions import ClientError

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
    settings: dict[str, str] = {}
    for table in ("global", "deploy"):
        settings |= config[name].get(table, {}).get("parameters", {})
    if not settings.get("stack_name"):
        raise OperatorError(f"STAGE={name}: {path.name} does not name its stack (stack_name)")
    return settings


@dataclass(frozen=True)
class Stack:
    """A deployed stack, and the clients of its region."""

    name: str
    session: Session
    endpoint_url: str | None = None

    def __str__(self) -> str:
        return f"{self.name} in {self.session.region_name}"

    def client(self, service: str) -> Any:  # noqa: ANN401 (each service has its own type)
        """Return a client of any service; NoRegionError without a region."""
        build: Any = self.session.client
        return build(service, endpoint_url=self.endpoint_url, config=_CONFIG)

    def output(self, name: str) -> str:
        """Return an output; OperatorError when the stack does not have it."""
        for each in self._description.get("Outputs", []):
            if each["OutputKey"] == name:
                return str(each["OutputValue"])
        raise OperatorError(f"stack {self} has no output {name}: deploy it again")

    def parameter(self, name: str) -> str | None:
        """Return a parameter of the deployment; None when the stack does not have it."""
        parameters = self._description.get("Parameters", [])
        return next((each["ParameterValue"] for each in parameters if each["ParameterKey"] == name), None)

    @cached_property
    def _description(self) -> Mapping[str, Any]:
        try:
            stacks = self.client("cloudformation").describe_stacks(StackName=self.name)["Stacks"]
        except ClientError as error:
            if code_of(error) != "ValidationError":
                raise
            advice = "run make deploy, or choose another one (STAGE=…, STACK_NAME=…, REGION=…, AWS_PROFILE)"
            raise OperatorError(f"there is no stack {self}: {advice}") from error
        return dict(stacks[0])
