"""Lists, figures, commands and links of the documentation, compared with the code and the template."""

import json
import re
from pathlib import Path

import pytest

from agent_log_capture import bootstrap
from agent_log_capture.adapters.capture_queue import CAPTURES_IN_A_MESSAGE
from agent_log_capture.domain import capture as capture_module
from agent_log_capture.domain.capture import REGIONS
from agent_log_capture.domain.events.parser import EventParser
from agent_log_capture.domain.notifications.job_summary import JOB_DONE
from agent_log_capture.domain.outcome import Status
from agent_log_capture.handlers import capture, rotate_token
from agent_log_capture.service.invocation import CAPTURES_IN_AN_INVOCATION
from local.template import translate

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(str(path.relative_to(ROOT)) for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
LONGEST_README = 10 * 1024
FUNCTIONS = {"CaptureFunction": "capture", "RotateTokenFunction": "rotation"}


def text(page):
    return (ROOT / page).read_text(encoding="utf-8")


README = text("README.md")
EVENTS = text("docs/events.md")
OPERATIONS = text("docs/operations.md")
REFERENCE = text("docs/reference.md")
ARCHITECTURE = text("docs/architecture.md")
CONTRIBUTING = text("CONTRIBUTING.md")


def section(page, title):
    """Return the text below a heading, up to the next one of its level or a higher one."""
    _, level, below = re.split(rf"^(#+) {re.escape(title)}\n", page, maxsplit=1, flags=re.MULTILINE)
    return re.split(rf"^#{{1,{len(level)}}} ", below, maxsplit=1, flags=re.MULTILINE)[0]


def table(page, heading):
    """Return the rows of the table whose first heading this is, as lists of cells."""
    lines = page[page.index(f"| {heading} |") :].split("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line[1:-1].split("|")] for line in lines]


def names(cell):
    return re.findall(r"`([^`]+)`", cell)


def first_names(rows):
    return [name for row in rows for name in names(row[0])]


def json_blocks(page):
    return [json.loads(block) for block in re.findall(r"```json\n(.*?)```", page, flags=re.DOTALL)]


def sample(name):
    return json.loads(text(f"events/outcomes/{name}.json"))["default"]


def is_excerpt(part, whole):
    """Return whether all that one value holds is in the other."""
    if isinstance(part, dict) and isinstance(whole, dict):
        return all(key in whole and is_excerpt(value, whole[key]) for key, value in part.items())
    return part == whole


@pytest.fixture(scope="module")
def template():
    return translate()


# ------------------------------------------------------------------ every page


def anchors(page):
    titles = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^a-z0-9 _-]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES)
def test_every_relative_link_leads_to_a_file_and_section_that_exists(page):
    for link in re.findall(r"\]\(([^)]+)\)", text(page)):
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        linked = (ROOT / page).parent / path if path else ROOT / page
        assert linked.exists(), link
        assert not anchor or anchor in anchors(linked), link


@pytest.mark.parametrize("page", PAGES)
def test_every_file_that_is_named_exists(page):
    for path in re.findall(r"(?<![\w/.-])(?:bench|docs|events|local|ops|src|tests)/[\w./-]*", text(page)):
        assert (ROOT / path.rstrip(".")).exists(), path


@pytest.mark.parametrize("page", PAGES)
def test_every_command_names_outputs_that_exist(template, page):
    assert set(re.findall(r"<([A-Z]\w+)>", text(page))) <= set(template["Outputs"])


@pytest.mark.parametrize("page", PAGES)
def test_no_secret_is_typed_as_an_argument(page):
    given = re.findall(r"--secret-(?:string|binary)[ =](\S+)", text(page))
    assert [each for each in given if not each.startswith('"file://')] == []


@pytest.mark.parametrize("page", PAGES)
def test_every_json_example_is_json(page):
    for block in re.findall(r"```json\n(.*?)```", text(page), flags=re.DOTALL):
        json.loads(block)


