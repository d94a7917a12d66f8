"""Throughput against latency: the front, who keeps the SLO, and throughput by load. Not of a search."""

from reports.data.run import Run
from reports.measures.over_starts import read_rates
from reports.page import by_load, cells
from reports.page.declared import Block, Topic
from reports.page.drawing import charts
from reports.page.looks import prose
from reports.verdicts import SPEED, slo_rows
from reports.words import verdict_words


def _who_keeps_it(run: Run) -> list[charts.Part]:
    kept = [
        (each.group, cells.kept_cell(each.judged))
        for row in slo_rows(run)
        for each in row.standings
        if each.group
    ]
    tables = by_load.load_tables(run, f"Who keeps the SLO ({verdict_words.slo_words(run.record.slo)})", kept)
    return [part for title, table in tables.items() for part in charts.block(title, [table])]


AGAINST = Topic(
    "throughput",
    "Throughput against latency",
    [
        by_load.frontier_charts,
        _who_keeps_it,
        Block(
            "Throughput by load",
            [
                lambda run: by_load.load_charts(
                    run, SPEED, *read_rates(run, run.groups), "requests_per_s", "goodput_per_s"
                )
            ],
        ),
    ],
    prose("against"),
    prose("how_against"),
    when=lambda run: run.record.search is None,
)
