"""A forest: points with their intervals one below the other, each with its name above it. Knows no run."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from reports.page.drawing.axes import log_axis, significant
from reports.page.drawing.charts import about, axis, label
from reports.page.drawing.kinds import Drawn, error_bars
from reports.page.looks import Look
from reports.page.markup import ALL, Of
from reports.stats.family import Verdict

_ROW_PX, _AROUND_PX, _LINE_PX = 48, 64, 16
# A longer name takes two lines: a narrow screen would cut it.
_LONG_NAME = 52
# A range that reaches further from the points than this factor is cut at the frame: the table has it.
_REACH = 3.0
# A log axis has no 0.
_LEAST = 1e-9


@dataclass(frozen=True)
class Row:
    """A verdict that has an interval. `name` stands above it, `said` in its tooltip."""

    look: Look
    name: str
    verdict: Verdict
    said: str
    of: Of = ALL

    def values(self, scale: float) -> tuple[float, float, float]:
        """Return the point and its interval's ends; of a difference in the unit that has this scale."""
        given = (self.verdict.ratio or 0.0, self.verdict.low or 0.0, self.verdict.high or 0.0)
        if self.verdict.is_log:
            at, low, high = (significant(min(max(each, _LEAST), 1 / _LEAST)) for each in given)
        else:
            at, low, high = (significant(each * scale) for each in given)
        return at, low, high


def height_px(rows: Sequence[Row]) -> int:
    """Return enough for the names above the rows."""
    is_long = any(len(row.name) > _LONG_NAME for row in rows)
    return _AROUND_PX + (_ROW_PX + _LINE_PX * is_long) * len(rows)


def draw(rows: Sequence[Row], title: str, margin_share: float | None = None, scale: float = 1.0) -> Drawn:
    """Draw ratios on a log axis with 1 as a line and the margin as a band about it, or differences with 0 as
    a line; `scale` is that of the differences' shown unit."""
    is_log, values = rows[0].verdict.is_log, [row.values(scale) for row in rows]
    across = {"yref": "paper", "y0": 0, "y1": 1, "layer": "below"}
    nothing, shapes = (1.0 if is_log else 0.0), []
    if is_log and margin_share:
        edges = {"x0": 1 / (1 + margin_share), "x1": 1 + margin_share}
        shapes.append({"type": "rect", "fillcolor": "--shade", "line": {"width": 0}, **edges, **across})
    dotted = {"color": "--mut", "width": 1, "dash": "dot"}
    shapes.append({"type": "line", "x0": nothing, "x1": nothing, "line": dotted, **across})
    names = [
        {"xref": "paper", "x": 0, "xanchor": "left", "y": place, "yanchor": "bottom", "yshift": 5,
         "showarrow": False, "align": "left", "text": _above(row.name), "font": {"size": 11.5},
         **({"of": row.of.to_builtins()} if row.of != ALL else {})}
        for place, row in enumerate(rows)
    ]  # fmt: skip
    hidden = dict.fromkeys(("showticklabels", "showgrid", "zeroline", "automargin"), False)
    layout = {
        "xaxis": _ratio_axis(title, values, margin_share) if is_log else _difference_axis(title, values),
        "yaxis": {"range": [len(rows) - 0.5, -0.8], "title": {"text": ""}, **hidden},
        "margin": {"l": 6, "r": 6, "t": 6, "b": 8},
        "annotations": names,
        "shapes": shapes,
    }
    return [_drawn(row, place, *values[place]) for place, row in enumerate(rows)], layout


def _above(name: str) -> str:
    head, colon, rest = name.rpartition(": ")
    return f"{label(head)}:<br>{label(rest)}" if len(name) > _LONG_NAME and colon else label(name)


def _drawn(row: Row, place: int, at: float, low: float, high: float) -> dict[str, Any]:
    is_full, colour = row.look.fill == "full", row.look.colour
    outline = {"color": "--card" if is_full else colour, "width": 1 if is_full else 2}
    trace = {
        "type": "scatter", "name": label(row.look.label), "mode": "markers", "x": [at], "y": [place],
        "marker": {"color": colour, "symbol": row.look.symbol, "size": 10, "line": outline},
        "error_x": {**error_bars([(at, (low, high))]), "color": colour, "thickness": 2, "width": 0},
        "hovertemplate": f"{label(row.name)}<br>{label(row.said)}<extra></extra>",
    }  # fmt: skip
    return about(trace, row.of)


def _ratio_axis(
    title: str, values: Sequence[tuple[float, float, float]], margin_share: float | None
) -> dict[str, Any]:
    """Return an axis with all points, their intervals within reason, and the margin about 1."""
    points, lows, highs = zip(*values, strict=True)
    least = 1 + (margin_share or 0.05)
    low = min(1 / least, max(min(1.0, *points, 1.0) / _REACH, min(lows)))
    return log_axis(title, low, max(least, min(max(1.0, *points, 1.0) * _REACH, max(highs))))


def _difference_axis(title: str, values: Sequence[tuple[float, float, float]]) -> dict[str, Any]:
    low, high = min(0.0, *(each[1] for each in values), 0.0), max(0.0, *(each[2] for each in values), 0.0)
    room = 0.06 * (high - low or 1.0)
    return axis(title, range=[low - room, high + room], zeroline=False)
