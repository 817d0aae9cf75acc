"""`deploy`: build, deploy a stage with `sam`, and say what comes next."""

import subprocess
import sys
from collections.abc import Callable, Sequence

from ops.errors import USAGE, WELL
from ops.stack import SAM_CONFIG, Stack


def run(command: Sequence[str]) -> int:
    """Run a command where the template is, with its input and output being ours; return its exit code."""
    return subprocess.run(command, cwd=SAM_CONFIG.parent, check=False).returncode  # noqa: S603 (built below)


def deploy(stack: Stack, stage: str, *, run: Callable[[Sequence[str]], int] = run) -> int:
    """Build and deploy; return the exit code. sam asks only for what samconfig.toml has it ask for."""
    sam = [sys.executable, "-m", "samcli"]
    where = ["--region", stack.region, "--stack-name", stack.name]
    for command in ([*sam, "build"], [*sam, "deploy", "--config-env", stage, *where]):
        if run(command):
            return USAGE
    for line in next_steps(stack, stage):
        print(line)
    return WELL


def next_steps(stack: Stack, stage: str) -> list[str]:
    """Return what a person does once the stack is there."""
    secret = stack.output("TokenSecretArn")
    aws = f"aws secretsmanager {{}} --region {stack.region} --secret-id {secret}"
    if "RotateTokenLogGroupName" in stack.outputs:
        fields, rotate = '{"username": "…", "api_key": "…"}', [f"  {aws.format('rotate-secret')}"]
    else:
        fields, rotate = '{"token": "…", "project_id": "…"}', []
    return [
        f"\n{stack.name} is deployed. Next, unless it is there already, put the token:",
        "  file=$(mktemp)",
        f'  cat > "$file"   # paste {fields}, then press Enter and Ctrl-D',
        f'  {aws.format("put-secret-value")} --secret-string "file://$file"',
        '  rm "$file"',
        *rotate,
        f"Then: make status STAGE={stage}",
    ]
