"""One kind of chart: a horizontal bar per deployment, made of pieces, with a tick for each start.

Names and totals stand above their bars: beside them they would leave a narrow screen no room.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from reports.page.charts import Chart, about, axis, label
from reports.page.markup import Html, Of, Row, tag

_ROW_PX = 48
# plotly's pattern, and the style sheet's class.
_PATTERNS = {"/": "slash", "\\": "back", ".": "dots", "-": "dashes", "x": "crosses"}


@dataclass(frozen=True)
class Fill:
    """How a piece is drawn: a style variable's name and plotly's pattern. Hollow: the pattern alone has the
    colour."""

    colour: str
    pattern: str = ""
    is_hollow: bool = False


@dataclass(frozen=True)
class Bar:
    """`pieces`: lengths in the axis' unit, in the order in which they follow each other. `ticks`: single
    starts."""

    name: str
    said: str
    of: Of
    pieces: Mapping[str, float]
    ticks: Sequence[tuple[Of, float]] = field(default_factory=tuple)


def stacked_bars(
    id_: str,
    title: str,
    unit: tuple[str, str],
    fills: Mapping[str, Fill],
    bars: Sequence[Bar],
    table: tuple[Sequence[str], Sequence[Row]],
    note: str = "",
    quantity: str = "",
) -> Chart:
    """Draw bars on one axis; `unit`: its title, and the short form for a value. `fills`: of each piece, in
    the order of the key. `table`: columns and rows of the same numbers."""
    drawn = [name for name in fills if any(bar.pieces.get(name) for bar in bars)]
    ends = [sum(bar.pieces.values()) for bar in bars] + [at for bar in bars for _, at in bar.ticks]
    layout = {
        "xaxis": axis(unit[0], range=[0, 1.02 * max(ends)]),
        "yaxis": {"autorange": "reversed", "type": "category", "title": {"text": ""}, "showticklabels": False,
                  "showgrid": False, "automargin": False},
        "margin": {"l": 4, "r": 4, "t": 10, "b": 8},
        "annotations": list(map(_above, bars)),
        "barmode": "overlay",
    }  # fmt: skip
    traces = [*(_piece(name, fills[name], bars, unit[1]) for name in drawn), _ticks(bars, unit[1])]
    height_px = 80 + _ROW_PX * len(bars)
    return Chart(id_, title, traces, layout, *table, note, height_px, quantity)


def key(chart: Chart, fills: Mapping[str, Fill]) -> Html:
    """Return the chart's key: a swatch for each piece that it draws."""
    names = [name for name in fills if any(trace["name"] == label(name) for trace in chart.traces)]
    return tag("p", *(tag("span", _swatch(fills[name]), name) for name in names), class_="key")


def _swatch(fill: Fill) -> Html:
    classes = ["swatch", *filter(None, (_PATTERNS.get(fill.pattern), "hollow" if fill.is_hollow else ""))]
    return tag("i", class_=" ".join(classes), style=f"--fill:var({fill.colour})")


def _piece(name: str, fill: Fill, bars: Sequence[Bar], unit: str) -> dict[str, Any]:
    pattern = {"shape": fill.pattern, "fillmode": "overlay", "fgcolor": "--card", "size": 7, "solidity": 0.2}
    if fill.is_hollow:
        pattern |= {"fillmode": "replace", "fgcolor": fill.colour, "bgcolor": "--card"}
    own = [bar for bar in bars if name in bar.pieces]
    trace = {
        "type": "bar", "orientation": "h", "name": label(name), "width": 0.34,
        "y": [label(bar.name) for bar in own],
        "x": [round(bar.pieces[name], 4) for bar in own],
        "base": [round(_begin(bar, name), 4) for bar in own],
        "marker": {"color": fill.colour, "line": {"color": "--card", "width": 1}, "pattern": pattern},
        "hovertemplate": f"%{{y}}<br>%{{fullData.name}}: %{{x:.2f}} {unit}<extra></extra>",
    }  # fmt: skip
    return about(trace, points=[bar.of for bar in own])


def _begin(bar: Bar, name: str) -> float:
    names = list(bar.pieces)
    return sum(bar.pieces[before] for before in names[: names.index(name)])


def _ticks(bars: Sequence[Bar], unit: str) -> dict[str, Any]:
    pairs = [(bar, of, at) for bar in bars for of, at in bar.ticks]
    trace = {
        "type": "scatter", "mode": "markers", "name": "a start", "cliponaxis": False,
        "y": [label(bar.name) for bar, _, _ in pairs], "x": [round(at, 4) for _, _, at in pairs],
        "marker": {"color": "--fg", "symbol": "line-ns-open", "size": 14, "line": {"width": 2}},
        "hovertemplate": f"a start: %{{x:.2f}} {unit}<extra></extra>",
    }  # fmt: skip
    return about(trace, points=[of for _, of, _ in pairs])


def _above(bar: Bar) -> dict[str, Any]:
    return {
        "xref": "paper", "x": 0, "xanchor": "left", "y": label(bar.name), "yshift": 20, "showarrow": False,
        "text": f"<b>{label(bar.name)}</b> {label(bar.said)}", "font": {"size": 11.5},
        "of": bar.of.to_builtins(),
    }  # fmt: skip
