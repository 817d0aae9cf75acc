"""What SECURITY.md states about the roles and the limits is read from it here and compared."""

import http.client
import json
import re
from pathlib import Path

import pytest

from agent_log_capture.adapters.capture_queue import CAPTURES_IN_A_MESSAGE
from agent_log_capture.adapters.http_session import (
    CONNECT_TIMEOUT_SECONDS,
    MAX_BODY_BYTES,
    MESSAGE_CHARACTERS,
    READ_TIMEOUT_SECONDS,
)
from agent_log_capture.domain.events.agent_ids import MAX_DEPTH, MAX_VALUES
from agent_log_capture.service.invocation import CAPTURES_IN_AN_INVOCATION
from agent_log_capture.service.worker_pool import CALL_SECONDS
from local.template import translate

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "SECURITY.md").read_text(encoding="utf-8")


def table(after):
    """Return the rows of the first table after a text, as lists of cells."""
    lines = PAGE.split(after, 1)[1].split("\n|", 1)[1].split("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]


def names(cell):
    return re.findall(r"`([^`]+)`", cell)


def as_list(value):
    return value if isinstance(value, list) else [value]


def logical_ids(resource):
    """Return what in the template a statement's resource may refer to."""
    match resource:
        case {"Ref": name} | {"Fn::GetAtt": [name, _]}:
            return [name]
        case {"Fn::If": [_, *either]}:
            return [name for each in either for name in logical_ids(each)]


@pytest.fixture(scope="module")
def template():
    return translate()


def parameter_of(template, condition):
    """Return the one parameter that a condition depends on."""
    [name] = re.findall(r'"Ref": "(\w+)"', json.dumps(template["Conditions"][condition]))
    return name


def row(template, statement):
    condition = []
    if "Fn::If" in statement:
        name, statement, otherwise = statement["Fn::If"]
        assert otherwise == {"Ref": "AWS::NoValue"}
        condition = [parameter_of(template, name)]
    resources = [name for each in as_list(statement["Resource"]) for name in logical_ids(each)]
    return [[statement["Sid"]], as_list(statement["Action"]), resources, condition]


@pytest.mark.parametrize("role", ["CaptureFunctionRole", "RotateTokenFunctionRole"])
def test_every_statement_of_a_role_is_in_its_table(template, role):
    [policy] = template["Resources"][role]["Properties"]["Policies"]
    expected = [row(template, statement) for statement in policy["PolicyDocument"]["Statement"]]
    assert [[names(cell) for cell in cells] for cells in table(f"`{role}`")] == expected


def test_every_role_has_its_table(template):
    roles = [name for name, each in template["Resources"].items() if each["Type"] == "AWS::IAM::Role"]
    assert re.findall(r"`(\w+Role)`:", PAGE) == roles


def test_the_limits_are_the_codes_own():
    assert [limit for _, limit in table("## Limits")] == [
        f"{MAX_BODY_BYTES / 1024**2:g} MiB",
        f"{MESSAGE_CHARACTERS} characters",
        f"{CONNECT_TIMEOUT_SECONDS} s and {READ_TIMEOUT_SECONDS} s",
        f"{CALL_SECONDS} s",
        f"{MAX_DEPTH} levels",
        f"{MAX_VALUES:,}",
        f"{CAPTURES_IN_AN_INVOCATION}",
        f"{CAPTURES_IN_A_MESSAGE}",
    ]


def test_the_bounds_of_a_hostile_api_are_the_codes_own(template):
    paragraph = PAGE.split("**What a hostile API could do.**", 1)[1].split("\n\n", 1)[0]
    rotation_seconds = template["Resources"]["RotateTokenFunction"]["Properties"]["Timeout"]
    assert re.findall(r"[\d.]+ (?:s|[KM]iB|headers)\b", paragraph.replace("\n", " ")) == [
        f"{CALL_SECONDS} s",
        f"{rotation_seconds} s",
        f"{MAX_BODY_BYTES / 1024**2:g} MiB",
        f"{http.client._MAXLINE / 1024:g} KiB",  # noqa: SLF001 (stated nowhere else)
        f"{http.client._MAXHEADERS} headers",  # noqa: SLF001
    ]


def test_every_name_of_the_stack_exists(template):
    stated = set(re.findall(r"`([A-Z][A-Za-z]+)`", PAGE))
    statements = set(re.findall(r"^\| `(\w+)`", PAGE, flags=re.MULTILINE))
    assert stated - statements <= template["Resources"].keys() | template["Parameters"].keys()


def test_every_file_and_target_that_is_named_exists():
    for path in re.findall(r"`([\w./-]+\.(?:txt|yaml|md))`", PAGE):
        assert (ROOT / path).exists(), path
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = re.findall(r"`make (\w+)`", PAGE)
    assert targets
    assert all(re.search(rf"^{target}:", makefile, flags=re.MULTILINE) for target in targets)
