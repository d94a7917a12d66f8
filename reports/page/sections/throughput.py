"""Throughput against the load: tokens/s, requests/s and, with an SLO, goodput, a chart each."""

from reports.data.run import Run
from reports.measures.over_starts import BARS
from reports.page.charts import Section, grid
from reports.page.looks import key
from reports.page.markup import join, paragraph
from reports.page.sections.by_load import by_load_charts


def section(run: Run) -> Section | None:
    """None where nothing was measured. A search draws its goodput where its answers are."""
    has_goodput = bool(run.record.slo) and run.record.search is None
    names = ("output_tokens_per_s", "requests_per_s", *(["goodput_per_s"] if has_goodput else []))
    charts = [chart for name in names for chart in by_load_charts(run, name)]
    if not charts:
        return None
    slo = " Goodput: requests per second that met every objective." if has_goodput else ""
    note = paragraph(f"Higher is better. Points are means over starts. {BARS}{slo}")
    title = "Throughput and goodput by load" if has_goodput else "Throughput by load"
    return Section(title, join([note, key(run), grid(charts)]), charts)