def test_every_make_target_that_has_a_description_is_explained_and_no_other():
    targets = re.findall(r"^([a-z0-9]+):.*## ", text("Makefile"), flags=re.MULTILINE)
    explained = first_names([*table(OPERATIONS, "command"), *table(CONTRIBUTING, "target")])
    assert {name.split()[1] for name in explained} == set(targets) - {"help"}
    assert {target for page in PAGES for target in re.findall(r"\bmake ([a-z0-9]+)`", text(page))} <= set(targets)


# ------------------------------------------------------------------ README.md


def test_the_readme_is_short():
    assert len(README.encode()) <= LONGEST_README


def test_the_readme_leads_to_every_page():
    linked = [re.search(r"\]\(([^)]+)\)", row[0])[1] for row in table(README, "page")]
    assert set(linked) == set(PAGES) - {"README.md"}


def test_every_status_is_explained():
    rows = table(section(README, "What each status means"), "status")
    assert [names(row[0])[0] for row in rows] == [*(status.value for status in Status), JOB_DONE]


def test_the_notification_that_is_shown_is_part_of_the_one_that_is_published():
    _, shown = json_blocks(section(README, "One input and its output"))
    assert is_excerpt(shown, sample("captured"))


def test_the_event_that_is_shown_asks_for_the_agent_that_the_notification_names():
    event, notification = json_blocks(section(README, "One input and its output"))
    [parsed] = EventParser(default_region="ORD").parse(event, request_id="request", now=None)
    assert [(each.agent_id, each.region) for each in parsed.captures] == [
        (notification["agent_id"], notification["region"])
    ]


# ------------------------------------------------------------------ docs/events.md


def test_every_sample_event_is_listed():
    listed = [name for row in table(section(EVENTS, "Entry points"), "event") for name in names(row[2])]
    assert sorted(listed) == sorted(path.name for path in ROOT.glob("events/*.json"))


def test_every_region_is_listed():
    [[_, regions]] = [row for row in table(EVENTS, "field") if names(row[0]) == ["region"]]
    assert {name for name in names(regions) if name.isupper()} == REGIONS


@pytest.mark.parametrize("page", [EVENTS, ARCHITECTURE], ids=["events", "architecture"])
def test_how_captures_are_shared_out_is_what_the_code_does(page):
    assert re.search(rf"\b{CAPTURES_IN_AN_INVOCATION} captures\b", page)
    assert re.search(rf"\b{CAPTURES_IN_A_MESSAGE} captures a message\b", page)


# ------------------------------------------------------------------ docs/operations.md


def test_every_metric_is_named():
    assert sorted(first_names(table(section(OPERATIONS, "Metrics"), "metric"))) == sorted(
        [
            *capture.METRICS.values(),
            *capture.RESPONSES.values(),
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


def test_every_error_of_the_runbook_exists():
    source = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "src").rglob("*.py"))
    errors = first_names(table(section(OPERATIONS, "errors"), "error"))
    assert errors
    assert [error for error in errors if f"class {error}(" not in source] == []


def test_every_saved_query_is_named(template):
    queries = [each for each in template["Resources"].values() if each["Type"] == "AWS::Logs::QueryDefinition"]
    saved = {each["Properties"]["Name"]["Fn::Sub"].partition("/")[2] for each in queries}
    assert {each.replace("\n", " ") for each in re.findall(r"\*([^*]+)\*", section(OPERATIONS, "Logs"))} == saved


# ------------------------------------------------------------------ docs/reference.md


def test_every_parameter_is_in_the_table_with_its_default_and_its_sentence(template):
    expected = [
        [
            f"`{name}`",
            f"`{parameter['Default']}`" if parameter["Default"] != "" else "empty",
            parameter["Description"],
        ]
        for name, parameter in template["Parameters"].items()
    ]
    assert table(section(REFERENCE, "Parameters"), "parameter") == expected


def test_every_output_is_in_the_table_with_its_sentence(template):
    expected = [[f"`{name}`", output["Description"]] for name, output in template["Outputs"].items()]
    assert table(section(REFERENCE, "Outputs"), "output") == expected


