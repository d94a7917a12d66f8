"""Latency: percentiles by load, then at each load distributions and turns, and the same requests in pairs."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd

from reports.data.cells import Cell, Group
from reports.data.run import Run
from reports.data.tables import EDGES_S, together
from reports.measures.equal_work import work_of
from reports.measures.metrics import LATENCIES, SEVERAL_TOKENS, counted, is_supported, metric_of
from reports.measures.over_starts import BARS, aggregate, pooled, withheld
from reports.measures.values import measured_of
from reports.measures.written import number, several, shown
from reports.page.cells import value_cell
from reports.page.drawing import kinds
from reports.page.drawing.charts import Chart, Section, block
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
# Of a line where each start has one of its own, and elsewhere: a page of many loads stays small.
STEPS_AT_MOST, _STEPS_FOLDED = 300, 80
_LEVELS = (50, 90, 95, 99)
# A limit further from the values than this factor would press their curves together.
_REACH = 4.0
# A log axis has no zero.
_LEAST_S = 1e-6
# Dots of a deployment.
_DOTS_AT_MOST = 400
# What makes two requests the same: a cell's seed is the same for every deployment.
_SAME = ["repeat", "conversation", "turn"]


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
        charts = [
            *distributions(run, point, index, is_split=is_first),
            *turn_charts(run, point, index, *_BY_TURN),
        ]
        parts += block(title_of_case(run, point), charts, Of(load=point.load), is_folded=not is_first)
    parts += block("Prefix cache by load", by_load_charts(run, "cached_share"))
    parts += block("The same requests", pair_charts(run))
    return Section(
        "Latency",
        f"Lower is better. {_several_tokens(run)}".rstrip(),
        parts,
        f"Points are means over starts of each start's percentile. {BARS} A point is missing where a start "
        f"had too few requests for that percentile. {_origins(run)}",
    )


def _several_tokens(run: Run) -> str:
    """Say whose chunks have clearly more than one token, so that its gaps are not between tokens."""
    most: dict[str, float] = {}
    for group in run.groups:
        tokens = aggregate(run, group, "tokens_per_chunk").mean or 0.0
        if tokens > SEVERAL_TOKENS:
            most[group.deployment] = max(tokens, most.get(group.deployment, 0.0))
    said = [f"{deployment}: {shown('tokens_per_chunk', tokens)}" for deployment, tokens in most.items()]
    return f"ITL is the gap between chunks of several tokens ({several(said)})." if said else ""


def _origins(run: Run) -> str:
    """Say where TTFT and E2E count from, for the loads that this run has."""
    kinds = {cell.load.kind for cell in run.planned_cells}
    said = "TTFT and E2E count from the moment a request was {}."
    if "closed" not in kinds:
        return said.format("due: a late sending is part of them (see Method)")
    return said.format("sent" if kinds == {"closed"} else "sent (users), or was due (rates and traces)")


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


def steps_of(run: Run, cells: Sequence[Cell], name: str) -> Steps:
    """Return those of a latency (`ttft_s`, `itl_s` ...) of the cells' ok requests in their windows."""
    if name == "itl_s":
        found = together(measured_of(run)[cell.number].gaps for cell in cells)
        is_there = found.counts > 0
        # A bin's gaps are all at its upper edge.
        return Steps(EDGES_S[1:][is_there], np.cumsum(found.counts)[is_there], found.requests)
    values = np.concatenate([np.empty(0), *(run.observations(cell.number, name) for cell in cells)])
    return Steps(np.sort(values), np.arange(1, len(values) + 1))


def distributions(run: Run, point: LoadCase, index: int, *, is_split: bool) -> list[Chart]:
    """Return a chart for each latency of which a deployment has a median. `is_split`: with each start's
    curve for the page's filters."""
    made = (_distribution(run, point, name, f"ecdf-{name}-{index}", is_split=is_split) for name in LATENCIES)
    return [chart for chart in made if chart]


