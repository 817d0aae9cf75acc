"""Packs a function for Lambda: what it needs to run and no more, with its bytecode.

`sam build` runs it through the Makefile beside it: `python pack.py <empty folder>`. It takes CPython of the version
that the functions run on, and pip. Nothing that is packed is compiled for one architecture, so that the files are the
same wherever they are packed.
"""

import ast
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
# Pure Python alone: the tests run the very files that are deployed, whatever machine they run on. A dependency that
# has no such wheel ends the build; then this is the functions' own platform, manylinux2014_aarch64.
PLATFORM = "any"
# Where Lambda puts the functions' code, which tracebacks show.
LAMBDA_FOLDER = "/var/task"

# What wheels hold and the functions never use.
REMOVED = (
    # Commands.
    "bin",
    # How a package was installed. METADATA stays: scanners of deployed functions read in it what is there.
    "*.dist-info/[!M]*",
    # The older of two ways to speak to AWS, boto3.resource. Its code stays, since boto3 imports it.
    "boto3/data",
    "boto3/examples",
    # botocore takes certifi's where there is one.
    "botocore/cacert.pem",
    # Time zones by name, for systems that have none.
    "dateutil/zoneinfo",
    # A test, and a command.
    "certifi/tests",
    "charset_normalizer/cli",
    # Routers for HTTP and GraphQL, and a page for browsers.
    "aws_lambda_powertools/event_handler",
    # Utilities other than idempotency and parameters.
    "aws_lambda_powertools/utilities/auth_alpha",
    "aws_lambda_powertools/utilities/batch",
    "aws_lambda_powertools/utilities/circuit_breaker",
    "aws_lambda_powertools/utilities/data_classes",
    "aws_lambda_powertools/utilities/data_masking",
    "aws_lambda_powertools/utilities/feature_flags",
    "aws_lambda_powertools/utilities/kafka",
    "aws_lambda_powertools/utilities/metadata",
    "aws_lambda_powertools/utilities/parser",
    "aws_lambda_powertools/utilities/streaming",
    "aws_lambda_powertools/utilities/validation",
)
# What botocore reads for every client, beside endpoints.json.
COMMON_FILES = ("_retry.json", "partitions.json", "sdk-default-configuration.json")
# What it reads of a service to make a client; the rest is for paginators, waiters and examples.
SERVICE_FILES = ("service-2.*", "endpoint-rule-set-1.*")
_CLIENT_MAKERS = {"client", "create_client", "resource"}


class PackError(Exception):
    """The functions cannot be packed; the message says why."""


def main() -> int:
    """Pack into the folder that the command line names; return the exit code."""
    try:
        pack(Path(sys.argv[1]))
    except PackError as error:
        print(f"pack.py: {error}", file=sys.stderr)
        return 1
    return 0


def pack(artifact: Path) -> None:
    """Fill an empty folder with all that a function needs; PackError when that cannot be done."""
    check_python(sys.implementation.name, sys.version_info[:2])
    services = services_of(SOURCE / PACKAGE)
    install(artifact)
    shutil.copytree(SOURCE / PACKAGE, artifact / PACKAGE, ignore=shutil.ignore_patterns("__pycache__"))
    remove(artifact)
    reduce_data(artifact / "botocore/data", services)
    add_bytecode(artifact)
    _set_modes(artifact)


def check_python(implementation: str, version: tuple[int, ...]) -> None:
    """PackError unless this Python makes the bytecode that the functions' runtime reads."""
    if (implementation, version) != ("cpython", PYTHON):
        wanted, found = (".".join(map(str, each)) for each in (PYTHON, version))
        raise PackError(f"it takes CPython {wanted}, as the functions do, and this is {implementation} {found}")


def services_of(source: Path) -> set[str]:
    """Return the AWS services that code makes clients of, by the literals in its calls of `client`.

    PackError where a call does not show its service.
    """
    services = set()
    for path in sorted(source.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_bytes())):
            match node:
                case ast.Call(func=ast.Attribute(attr="client"), args=[ast.Constant(value=str(service)), *_]):
                    services.add(service)
                case ast.Call(func=ast.Attribute(attr=name) | ast.Name(id=name)) if name in _CLIENT_MAKERS:
                    place = f"{path.relative_to(source)}, line {node.lineno}"
                    raise PackError(
                        f'{place}: a client is made by session.client("<service>", …) and in no other way'
                    )
    return services


def install(artifact: Path) -> None:
    """Install what requirements.txt pins, by its hashes; PackError when pip does not."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input"]
    command += ["--target", str(artifact), "--no-compile", "--no-deps", "--only-binary", ":all:"]
    command += ["--platform", PLATFORM, "--implementation", "cp", "--python-version", ".".join(map(str, PYTHON))]
    command += ["--require-hashes", "--requirement", str(SOURCE / "requirements.txt")]
    if subprocess.run(command, check=False).returncode:  # noqa: S603 (nothing in it comes from outside)
        raise PackError("pip could not install requirements.txt, and says above why")


def remove(artifact: Path) -> None:
    """Remove what is never used."""
    for pattern in REMOVED:
        for path in artifact.glob(pattern):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()


def reduce_data(data: Path, services: Collection[str]) -> None:
    """Leave of botocore's data what clients of these services read; PackError for a service that is not there.

    For its first client botocore lists every folder and reads every endpoint: most of what that client costs.
    """
    kept = {name: _read(data / name) for name in COMMON_FILES}
    prefixes = set()
    for service in services:
        version = _newest_version(data / service)
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


def _newest_version(service: Path) -> Path:
    versions = {path.parent for path in service.glob("*/service-2.json*")}
    if not versions:
        raise PackError(f"botocore knows no service {service.name}")
    return max(versions)


def _read(path: Path) -> Any:  # noqa: ANN401 (it is JSON)
    content = path.read_bytes()
    return json.loads(gzip.decompress(content) if path.suffix == ".gz" else content)


def _without_documentation(node: Any) -> Any:  # noqa: ANN401 (as _read)
    """Leave out the texts, which are three quarters of a service's data; a member of that name is no text."""
    match node:
        case dict():
            is_text = {key for key, value in node.items() if key == "documentation" and isinstance(value, str)}
            return {key: _without_documentation(value) for key, value in node.items() if key not in is_text}
        case list():
            return [_without_documentation(each) for each in node]
    return node


def add_bytecode(artifact: Path) -> None:
    """Compile every source into bytecode that Python takes as it is; PackError when one cannot be compiled.

    In a function's zip all files are of 1980, so bytecode that knows its source by the time is never used.
    """
    is_compiled = compileall.compile_dir(
        artifact,
        quiet=1,
        force=True,
        stripdir=str(artifact),
        prependdir=LAMBDA_FOLDER,
        optimize=0,
        invalidation_mode=PycInvalidationMode.UNCHECKED_HASH,
    )
    if not is_compiled:
        raise PackError("what stands above could not be compiled")


def _set_modes(artifact: Path) -> None:
    """Let everybody read all files: the zip holds their modes, which would be those of this machine's umask."""
    for path in artifact.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)


if __name__ == "__main__":
    sys.exit(main())
