"""`make dashboard`: the dashboard of template.yaml as a picture, with what the demo has measured.

What only AWS measures is not in the demo's log: widgets and lines without data are left out, and the others move up.
"""

import json
import math
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from local.demo import LOG_FILE, ROOT, TIME_FACTOR
from local.template import resolve, translate

PICTURE = ROOT / "docs" / "dashboard.svg"
_COLUMNS = 24
_COLUMN, _ROW = 40, 36  # pixels
_GAP = 6
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 18, 38, 58  # what surrounds the lines of a widget
_LETTER = 6.2
_SWATCH = 22
_LEGEND_ROW = 16
_MOST_TICKS = 5
_STYLE = """
  text { font: 11px system-ui, sans-serif; fill: #545b64 }
  .title { font-size: 13px; font-weight: 600; fill: #16191f }
  .widget { fill: #ffffff; stroke: #d5dbdb }
  .grid { stroke: #eaeded }
  @media (prefers-color-scheme: dark) {
    text { fill: #95a5a6 }
    .title { fill: #eaeded }
    .widget { fill: #1a242f; stroke: #414d5c }
    .grid { stroke: #2c3a48 }
  }
"""

type Key = tuple[str, ...]
type Points = Sequence[tuple[float, float]]
type Samples = Mapping[Key, Points]


@dataclass(frozen=True, slots=True)
class Line:
    """One metric of a widget; `points` are seconds since the start, and values."""

    label: str
    color: str
    points: Points


@dataclass(frozen=True, slots=True)
class Widget:
    """A widget that has something to show; width and height are in the grid's units."""

    title: str
    unit: str
    width: int
    height: int
    lines: Sequence[Line]


def main() -> int:
    """Draw the picture from the demo's log."""
    shown = list(widgets(body(), read(LOG_FILE.read_text(encoding="utf-8").splitlines(), TIME_FACTOR)))
    if not shown:
        print(f"{LOG_FILE} holds no metrics; the picture stays as it is", file=sys.stderr)
        return 1
    PICTURE.parent.mkdir(exist_ok=True)
    PICTURE.write_text(draw(shown), encoding="utf-8")
    print(f"{PICTURE.relative_to(ROOT)} is drawn")
    return 0


def body() -> dict[str, Any]:
    """Return the dashboard of template.yaml, with resources by their logical IDs."""
    template = translate()
    dashboard: dict[str, Any] = json.loads(
        resolve(template, template["Resources"]["Dashboard"]["Properties"]["DashboardBody"])
    )
    return dashboard


def read(lines: Iterable[str], time_factor: float = 1) -> Samples:
    """Read metrics in CloudWatch's embedded format out of a log: by namespace, name and dimensions, each value.

    Time begins with the first of them, and passes `time_factor` times as fast as the log says.
    """
    samples: defaultdict[Key, list[tuple[float, float]]] = defaultdict(list)
    start: float | None = None
    for line in _measurements(lines):
        millis: float = line["_aws"]["Timestamp"]
        start = millis if start is None else min(start, millis)
        for key, values in _values(line):
            samples[key] += [(millis, value) for value in values]
    return {
        key: [((millis - (start or 0)) / 1000 * time_factor, value) for millis, value in points]
        for key, points in samples.items()
    }


