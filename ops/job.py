"""`job`: what happened to each agent of a job."""

from pathlib import Path

from ops.errors import OperatorError
from ops.stack import Stack


def job(stack: Stack, name: str, *, csv: Path | None) -> int:
    """Print a job's summary, and write a line for each of its agents to `csv`; return the exit code."""
    raise OperatorError(f"job {name} of {stack.name}: cannot be read yet ({csv})")
