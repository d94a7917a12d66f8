"""Latency: percentiles by load, distributions, by turn, and the same requests in pairs."""

from collections.abc import Iterator, Sequence

from reports.data.run import Run
from reports.measures.metrics import LATENCIES
from reports.measures.over_starts import BARS, by_start
from reports.measures.written import several
from reports.page.drawing.charts import Block, Chart, Part, Section
from reports.page.markup import Of, paragraph
from reports.page.sections.by_load import by_load_charts, turn_chart
from reports.page.sections.distributions import distributions, steps_each
from reports.page.sections.pairs import pair_charts
from reports.verdicts.load_cases import LoadCase, load_points, opened

# What a reader of a stream waits for is shown.
_SHOWN = ("ttft_s.p50", "ttft_s.p95", "tpot_s.p50", "tpot_s.p95")
_FOLDED = ("itl_s.p50", "itl_s.p95", "e2e_s.p50", "e2e_s.p95", *(f"{name}.p99" for name in LATENCIES))
_BY_TURN = ("ttft_s.p50", "cached_share", "input_tokens", "tpot_s.p50")
_BY_TURN_FOLDED = ("itl_s.p50", "e2e_s.p50")


def section(run: Run) -> Section:
    """Return the section."""
    by_scenario = load_points(run)
    points = [point for each in by_scenario.values() for point in each]
    parts: list[Part] = [chart for name in _SHOWN for chart in by_load_charts(run, name)]
    if folded := [chart for name in _FOLDED for chart in by_load_charts(run, name)]:
        parts.append(Block("ITL, E2E and p99 by load", folded, is_folded=True))
    parts += _distributions(run, points)
    parts += _turns(run, points)
    if same := list(pair_charts(run)):
        parts.append(Block("The same requests", same))
    how = (
        f"Points are means over starts of each start's percentile. {BARS} A point is missing where a start "
        f"had too few requests for that percentile. {_origins(run)}"
    )
    return Section("Latency", "Lower is better.", parts, how)


def _origins(run: Run) -> str:
    """Say where TTFT and E2E count from, for the loads that this run has."""
    kinds = {cell.load.kind for cell in run.planned_cells}
    said = "TTFT and E2E count from the moment a request was {}."
    if "closed" not in kinds:
        return said.format("due: a late sending is part of them (see Method)")
    return said.format("sent" if kinds == {"closed"} else "sent (users), or was due (rates and traces)")


def _titled(run: Run, what: str, point: LoadCase) -> str:
    has_several = len({group.scenario for group in run.groups}) > 1
    return f"{what} at {point.load}{f', {point.scenario}' if has_several else ''}"


def _distributions(run: Run, points: Sequence[LoadCase]) -> Iterator[Part]:
    """Yield the distributions of each load; those of the load told first stand open."""
    first = opened(run, points)
    steps = steps_each(run, points, first)
    for index, point in enumerate(points):
        charts = distributions(run, point, index, steps, is_split=point in first)
        if charts:
            title = _titled(run, "Distributions", point)
            yield Block(title, charts, Of(load=point.load), is_folded=point not in first)


def _turns(run: Run, points: Sequence[LoadCase]) -> Iterator[Part]:
    """Yield what each turn of a conversation takes, and what of its prompt the prefix cache has."""
    first = opened(run, points)
    for index, point in enumerate(points):
        shown, folded = (
            [chart for name in names if (chart := turn_chart(run, point, name, index))]
            for names in (_BY_TURN, _BY_TURN_FOLDED)
        )
        if point in first and shown:
            more: list[Part] = [Block("ITL and E2E by turn", folded, is_folded=True)] if folded else []
            yield Block(_titled(run, "By turn", point), [*_cache(run), *shown, *more], Of(load=point.load))
        elif shown or folded:
            yield Block(
                _titled(run, "By turn", point), [*shown, *folded], Of(load=point.load), is_folded=True
            )
    hits: list[Chart] = list(by_load_charts(run, "cached_share"))
    if hits:
        yield Block("Prefix cache by load", hits)


def _cache(run: Run) -> Iterator[Part]:
    """Say which servers do not tell how much of a prompt they found in their prefix cache."""
    told = {g.deployment for g in run.groups if any(v.n for v in by_start(run, g, "cached_share").values())}
    untold = [label for label in run.deployments if label not in told]
    if untold:
        yield paragraph(f"Cached tokens are not reported by {several(untold)} (usage.prompt_tokens_details).")
