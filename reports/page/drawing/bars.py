"""One kind of chart: bars of pieces one after the other, each with its words above it. Knows no run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reports.page.drawing.charts import about, axis, significant
from reports.page.drawing.kinds import Drawn
from reports.page.markup import Of, escaped

_BAR_PX, _AROUND_PX = 48, 80
# A piece's colour, and its pattern as plotly names it.
Fill = tuple[str, str]


@dataclass(frozen=True)
class Bar:
    """A bar of pieces, the length of each by its name. `said` stands above it: beside it, words would leave a
    narrow screen no room. `ticks` are the values of single starts, each with what it is of."""

    of: Of
    said: str
    pieces: Mapping[str, float]
    ticks: Sequence[tuple[float, Of]]


def stacked(bars: Sequence[Bar], fills: Mapping[str, Fill], x_title: str, unit: str) -> Drawn:
    """Draw a horizontal bar per deployment, with a tick per start. `fills`: the pieces that there may be, in
    their order."""
    ticks = [(str(place), at, of) for place, bar in enumerate(bars) for at, of in bar.ticks]
    marks = {
        "type": "scatter", "mode": "markers", "hovertemplate": f"a start: %{{x:.2f}} {unit}<extra></extra>",
        "y": [y for y, _, _ in ticks], "x": [significant(at) for _, at, _ in ticks], "cliponaxis": False,
        "marker": {"color": "--fg", "symbol": "line-ns-open", "size": 14, "line": {"width": 2}},
    }  # fmt: skip
    known = [name for name in fills if any(name in bar.pieces for bar in bars)]
    traces = [_pieces(name, fills[name], bars, unit) for name in known]
    longest = max([sum(bar.pieces.values()) for bar in bars] + [at for _, at, _ in ticks])
    layout = {
        "height": _AROUND_PX + _BAR_PX * len(bars),
        "xaxis": axis(x_title, range=[0, 1.02 * longest]),
        "yaxis": {"autorange": "reversed", "type": "category", "title": {"text": ""}, "showticklabels": False,
                  "showgrid": False, "automargin": False},
        "margin": {"l": 4, "r": 4, "t": 10, "b": 8},
        "annotations": [
            {"xref": "paper", "x": 0, "xanchor": "left", "y": str(place), "yshift": 20, "showarrow": False,
             "text": escaped(bar.said), "font": {"size": 11.5}, "of": bar.of.to_builtins()}
            for place, bar in enumerate(bars)
        ],
        "barmode": "stack",
    }  # fmt: skip
    return [*traces, about(marks, points=[of for _, _, of in ticks])], layout


def _pieces(name: str, fill: Fill, bars: Sequence[Bar], unit: str) -> dict[str, Any]:
    own = [(str(place), bar) for place, bar in enumerate(bars) if name in bar.pieces]
    colour, pattern = fill
    made = {
        "type": "bar", "orientation": "h", "name": escaped(name), "y": [y for y, _ in own],
        "x": [round(bar.pieces[name], 4) for _, bar in own], "width": 0.34,
        "marker": {"color": colour, "line": {"color": "--card", "width": 1},
                   "pattern": {"shape": pattern, "fillmode": "overlay", "fgcolor": "--card", "size": 7,
                               "solidity": 0.18}},
        "hovertemplate": f"%{{fullData.name}}: %{{x:.2f}} {unit}<extra></extra>",
    }  # fmt: skip
    return about(made, points=[bar.of for _, bar in own])
