"""Draws bulk.svg: time against agents, both logarithmic."""

from collections.abc import Iterable, Mapping, Sequence
from math import log10

_WIDTH, _HEIGHT = 560, 340
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 96, 20, 48
_MOST_AGENTS = 10_000
_LEAST_SECONDS, _MOST_SECONDS = 0.1, 2000
_SECONDS = {0.1: "0.1 s", 1: "1 s", 10: "10 s", 60: "1 min", 600: "10 min"}
_AGENTS = (1, 10, 100, 1000, 10_000)

# Colours that can be told apart on white and on black, and by those who see no red or green.
_STYLE = """
text { font: 12px system-ui, sans-serif; fill: #57606a }
.grid { stroke: #8c959f; stroke-opacity: .3 }
.line { fill: none; stroke-width: 2 }
.ours { stroke: #0969da } .ours-dot { fill: #0969da }
.naive { stroke: #bc6c00 } .naive-dot { fill: #bc6c00 }
.ideal { stroke: #6e7781; stroke-width: 1.5 }
.dashed { stroke-dasharray: 5 4 }
@media (prefers-color-scheme: dark) {
  text { fill: #adbac7 }
  .ours { stroke: #58a6ff } .ours-dot { fill: #58a6ff }
  .naive { stroke: #e3a13a } .naive-dot { fill: #e3a13a }
  .ideal { stroke: #9ea7b3 }
}
"""

type Points = Sequence[tuple[float, float]]


def draw(ours: Mapping[int, float], naive: Mapping[int, float], ideal: Mapping[int, float]) -> str:
    """Return the picture; each argument has seconds by the number of agents.

    What is naive is drawn on, dashed, to where ours ends.
    """
    most, last = max(ours), max(naive)
    extrapolated = [(last, naive[last]), (most, naive[last] / last * most)]
    drawn = [
        *_axes(),
        _line(sorted(ideal.items()), "ideal dashed"),
        _line(sorted(naive.items()), "naive"),
        _line(extrapolated, "naive dashed"),
        _line(sorted(ours.items()), "ours"),
        *_dots(naive, "naive-dot"),
        *_dots(ours, "ours-dot"),
        *_labels(most, extrapolated[1][1], ours[most], ideal[most]),
    ]
    title = "<title>Time to ask many agents, the API taking 100 ms for each answer</title>"
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" role="img">',
            title,
            f"<style>{_STYLE}</style>",
            *drawn,
            "</svg>\n",
        ]
    )


def _x(agents: float) -> float:
    return round(_LEFT + (_WIDTH - _LEFT - _RIGHT) * log10(agents) / log10(_MOST_AGENTS), 1)


def _y(seconds: float) -> float:
    share = log10(seconds / _LEAST_SECONDS) / log10(_MOST_SECONDS / _LEAST_SECONDS)
    return round(_HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * share, 1)


def _axes() -> Iterable[str]:
    low, high, left, right = _HEIGHT - _BOTTOM, _TOP, _LEFT, _WIDTH - _RIGHT
    for agents in _AGENTS:
        yield f'<line class="grid" x1="{_x(agents)}" y1="{low}" x2="{_x(agents)}" y2="{high}"/>'
        yield _text(_x(agents), low + 18, f"{agents:,}", "middle")
    for seconds, name in _SECONDS.items():
        yield f'<line class="grid" x1="{left}" y1="{_y(seconds)}" x2="{right}" y2="{_y(seconds)}"/>'
        yield _text(left - 8, _y(seconds) + 4, name, "end")
    yield _text((left + right) / 2, low + 38, "agents in one invocation", "middle")


def _line(points: Points, kind: str) -> str:
    return f'<polyline class="line {kind}" points="{" ".join(f"{_x(x)},{_y(y)}" for x, y in points)}"/>'


def _dots(points: Mapping[int, float], kind: str) -> Iterable[str]:
    return (f'<circle class="{kind}" cx="{_x(x)}" cy="{_y(y)}" r="3.5"/>' for x, y in points.items())


def _labels(agents: int, naive: float, ours: float, ideal: float) -> Iterable[str]:
    x = _x(agents) + 8
    yield _text(x, _y(naive) - 2, "one by one", "start")
    yield _text(x, _y(naive) + 13, "(extrapolated)", "start")
    yield _text(x, _y(ours) - 2, "this function", "start")
    yield _text(x, max(_y(ideal), _y(ours)) + 13, "ideal", "start")


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}">{text}</text>'
