"""The common kinds of chart: each function returns traces and layout for plotly from plain data.

Lines over loads or turns, the frontier, a plane and stacked bars are here; more_kinds.py has those that one
place uses. Knows no run.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from serving_bench.reports.data import grouped
from serving_bench.reports.measures import (
    Aggregate,
    Value,
    counted,
    has_interval,
    metric_of,
    plural,
    span,
    span_text,
)
from serving_bench.reports.page.drawing.charts import about, axis, line, log_axis, log_ticks, significant
from serving_bench.reports.page.looks import INKS, Look, Of, escaped

# What `Chart` takes: traces and layout.
Drawn = tuple[list[dict[str, Any]], dict[str, Any]]
Span = tuple[float, float]
Looks = Mapping[str, Look]
# Values are on a log scale if the greatest is more than this factor above the least.
_LOG_FROM = 10.0
# Plotly takes null for 0 and draws its ends, as if the value were certain; text makes it draw no bar.
_NO_BAR = "none"
# A limit farther than this factor above the values is not drawn, since it would squeeze them together.
_NEAR = 1.5
QUIET = {"color": "--mut", "size": 11}
_BAR_PX, _AROUND_PX = 48, 80
# A piece's colour, and its pattern as plotly names it.
Fill = tuple[str, str]


@dataclass(frozen=True)
class Point:
    """A group's value of a metric at one place of a chart.

    `name`: the value's (`ttft_s.p50`). `x` is the place, `at` the same in words (`4 users`, `turn 3`).
    `starts`: the values by repeat.
    """

    name: str
    of: Of
    at: str
    x: float
    value: Aggregate
    starts: Mapping[int, Value]
    x_ends: Span | None = None

    @property
    def y(self) -> float:
        """Return the mean, which must be known, in the shown unit."""
        return (self.value.mean or 0.0) * metric_of(self.name).shown_scale

    @property
    def ends(self) -> Span | None:
        return ends_of(self.name, self.value)


def ends_of(name: str, value: Aggregate) -> Span | None:
    """Return the ends of a mean's interval or range in the shown unit; None for fewer than two starts."""
    scale, ends = metric_of(name).shown_scale, span(value)
    return (ends[0] * scale, ends[1] * scale) if ends else None


@dataclass(frozen=True)
class Limit:
    """A limit in the shown unit, with its label."""

    at: float
    words: str


# --- lines -----------------------------------------------------------------------------------------


def lines(
    looks: Looks,
    points: Sequence[Point],
    x_axis: Mapping[str, Any],
    unit: str,
    *,
    may_be_log: bool = False,
    limit: Limit | None = None,
) -> Drawn:
    """Draw a line per deployment over loads or turns, with its intervals.

    Lines are shifted a little at each x, so that their intervals do not cover each other.
    """
    levels = sorted({point.x for point in points})
    series = _by_deployment(looks, points)
    traces = []
    for number, (look, of_series) in enumerate(series):
        places = aside(levels, len(series), number - (len(series) - 1) / 2, x_axis.get("type") == "log")
        traces.append(_line(look, of_series, [places[point.x] for point in of_series], f" {escaped(unit)}"))
    least, most = (pick(point.y for point in points) for pick in (min, max))
    is_log = may_be_log and least > 0 and most > _LOG_FROM * least
    # Very wide intervals are cut off.
    if is_log:
        y_axis = axis(
            f"{escaped(unit)} (log scale)",
            type="log",
            range=[math.log10(least / 2), math.log10(2 * most)],
            **log_ticks(least / 2, 2 * most),
        )
    else:
        y_axis = axis(escaped(unit), rangemode="tozero")
        if least >= 0 and any(end > 2 * most > 0 for point in points for end in point.ends or ()):
            y_axis["range"] = [0.0, 2 * most]
    near = [limit] if limit and limit.at <= _NEAR * most else []
    return traces, {"xaxis": dict(x_axis), "yaxis": y_axis, **across(near, is_log=is_log)}


def _by_deployment(looks: Looks, points: Sequence[Point]) -> list[tuple[Look, list[Point]]]:
    by_label = grouped(points, lambda point: point.of.deployment)
    return [(look, by_label[name]) for name, look in looks.items() if name in by_label]


def _line(look: Look, points: Sequence[Point], x: Iterable[float], unit: str, **more: Any) -> dict[str, Any]:
    repeats = sorted({repeat for point in points for repeat in point.starts})
    return line(
        look,
        [significant(each, 6) for each in x],
        [significant(point.y, 6) for point in points],
        points=[Of(load=point.of.load) for point in points],
        by_start={k + 1: _of_start(points, k) for k in repeats} if len(repeats) > 1 else None,
        error_y=error_bars((point.y, point.ends) for point in points),
        customdata=[escaped(point.at) for point in points],
        text=[escaped(_said(point)) for point in points],
        hovertemplate=f"%{{fullData.name}}<br>%{{customdata}}: %{{y:,.4~g}}{unit}"
        "<br>%{text}<extra></extra>",
        **more,
    )


