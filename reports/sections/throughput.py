"""Throughput against the load: tokens/s and requests/s, a chart each."""

from __future__ import annotations

from reports.frames import Run
from reports.page.charts import Section, grid
from reports.page.looks import key
from reports.page.markup import join, paragraph
from reports.sections.by_load import by_load_charts
from reports.spans import BARS


def section(run: Run) -> Section | None:
    """None where nothing was measured."""
    names = ("output_tokens_per_s", "requests_per_s")
    charts = [chart for name in names for chart in by_load_charts(run, name)]
    if not charts:
        return None
    note = paragraph(f"Higher is better. Points are means over starts. {BARS}")
    return Section("Throughput by load", join([note, key(run), grid(charts)]), charts)
