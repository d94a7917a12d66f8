"""Distributions: the share of requests (of gaps) at or below each value, a chart per latency and load."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from reports.data.cells import Group
from reports.data.run import Run
from reports.measures.metrics import LATENCIES, counted, metric_of
from reports.measures.over_starts import withheld
from reports.measures.turns import turn_values_of
from reports.measures.written import number, several
from reports.page.charts import Alone, Chart, about, axis, label, line
from reports.page.drawn.steps import Steps, steps_by_turn, steps_of
from reports.page.drawn.thinned import significant
from reports.page.log_axis import log_axis, log_frame
from reports.page.looks import Look, looks
from reports.page.markup import Of, Row
from reports.page.sections.points import marked_points
from reports.verdicts.load_cases import LoadPoint
from reports.words.titles import title_at, title_by_load
from reports.words.verdict_words import title_of

STEPS_AT_MOST = 500
_STEPS_AT_LEAST = 60
# Numbers of all lines of a page together: where there are many, each has fewer steps.
_VALUES_OF_A_PAGE = 90_000
_LEVELS = (50, 90, 95, 99)
# A limit further from the values than this factor would press their curves together.
_REACH = 4.0
# A log axis has no zero.
_LEAST_S = 1e-6
# Where the words of an objective stand, above the lines.
_ABOVE = 1.08


@dataclass(frozen=True)
class Curve:
    """A deployment's distribution at a load, and that of each start and of each turn alone (from 1), where
    the reader may ask for it."""

    group: Group
    all: Steps
    by_start: Mapping[int, Steps]
    by_turn: Mapping[int, Steps]


def steps_each(run: Run, points: Sequence[LoadPoint], split: Sequence[LoadPoint]) -> int:
    """How many steps a line of the page has at most. `split`: those of the points of which each start and
    each turn has a curve of its own."""
    starts = max((cell.planned.repeat + 1 for cell in run.planned_cells), default=0)
    turns = max((len(found) for found in turn_values_of(run).values()), default=0)
    values = 2 * _lines(points) + (starts + turns) * _lines(split)
    return max(_STEPS_AT_LEAST, min(STEPS_AT_MOST, _VALUES_OF_A_PAGE // max(values, 1)))


def _lines(points: Sequence[LoadPoint]) -> int:
    return len(LATENCIES) * sum(len(point.groups) for point in points)


def distributions(run: Run, point: LoadPoint, index: int, steps: int, *, is_split: bool) -> list[Chart]:
    """A chart for each latency of which a deployment has a median. `is_split`: with each start's and each
    turn's curve for the page's filters."""
    charts = []
    for name in LATENCIES:
        groups = [group for group in point.groups if not withheld(run, group.key, name)]
        curves = [_curve(run, group, name, is_split=is_split) for group in groups]
        if any(curve.all.supports(50) for curve in curves):
            charts.append(_chart(run, point, name, curves, f"ecdf-{name}-{index}", steps))
    return charts


def _curve(run: Run, group: Group, name: str, *, is_split: bool) -> Curve:
    whole, starts = steps_of(run, group.counted, name), group.counted_by_start
    if not is_split or not whole.supports(50):
        return Curve(group, whole, {}, {})
    by_start = {cells[0].planned.repeat + 1: steps_of(run, cells, name) for cells in starts}
    by_turn = {turn + 1: found for turn, found in steps_by_turn(run, group.counted, name).items()}
    return Curve(group, whole, by_start if len(by_start) > 1 else {}, by_turn if len(by_turn) > 1 else {})


def _chart(
    run: Run, point: LoadPoint, name: str, curves: Sequence[Curve], chart_id: str, steps: int
) -> Chart:
    metric, found = metric_of(name), looks(run)
    drawn = [curve for curve in curves if curve.all.supports(50)]
    low = max(min(curve.all.at_s[0] for curve in drawn), _LEAST_S) * metric.shown_scale
    high = max(max(curve.all.at_s[-1] for curve in drawn), _LEAST_S) * metric.shown_scale
    limits = [_Limit(o.share, o.limit_s * 1e3) for o in run.record.slo if o.metric == name and o.limit_s]
    near = [limit for limit in limits if low / _REACH <= limit.ms <= high * _REACH]
    low, high = min([low, *(limit.ms for limit in near)]), max([high, *(limit.ms for limit in near)])
    left, right = log_frame(low, high)
    traces = [_trace(found[curve.group.deployment], curve, name, left, steps) for curve in drawn]
    layout = {
        "xaxis": log_axis(metric.shown_unit, low, high),
        "yaxis": axis("share at or below", range=[-0.02, 1.14 if near else 1.04], tickformat=".0%"),
    }
    together = ", starts together" if any(len(g.counted_by_start) > 1 for g in point.groups) else ""
    finding, quantity = _finding(run, point, name), f"{title_of(name)} at {point.load}"
    return Chart(
        chart_id,
        finding or quantity,
        [*traces, *(_limit_trace(limit, left, right) for limit in near)],
        layout,
        ["deployment", "n", *(f"p{level} {metric.shown_unit}{together}" for level in _LEVELS)],
        [_row(curve, metric.shown_scale) for curve in curves],
        _note(run, name, [limit for limit in limits if limit not in near], curves),
        quantity=quantity if finding else "",
        of=Of(load=point.load),
    )


def _finding(run: Run, point: LoadPoint, name: str) -> str | None:
    """Who keeps an objective on it at this load, else what verdicts say of its median."""
    asked = [o.name for o in run.record.slo if o.metric == name]
    told = (title_by_load(run, each, point.groups) for each in asked)
    return next((each for each in told if each), None) or title_at(run, f"{name}.p50", point.groups)


def _trace(look: Look, curve: Curve, name: str, left: float, steps: int) -> dict[str, Any]:
    """From the left end of the axis on, so that each line begins at 0."""
    at_s = curve.all.drawn(steps)
    scale = metric_of(name).shown_scale
    n = counted(curve.all.n, curve.all.requests)
    trace = line(
        look,
        [left, *(significant(float(max(value, _LEAST_S) * scale), 4) for value in at_s)],
        _shares(curve.all, at_s),
        mode="lines",
        line={"color": look.colour, "dash": look.dash, "width": 2, "shape": "hv"},
        # The page puts the start or turn in its place, with its own n.
        text=f"n = {n}",
        hovertemplate="%{fullData.name}<br>%{y:.1%} at or below %{x:.4~g} ms<br>%{text}<extra></extra>",
    )
    return about(
        trace,
        Of(curve.group.deployment, curve.group.load),
        by_start={start: _alone(found, at_s) for start, found in curve.by_start.items()},
        by_turn={turn: _alone(found, at_s) for turn, found in curve.by_turn.items()},
    )


def _alone(found: Steps, at_s: np.ndarray) -> Alone:
    return Alone(_shares(found, at_s), [counted(found.n, found.requests)])


def _shares(found: Steps, at_s: np.ndarray) -> list[float | None]:
    """Beginning with 0; nothing to draw where there are too few observations."""
    if not found.supports(50):
        return [None] * (len(at_s) + 1)
    return [0.0, *(round(float(share), 4) for share in found.share_at(at_s))]


def _row(curve: Curve, scale: float) -> Row:
    levels = [curve.all.percentile(level) for level in _LEVELS]
    shown = [number(None if value is None else value * scale) for value in levels]
    n = counted(curve.all.n, curve.all.requests)
    return Row([curve.group.deployment, n, *shown], Of(curve.group.deployment, curve.group.load))


# --- objectives ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Limit:
    """An objective: a share of requests within so many ms."""

    share: float
    ms: float

    @property
    def words(self) -> str:
        return f"SLO: {100 * self.share:g} % within {self.ms:,.6g} ms"


def _limit_trace(limit: _Limit, left: float, right: float) -> dict[str, Any]:
    """A corner: a line that passes above it keeps the objective. Its words stand above all lines, on the side
    where there is room."""
    is_left = limit.ms**2 < left * right
    return {
        "type": "scatter",
        "mode": "lines+text",
        "x": [left, limit.ms, limit.ms, limit.ms],
        "y": [limit.share, limit.share, 0.0, _ABOVE],
        "line": {"color": "--mut", "dash": "dot", "width": 1},
        "text": ["", "", "", label(f" {limit.words} ")],
        "textposition": "middle right" if is_left else "middle left",
        "textfont": {"color": "--mut", "size": 11},
        "hovertemplate": f"{label(limit.words)}<extra></extra>",
    }


def _note(run: Run, name: str, far: Sequence[_Limit], curves: Sequence[Curve]) -> str:
    said = [f"{limit.words} is beyond the frame." for limit in far]
    absent = [curve.group.deployment for curve in curves if not curve.all.supports(50)]
    said += [f"Too few requests: {several(absent)}."] if absent else []
    drawn = [curve.group for curve in curves if curve.all.supports(50)]
    return " ".join(each for each in (*said, marked_points(run, drawn, [name], "line")) if each)
