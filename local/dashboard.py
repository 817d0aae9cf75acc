"""`make dashboard`: the dashboard of template.yaml as a picture, drawn from the demo's measurements.

Some metrics are measured by AWS alone. Widgets and lines without data are left out, and the others move up.
"""

import io
import json
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from local.demo import LOG_FILE, ROOT, TIME_FACTOR
from local.template import resolve, translate

PICTURE = ROOT / "docs" / "dashboard.svg"
_STYLE = Path(__file__).with_name("dashboard.mplstyle")
_COLUMNS = 24
_COLUMN, _ROW = 0.45, 0.5  # inches
_LEFT, _RIGHT, _TOP, _BOTTOM = 0.65, 0.2, 0.35, 0.85  # inches between a widget's border and its lines
_LABEL_COLUMNS = 3  # grid columns for one label of a legend
# The same measurements give the same file: fixed IDs, no date and no version in the metadata.
_METADATA = {"Title": "The dashboard", "Creator": None, "Date": None, "Format": None, "Type": None}
# The background is transparent, and every other colour has enough contrast on white and on black.
_DARK_MODE = "<style>@media (prefers-color-scheme: dark) { text { fill: #d1d7e0 !important } }</style>"

type Key = tuple[str, ...]
type Points = Sequence[tuple[float, float]]
type Samples = Mapping[Key, Points]


class Line(NamedTuple):
    """One metric of a widget; `points` are seconds since the start, and values."""

    label: str
    color: str
    points: Points


class Widget(NamedTuple):
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
    """Read metrics in CloudWatch's embedded metric format from a log: every value by namespace, name and dimensions.

    Time begins with the first of them, and passes `time_factor` times as fast as in the log.
    """
    measured = list(_measured(lines))
    start = min((millis for _, millis, _ in measured), default=0)
    samples: defaultdict[Key, list[tuple[float, float]]] = defaultdict(list)
    for key, millis, value in measured:
        samples[key].append(((millis - start) / 1000 * time_factor, value))
    return samples


def _measured(lines: Iterable[str]) -> Iterator[tuple[Key, float, float]]:
    for line in lines:
        try:
            fields = json.loads(line)
        except ValueError:
            continue
        header = fields.get("_aws", {}) if isinstance(fields, dict) else {}
        for directive in header.get("CloudWatchMetrics", []):
            for names, metric in product(directive["Dimensions"], directive["Metrics"]):
                dimensions = [part for name in names for part in (name, fields[name])]
                key = (directive["Namespace"], metric["Name"], *dimensions)
                for value in np.atleast_1d(fields[metric["Name"]]):
                    yield key, header["Timestamp"], float(value)


def widgets(dashboard: Mapping[str, Any], samples: Samples) -> Iterator[Widget]:
    """Return the widgets that have data, in reading order."""
    for each in sorted(dashboard["widgets"], key=lambda item: (item["y"], item["x"])):
        properties = each["properties"]
        if lines := list(_lines(properties, samples)):
            unit = properties["yAxis"]["left"]["label"]
            yield Widget(properties["title"], unit, each["width"], each["height"], lines)


def _lines(properties: Mapping[str, Any], samples: Samples) -> Iterator[Line]:
    for *names, options in properties.get("metrics", []):
        periods: defaultdict[float, list[float]] = defaultdict(list)
        for seconds, value in samples.get(tuple(names), []):
            periods[seconds // properties["period"] * properties["period"]].append(value)
        if periods:
            points = [(seconds, _statistic(values, options["stat"])) for seconds, values in sorted(periods.items())]
            yield Line(options["label"], options["color"], points)


def _statistic(values: Sequence[float], stat: str) -> float:
    if stat == "Sum":
        return sum(values)
    if stat == "Maximum":
        return max(values)
    return float(np.percentile(values, float(stat.removeprefix("p")), method="inverted_cdf"))


def draw(shown: Sequence[Widget]) -> str:
    """Draw widgets as SVG, row after row."""
    places = list(_places(shown))
    minutes = max(1, max(seconds for widget in shown for line in widget.lines for seconds, _ in line.points) / 60)
    width, height = _COLUMNS * _COLUMN, _ROW * max(row + widget.height for widget, row, _ in places)
    picture = io.StringIO()
    with rc_context(fname=_STYLE):
        figure = Figure((width, height))
        for widget, row, column in places:
            left, bottom = column * _COLUMN + _LEFT, height - (row + widget.height) * _ROW + _BOTTOM
            inner_width = widget.width * _COLUMN - _LEFT - _RIGHT
            inner_height = widget.height * _ROW - _TOP - _BOTTOM
            place = left / width, bottom / height, inner_width / width, inner_height / height
            _plot(figure.add_axes(place), widget, minutes)
        figure.savefig(picture, format="svg", transparent=True, metadata=_METADATA)
    return picture.getvalue().replace("<defs>", f"{_DARK_MODE}\n <defs>", 1)


def _places(shown: Sequence[Widget]) -> Iterator[tuple[Widget, int, int]]:
    """Yield each widget with its row and column."""
    row = column = next_row = 0
    for widget in shown:
        if column + widget.width > _COLUMNS:
            row, column = next_row, 0
        yield widget, row, column
        column, next_row = column + widget.width, max(next_row, row + widget.height)


def _plot(axes: Axes, widget: Widget, minutes: float) -> None:
    for line in widget.lines:
        seconds, values = zip(*line.points, strict=True)
        axes.plot([each / 60 for each in seconds], values, color=line.color, label=line.label)
    axes.set(title=widget.title, ylabel=widget.unit, xlim=(-0.02 * minutes, 1.02 * minutes), ylim=(0, None))
    axes.set_xlabel("minutes", labelpad=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=widget.width // _LABEL_COLUMNS)


if __name__ == "__main__":
    sys.exit(main())