def _measurements(lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    for line in lines:
        try:
            fields = json.loads(line)
        except ValueError:
            continue
        if isinstance(fields, dict) and "_aws" in fields:
            yield fields


def _values(line: Mapping[str, Any]) -> Iterator[tuple[Key, Sequence[float]]]:
    for directive in line["_aws"]["CloudWatchMetrics"]:
        for names in directive["Dimensions"]:
            dimensions = [part for name in names for part in (name, line[name])]
            for metric in directive["Metrics"]:
                found = line[metric["Name"]]
                key = (directive["Namespace"], metric["Name"], *dimensions)
                yield key, found if isinstance(found, list) else [found]


def widgets(dashboard: Mapping[str, Any], samples: Samples) -> Iterator[Widget]:
    """Find the widgets that have data, in the order in which they are read."""
    for each in sorted(dashboard["widgets"], key=lambda item: (item["y"], item["x"])):
        properties = each["properties"]
        lines = list(_lines(properties, samples))
        if lines:
            unit = properties["yAxis"]["left"]["label"]
            yield Widget(properties["title"], unit, each["width"], each["height"], lines)


def _lines(properties: Mapping[str, Any], samples: Samples) -> Iterator[Line]:
    for *names, options in properties.get("metrics", []):
        found = samples.get(tuple(names))
        if found:
            points = list(_statistic(found, properties["period"], options["stat"]))
            yield Line(options["label"], options["color"], points)


def _statistic(points: Points, period: float, stat: str) -> Iterator[tuple[float, float]]:
    periods: defaultdict[int, list[float]] = defaultdict(list)
    for seconds, value in points:
        periods[int(seconds // period)].append(value)
    for number, values in sorted(periods.items()):
        yield number * period, _of(sorted(values), stat)


def _of(values: Sequence[float], stat: str) -> float:
    match stat:
        case "Sum":
            return sum(values)
        case "Maximum":
            return values[-1]
    percentile = float(stat.removeprefix("p"))
    return values[max(0, math.ceil(len(values) * percentile / 100) - 1)]


def draw(shown: Sequence[Widget]) -> str:
    """Draw widgets as SVG, row after row."""
    end = max((seconds for each in shown for line in each.lines for seconds, _ in line.points), default=0)
    drawn, x, y, below = [], 0, 0, 0
    for each in shown:
        if x + each.width > _COLUMNS:
            x, y = 0, below
        drawn.append(_group(x * _COLUMN, y * _ROW, _widget(each, end)))
        x, below = x + each.width, max(below, y + each.height)
    size = f"{_COLUMNS * _COLUMN} {below * _ROW}"
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size}" role="img" aria-label="The dashboard">'
    return "\n".join([head, f"<style>{_STYLE}</style>", *drawn, "</svg>"]) + "\n"


def _group(x: float, y: float, parts: Iterable[str]) -> str:
    return "\n".join([f'<g transform="translate({x:g} {y:g})">', *parts, "</g>"])


def _widget(widget: Widget, end: float) -> Iterator[str]:
    width, height = widget.width * _COLUMN - _GAP, widget.height * _ROW - _GAP
    yield f'<rect class="widget" width="{width}" height="{height}" rx="4"/>'
    yield _text(12, 20, widget.title, "title")
    yield _group(0, height - _LEGEND_ROW - 10, _legend(widget.lines, width))
    step = _step(max(value for line in widget.lines for _, value in line.points))
    plot = width - _LEFT - _RIGHT, height - _TOP - _BOTTOM
    yield _group(_LEFT, _TOP, _plot(widget, plot, step, end))


def _legend(lines: Sequence[Line], width: float) -> Iterator[str]:
    x, y = 12.0, 0.0
    for line in lines:
        if x + _SWATCH + len(line.label) * _LETTER > width:
            x, y = 12.0, y + _LEGEND_ROW
        yield f'<rect x="{x:g}" y="{y - 8}" width="9" height="9" fill="{escape(line.color)}"/>'
        yield _text(x + 13, y, line.label)
        x += _SWATCH + len(line.label) * _LETTER


def _step(highest: float) -> float:
    """Return a round number that goes into `highest` a few times."""
    tens = 10.0 ** math.floor(math.log10(max(highest, 1)))
    return next(tens * part for part in (0.2, 0.5, 1, 2, 5) if highest <= tens * part * _MOST_TICKS)


def _plot(widget: Widget, size: tuple[float, float], step: float, end: float) -> Iterator[str]:
    width, height = size
    highest = max(value for line in widget.lines for _, value in line.points)
    ticks = max(1, math.ceil(highest / step))
    for tick in range(ticks + 1):
        y = height * (1 - tick / ticks)
        yield f'<line class="grid" x2="{width:g}" y1="{y:.1f}" y2="{y:.1f}"/>'
        yield _text(-6, y + 4, f"{tick * step:g}", anchor="end")
    yield _text(width, -16, widget.unit, anchor="end")
    minutes = max(1, math.ceil(end / 60))
    for minute in sorted({0, minutes // 2, minutes}):
        anchor = "end" if minute == minutes else "middle"
        yield _text(width * minute / minutes, height + 14, f"{minute} min", anchor=anchor)
    for line in widget.lines:
        yield from _line(
            line, [(width * x / (minutes * 60), height * (1 - y / (ticks * step))) for x, y in line.points]
        )


def _line(line: Line, places: Points) -> Iterator[str]:
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    color = escape(line.color)
    yield f'<polyline fill="none" stroke="{color}" stroke-width="1.5" points="{path}"/>'
    for x, y in places:
        yield f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.2" fill="{color}"/>'


def _text(x: float, y: float, text: str, kind: str | None = None, anchor: str = "start") -> str:
    look = f' class="{kind}"' if kind else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{look}>{escape(text)}</text>'


if __name__ == "__main__":
    sys.exit(main())
