"""Compares docs/notifications.md with the code."""

import json
import re
from pathlib import Path

import pytest

from agent_log_capture.domain.notifications.job_summary import JOB_DONE
from agent_log_capture.domain.outcome import FINAL_STATUSES, Reason, Status

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "notifications.md"
TEXT = PAGE.read_text(encoding="utf-8")
OUTCOMES = ROOT / "events" / "outcomes"
SAMPLES = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in OUTCOMES.glob("*.json")}


def section(title):
    return re.split(r"^## ", TEXT.split(f"\n## {title}\n", 1)[1], maxsplit=1, flags=re.MULTILINE)[0]


def rows(title):
    """Return the rows of the first table of a section, as lists of cells."""
    table = re.search(r"(?:^\|.*\|\n)+", section(title), flags=re.MULTILINE)[0]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]


def names(cell):
    return re.findall(r"`([^`]+)`", cell)


def first_names(title):
    return [name for row in rows(title) for name in names(row[0])]


def json_blocks(title):
    return [json.loads(block) for block in re.findall(r"```json\n(.*?)```", section(title), flags=re.DOTALL)]


def anchors(text):
    titles = re.findall(r"^#+ (.*)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^a-z0-9 _-]", "", title.lower()).replace(" ", "-") for title in titles}


def test_every_status_is_explained_once():
    assert first_names("Statuses") == [*(status.value for status in Status), JOB_DONE]


def test_every_reason_is_explained_once():
    assert sorted(first_names("Reasons")) == sorted(Reason)


def test_each_published_reason_has_one_status_and_something_to_do():
    published = [row for row in rows("Reasons") if not row[2].startswith("Only ")]
    assert all(len(names(row[1])) == 1 and row[3] for row in published)
    assert {names(row[1])[0] for row in published} == set(Status) - {Status.REQUESTED, Status.CAPTURED}


@pytest.mark.parametrize("name", sorted(SAMPLES.keys() - {"job-done"}))
def test_a_published_reason_is_explained_with_its_status(name):
    sample = SAMPLES[name]["default"]
    if sample["reason"]:
        [row] = [row for row in rows("Reasons") if names(row[0]) == [sample["reason"]]]
        assert names(row[1]) == [sample["status"]]


def test_every_field_is_explained_once():
    assert first_names("The JSON") == list(SAMPLES["captured"]["default"])


def test_every_field_of_a_job_summary_is_explained_once():
    assert first_names("Job summaries") == list(SAMPLES["job-done"]["default"])


def test_the_notification_on_the_page_is_a_sample():
    assert json_blocks("The JSON") == [SAMPLES["captured"]["default"]]


def test_the_job_summary_on_the_page_is_a_sample_and_adds_up():
    [shown] = json_blocks("Job summaries")
    assert shown == SAMPLES["job-done"]["default"]
    assert shown["asked"] == sum(shown[status.value] for status in FINAL_STATUSES)


def test_the_mail_on_the_page_is_a_sample_under_its_subject():
    mail = (OUTCOMES / "mails/rejected.txt").read_text(encoding="utf-8")
    assert f"\n```\n{mail}```\n" in section("Mail")
    assert f"`{SAMPLES['rejected']['Subject']}`" in section("Mail")


def test_every_message_attribute_is_explained_once():
    title = "Message attributes and filter policies"
    published = {name for sample in SAMPLES.values() for name in sample["MessageAttributes"]}
    assert sorted(first_names(title)) == sorted(published)


def test_filter_policies_use_attributes_and_statuses_that_exist():
    statuses = {*Status, JOB_DONE}
    for policy in json_blocks("Message attributes and filter policies"):
        assert policy.keys() <= {"status", "region"}
        for condition in policy["status"]:
            assert (
                {condition} <= statuses if isinstance(condition, str) else set(condition["anything-but"]) <= statuses
            )


def test_every_link_leads_somewhere():
    for link in re.findall(r"\]\(([^)]+)\)", TEXT):
        if not link.startswith("https://"):
            path, _, anchor = link.partition("#")
            linked = PAGE.parent / path if path else PAGE
            assert linked.exists(), link
            assert not anchor or anchor in anchors(linked.read_text(encoding="utf-8")), link