def _of_start(points: Sequence[Point], repeat: int) -> tuple[list[float | None], list[str]]:
    scale = metric_of(points[0].name).shown_scale
    start_values = [point.starts.get(repeat, Value(None, 0)) for point in points]
    values = [None if each.value is None else significant(each.value * scale) for each in start_values]
    return values, [counted(each.n, each.requests) for each in start_values]


def _said(point: Point) -> str:
    value, what = point.value, "95 % interval" if has_interval(point.value) else "range"
    words = f"{what} {span_text(point.name, value)}, " if point.ends else ""
    starts = plural(value.k, "start" if value.is_of_starts else "block")
    return f"{words}{starts}, n = {counted(value.n, value.requests)}"


def error_bars(means: Iterable[tuple[float, Span | None]]) -> dict[str, Any]:
    """Return error bars from each low to each high end, given means with their ends or None."""
    pairs = list(means)
    return {
        "type": "data",
        "symmetric": False,
        "array": [abs(ends[1] - mean) if ends else _NO_BAR for mean, ends in pairs],
        "arrayminus": [abs(mean - ends[0]) if ends else _NO_BAR for mean, ends in pairs],
        "thickness": 1,
        "width": 4,
    }


def across(limits: Sequence[Limit], *, is_log: bool = False) -> dict[str, Any]:
    """Return the part of a layout that draws limits on the y axis as dashed lines with labels."""
    stroke = {"color": "--mut", "width": 1, "dash": "dash"}
    line_of = {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "layer": "below", "line": stroke}
    words_of = {"xref": "paper", "x": 0, "xanchor": "left", "yanchor": "bottom", "showarrow": False}
    places = [math.log10(limit.at) if is_log else limit.at for limit in limits]
    return {
        "shapes": [{**line_of, "y0": limit.at, "y1": limit.at} for limit in limits],
        "annotations": [
            {**words_of, "font": QUIET, "y": place, "text": limit.words}
            for limit, place in zip(limits, places, strict=True)
        ],
    }


def place_axis(title: str, levels: Sequence[float], ticks: Sequence[str]) -> dict[str, Any]:
    """Return an axis with ticks at these levels only, on a log scale if they span more than a factor of 8."""
    if max(levels) > 8 * min(levels) > 0:
        return axis(f"{title} (log scale)", type="log", tickvals=levels, ticktext=ticks)
    margin = 0.09 * (levels[-1] - levels[0]) or 0.4 * min(1.0, levels[0])
    return axis(title, tickvals=levels, ticktext=ticks, range=[levels[0] - margin, levels[-1] + margin])


def aside(levels: Sequence[float], count: int, shift: float, is_log: bool) -> dict[float, float]:
    """Return the x of each level for the line that is `shift` steps beside the middle of `count` lines."""
    places = np.log10(levels) if is_log else np.asarray(levels)
    whole = float(np.ptp(places)) or 4.0 * min(1.0, levels[0])
    nearest = min(np.diff(places).tolist(), default=0.25 * whole)
    moved = places + shift * min(0.015 * whole, 0.4 * nearest / count)
    return dict(zip(levels, (10**moved if is_log else moved).tolist(), strict=True))


# --- frontier --------------------------------------------------------------------------------------


def frontier(looks: Looks, points: Sequence[Point], latency: str, limit: Limit | None) -> Drawn:
    """Draw a line per deployment through its loads: tokens/s (y) against a latency (x, ms), with intervals.

    Behind them are the front, whose points no other beats in both, and the region beyond the SLO if it is
    near.
    """
    ends = [end for point in points for end in (point.x, *(point.x_ends or ()))]
    near = limit if limit and limit.at < _NEAR * max(ends) else None
    x_axis = log_axis(f"{latency}, ms, lower is better", min(ends), max(ends + ([near.at] if near else [])))
    y_axis = axis("output tokens/s, higher is better", rangemode="tozero")
    layout: dict[str, Any] = {"height": 390, "xaxis": x_axis, "yaxis": y_axis}
    if near:
        right = 10 ** x_axis["range"][1]
        layout |= {
            "shapes": [
                {"type": "rect", "x0": near.at, "x1": right, "yref": "paper", "y0": 0, "y1": 1,
                 "fillcolor": "--shade", "line": {"width": 0}, "layer": "below"},
            ],
            "annotations": [
                {"xref": "paper", "x": 1, "xanchor": "right", "yref": "paper", "y": 1, "yanchor": "bottom",
                 "showarrow": False, "font": QUIET, "text": f"beyond the {near.words}"},
            ],
            "margin": {"l": 8, "r": 12, "t": 22, "b": 8},
        }  # fmt: skip
    series = _by_deployment(looks, points)
    traces = [_front(points)] if len(series) > 1 else []
    for look, of_series in series:
        x, x_bars = (
            [point.x for point in of_series],
            error_bars((point.x, point.x_ends) for point in of_series),
        )
        traces.append(_line(look, of_series, x, " tokens/s at %{x:,.4~g} ms", error_x=x_bars))
    return traces, layout


