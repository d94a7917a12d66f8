"""Bars of pieces one after the other, one below the other, each with its words above it. Knows no run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reports.page.drawing.axes import significant
from reports.page.drawing.charts import about, axis, label
from reports.page.drawing.kinds import Drawn
from reports.page.markup import Of

BAR_PX = 48


@dataclass(frozen=True)
class Bar:
    """A bar of pieces one after the other: name, begin and length of each. `said` stands above it; `ticks`
    are the values of single starts, each with what it is of."""

    of: Of
    said: str
    pieces: Sequence[tuple[str, float, float]]
    ticks: Sequence[tuple[float, Of]] = ()


# A piece's colour, and its pattern as plotly names it.
Fill = tuple[str, str]


def draw_bars(found: Sequence[Bar], fills: Mapping[str, Fill], title: str, unit: str) -> Drawn:
    """Draw a horizontal bar per deployment, with a tick per start. Words stand above the bars: beside them
    they would leave a narrow screen no room."""
    names = [str(number) for number in range(len(found))]
    traces = [_piece(name, fill, found, unit) for name, fill in fills.items()]
    ticks = [(name, at, of) for name, bar in zip(names, found, strict=True) for at, of in bar.ticks]
    marks = {
        "type": "scatter", "mode": "markers", "hovertemplate": f"a start: %{{x:.2f}} {unit}<extra></extra>",
        "y": [name for name, _, _ in ticks], "x": [significant(at) for _, at, _ in ticks],
        "cliponaxis": False,
        "marker": {"color": "--fg", "symbol": "line-ns-open", "size": 14, "line": {"width": 2}},
    }  # fmt: skip
    traces.append(about(marks, points=[of for _, _, of in ticks]))
    ends = [begin + length for bar in found for _, begin, length in bar.pieces] + [at for _, at, _ in ticks]
    above = [
        {"xref": "paper", "x": 0, "xanchor": "left", "y": name, "yshift": 20, "showarrow": False,
         "text": label(bar.said), "font": {"size": 11.5}, "of": bar.of.to_builtins()}
        for name, bar in zip(names, found, strict=True)
    ]  # fmt: skip
    return traces, {
        "xaxis": axis(title, range=[0, 1.02 * max(ends)]),
        "yaxis": {"autorange": "reversed", "type": "category", "title": {"text": ""}, "showticklabels": False,
                  "showgrid": False, "automargin": False},
        "margin": {"l": 4, "r": 4, "t": 10, "b": 8},
        "annotations": above,
        "barmode": "overlay",
    }  # fmt: skip


def key_of(fills: Mapping[str, Fill]) -> list[tuple[str, str, str]]:
    """Return a key's entries: name, colour, and the style sheet's class of the pattern."""
    classes = {"/": "slash", "\\": "back", ".": "dots", "-": "dashes", "x": "crosses"}
    return [(name, colour, classes.get(pattern, "")) for name, (colour, pattern) in fills.items()]


def _piece(name: str, fill: Fill, found: Sequence[Bar], unit: str) -> dict[str, Any]:
    own = [
        (str(number), begin, length, bar.of)
        for number, bar in enumerate(found)
        for piece, begin, length in bar.pieces
        if piece == name
    ]
    colour, pattern = fill
    made = {
        "type": "bar", "orientation": "h", "name": label(name), "y": [at for at, *_ in own],
        "x": [round(length, 4) for _, _, length, _ in own],
        "base": [round(begin, 4) for _, begin, _, _ in own],
        "marker": {"color": colour, "line": {"color": "--card", "width": 1},
                   "pattern": {"shape": pattern, "fillmode": "overlay", "fgcolor": "--card", "size": 7,
                               "solidity": 0.18}},
        "width": 0.34, "hovertemplate": f"%{{fullData.name}}: %{{x:.2f}} {unit}<extra></extra>",
    }  # fmt: skip
    return about(made, points=[of for *_, of in own])
