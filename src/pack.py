"""Packs a function for Lambda: what it needs at run time, with bytecode, and nothing else.

`sam build` runs it through the Makefile beside it: `python pack.py <empty folder>`. It needs pip, and CPython of the
version that the functions run on. The packages are pure Python, so the result is the same on every machine.
"""

import compileall
import gzip
import json
import shutil
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path
from py_compile import PycInvalidationMode
from typing import Any

SOURCE = Path(__file__).resolve().parent
PACKAGE = "agent_log_capture"
PYTHON = (3, 13)
# The services that the functions make clients of; a test compares it with the clients.
SERVICES = ("dynamodb", "secretsmanager", "sns", "sqs")
# The path of a function's code on Lambda, which tracebacks show.
LAMBDA_FOLDER = "/var/task"

# Parts of the packages that the functions never use.
REMOVED = (
    "bin",
    "*.dist-info/[!M]*",  # METADATA stays: scanners read the packages of a deployed function from it
    "boto3/data",  # of boto3.resource
    "boto3/examples",
    "botocore/cacert.pem",  # botocore prefers certifi's
    "dateutil/zoneinfo",
    "certifi/tests",
    "charset_normalizer/cli",
    "aws_lambda_powertools/event_handler",
)
# Of Powertools' utilities, those that are used (the logger imports jmespath_utils).
UTILITIES = {"jmespath_utils", "parameters"}
# The files that botocore reads for every client, beside endpoints.json.
COMMON_FILES = ("_retry.json", "partitions.json", "sdk-default-configuration.json")
# The files of a service that a client reads; the others are for paginators, waiters and examples.
SERVICE_FILES = ("service-2.*", "endpoint-rule-set-1.*")


def pack(artifact: Path) -> None:
    """Fill an empty folder with a function; SystemExit when that fails."""
    check_python(sys.implementation.name, sys.version_info[:2])
    install(artifact)
    shutil.copytree(SOURCE / PACKAGE, artifact / PACKAGE, ignore=shutil.ignore_patterns("__pycache__"))
    remove(artifact)
    reduce_data(artifact / "botocore/data", SERVICES)
    add_bytecode(artifact)
    # The zip includes the modes of the files, which would be those of this machine's umask.
    for path in artifact.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)


def check_python(implementation: str, version: tuple[int, ...]) -> None:
    """SystemExit unless this Python makes the bytecode that the functions' runtime reads."""
    if (implementation, version) != ("cpython", PYTHON):
        needed, found = (".".join(map(str, each)) for each in (PYTHON, version))
        raise SystemExit(f"pack.py: CPython {needed} is needed, as on Lambda; this is {implementation} {found}")


def install(artifact: Path) -> None:
    """Install the packages that requirements.txt pins, by their hashes; SystemExit when pip fails.

    A dependency without a pure Python wheel fails: it needs the functions' own platform, manylinux2014_aarch64.
    """
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input"]
    command += ["--target", str(artifact), "--no-compile", "--no-deps", "--only-binary", ":all:"]
    command += ["--platform", "any", "--implementation", "cp", "--python-version", ".".join(map(str, PYTHON))]
    command += ["--require-hashes", "--requirement", str(SOURCE / "requirements.txt")]
    if subprocess.run(command, check=False).returncode:  # noqa: S603 (no part of it is external input)
        raise SystemExit("pack.py: pip could not install requirements.txt; see its message above")


def remove(artifact: Path) -> None:
    """Remove the parts of packages that are never used."""
    utilities = artifact.glob("aws_lambda_powertools/utilities/*/")
    unused = [path for path in utilities if path.name not in UTILITIES]
    for path in (*unused, *(path for pattern in REMOVED for path in artifact.glob(pattern))):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def reduce_data(data: Path, services: Collection[str]) -> None:
    """Reduce botocore's data to what clients of these services read; SystemExit for an unknown service.

    For its first client botocore lists every folder and parses every endpoint: most of the time that it takes.
    """
    kept = {name: _read(data / name) for name in COMMON_FILES}
    prefixes = set()
    for service in services:
        versions = [path.parent for path in data.glob(f"{service}/*/service-2.json*")]
        if not versions:
            raise SystemExit(f"pack.py: botocore has no service {service}")
        version = max(versions)
        for path in (path for pattern in SERVICE_FILES for path in version.glob(pattern)):
            kept[f"{service}/{version.name}/{path.name.removesuffix('.gz')}"] = _without_documentation(_read(path))
        prefixes.add(kept[f"{service}/{version.name}/service-2.json"]["metadata"]["endpointPrefix"])
    endpoints = _read(data / "endpoints.json")
    for partition in endpoints["partitions"]:
        partition["services"] = {name: each for name, each in partition["services"].items() if name in prefixes}
    shutil.rmtree(data)
    for name, content in (kept | {"endpoints.json": endpoints}).items():
        path = data / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content, separators=(",", ":")), encoding="utf-8")


def _read(path: Path) -> Any:  # noqa: ANN401 (any JSON)
    content = path.read_bytes()
    return json.loads(gzip.decompress(content) if path.suffix == ".gz" else content)


def _without_documentation(node: Any) -> Any:  # noqa: ANN401 (any JSON)
    """Remove the documentation, which is three quarters of a service's data; an object of that name is a shape."""
    match node:
        case dict():
            texts = {key for key, value in node.items() if key == "documentation" and isinstance(value, str)}
            return {key: _without_documentation(value) for key, value in node.items() if key not in texts}
        case list():
            return [_without_documentation(each) for each in node]
    return node


def add_bytecode(artifact: Path) -> None:
    """Compile every source to bytecode that Python uses without a check; SystemExit when one cannot be compiled.

    In a function's zip every file is dated 1980, so Python would reject bytecode that is checked by date.
    """
    mode, folder = PycInvalidationMode.UNCHECKED_HASH, str(artifact)
    if not compileall.compile_dir(
        artifact, quiet=1, force=True, stripdir=folder, prependdir=LAMBDA_FOLDER, optimize=0, invalidation_mode=mode
    ):
        raise SystemExit("pack.py: a source could not be compiled; see the message above")


if __name__ == "__main__":
    pack(Path(sys.argv[1]))
