"""What the README states about the code is read from it here and compared."""

import json
import re
from pathlib import Path

import pytest

from agent_log_capture import bootstrap
from agent_log_capture.adapters.jobs import AGENTS_IN_A_TRANSACTION
from agent_log_capture.domain.capture import Reason, Status
from agent_log_capture.domain.events.parser import EventParser
from agent_log_capture.domain.job import COUNTED
from agent_log_capture.domain.notifications.job_summary import JOB_DONE
from agent_log_capture.handlers import capture, rotate_token
from local.template import translate

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
NOTICE = json.loads((ROOT / "events/outcomes/captured.json").read_text(encoding="utf-8"))["default"]


def section(title):
    """Return the text below a heading, up to the next one of its level."""
    return re.split(r"^## ", README.split(f"\n## {title}\n", 1)[1], maxsplit=1, flags=re.MULTILINE)[0]


def table(text, heading):
    """Return the rows of the table whose first heading this is, as lists of cells."""
    lines = text[text.index(f"| {heading} |") :].split("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def names(cell):
    return re.findall(r"`([^`]+)`", cell)


def json_blocks(text):
    return [json.loads(block) for block in re.findall(r"```json\n(.*?)```", text, flags=re.DOTALL)]


@pytest.fixture(scope="module")
def template():
    return translate()


def test_every_parameter_is_in_the_table_with_its_default_and_its_sentence(template):
    expected = [
        [
            f"`{name}`",
            f"`{parameter['Default']}`" if parameter["Default"] != "" else "empty",
            parameter["Description"],
        ]
        for name, parameter in template["Parameters"].items()
    ]
    assert table(section("Parameters"), "parameter") == expected


def test_every_output_is_in_the_table_with_its_sentence(template):
    expected = [[f"`{name}`", output["Description"]] for name, output in template["Outputs"].items()]
    assert table(section("Outputs"), "output") == expected


def test_every_command_names_outputs_that_exist(template):
    mentioned = set(re.findall(r"<([A-Z]\w+)>", README))
    assert mentioned <= set(template["Outputs"])


@pytest.mark.parametrize("page", ["README.md", "SECURITY.md", "docs/choosing.md"])
def test_no_secret_is_typed_as_an_argument(page):
    given = re.findall(r"--secret-(?:string|binary)[ =](\S+)", (ROOT / page).read_text(encoding="utf-8"))
    assert [each for each in given if not each.startswith('"file://')] == []


def test_every_status_is_explained():
    rows = table(section("What each status means, and what to do"), "status")
    assert [names(row[0])[0] for row in rows] == [*(status.value for status in Status), JOB_DONE]


def test_every_reason_is_explained_with_the_status_it_comes_with():
    rows = table(section("What each status means, and what to do"), "`reason`")
    assert {names(row[0])[0] for row in rows} == {reason.value for reason in Reason}
    assert {status for row in rows for status in names(row[1])} <= {status.value for status in Status}


def test_every_field_of_the_notification_is_explained():
    rows = table(section("The notification"), "field")
    assert {name for row in rows for name in names(row[0])} == set(NOTICE)


def test_the_notification_that_is_shown_is_the_one_that_is_published():
    _, shown = json_blocks(section("One input, and what it gives"))
    assert shown == NOTICE


def test_the_mail_that_is_shown_is_one_that_is_sent():
    mail = (ROOT / "events/outcomes/mails/rejected.txt").read_text(encoding="utf-8")
    assert f"\n```\n{mail}```\n" in section("The notification")


def test_the_event_that_is_shown_asks_for_the_agent_that_the_notification_names():
    event, notification = json_blocks(section("One input, and what it gives"))
    [parsed] = EventParser(default_region="ORD").parse(event, request_id="request", now=None)
    assert [(asked.agent_id, asked.region) for asked in parsed.captures] == [
        (notification["agent_id"], notification["region"])
    ]


def test_the_sum_that_is_shown_is_one_that_is_published_and_adds_up():
    [shown] = json_blocks(section("Jobs"))
    assert shown == json.loads((ROOT / "events/outcomes/job-done.json").read_text(encoding="utf-8"))["default"]
    assert shown["asked"] == sum(shown[status.value] for status in COUNTED)


def test_what_a_job_costs_is_what_is_written_for_it():
    _, *rows = re.findall(r"^\| [^|]*\| [^|]* \| (\$[\d.]+)? ?\|$", section("Jobs"), flags=re.MULTILINE)
    together = 2 * 1000 + 4 + 2 * -(-1000 // AGENTS_IN_A_TRANSACTION) + 1 + 1
    alone = 1000 * (4 + 2 * 2 + 1 + 1)
    assert f"{together:,}" in section("Jobs")
    assert f"{alone:,}" in section("Jobs")
    assert rows == [f"${units * 0.625 / 1e6:.4f}" for units in (together, alone)]


def test_every_metric_is_named():
    rows = table(section("Logs and metrics"), "metric")
    assert sorted(name for row in rows for name in names(row[0])) == sorted(
        [
            *capture.METRICS.values(),
            *capture.ANSWERS.values(),
            capture.CAPTURES_ASKED,
            capture.CAPTURE_SECONDS,
            capture.NOTIFICATIONS_PUBLISHED,
            capture.NOTIFICATIONS_FAILED,
            capture.TOKEN_REFUSED,
            capture.JOBS_DONE,
            capture.ACTIVATIONS_FAILED,
            capture.JOB_COUNTS_FAILED,
            bootstrap.COLD_STARTS,
            rotate_token.TOKEN_REFRESHES,
        ]
    )


def test_every_make_target_that_says_what_it_does_is_explained_and_no_other():
    targets = re.findall(r"^([a-z0-9]+):.*## ", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert set(re.findall(r"\bmake ([a-z0-9]+)", README)) | {"help"} == set(targets)


def anchors(page):
    titles = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^a-z0-9 _-]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", ["README.md", "SECURITY.md", "CHANGELOG.md", "docs/choosing.md"])
def test_every_page_and_section_that_is_linked_exists(page):
    for link in re.findall(r"\]\(([^)]+)\)", (ROOT / page).read_text(encoding="utf-8")):
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        linked = (ROOT / page).parent / path if path else ROOT / page
        assert linked.exists(), link
        assert not anchor or anchor in anchors(linked), link


def test_every_file_that_is_named_exists():
    for path in re.findall(r"\b(?:events|src|tests|local)/[\w./-]+", README):
        assert (ROOT / path.rstrip(".")).exists(), path
