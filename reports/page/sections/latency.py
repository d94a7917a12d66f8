"""Latency: percentiles by load, then at each load distributions and turns, and the same requests in pairs."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from reports.data.cells import Cell, Group
from reports.data.run import Run
from reports.data.tables import EDGES_S, together
from reports.measures.equal_work import work_of
from reports.measures.metrics import LATENCIES, counted, is_supported, metric_of
from reports.measures.over_starts import BARS, pooled, withheld
from reports.measures.values import measured_of
from reports.measures.written import number, several
from reports.page.cells import value_cell
from reports.page.drawing import kinds
from reports.page.drawing.charts import Chart, Section, about, block
from reports.page.drawing.kinds import Limit
from reports.page.listed import Columns, filled
from reports.page.looks import looks
from reports.page.markup import Html, Of
from reports.page.sections.by_load import by_load_charts, of_group, turn_charts
from reports.verdicts.load_cases import LoadCase, baseline_of, load_cases_of, opened, title_of_case
from reports.words.titles import title_at
from reports.words.verdict_words import title_of

# What a reader of a stream waits for is shown.
_SHOWN = ("ttft_s.p50", "ttft_s.p95", "tpot_s.p50", "tpot_s.p95")
_FOLDED = ("itl_s.p50", "itl_s.p95", "e2e_s.p50", "e2e_s.p95", *(f"{name}.p99" for name in LATENCIES))
_BY_TURN = ("ttft_s.p50", "cached_share", "input_tokens", "tpot_s.p50")
# Of a line: a page of many loads stays small.
_STEPS_AT_MOST = 150
_LEVELS = (50, 90, 95, 99)
# A limit further from the values than this factor would press their curves together.
_REACH = 4.0
# A log axis has no zero.
_LEAST_S = 1e-6
# Dots of a deployment.
_DOTS_AT_MOST = 400


def section(run: Run) -> Section:
    """Return the section; at the load told first distributions and turns stand open."""
    points = load_cases_of(run)
    first = opened(run, points)
    parts = [
        *by_load_charts(run, *_SHOWN),
        *block("ITL, E2E and p99 by load", by_load_charts(run, *_FOLDED), is_folded=True),
    ]
    for index, point in enumerate(points):
        is_first = point in first
        drawn = (_distribution(run, point, index, name, is_split=is_first) for name in LATENCIES)
        charts = [*filter(None, drawn), *turn_charts(run, point, index, *_BY_TURN)]
        parts += block(title_of_case(run, point), charts, Of(load=point.load), is_folded=not is_first)
    parts += block("Prefix cache by load", by_load_charts(run, "cached_share"))
    parts += block("The same requests", pair_charts(run))
    return Section(
        "Latency",
        "Lower is better. ITL is the gap between chunks; how many tokens these have stands in Trust.",
        parts,
        f"Points are means over starts of each start's percentile. {BARS} A point is missing where a start "
        "had too few requests for that percentile. TTFT and E2E count from the moment a request was sent "
        "(users), or was due (rates and traces).",
    )


# --- distributions ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Steps:
    """Where a distribution rises (`at_s`, in seconds, ascending), and how many observations are at or below.
    `requests`: how many they come from, where one gives several (gaps, which come in bins)."""

    at_s: np.ndarray
    upto: np.ndarray
    requests: int | None = None

    @property
    def n(self) -> int:
        return int(self.upto[-1]) if len(self.upto) else 0

    @property
    def is_enough(self) -> bool:
        """Return whether there are enough observations for a median."""
        return is_supported(50, self.n, self.requests)

    def drawn(self, most: int) -> np.ndarray:
        """Return at most `most` of the places where it rises, evenly by rank, the first and the last kept."""
        ranks = np.linspace(1, self.n, min(self.n, most))
        return np.unique(self.at_s[np.searchsorted(self.upto, ranks.round())])

    def shares(self, at_s: np.ndarray) -> list[float | None]:
        """Return the share at or below each value; None where there are too few observations."""
        if not self.is_enough:
            return [None] * len(at_s)
        before = np.searchsorted(self.at_s, at_s, side="right")
        return (np.concatenate([[0], self.upto])[before] / self.n).round(4).tolist()  # type: ignore[no-any-return]


def _steps(run: Run, cells: Sequence[Cell], name: str) -> Steps:
    if name == "itl_s":
        found = together(measured_of(run)[cell.number].gaps for cell in cells)
        is_there = found.counts > 0
        # A bin's gaps are all at its upper edge.
        return Steps(EDGES_S[1:][is_there], np.cumsum(found.counts)[is_there], found.requests)
    values = np.concatenate([np.empty(0), *(run.observations(cell.number, name) for cell in cells)])
    return Steps(np.sort(values), np.arange(1, len(values) + 1))


def _distribution(run: Run, point: LoadCase, index: int, name: str, *, is_split: bool) -> Chart | None:
    """Return the chart of a latency of which a deployment has a median. `is_split`: with each start's curve
    for the page's filters."""
    metric, of = metric_of(name), Of(load=point.load)
    groups = [group for group in point.groups if not withheld(run, group.key, name)]
    found = [(group, _steps(run, group.counted, name)) for group in groups]
    counts = {group.deployment: counted(whole.n, whole.requests) for group, whole in found}
    curves = [_curve(run, group, name, whole, is_split=is_split) for group, whole in found if whole.is_enough]
    if not curves:
        return None
    slo = [each for each in run.record.slo if each.metric == name and each.limit_s]
    low, high = min(curve["x"][0] for curve in curves), max(curve["x"][-1] for curve in curves)
    limits = [
        (each.share, Limit(ms, f"SLO: {100 * each.share:g} % within {ms:,.6g} ms"))
        for each in slo
        if low / _REACH <= (ms := 1e3 * (each.limit_s or 0.0)) <= high * _REACH
    ]
    together_ = ", starts together" if any(len(group.counted_by_start) > 1 for group in groups) else ""
    columns: Columns[Group] = {
        "deployment": lambda group: group.deployment,
        "n": lambda group: counts[group.deployment],
        **{
            f"p{level} {metric.shown_unit}{together_}": partial(_pooled, run, f"{name}.p{level}")
            for level in _LEVELS
        },
    }
    absent = [group.deployment for group, whole in found if not whole.is_enough]
    return Chart(
        f"ecdf-{name}-{index}",
        f"{title_of(name)} at {point.load}",
        *kinds.distribution(curves, metric.shown_unit, limits),
        *filled(columns, groups, of_group),
        f"Too few requests: {several(absent)}." if absent else "",
        finding=title_at(run, f"{name}.p50", point.groups),
        of=of,
    )


