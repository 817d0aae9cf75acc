"""What is measured, packed: the function as `sam build` packs it here, and another one as it does by default."""

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from local.build import build, zipped_bytes

_NAIVE = Path(__file__).resolve().parent / "naive"


@dataclass(frozen=True, slots=True)
class Artifacts:
    """The two folders."""

    ours: Path
    naive: Path


def pack(folder: Path) -> Artifacts:
    """Pack both functions into a folder, which takes a package registry."""
    build(folder / "build")
    naive = folder / "naive"
    # Sources without bytecode, nothing left out.
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input"]
    command += ["--target", str(naive), "--no-compile", "--requirement", str(_NAIVE / "requirements.txt")]
    subprocess.run(command, check=True)
    shutil.copy(_NAIVE / "function.py", naive)
    return Artifacts(folder / "build/CaptureFunction", naive)


def size(artifacts: Artifacts) -> dict[str, int]:
    """Return the sizes of their zips, in bytes."""
    return {"ours_bytes": zipped_bytes(artifacts.ours), "naive_bytes": zipped_bytes(artifacts.naive)}
