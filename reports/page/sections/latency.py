"""Latency: percentiles by load, then at each load distributions and turns, and the same requests in pairs."""

from reports.data.run import Run
from reports.measures.metrics import LATENCIES, SEVERAL_TOKENS
from reports.measures.over_starts import BARS, aggregate
from reports.measures.written import several, shown
from reports.page.drawing.charts import Section, block
from reports.page.markup import Of
from reports.page.sections.by_load import by_load_charts, turn_charts
from reports.page.sections.distributions import distributions, pair_charts
from reports.verdicts.load_cases import load_points, opened

# What a reader of a stream waits for is shown.
_SHOWN = ("ttft_s.p50", "ttft_s.p95", "tpot_s.p50", "tpot_s.p95")
_FOLDED = ("itl_s.p50", "itl_s.p95", "e2e_s.p50", "e2e_s.p95", *(f"{name}.p99" for name in LATENCIES))
_BY_TURN = ("ttft_s.p50", "cached_share", "input_tokens", "tpot_s.p50")


def section(run: Run) -> Section:
    """Return the section; at the load told first distributions and turns stand open."""
    by_scenario = load_points(run)
    points = [point for each in by_scenario.values() for point in each]
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
        title = f"At {point.load}{f', {point.scenario}' if len(by_scenario) > 1 else ''}"
        parts += block(title, charts, Of(load=point.load), is_folded=not is_first)
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
