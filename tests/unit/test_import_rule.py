"""Arrows point inwards: handlers → bootstrap → service → adapters → domain."""

import ast
from pathlib import Path

import pytest

SRC = Path(__file__).parents[2] / "src"
PACKAGE = "agent_log_capture"
PURE = (
    *("collections", "dataclasses", "datetime", "enum", "itertools", "json", "re", "textwrap", "typing", "uuid"),
    *("email.utils.parsedate_to_datetime", "http.HTTPStatus", "math.ceil", "urllib.parse.parse_qs"),
    *(
        "functools.cache",
        "contextlib.contextmanager",
        "contextlib.suppress",
        "hashlib",
        "threading.Lock",
        "types.NoneType",
    ),
    PACKAGE,
)
# For each part of the package, the other parts that it may import.
ALLOWED = {
    "domain": set(),
    "settings": {"domain"},
    "adapters": {"domain"},
    "service": {"adapters", "domain"},
    "bootstrap": {"service", "adapters", "domain", "settings"},
    "handlers": {"bootstrap", "service", "domain"},
}
FILES = sorted(path.relative_to(SRC / PACKAGE) for path in (SRC / PACKAGE).rglob("*.py"))


def part_of(file):
    return file.parts[0].removesuffix(".py")


def tree_of(file):
    return ast.parse((SRC / PACKAGE / file).read_text(encoding="utf-8"))


def imports_of(file):
    """Return the dotted names that a file imports, wherever in it."""
    names = set()
    for node in ast.walk(tree_of(file)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "an import says in full where it comes from"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def attributes_of(file):
    return {node.attr for node in ast.walk(tree_of(file)) if isinstance(node, ast.Attribute)}


def test_every_part_is_here():
    assert {part_of(file) for file in FILES} == ALLOWED.keys() | {"__init__"}


@pytest.mark.parametrize("file", FILES, ids=str)
def test_a_file_imports_only_what_lies_further_in(file):
    inside = {name.split(".")[1] for name in imports_of(file) if name.split(".")[0] == PACKAGE}
    part = part_of(file)
    assert inside <= ALLOWED.get(part, set()) | {part}


DOMAIN = [file for file in FILES if part_of(file) == "domain"]


@pytest.mark.parametrize("file", DOMAIN, ids=str)
def test_the_domain_imports_nothing_that_reads_or_changes_the_world(file):
    impure = {name for name in imports_of(file) if not f"{name}.".startswith(tuple(f"{pure}." for pure in PURE))}
    assert impure == set()


@pytest.mark.parametrize("file", DOMAIN, ids=str)
def test_the_domain_gets_the_time_from_its_caller_and_makes_no_random_ids(file):
    assert not attributes_of(file) & {"now", "utcnow", "today", "uuid1", "uuid4"}


@pytest.mark.parametrize("file", [file for file in FILES if part_of(file) != "bootstrap"], ids=str)
def test_only_bootstrap_reads_the_environment(file):
    assert "os" not in {name.split(".")[0] for name in imports_of(file)}
    assert not attributes_of(file) & {"environ", "getenv"}


@pytest.mark.parametrize("file", FILES, ids=str)
def test_no_paginator_or_waiter_is_used_because_their_data_is_not_packed(file):
    assert not attributes_of(file) & {"get_paginator", "get_waiter"}
