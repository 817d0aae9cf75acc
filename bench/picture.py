"""Draws bulk.svg: seconds against agents, both logarithmic."""

from collections.abc import Mapping
from io import StringIO
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure

# Distinct without red or green, and with enough contrast on white and on black.
_OURS, _NAIVE, _IDEAL = "#2f81f7", "#bc6c00", "#7d8590"
_SECONDS = {0.1: "0.1 s", 1: "1 s", 10: "10 s", 60: "1 min", 600: "10 min"}
_AGENTS = (1, 10, 100, 1000, 10_000)
_LOOK: Any = {
    "font.sans-serif": ["DejaVu Sans"],
    "svg.fonttype": "none",
    "svg.hashsalt": "bulk",
    **dict.fromkeys(("text.color", "axes.labelcolor", "xtick.labelcolor", "ytick.labelcolor"), "#57606a"),
}
# The same measurements give the same file: without a date and a version.
_METADATA = {"Title": "Seconds by agents", "Creator": None, "Date": None, "Format": None, "Type": None}
_DARK_MODE = "<style>@media (prefers-color-scheme: dark) { text { fill: #adbac7 !important } }</style>"


def draw(path: Path, ours: Mapping[int, float], naive: Mapping[int, float], ideal: Mapping[int, float]) -> None:
    """Write the picture of seconds by the number of agents; `naive` is extrapolated to where `ours` ends."""
    most, last = max(ours), max(naive)
    extrapolated = {last: naive[last], most: naive[last] / last * most}
    svg = StringIO()
    with rc_context(_LOOK):
        figure = Figure(figsize=(6.5, 4), layout="constrained")
        axes = figure.subplots()
        for points, colour, style, name in (
            (extrapolated, _NAIVE, "--", "one by one, extrapolated"),
            (naive, _NAIVE, "o-", "one by one"),
            (ours, _OURS, "o-", "this function"),
            (ideal, _IDEAL, "--", "ideal"),
        ):
            axes.plot(sorted(points), [points[agents] for agents in sorted(points)], style, color=colour, label=name)
        axes.set(xscale="log", yscale="log", xlabel="agents in one invocation")
        axes.set_xticks(_AGENTS, [f"{agents:,}" for agents in _AGENTS])
        axes.set_yticks(list(_SECONDS), list(_SECONDS.values()))
        axes.minorticks_off()
        axes.tick_params(length=0)
        axes.grid(alpha=0.3)
        axes.spines[:].set_visible(False)
        axes.legend(frameon=False)
        figure.savefig(svg, format="svg", metadata=_METADATA, transparent=True)
    path.write_text(svg.getvalue().replace("</svg>", f"{_DARK_MODE}</svg>"), encoding="utf-8")
