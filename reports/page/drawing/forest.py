"""A forest: ratios with their intervals one below the other, each with its name above it. Knows no run."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from reports.page.drawing.charts import log_axis, significant
from reports.page.drawing.kinds import Drawn, error_bars
from reports.page.looks import Look
from reports.page.markup import escaped
from reports.stats.intervals import Verdict

_ROW_PX, _AROUND_PX = 60, 64
# A range that reaches further from the points than this factor is cut at the frame: the table has it.
_REACH = 3.0
# A log axis has no 0.
_LEAST = 1e-9


@dataclass(frozen=True)
class Row:
    """A verdict that has an interval, and the two lines that stand above it."""

    look: Look
    name: str
    said: str
    verdict: Verdict

    @property
    def values(self) -> tuple[float, float, float]:
        """Return the ratio and its interval's ends."""
        given = (self.verdict.ratio or 0.0, self.verdict.low or 0.0, self.verdict.high or 0.0)
        at, low, high = (significant(min(max(each, _LEAST), 1 / _LEAST)) for each in given)
        return at, low, high


def draw(rows: Sequence[Row], title: str, margin_share: float) -> Drawn:
    """Draw ratios on a log axis, with 1 as a line and the margin as a band about it."""
    across = {"yref": "paper", "y0": 0, "y1": 1, "layer": "below"}
    band = {"type": "rect", "fillcolor": "--shade", "line": {"width": 0}, **across}
    one = {"type": "line", "line": {"color": "--mut", "width": 1, "dash": "dot"}, **across}
    hidden = dict.fromkeys(("showticklabels", "showgrid", "zeroline", "automargin"), False)
    layout = {
        # Enough for the words above the rows.
        "height": _AROUND_PX + _ROW_PX * len(rows),
        "xaxis": log_axis(title, *_frame(rows, 1 + margin_share)),
        "yaxis": {"range": [len(rows) - 0.5, -0.8], "title": {"text": ""}, **hidden},
        "margin": {"l": 6, "r": 6, "t": 6, "b": 8},
        "annotations": [
            {"xref": "paper", "x": 0, "xanchor": "left", "y": place, "yanchor": "bottom", "yshift": 5,
             "showarrow": False, "align": "left", "text": _words(row), "font": {"size": 11.5}}
            for place, row in enumerate(rows)
        ],
        "shapes": [
            {**band, "x0": 1 / (1 + margin_share), "x1": 1 + margin_share}, {**one, "x0": 1.0, "x1": 1.0},
        ],
    }  # fmt: skip
    return [_drawn(row, place) for place, row in enumerate(rows)], layout


def _words(row: Row) -> str:
    return f"{escaped(row.name)}<br>{escaped(row.said)}"


def _drawn(row: Row, place: int) -> dict[str, Any]:
    at, low, high = row.values
    is_full, colour = row.look.fill == "full", row.look.colour
    outline = {"color": "--card" if is_full else colour, "width": 1 if is_full else 2}
    return {
        "type": "scatter", "name": escaped(row.look.label), "mode": "markers", "x": [at], "y": [place],
        "marker": {"color": colour, "symbol": row.look.symbol, "size": 10, "line": outline},
        "error_x": {**error_bars([(at, (low, high))]), "color": colour, "thickness": 2, "width": 0},
        "hovertemplate": f"{_words(row)}<extra></extra>",
    }  # fmt: skip


def _frame(rows: Sequence[Row], least: float) -> tuple[float, float]:
    """Return ends that hold all points, their intervals within reason, and the margin (`least`) about 1."""
    points, lows, highs = zip(*(row.values for row in rows), strict=True)
    low, high = min(1.0, *points) / _REACH, max(1.0, *points) * _REACH
    return min(1 / least, max(low, min(lows))), max(least, min(high, max(highs)))
