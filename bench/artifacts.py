"""The packages that are measured: the function as `sam build` packs it, and those it is compared with."""

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pack
from local.build import build, zipped_bytes

BARE = Path(__file__).resolve().parent / "bare"
_NAIVE = BARE.with_name("naive")


@dataclass(frozen=True, slots=True)
class Artifacts:
    """Folders: the function; an empty one with the same packages, packed the same way; the naive one."""

    ours: Path
    floor: Path
    naive: Path

    def measure(self) -> dict[str, Any]:
        """Compare the sizes of the zips."""
        sizes = {"ours_bytes": zipped_bytes(self.ours), "naive_bytes": zipped_bytes(self.naive)}
        return {"zip_ratio": sizes["ours_bytes"] / sizes["naive_bytes"], "raw": sizes}


def make_artifacts(folder: Path) -> Artifacts:
    """Pack all into a folder; this needs a package registry."""
    build(folder / "build")
    ours, floor, naive = folder / "build/CaptureFunction", folder / "floor", folder / "naive"
    shutil.copytree(ours, floor, ignore=shutil.ignore_patterns(pack.PACKAGE))
    shutil.copy(BARE / "floor.py", floor)
    pack.add_bytecode(floor)
    # As `sam build` does by default: without bytecode, nothing left out.
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile"]
    subprocess.run([*command, "--target", naive, "--requirement", _NAIVE / "requirements.txt"], check=True)
    shutil.copy(_NAIVE / "function.py", naive)
    return Artifacts(ours, floor, naive)
