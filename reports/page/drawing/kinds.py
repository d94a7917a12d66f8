"""The kinds of chart: each function returns traces and layout for plotly from plain data.

Lines over loads or turns, a frontier, distributions and a scatter of pairs are here; bars.py, forest.py and
over_time.py have the others. Knows no run.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from reports.page.drawing.axes import log_axis, log_ticks, significant
from reports.page.drawing.charts import about, axis, label, line
from reports.page.looks import Look
from reports.page.markup import Of

# What `Chart` takes: traces and layout.
Drawn = tuple[list[dict[str, Any]], dict[str, Any]]
Span = tuple[float, float]
# From which factor between two deployments at one place on, values stand on a log scale.
_LOG_FROM = 5.0
# Plotly takes null for 0 and draws its ends, as if the value were certain; what is no number it leaves out.
_NO_BAR = "none"


@dataclass(frozen=True)
class Point:
    """A mean over starts, in the shown unit, with the ends of its interval; None for fewer than two starts.

    `x` is where it stands, `at` says so (`4 users`, `turn 3`), `said` is the rest of its hover. `by_start`
    has the value of each start (from 1) and its n in words.
    """

    of: Of
    at: str
    x: float
    y: float
    ends: Span | None
    said: str
    by_start: Mapping[int, tuple[float | None, str]] = field(default_factory=dict)
    x_ends: Span | None = None


# A deployment's look and its points, from left to right.
Series = tuple[Look, Sequence[Point]]


@dataclass(frozen=True)
class Limit:
    """A limit of the SLO in the shown unit, with its words."""

    at: float
    words: str


# --- lines -----------------------------------------------------------------------------------------


def lines(
    series: Sequence[Series],
    x_axis: Mapping[str, Any],
    unit: str,
    *,
    may_be_log: bool = False,
    limit: Limit | None = None,
) -> Drawn:
    """Draw a line per deployment over loads or turns, with its intervals. Lines stand side by side at each
    x, so that intervals do not cover each other. Latencies far apart stand on a log scale."""
    levels = sorted({point.x for _, points in series for point in points})
    is_log_x = x_axis.get("type") == "log"
    traces = []
    for number, (look, points) in enumerate(series):
        places = aside(levels, len(series), number - (len(series) - 1) / 2, is_log_x)
        traces.append(_line(look, points, [places[point.x] for point in points], f" {label(unit)}"))
    every = [point for _, points in series for point in points]
    if may_be_log and _are_far_apart(every):
        ends = [end for point in every for end in (point.y / 2, 2 * point.y)]
        y = axis(f"{label(unit)} (log scale)", type="log", **log_ticks(min(ends), max(ends)))
        y |= {"range": [math.log10(min(ends)), math.log10(max(ends))]} if _cut(every) else {}
    else:
        room = _cut(every)
        y = axis(label(unit), rangemode="tozero", **({"range": room} if room else {}))
    layout: dict[str, Any] = {"xaxis": dict(x_axis), "yaxis": y}
    if limit and every and limit.at <= 1.5 * max(point.y for point in every):
        layout |= across([limit], is_log=y.get("type") == "log")
    return traces, layout


def _line(look: Look, points: Sequence[Point], x: Sequence[float], unit: str) -> dict[str, Any]:
    starts = sorted({start for point in points for start in point.by_start})
    nothing = (None, "0")
    by_start = {
        start: (
            [significant(point.by_start.get(start, nothing)[0]) for point in points],
            [point.by_start.get(start, nothing)[1] for point in points],
        )
        for start in starts
    }
    made = line(
        look,
        x,
        [significant(point.y, 6) for point in points],
        error_y=_bars([point.y for point in points], [point.ends for point in points]),
        customdata=[label(point.at) for point in points],
        text=[label(point.said) for point in points],
        hovertemplate=f"%{{fullData.name}}<br>%{{customdata}}: %{{y:,.4~g}}{unit}"
        "<br>%{text}<extra></extra>",
    )
    own = [Of(load=point.of.load, start=point.of.start) for point in points]
    return about(made, Of(look.label), points=own, by_start=by_start if len(starts) > 1 else None)


def _bars(means: Sequence[float], ends: Sequence[Span | None]) -> dict[str, Any]:
    """Return error bars from each low to each high end; none where there are none."""
    pairs = list(zip(means, ends, strict=True))
    return {
        "type": "data",
        "symmetric": False,
        "array": [abs(each[1] - mean) if each else _NO_BAR for mean, each in pairs],
        "arrayminus": [abs(mean - each[0]) if each else _NO_BAR for mean, each in pairs],
        "thickness": 1,
        "width": 4,
    }


def _are_far_apart(points: Sequence[Point]) -> bool:
    by_x: dict[float, list[float]] = {}
    for point in points:
        by_x.setdefault(point.x, []).append(point.y)
    if any(y <= 0 for values in by_x.values() for y in values):
        return False
    widest = max((max(values) / min(values) for values in by_x.values()), default=1.0)
    every = [y for values in by_x.values() for y in values]
    return widest > _LOG_FROM or max(every, default=1.0) > 4 * _LOG_FROM * min(every, default=1.0)


def _cut(points: Sequence[Point]) -> list[float] | None:
    """Return the frame from 0 to twice the greatest mean if an interval reaches beyond, so that points stay
    apart. What can be negative is never cut."""
    ends = [end for point in points for end in point.ends or ()]
    top = 2 * max((point.y for point in points), default=0.0)
    if not ends or not top or min(point.y for point in points) < 0:
        return None
    return [0.0, min(1.05 * max(ends), top)] if max(ends) > top or min(ends) < 0 else None


def across(limits: Sequence[Limit], *, is_log: bool = False) -> dict[str, Any]:
    """Return the part of a layout that draws limits of the y axis as dashed lines with their words."""
    line_of = {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "layer": "below"}
    line_of |= {"line": {"color": "--mut", "width": 1, "dash": "dash"}}
    words_of = {"xref": "paper", "x": 0, "xanchor": "left", "yanchor": "bottom", "showarrow": False}
    words_of |= {"font": {"color": "--mut", "size": 11}}
    return {
        "shapes": [{**line_of, "y0": limit.at, "y1": limit.at} for limit in limits],
        "annotations": [
            {**words_of, "y": math.log10(limit.at) if is_log else limit.at, "text": limit.words}
            for limit in limits
        ],
    }


def place_axis(title: str, levels: Sequence[float], ticks: Sequence[str]) -> dict[str, Any]:
    """Return the axis of loads or turns: these levels and no others, on a log scale where they span much."""
    if max(levels) > 8 * min(levels) > 0:
        return axis(f"{title} (log scale)", type="log", tickvals=levels, ticktext=ticks)
    margin = 0.09 * (levels[-1] - levels[0]) or 0.4 * min(1.0, levels[0])
    return axis(title, tickvals=levels, ticktext=ticks, range=[levels[0] - margin, levels[-1] + margin])


def aside(levels: Sequence[float], count: int, shift: float, is_log: bool) -> dict[float, float]:
    """Return where each level is drawn for the one of `count` lines that stands `shift` steps beside the
    middle one."""
    places = [math.log10(level) if is_log else level for level in levels]
    if len(places) > 1:
        nearest = min(b - a for a, b in itertools.pairwise(places))
        whole = places[-1] - places[0]
        step = min(0.018 * whole, 0.14 * whole / count, 0.4 * nearest / count)
    else:
        step = min(1.0, levels[0]) * min(0.06, 0.6 / count)
    moved = [place + shift * step for place in places]
    return {
        level: significant(10**place if is_log else place, 6)
        for level, place in zip(levels, moved, strict=True)
    }


# --- frontier --------------------------------------------------------------------------------------


def frontier(series: Sequence[Series], x_title: str, y_title: str, limit: Limit | None) -> Drawn:
    """Draw a line per deployment through its loads in the plane of latency (x, ms) and speed (y), with both
    intervals, the front that no point beats in both, and the region beyond the SLO."""
    every = [point for _, points in series for point in points]
    ends = [end for point in every for end in (point.x, *(point.x_ends or ()))]
    low, high = min(ends), max(ends)
    if limit and high < limit.at < 1.5 * high:
        high = 1.05 * limit.at
    is_log = high > 20 * low > 0
    if is_log:
        x = log_axis(x_title, low, high)
    else:
        # Equal values may differ by their last bit.
        margin = 0.04 * (high - low) if high - low > 1e-6 * high else 0.1 * high
        low, high = max(0.0, low - margin), high + margin
        x = axis(x_title, range=[low, high])
    frame = [10**end if is_log else end for end in x["range"]]
    traces = [_front(every)] if len(series) > 1 else []
    for look, points in series:
        made = _line(
            look, points, [significant(point.x, 6) for point in points], " tokens/s at %{x:,.4~g} ms"
        )
        made["error_x"] = _bars([point.x for point in points], [point.x_ends for point in points])
        traces.append(made)
    layout: dict[str, Any] = {"xaxis": x, "yaxis": axis(y_title, rangemode="tozero")}
    if limit and low < limit.at < high:
        layout |= _beyond(limit, frame[0], frame[1], is_log)
    return traces, layout


def on_front(points: Sequence[Point]) -> list[Point]:
    """Return the points that no other beats in both x (less is better) and y (more is better), by x."""
    kept: list[Point] = []
    for point in sorted(points, key=lambda point: (point.x, -point.y)):
        if not kept or point.y > kept[-1].y:
            kept.append(point)
    return kept


def _front(points: Sequence[Point]) -> dict[str, Any]:
    kept = on_front(points)
    return {
        "type": "scatter", "mode": "lines", "name": "", "hoverinfo": "skip",
        "x": [significant(point.x, 6) for point in kept], "y": [significant(point.y, 6) for point in kept],
        "line": {"color": "--mut", "width": 9, "shape": "hv"}, "opacity": 0.2,
    }  # fmt: skip


def _beyond(limit: Limit, low: float, high: float, is_log: bool) -> dict[str, Any]:
    region = {
        "type": "rect", "x0": limit.at, "x1": high, "yref": "paper", "y0": 0, "y1": 1,
        "fillcolor": "--shade", "line": {"width": 0}, "layer": "below",
    }  # fmt: skip
    first, at, last = (math.log10(end) if is_log else end for end in (low, limit.at, high))
    # The words take two thirds of a narrow chart.
    is_early = at < first + 0.33 * (last - first)
    said = {
        "x": at if is_early else last, "yref": "paper", "y": 1, "showarrow": False, "yanchor": "bottom",
        "xanchor": "left" if is_early else "right", "font": {"color": "--mut", "size": 11.5},
        "text": f"beyond the {limit.words}",
    }  # fmt: skip
    return {"shapes": [region], "annotations": [said], "margin": {"l": 8, "r": 12, "t": 22, "b": 8}}


# --- distributions ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Curve:
    """A deployment's distribution: the shares of observations at or below each x, the last of them 1, with n
    in words. `by_start` has each start's (from 1)."""

    look: Look
    x: Sequence[float]
    shares: Sequence[float | None]
    n: str
    by_start: Mapping[int, tuple[Sequence[float | None], str]]


