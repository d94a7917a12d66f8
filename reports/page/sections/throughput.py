"""Throughput against latency: the frontier, throughput by load, and who keeps the SLO."""

from reports.data.run import Run
from reports.measures.over_starts import BARS
from reports.measures.values import values_of
from reports.page.drawing.charts import Block, Part, Section
from reports.page.sections import service_levels
from reports.page.sections.by_load import by_load_charts
from reports.page.sections.frontier import frontier_charts


def section(run: Run) -> Section:
    """Return the section."""
    if run.record.search is not None:
        return _of_search(run)
    frontier: list[Part] = list(frontier_charts(run))
    names = ["output_tokens_per_s", "requests_per_s", *(["goodput_per_s"] if run.record.slo else [])]
    by_load: list[Part] = [chart for name in names for chart in by_load_charts(run, name)]
    kept = service_levels.levels(run) if run.record.slo and values_of(run) else []
    claim = (
        "Up and to the left is better. A line is a deployment, its points are loads from the lowest to the "
        "highest. The broad grey line is the front: no other point has more tokens/s at less latency."
    )
    slo = " Goodput: requests per second that met every objective." if run.record.slo else ""
    how = f"Points are means over starts. {BARS} The front goes by means and is no verdict.{slo}"
    if kept:
        how = f"{how} {service_levels.HOW}"
    parts = [*frontier, *kept]
    parts += [Block("Throughput by load", by_load)] if by_load else []
    return Section("Throughput against latency", claim, parts, how)


def _of_search(run: Run) -> Section:
    """Return a search's answers: its starts try other loads, so no frontier is drawn."""
    answers = {"shapes": service_levels.answer_lines(run)}
    curves: list[Part] = list(by_load_charts(run, "goodput_per_s", answers))
    how = (
        "A start is one observation: means are geometric, of the highest loads kept. The 95 % interval over "
        "starts reaches from what the kept ends leave to what the broken ends do; of two starts the ends "
        "themselves stand there. In the chart a dashed line is a deployment's answer, and points are means "
        f"over the starts that tried a load. {service_levels.HOW}"
    )
    claim = service_levels.search_claim(run)
    return Section("Throughput against latency", claim, [*service_levels.search_parts(run), *curves], how)