def test_every_variable_of_the_functions_is_in_the_table_with_what_sets_it(template):
    stated = {}
    for variable, function, value in table(section(REFERENCE, "Environment"), "variable"):
        functions = FUNCTIONS.values() if function == "both" else [function]
        sources = {name for name in names(value) if name in template["Parameters"] | template["Resources"]}
        stated |= {(each, names(variable)[0]): sources for each in functions}
    assert stated == {
        (short, variable): set(re.findall(r'"Ref": "(\w+)"', json.dumps(value)))
        for function, short in FUNCTIONS.items()
        for variable, value in template["Resources"][function]["Properties"]["Environment"]["Variables"].items()
    }


def test_each_cost_is_its_units_times_their_price():
    for _, _, units, price, cost in table(section(REFERENCE, "Costs"), "service"):
        dollars = int(units.replace(",", "")) * float(price.strip("$")) / 1e6
        assert cost == f"${dollars:.4f}"


# ------------------------------------------------------------------ docs/architecture.md


def modules_of_the_map():
    """Return the paths of the map: two spaces of indentation for each folder."""
    folders, found = [], []
    for line in section(ARCHITECTURE, "Module map").split("```")[1].strip().splitlines():
        indentation, name = re.match(r"( *)(\S+)", line).groups()
        folders = [*folders[: len(indentation) // 2], name]
        if name.endswith(".py"):
            found.append("".join(folders))
    return found


def test_the_module_map_has_every_module():
    modules = (path for path in (ROOT / "src/agent_log_capture").rglob("*.py") if path.name != "__init__.py")
    assert sorted(modules_of_the_map()) == sorted(str(path.relative_to(ROOT)) for path in modules)


def test_every_module_that_is_to_be_changed_exists():
    changed = {name for row in table(ARCHITECTURE, "to add") for name in names(row[1]) if "/" in name}
    package = ROOT / "src/agent_log_capture"
    assert [name for name in changed if not (package / name).exists() and not (ROOT / name).exists()] == []


def test_every_phase_of_a_capture_is_a_class():
    phases = re.findall(r"`([A-Z][a-z]+)\(", section(ARCHITECTURE, "Life of a capture"))
    assert phases
    assert [phase for phase in phases if not hasattr(capture_module, phase)] == []


def test_the_final_statuses_are_those_of_the_code():
    [[_, meaning]] = [row for row in table(ARCHITECTURE, "word") if row[0] == "final status"]
    assert set(names(meaning)) == {status.value for status in Status} - {Status.WAITING.value}


def test_the_glossary_is_in_order_and_names_each_word_once():
    words = [row[0] for row in table(section(ARCHITECTURE, "Glossary"), "word")]
    assert words == sorted(set(words))


def test_the_example_items_have_the_keys_of_the_table(template):
    properties = template["Resources"]["CapturesTable"]["Properties"]
    keys = [each["AttributeName"] for each in properties["KeySchema"]]
    items = json_blocks(section(ARCHITECTURE, "CapturesTable"))
    forms = [row[1:] for row in table(ARCHITECTURE, "item")]
    assert len(items) == len(forms)
    for item, form in zip(items, forms, strict=True):
        assert [item[key] for key in keys] == [
            has_form(item[key], each) for key, each in zip(keys, form, strict=True)
        ]
        assert properties["TimeToLiveSpecification"]["AttributeName"] in item


def has_form(key, form):
    """Return a key that has a form such as `JOB#{job id}`, None for any other."""
    parts = re.split(r"\{[^}]+\}", form.strip("`"))
    return key if re.fullmatch("[^#]+".join(re.escape(part) for part in parts), key) else None


# ------------------------------------------------------------------ CONTRIBUTING.md


def test_every_folder_of_tests_is_listed():
    folders = {
        f"tests/{path.name}" for path in (ROOT / "tests").iterdir() if path.is_dir() and path.name[0] not in "._"
    }
    assert set(first_names(table(CONTRIBUTING, "folder"))) == folders