def _front(points: Sequence[Point]) -> dict[str, Any]:
    """Return a line through the points that no other beats in both x (lower is better) and y (higher is)."""
    kept: list[Point] = []
    for point in sorted(points, key=lambda point: (point.x, -point.y)):
        if not kept or point.y > kept[-1].y:
            kept.append(point)
    return {
        "type": "scatter", "mode": "lines", "name": "", "hoverinfo": "skip",
        "x": [significant(point.x, 6) for point in kept], "y": [significant(point.y, 6) for point in kept],
        "line": {"color": "--mut", "width": 9, "shape": "hv"}, "opacity": 0.2,
    }  # fmt: skip


def plane(looks: Looks, points: Sequence[Point], sizes: Mapping[str, float], title: str) -> Drawn:
    """Draw a mark per deployment, tokens/s (y) against a value that is 0 at best (x), with both intervals.

    x is a log axis with a place of its own for 0 at the left. A mark's area is in proportion to its size.
    """
    positive = [end for point in points for end in (point.x, *(point.x_ends or ())) if end > 0]
    x_axis = log_axis(title, min(positive, default=1.0), max(positive, default=1.0))
    left, right = x_axis["range"]
    zero = significant(10 ** (left - 0.1 * (right - left)))
    x_axis |= {
        "range": [left - 0.15 * (right - left), right],
        "tickvals": [zero, *x_axis["tickvals"]],
        "ticktext": ["0", *x_axis["ticktext"]],
    }
    traces = []
    for look, of_deployment in _by_deployment(looks, points):
        trace = _line(look, of_deployment, [point.x or zero for point in of_deployment], " tokens/s")
        size = max(8, 24 * math.sqrt(sizes[look.label] / max(sizes.values())))
        marker = {**trace["marker"], "size": round(size, 1)}
        ends = error_bars((point.x, point.x_ends) for point in of_deployment)
        traces.append({**trace, "marker": marker, "error_x": ends})
    y_axis = axis("output tokens/s, higher is better", rangemode="tozero")
    return traces, {"height": 390, "xaxis": x_axis, "yaxis": y_axis}


# --- bars ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Bar:
    """A deployment's bar, made of pieces with their lengths by name.

    `said` is written above the bar, since a narrow screen has no room beside it. `ticks` has the number and
    value of each start.
    """

    label: str
    said: str
    pieces: Mapping[str, float]
    ticks: Sequence[tuple[int, float]]


def stacked(bars: Sequence[Bar], fills: Mapping[str, Fill], x_title: str, unit: str) -> Drawn:
    """Draw a horizontal bar per deployment, with a tick per start. `fills`: all possible pieces, in order."""
    ticks = [
        (str(place), at, Of(bar.label, start=start))
        for place, bar in enumerate(bars)
        for start, at in bar.ticks
    ]
    marks = {
        "type": "scatter", "mode": "markers", "hovertemplate": f"a start: %{{x:.2f}} {unit}<extra></extra>",
        "y": [y for y, _, _ in ticks], "x": [significant(at) for _, at, _ in ticks], "cliponaxis": False,
        "marker": {"color": "--fg", "symbol": "line-ns-open", "size": 14, "line": {"width": 2}},
    }  # fmt: skip
    traces = [
        _pieces(name, fill, bars, unit)
        for name, fill in fills.items()
        if any(name in bar.pieces for bar in bars)
    ]
    longest = max([0.0, *(sum(bar.pieces.values()) for bar in bars), *(at for _, at, _ in ticks)])
    layout = {
        "height": _AROUND_PX + _BAR_PX * len(bars),
        "xaxis": axis(x_title, range=[0, 1.02 * longest]),
        "yaxis": {"autorange": "reversed", "type": "category", "title": {"text": ""}, "showticklabels": False,
                  "showgrid": False, "automargin": False},
        "margin": {"l": 4, "r": 4, "t": 10, "b": 8},
        "annotations": [
            {"xref": "paper", "x": 0, "xanchor": "left", "y": str(place), "yshift": 20, "showarrow": False,
             "text": escaped(bar.said), "font": {"size": 11.5}, "of": Of(bar.label).to_builtins()}
            for place, bar in enumerate(bars)
        ],
        "barmode": "stack",
    }  # fmt: skip
    return [*traces, about(marks, points=[of for _, _, of in ticks])], layout


def _pieces(name: str, fill: Fill, bars: Sequence[Bar], unit: str) -> dict[str, Any]:
    bars_with_it = [(str(place), bar) for place, bar in enumerate(bars) if name in bar.pieces]
    colour, pattern = fill
    trace = {
        "type": "bar", "orientation": "h", "name": escaped(name), "y": [y for y, _ in bars_with_it],
        "x": [round(bar.pieces[name], 4) for _, bar in bars_with_it], "width": 0.34,
        "marker": {"color": colour, "line": {"color": "--card", "width": 1},
                   "pattern": {"shape": pattern, "fillmode": "overlay", "size": 8,
                               "fgcolor": INKS.get(colour, "--card"), "solidity": 0.25}},
        "hovertemplate": f"%{{fullData.name}}: %{{x:.2f}} {unit}<extra></extra>",
    }  # fmt: skip
    return about(trace, points=[Of(bar.label) for _, bar in bars_with_it])
