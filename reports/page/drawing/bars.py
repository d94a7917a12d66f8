"""One kind of chart: bars of pieces one after the other, each with its words above it. Knows no run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reports.page.drawing.charts import Chart, about, axis, significant
from reports.page.markup import Of, Row, escaped

_BAR_PX = 48
# A piece's colour, and its pattern as plotly names it.
Fill = tuple[str, str]
# The style sheet's class of each pattern.
_CLASSES = {"": "", "/": "slash", "\\": "back", ".": "dots", "-": "dashes", "x": "crosses"}


@dataclass(frozen=True)
class Bar:
    """A bar of pieces, the length of each by its name. `said` stands above it: beside it, words would leave a
    narrow screen no room. `ticks` are the values of single starts, each with what it is of."""

    of: Of
    said: str
    pieces: Mapping[str, float]
    ticks: Sequence[tuple[float, Of]]


def bar_chart(
    id_: str,
    what: str,
    finding: str | None,
    bars: Sequence[Bar],
    fills: Mapping[str, Fill],
    x_title: str,
    unit: str,
    table: tuple[Sequence[Any], Sequence[Row]],
    note: str,
) -> Chart:
    """Draw a horizontal bar per deployment, with a tick per start. `fills`: the pieces that there may be, in
    their order."""
    known = {name: fill for name, fill in fills.items() if any(name in bar.pieces for bar in bars)}
    ticks = [(str(place), at, of) for place, bar in enumerate(bars) for at, of in bar.ticks]
    marks = {
        "type": "scatter", "mode": "markers", "hovertemplate": f"a start: %{{x:.2f}} {unit}<extra></extra>",
        "y": [y for y, _, _ in ticks], "x": [significant(at) for _, at, _ in ticks], "cliponaxis": False,
        "marker": {"color": "--fg", "symbol": "line-ns-open", "size": 14, "line": {"width": 2}},
    }  # fmt: skip
    traces = [_pieces(name, fill, bars, unit) for name, fill in known.items()]
    longest = max([sum(bar.pieces.values()) for bar in bars] + [at for _, at, _ in ticks])
    layout = {
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
    return Chart(
        id_, what, [*traces, about(marks, points=[of for _, _, of in ticks])], layout, *table,
        note, height_px=80 + _BAR_PX * len(bars), finding=finding, is_wide=True,
        key=[(name, colour, _CLASSES[pattern]) for name, (colour, pattern) in known.items()],
    )  # fmt: skip


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