def _distribution(run: Run, point: LoadCase, name: str, chart_id: str, *, is_split: bool) -> Chart | None:
    metric, of = metric_of(name), Of(load=point.load)
    groups = [group for group in point.groups if not withheld(run, group.key, name)]
    found = [(group, steps_of(run, group.counted, name)) for group in groups]
    curves = [_curve(run, group, name, whole, is_split=is_split) for group, whole in found if whole.is_enough]
    if not curves:
        return None
    slo = [each for each in run.record.slo if each.metric == name and each.limit_s]
    low, high = min(curve.x[0] for curve in curves), max(curve.x[-1] for curve in curves)
    limits = [
        (each.share, Limit(ms, f"SLO: {100 * each.share:g} % within {ms:,.6g} ms"))
        for each in slo
        if low / _REACH <= (ms := 1e3 * (each.limit_s or 0.0)) <= high * _REACH
    ]
    together_ = ", starts together" if any(len(group.counted_by_start) > 1 for group in groups) else ""
    unit = f"{metric.shown_unit}{together_}"
    columns: Columns[Group] = {
        "deployment": lambda group: group.deployment,
        "n": partial(_n, run, f"{name}.p50"),
        **{f"p{level} {unit}": partial(_pooled, run, f"{name}.p{level}") for level in _LEVELS},
    }
    absent = [group.deployment for group, whole in found if not whole.is_enough]
    return Chart(
        chart_id,
        f"{title_of(name)} at {point.load}",
        *kinds.distribution(curves, metric.shown_unit, limits, of),
        *filled(columns, groups, of_group),
        f"Too few requests: {several(absent)}." if absent else "",
        finding=title_at(run, f"{name}.p50", point.groups),
        of=of,
    )


def _curve(run: Run, group: Group, name: str, whole: Steps, *, is_split: bool) -> kinds.Curve:
    at_s = whole.drawn(STEPS_AT_MOST if is_split else _STEPS_FOLDED)
    starts = group.counted_by_start if is_split and len(group.counted_by_start) > 1 else []
    by_start = {cells[0].planned.repeat + 1: steps_of(run, cells, name) for cells in starts}
    return kinds.Curve(
        looks(run)[group.deployment],
        (np.maximum(at_s, _LEAST_S) * metric_of(name).shown_scale).tolist(),
        whole.shares(at_s),
        counted(whole.n, whole.requests),
        {start: (each.shares(at_s), counted(each.n, each.requests)) for start, each in by_start.items()},
    )


def _n(run: Run, name: str, group: Group) -> str:
    whole = pooled(run, group, name)
    return counted(whole.n, whole.requests)


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
    baseline = baseline_of(run, case)
    assert baseline is not None
    own = _requests(run, baseline)
    pairs = {
        group.deployment: _requests(run, group).merge(own, on=_SAME, suffixes=("", "_of_baseline"))
        for group in case.groups
        if group is not baseline
        and frozenset((group.deployment, baseline.deployment)) not in work_of(run).differences
    }
    found = [(name, both) for name, both in pairs.items() if len(both)]
    if not found:
        return None
    dots = {name: both.iloc[:: -(-len(both) // _DOTS_AT_MOST)] for name, both in found}
    gaps = {name: both["ms"] - both["ms_of_baseline"] for name, both in found}
    columns: Columns[str] = {
        "deployment": lambda name: name,
        "pairs": lambda name: f"{len(gaps[name]):,}",
        "faster in": lambda name: f"{100 * float((gaps[name] < 0).mean()):.0f} %",
        "difference p25 ms": lambda name: number(float(gaps[name].quantile(0.25))),
        "p50 ms": lambda name: number(float(gaps[name].quantile(0.5))),
        "p75 ms": lambda name: number(float(gaps[name].quantile(0.75))),
    }
    series = [
        (looks(run)[name], each["ms_of_baseline"].tolist(), each["ms"].tolist())
        for name, each in dots.items()
    ]
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


def _requests(run: Run, group: Group) -> pd.DataFrame:
    """Return the TTFT of each ok request in ms (`ms`), with what makes it the same on another deployment."""
    frames = [
        run.ok_requests(cell.number, "conversation", "turn", "ttft_s").assign(repeat=cell.planned.repeat)
        for cell in group.counted
    ]
    found = pd.concat(frames).dropna() if frames else pd.DataFrame(columns=[*_SAME, "ttft_s"])
    # A log axis has no zero.
    return found.assign(ms=(1e3 * found["ttft_s"]).clip(lower=1e3 * _LEAST_S)).drop(columns="ttft_s")