def _curve(run: Run, group: Group, name: str, whole: Steps, *, is_split: bool) -> dict[str, Any]:
    at_s = whole.drawn(_STEPS_AT_MOST)
    starts = group.counted_by_start if is_split and len(group.counted_by_start) > 1 else []
    by_start = {cells[0].planned.repeat + 1: _steps(run, cells, name) for cells in starts}
    x = (np.maximum(at_s, _LEAST_S) * metric_of(name).shown_scale).tolist()
    # From where it rises first, so that each line begins at 0.
    made = kinds.step_line(
        looks(run)[group.deployment],
        [x[0], *x],
        [0.0, *whole.shares(at_s)],
        counted(whole.n, whole.requests),
    )
    shares = {
        start: ([0.0, *each.shares(at_s)], [counted(each.n, each.requests)])
        for start, each in by_start.items()
    }
    return about(made, of_group(group), by_start=shares)


def _pooled(run: Run, name: str, group: Group) -> Html:
    return value_cell(name, pooled(run, group, name))


# --- the same requests -----------------------------------------------------------------------------


def pair_charts(run: Run) -> list[Chart]:
    """Return a scatter of TTFT, each deployment against the baseline, at the load that is told first. It
    describes and decides nothing."""
    cases = opened(run, [c for c in load_cases_of(run) if len(c.groups) > 1 and baseline_of(run, c)])
    made = (_pairs(run, case, f"pairs-{at}") for at, case in enumerate(cases))
    return [chart for chart in made if chart]


def _pairs(run: Run, case: LoadCase, chart_id: str) -> Chart | None:
    baseline, differences = baseline_of(run, case), work_of(run).differences
    alike = [
        group
        for group in case.groups
        if baseline and frozenset((group.deployment, baseline.deployment)) not in differences
    ]
    ttft_ms = _same_requests(run, alike)
    if baseline is None or baseline.deployment not in ttft_ms:
        return None
    of_baseline = ttft_ms.pop(baseline.deployment)
    pairs = {name: pd.DataFrame({"x": of_baseline, "y": own}).dropna() for name, own in ttft_ms.items()}
    found = {str(name): both for name, both in pairs.items() if len(both)}
    if not found:
        return None
    gaps = {name: both["y"] - both["x"] for name, both in found.items()}
    columns: Columns[str] = {
        "deployment": lambda name: name,
        "pairs": lambda name: f"{len(gaps[name]):,}",
        "faster in": lambda name: f"{100 * float((gaps[name] < 0).mean()):.0f} %",
        "difference p25 ms": lambda name: number(float(gaps[name].quantile(0.25))),
        "p50 ms": lambda name: number(float(gaps[name].quantile(0.5))),
        "p75 ms": lambda name: number(float(gaps[name].quantile(0.75))),
    }
    dots = {name: both.iloc[:: -(-len(both) // _DOTS_AT_MOST)] for name, both in found.items()}
    series = [(looks(run)[name], each["x"].tolist(), each["y"].tolist()) for name, each in dots.items()]
    return Chart(
        chart_id,
        f"TTFT of the same requests, {title_of_case(run, case).lower()}",
        *kinds.pairs(series, f"TTFT on {baseline.deployment}, ms", "TTFT, ms"),
        *filled(columns, list(gaps), lambda name: Of(name, case.load)),
        "Below the dotted line the deployment answered that request sooner. Requests of one start are not "
        "independent: no verdict comes from it.",
        height_px=380,
        of=Of(load=case.load),
    )


def _same_requests(run: Run, groups: Sequence[Group]) -> pd.DataFrame:
    """Return the TTFT of ok requests in ms: a row per request, a column per deployment."""
    frames = [
        run.ok_requests(cell.number, "conversation", "turn", "ttft_s").assign(
            repeat=cell.planned.repeat, deployment=group.deployment
        )
        for group in groups
        for cell in group.counted
    ]
    if not frames:
        return pd.DataFrame()
    # What makes requests the same: a cell's seed is the same for every deployment.
    key = ["repeat", "conversation", "turn"]
    wide = pd.concat(frames).pivot_table(index=key, columns="deployment", values="ttft_s", sort=False)
    return 1e3 * wide.clip(lower=_LEAST_S)