def distribution(curves: Sequence[Curve], unit: str, limits: Sequence[tuple[float, Limit]], of: Of) -> Drawn:
    """Draw a rising line per deployment on a log axis. `limits`: a share of requests and its limit; a line
    that passes above the corner keeps the objective."""
    ends = [x for curve in curves for x in (curve.x[0], curve.x[-1])] + [limit.at for _, limit in limits]
    x_axis = log_axis(unit, min(ends), max(ends))
    left, right = (10**end for end in x_axis["range"])
    traces = []
    for curve in curves:
        made = line(
            curve.look,
            # From the left end of the axis on, so that each line begins at 0.
            [significant(left), *(significant(x, 4) for x in curve.x)],
            [0.0, *curve.shares],
            mode="lines",
            line={"color": curve.look.colour, "dash": curve.look.dash, "width": 2, "shape": "hv"},
            text=f"n = {curve.n}",
            hovertemplate="%{fullData.name}<br>%{y:.1%} at or below %{x:.4~g} ms<br>%{text}<extra></extra>",
        )
        starts = {start: ([0.0, *shares], [n]) for start, (shares, n) in curve.by_start.items()}
        traces.append(about(made, Of(curve.look.label, of.load), by_start=starts))
    traces += [_corner(share, limit, left, right) for share, limit in limits]
    y_axis = axis("share at or below", range=[-0.02, 1.14 if limits else 1.04], tickformat=".0%")
    return traces, {"xaxis": x_axis, "yaxis": y_axis}


