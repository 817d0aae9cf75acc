"""`make build`: packs the functions as `sam deploy` uploads them, and prints their sizes."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from samcli.lib.package.utils import make_zip_with_lambda_permissions

from local.template import TEMPLATE

ROOT = TEMPLATE.parent
FOLDER = ROOT / ".aws-sam/build"  # where `sam deploy` looks for it
FUNCTIONS = ("CaptureFunction", "RotateTokenFunction")


class BuildError(Exception):
    """`sam build` has failed; the message is its output."""


def build(folder: Path = FOLDER) -> None:
    """Pack each function with `sam build`, into `folder`/its name; BuildError when it fails."""
    variables = {
        # The Python of this environment, which has pip, comes first.
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "AWS_DEFAULT_REGION": "us-east-1",  # sam requires one, but makes no call
        "SAM_CLI_TELEMETRY": "0",
    }
    command = [sys.executable, "-m", "samcli", "build", "--build-dir", str(folder)]
    result = subprocess.run(  # noqa: S603 (no part of it is external input)
        command, cwd=ROOT, env=os.environ | variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )
    if result.returncode:
        raise BuildError(result.stdout.decode(errors="replace"))


def zipped_bytes(artifact: Path) -> int:
    """Return the size of an artifact's zip, as `sam deploy` makes it."""
    with tempfile.TemporaryDirectory() as folder:
        return Path(make_zip_with_lambda_permissions(f"{folder}/artifact", str(artifact))).stat().st_size


def unzipped_bytes(artifact: Path) -> int:
    """Return the size of an artifact's files."""
    return sum(path.stat().st_size for path in artifact.rglob("*") if path.is_file())


def main() -> int:
    """Build, and print the size of each function; return the exit code."""
    try:
        build()
    except BuildError as error:
        print(error, file=sys.stderr)
        return 1
    for name in FUNCTIONS:
        zipped, unzipped = zipped_bytes(FOLDER / name), unzipped_bytes(FOLDER / name)
        print(f"{name:20} {zipped / 1_000_000:.1f} MB zipped, {unzipped / 1_000_000:.1f} MB unzipped")
    return 0


if __name__ == "__main__":
    sys.exit(main())
