"""What is shipped is pinned down to the byte, is what the code needs, and is what the tests run against."""

import re
import tomllib
from importlib.metadata import requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = ROOT / "src/requirements.txt"
TESTED = ROOT / "requirements-dev.txt"
INSTALLER = ROOT / "requirements-uv.txt"
PINNED = re.compile(r"[a-z0-9.-]+==[0-9][^\s;]*( ; [^#@]+?)?( --hash=sha256:[0-9a-f]{64})+")
ON_LAMBDA = {
    "os_name": "posix",
    "platform_machine": "aarch64",
    "platform_python_implementation": "CPython",
    "platform_system": "Linux",
    "python_full_version": "3.13.0",
    "python_version": "3.13",
    "sys_platform": "linux",
}

every_file = pytest.mark.parametrize("path", [SHIPPED, TESTED, INSTALLER], ids=lambda path: path.name)


def lines_of(path):
    """Return the lines that pip reads: continued ones as one, without comments."""
    lines = path.read_text(encoding="utf-8").splitlines()
    text = "\n".join(line for line in lines if not line.lstrip().startswith("#"))
    return [" ".join(line.split()) for line in text.replace("\\\n", " ").splitlines() if line.strip()]


def pins_of(path):
    """Return each package's version and hashes."""
    pins = {}
    for line in lines_of(path):
        name, version = re.match(r"([^=]+)==(\S+)", line).groups()
        pins[name] = version, set(re.findall(r"--hash=(\S+)", line))
    return pins


def closure(requirements):
    """Return all that requirements need on Lambda, with what that needs, as the installed packages say."""
    needed = {}
    waiting = [Requirement(each) for each in requirements]
    while waiting:
        requirement = waiting.pop()
        name, extras = canonicalize_name(requirement.name), requirement.extras or {""}
        if not extras <= needed.setdefault(name, set()):
            needed[name] |= extras
            waiting += [each for each in map(Requirement, requires(name) or []) if is_needed(each, extras)]
    return needed.keys()


def is_needed(requirement, extras):
    marker = requirement.marker
    return marker is None or any(marker.evaluate(ON_LAMBDA | {"extra": extra}) for extra in extras)


@every_file
def test_every_requirement_is_pinned_with_its_hashes(path):
    assert lines_of(path)
    assert [line for line in lines_of(path) if not PINNED.fullmatch(line)] == []


@every_file
def test_no_line_says_where_packages_come_from(path):
    # Comments as well: there the index would stand that someone's machine is set to.
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"://|(?<!--no-emit-)index-url|find-links|trusted-host", text)


def test_nothing_is_installed_without_its_hash():
    commands = [
        line
        for line in (ROOT / "Makefile").read_text(encoding="utf-8").splitlines()
        if re.search(r"\bpip[\w.]* (install|sync)\b", line)
    ]
    assert len(commands) == 2
    assert [line for line in commands if "--require-hashes" not in line or "==" in line] == []


def test_what_is_shipped_is_what_the_code_needs_and_no_more():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert pins_of(SHIPPED).keys() == closure(project["dependencies"])


def test_what_is_shipped_is_what_is_tested():
    tested = pins_of(TESTED)
    for name, (version, hashes) in pins_of(SHIPPED).items():
        tested_version, tested_hashes = tested[name]
        assert (name, version) == (name, tested_version)
        assert hashes <= tested_hashes, name
