"""The packages that are measured: the function as `sam build` packs it, and those it is compared with."""

import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pack
from local.build import build, zipped_bytes

BARE = Path(__file__).resolve().parent / "bare"
_NAIVE = BARE.with_name("naive")


def make_artifacts(folder: Path) -> dict[str, Path]:
    """Pack the function, an empty one with the same packages, and the naive one; this needs a package registry."""
    build(folder / "build")
    ours, floor, naive = folder / "build/CaptureFunction", folder / "floor", folder / "naive"
    shutil.copytree(ours, floor, ignore=shutil.ignore_patterns(pack.PACKAGE))
    shutil.copy(BARE / "floor.py", floor)
    pack.add_bytecode(floor)
    # As `sam build` does by default: without bytecode, nothing left out.
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile"]
    subprocess.run([*command, "--target", naive, "--requirement", _NAIVE / "requirements.txt"], check=True)
    shutil.copy(_NAIVE / "function.py", naive)
    return {"ours": ours, "floor": floor, "naive": naive}


def zip_ratio(artifacts: Mapping[str, Path]) -> float:
    """Return the size of the function's zip, relative to the naive function's."""
    return zipped_bytes(artifacts["ours"]) / zipped_bytes(artifacts["naive"])
