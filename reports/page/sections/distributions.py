"""Distributions: the share of requests (of gaps) at or below each value, a chart per latency and load."""

from collections.abc import Sequence

import numpy as np

from harness.contracts import Objective
from reports.data.cells import Group
from reports.data.run import Run
from reports.measures.metrics import LATENCIES, counted, metric_of
from reports.measures.over_starts import withheld
from reports.measures.written import number, several
from reports.page.drawing import kinds
from reports.page.drawing.charts import Chart
from reports.page.drawing.kinds import Limit
from reports.page.drawing.steps import Steps, steps_of
from reports.page.looks import looks
from reports.page.markup import Of, Row
from reports.verdicts.load_cases import LoadCase
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


def steps_each(run: Run, points: Sequence[LoadCase], split: Sequence[LoadCase]) -> int:
    """Return how many steps a line of the page has at most. At the loads in `split` each start has a line of
    its own."""
    starts = max((cell.planned.repeat + 1 for cell in run.planned_cells), default=0)
    groups, with_starts = (sum(len(point.groups) for point in each) for each in (points, split))
    values = len(LATENCIES) * (2 * groups + starts * with_starts)
    return max(_STEPS_AT_LEAST, min(STEPS_AT_MOST, _VALUES_OF_A_PAGE // max(values, 1)))


def distributions(run: Run, point: LoadCase, index: int, steps: int, *, is_split: bool) -> list[Chart]:
    """Return a chart for each latency of which a deployment has a median. `is_split`: with each start's
    curve for the page's filters."""
    charts = []
    for name in LATENCIES:
        groups = [group for group in point.groups if not withheld(run, group.key, name)]
        found = {group.deployment: (group, steps_of(run, group.counted, name)) for group in groups}
        if any(each.supports(50) for _, each in found.values()):
            most = steps if is_split else -steps
            charts.append(_chart(run, point, name, found, f"ecdf-{name}-{index}", most))
    return charts


def _chart(
    run: Run, point: LoadCase, name: str, found: dict[str, tuple[Group, Steps]], chart_id: str, steps: int
) -> Chart:
    metric = metric_of(name)
    drawn = {label: each for label, each in found.items() if each[1].supports(50)}
    curves = [_curve(run, group, name, whole, steps) for group, whole in drawn.values()]
    limits = [_limit(each) for each in run.record.slo if each.metric == name and each.limit_s]
    low, high = min(curve.x[0] for curve in curves), max(curve.x[-1] for curve in curves)
    near = [each for each in limits if low / _REACH <= each[1].at <= high * _REACH]
    far = [f"{each[1].words} is beyond the frame." for each in limits if each not in near]
    absent = [label for label in found if label not in drawn]
    finding, quantity = _finding(run, point, name), f"{title_of(name)} at {point.load}"
    rows = []
    for label, (group, whole) in found.items():
        levels = [whole.percentile(level) for level in _LEVELS]
        shown = [number(None if value is None else value * metric.shown_scale) for value in levels]
        rows.append(Row([label, counted(whole.n, whole.requests), *shown], Of(label, group.load)))
    together = ", starts together" if any(len(group.counted_by_start) > 1 for group in point.groups) else ""
    return Chart(
        chart_id,
        quantity,
        *kinds.distribution(curves, metric.shown_unit, near, Of(load=point.load)),
        ["deployment", "n", *(f"p{level} {metric.shown_unit}{together}" for level in _LEVELS)],
        rows,
        " ".join([*far, *([f"Too few requests: {several(absent)}."] if absent else [])]),
        finding=finding,
        of=Of(load=point.load),
    )


def _limit(asked: Objective) -> tuple[float, Limit]:
    ms = 1e3 * (asked.limit_s or 0.0)
    return asked.share, Limit(ms, f"SLO: {100 * asked.share:g} % within {ms:,.6g} ms")


def _finding(run: Run, point: LoadCase, name: str) -> str | None:
    """Return who keeps an objective on it at this load, else what verdicts say of its median."""
    asked = [o.name for o in run.record.slo if o.metric == name]
    told = (title_by_load(run, each, point.groups) for each in asked)
    return next((each for each in told if each), None) or title_at(run, f"{name}.p50", point.groups)


def _curve(run: Run, group: Group, name: str, whole: Steps, steps: int) -> kinds.Curve:
    """Return what is drawn of a group; with each start's curve if `steps` is above 0."""
    at_s = whole.drawn(abs(steps))
    starts = group.counted_by_start if steps > 0 and len(group.counted_by_start) > 1 else []
    by_start = {cells[0].planned.repeat + 1: steps_of(run, cells, name) for cells in starts}
    return kinds.Curve(
        looks(run)[group.deployment],
        [float(value) for value in np.maximum(at_s, _LEAST_S) * metric_of(name).shown_scale],
        _shares(whole, at_s),
        counted(whole.n, whole.requests),
        {start: (_shares(each, at_s), counted(each.n, each.requests)) for start, each in by_start.items()},
    )


def _shares(found: Steps, at_s: np.ndarray) -> list[float | None]:
    """Return the share at or below each value; nothing where there are too few observations."""
    if not found.supports(50):
        return [None] * len(at_s)
    return [round(float(share), 4) for share in found.share_at(at_s)]
