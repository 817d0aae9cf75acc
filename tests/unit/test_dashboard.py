"""The picture of the dashboard, drawn from lines in CloudWatch's embedded metric format."""

import json
from xml.etree import ElementTree as ET

import pytest

from local import dashboard
from local.dashboard import PICTURE, body, draw, read, widgets

SVG = "{http://www.w3.org/2000/svg}"
METRIC_WIDGETS = [each for each in body()["widgets"] if each["type"] == "metric"]


def emf(namespace, dimensions, *, seconds=0, **values):
    metrics = [{"Name": name, "Unit": "Count"} for name in values]
    directive = {"Namespace": namespace, "Dimensions": [list(dimensions)], "Metrics": metrics}
    header = {"Timestamp": 1_795_478_552_826 + round(1000 * seconds), "CloudWatchMetrics": [directive]}
    return json.dumps({"_aws": header, **dimensions, **values})


def line_of(metric, *, seconds=0, value=(1.0,)):
    namespace, name, dimension, source, _ = metric
    return emf(namespace, {dimension: source}, seconds=seconds, **{name: list(value)})


def shown(lines, **options):
    return list(widgets(body(), read(lines, **options)))


def texts(picture):
    root = ET.fromstring(picture)  # noqa: S314 (drawn by the function under test)
    return [each.text for each in root.iter(f"{SVG}text")]


def test_every_widget_is_drawn_when_every_metric_has_data():
    lines = [line_of(metric) for widget in METRIC_WIDGETS for metric in widget["properties"]["metrics"]]
    drawn = shown(lines)
    assert [each.title for each in drawn] == [each["properties"]["title"] for each in METRIC_WIDGETS]
    picture = draw(drawn)
    labels = [metric[-1]["label"] for widget in METRIC_WIDGETS for metric in widget["properties"]["metrics"]]
    assert {*labels, *(each.title for each in drawn)} <= set(texts(picture))


@pytest.mark.parametrize("widget", METRIC_WIDGETS, ids=lambda widget: widget["properties"]["title"])
def test_one_metric_draws_its_widget_alone(widget):
    metric = widget["properties"]["metrics"][0]
    [drawn] = shown([line_of(metric)])
    assert drawn.title == widget["properties"]["title"]
    assert drawn.lines[0].color == metric[-1]["color"]


def test_other_lines_and_metrics_outside_the_dashboard_are_ignored():
    lines = [
        "",
        "Traceback",
        "[]",
        "7",
        '{"message": "done"}',
        emf("Else", {"service": "agent-log-capture"}, Any=[1.0]),
    ]
    assert shown(lines) == []


def test_values_of_one_period_are_summed_and_time_is_scaled():
    name, dimensions = "AgentLogCapture", {"service": "agent-log-capture"}
    lines = [
        emf(name, dimensions, seconds=seconds, CapturesAsked=values)
        for seconds, values in ((0, [2.0, 3.0]), (0.9, 4.0), (1.0, [1.0]), (3.5, [6.0]))
    ]
    [captures] = shown(lines, time_factor=60)
    assert [line.points for line in captures.lines] == [[(0, 9.0), (60, 1.0), (180, 6.0)]]


def test_percentiles_are_taken_of_all_values_of_a_period():
    seconds = [float(number) for number in range(1, 101)]
    [drawn] = shown([emf("AgentLogCapture", {"service": "agent-log-capture"}, CaptureSeconds=seconds)])
    assert {line.label: line.points for line in drawn.lines} == {
        "p50": [(0, 50.0)],
        "p90": [(0, 90.0)],
        "p99": [(0, 99.0)],
    }


def test_the_same_measurements_give_the_same_picture_and_it_holds_no_date():
    lines = [line_of(metric) for metric in METRIC_WIDGETS[0]["properties"]["metrics"]]
    picture = draw(shown(lines))
    assert draw(shown(lines)) == picture
    assert "date" not in picture


def test_text_is_light_in_dark_mode():
    picture = draw(shown([line_of(METRIC_WIDGETS[0]["properties"]["metrics"][0])]))
    assert "@media (prefers-color-scheme: dark) { text { fill: #d1d7e0 !important } }" in picture


def test_the_picture_is_drawn_from_the_demos_log(monkeypatch, tmp_path, capsys):
    log, picture = tmp_path / "demo.log", tmp_path / "docs" / "dashboard.svg"
    log.write_text("\n".join(line_of(each["properties"]["metrics"][0]) for each in METRIC_WIDGETS), encoding="utf-8")
    for name, value in (("LOG_FILE", log), ("PICTURE", picture), ("ROOT", tmp_path)):
        monkeypatch.setattr(dashboard, name, value)
    assert dashboard.main() == 0
    assert {each["properties"]["title"] for each in METRIC_WIDGETS} <= set(texts(picture.read_text(encoding="utf-8")))
    assert capsys.readouterr().out == "docs/dashboard.svg is drawn\n"


def test_a_log_without_metrics_leaves_the_picture_as_it_is(monkeypatch, tmp_path, capsys):
    log, picture = tmp_path / "demo.log", tmp_path / "dashboard.svg"
    log.write_text("no metrics\n", encoding="utf-8")
    picture.write_text("as it was", encoding="utf-8")
    for name, value in (("LOG_FILE", log), ("PICTURE", picture)):
        monkeypatch.setattr(dashboard, name, value)
    assert dashboard.main() == 1
    assert "holds no metrics" in capsys.readouterr().err
    assert picture.read_text(encoding="utf-8") == "as it was"


def test_the_picture_in_the_readme_is_of_this_dashboard():
    drawn = set(texts(PICTURE.read_text(encoding="utf-8")))
    titles = {each["properties"]["title"] for each in METRIC_WIDGETS}
    assert {"Captures", "From asked to captured", "Answers of the API"} <= drawn & titles
