"""A forest: points with their intervals one below the other, each with its name above it. Knows no run."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from reports.page.drawing.axes import significant
from reports.page.drawing.charts import about, axis, label
from reports.page.looks import Look
from reports.page.markup import ALL, Of
from reports.stats.family import Verdict

ROW_PX = 48
_AROUND_PX = 64
_LINE_PX = 16
_LONG_NAME = 52
# A range that reaches further from the points than this factor is cut at the frame: the table has it.
_REACH = 3.0
_TICKS_AT_MOST = 9
_STEPS = (0.01, 0.02, 0.05, 0.1, 0.25)
_WIDE_TICKS = ((0.1, 0.2, 0.3, 0.5, 0.7, 1, 1.5, 2, 3, 5, 10), (0.1, 0.2, 0.5, 1, 2, 5, 10))


@dataclass(frozen=True)
class Row:
    """A point with the ends of its interval. `name` stands above it, `said` in its tooltip."""

    look: Look
    name: str
    at: float
    low: float
    high: float
    said: str
    of: Of = ALL


def row(look: Look, name: str, found: Verdict, said: str, of: Of = ALL, scale: float = 1.0) -> Row:
    """Return the row of a verdict that has an interval; `scale` is that of a difference's shown unit."""
    assert found.ratio is not None
    assert found.low is not None
    assert found.high is not None
    values = (found.ratio, found.low, found.high)
    # A log axis has no 0, which an end far below any sense is rounded to.
    at, low, high = (significant(max(each, 1e-9) if found.is_log else each * scale) for each in values)
    return Row(look, name, at, low, high, said, of)


def height_px(rows: Sequence[Row]) -> int:
    """Return enough for the names above the rows."""
    is_long = any(len(row.name) > _LONG_NAME for row in rows)
    return _AROUND_PX + (ROW_PX + (_LINE_PX if is_long else 0)) * len(rows)


def _above(name: str) -> str:
    """Return a name in plotly's markup; a long one in two lines, since a narrow screen would cut it."""
    head, colon, rest = name.rpartition(": ")
    is_long = len(name) > _LONG_NAME and colon
    return f"{label(head)}:<br>{label(rest)}" if is_long else label(name)


def traces(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Return the lines and markers of the rows, each in its deployment's look, from the top down."""
    return [trace for place, row in enumerate(rows) for trace in _drawn(row, place)]


def _drawn(row: Row, place: int) -> list[dict[str, Any]]:
    is_full = row.look.fill == "full"
    shared = {"type": "scatter", "name": label(row.look.label)}
    interval = {
        **shared, "mode": "lines", "x": [row.low, row.high], "y": [place, place], "hoverinfo": "skip",
        "line": {"color": row.look.colour, "width": 2},
    }  # fmt: skip
    outline = {"color": "--card" if is_full else row.look.colour, "width": 1 if is_full else 2}
    point = {
        **shared, "mode": "markers", "x": [row.at], "y": [place],
        "marker": {"color": row.look.colour, "symbol": row.look.symbol, "size": 10, "line": outline},
        "hovertemplate": f"{label(row.name)}<br>{label(row.said)}<extra></extra>",
    }  # fmt: skip
    return [about(trace, row.of) for trace in (interval, point)]


def ratio_layout(rows: Sequence[Row], title: str, margin_share: float | None) -> dict[str, Any]:
    """Return a log axis of ratios: 1 as a line, the margin as a band about it."""
    low, high = frame(rows, 1 + (margin_share or 0.05))
    ticks = ratio_ticks(low, high)
    x_axis = axis(
        title,
        type="log",
        range=[math.log10(low), math.log10(high)],
        tickvals=ticks,
        ticktext=[f"{tick:g}" for tick in ticks],
    )
    edges = (1 / (1 + margin_share), 1 + margin_share) if margin_share else None
    return _layout(rows, x_axis, 1.0, edges)


def difference_layout(rows: Sequence[Row], title: str) -> dict[str, Any]:
    """Return a linear axis of differences: 0 as a line."""
    low, high = min(0.0, *(row.low for row in rows), 0.0), max(0.0, *(row.high for row in rows), 0.0)
    room = 0.06 * (high - low or 1.0)
    return _layout(rows, axis(title, range=[low - room, high + room], zeroline=False), 0.0, None)


def frame(rows: Sequence[Row], least: float) -> tuple[float, float]:
    """Return the ends of a ratio axis: all points, their intervals within reason, and some room."""
    first, last = min(1.0, *(r.at for r in rows), 1.0), max(1.0, *(r.at for r in rows), 1.0)
    low = min(1 / least, first, max(first / _REACH, min(r.low for r in rows)))
    high = max(least, last, min(last * _REACH, max(r.high for r in rows)))
    room = max((high / low) ** 0.06, 1.01)
    return low / room, high * room


def ratio_ticks(low: float, high: float) -> list[float]:
    """Return round ratios within a range, 1 among them, few enough for a narrow screen."""
    for step in _STEPS:
        values = [round(step * k, 4) for k in range(math.ceil(low / step), math.floor(high / step) + 1)]
        if len(values) <= _TICKS_AT_MOST and low > 0.4:
            return values
    for wide in _WIDE_TICKS:
        values = [float(value) for value in wide if low <= value <= high]
        if len(values) <= _TICKS_AT_MOST and low >= 0.05 and high <= 20:
            return values
    decades = range(math.ceil(math.log10(low)), math.floor(math.log10(high)) + 1)
    return [10.0**decade for decade in decades]


def _layout(
    rows: Sequence[Row], x_axis: dict[str, Any], none: float, edges: tuple[float, float] | None
) -> dict[str, Any]:
    names = [
        {"xref": "paper", "x": 0, "xanchor": "left", "y": place, "yanchor": "bottom", "yshift": 5,
         "showarrow": False, "align": "left", "text": _above(row.name), "font": {"size": 11.5},
         **({"of": row.of.to_builtins()} if row.of != ALL else {})}
        for place, row in enumerate(rows)
    ]  # fmt: skip
    across = {"yref": "paper", "y0": 0, "y1": 1, "layer": "below"}
    band = [{"type": "rect", "x0": edges[0], "x1": edges[1], "fillcolor": "--shade", "line": {"width": 0},
             **across}] if edges else []  # fmt: skip
    line = {
        "type": "line",
        "x0": none,
        "x1": none,
        "line": {"color": "--mut", "width": 1, "dash": "dot"},
        **across,
    }
    return {
        "xaxis": x_axis,
        "yaxis": {"range": [len(rows) - 0.5, -0.8], "title": {"text": ""}, "showticklabels": False,
                  "showgrid": False, "zeroline": False, "automargin": False},
        "margin": {"l": 6, "r": 6, "t": 6, "b": 8},
        "annotations": names,
        "shapes": [*band, line],
    }  # fmt: skip