def _corner(share: float, limit: Limit, left: float, right: float) -> dict[str, Any]:
    """Return an objective's corner. Its words stand above all lines, on the side where there is room."""
    is_left = limit.at**2 < left * right
    return {
        "type": "scatter", "mode": "lines+text", "x": [left, limit.at, limit.at, limit.at],
        "y": [share, share, 0.0, 1.08], "line": {"color": "--mut", "dash": "dot", "width": 1},
        "text": ["", "", "", label(f" {limit.words} ")], "textfont": {"color": "--mut", "size": 11},
        "textposition": "middle right" if is_left else "middle left",
        "hovertemplate": f"{label(limit.words)}<extra></extra>",
    }  # fmt: skip


# --- pairs -----------------------------------------------------------------------------------------


def pairs(
    series: Sequence[tuple[Look, Sequence[float], Sequence[float]]], x_title: str, y_title: str
) -> Drawn:
    """Draw a dot per pair on two log axes; on the dotted line both took the same."""
    all_x = [value for _, x, _ in series for value in x]
    all_y = [value for _, _, y in series for value in y]
    x_axis, y_axis = log_axis(x_title, min(all_x), max(all_x)), log_axis(y_title, min(all_y), max(all_y))
    ends = [max(min(all_x), min(all_y)), min(max(all_x), max(all_y))]
    traces = []
    for look, x, y in series:
        marker = {"color": look.colour, "symbol": look.symbol, "size": 5, "opacity": 0.5}
        hover = "%{fullData.name}<br>%{y:.4~g} against %{x:.4~g} ms<extra></extra>"
        shown = ([significant(value, 4) for value in values] for values in (x, y))
        made = line(look, *shown, mode="markers", marker=marker, hovertemplate=hover)
        traces.append(about(made, Of(look.label)))
    same = {
        "type": "scatter", "mode": "lines", "x": ends, "y": ends,
        "line": {"color": "--mut", "width": 1, "dash": "dot"}, "hoverinfo": "skip",
    }  # fmt: skip
    return [*traces, *([same] if ends[0] < ends[1] else [])], {"xaxis": x_axis, "yaxis": y_axis}
