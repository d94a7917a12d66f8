"""Throughput against latency: the front, who keeps the SLO, and throughput by load.

For a search: the highest load at which each deployment keeps the SLO, and every load that was tried.
"""

from serving_bench.reports.data import Run
from serving_bench.reports.measures import read_rates, several, values_of
from serving_bench.reports.page import by_load, cells
from serving_bench.reports.page.declared import Block, Table, Topic
from serving_bench.reports.page.drawing import charts
from serving_bench.reports.page.looks import Of, looks, macro, named, prose, tag
from serving_bench.reports.verdicts import SPEED, Capacity, Tried, capacities_of, slo_rows
from serving_bench.reports.words import claims, verdict_words


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


# --- a search ---------------------------------------------------------------------------------------


ANSWERS = Table[Capacity](
    "Search",
    capacities_of,
    lambda run: {
        "deployment": lambda each: named(looks(run)[each.deployment]),
        "scenario": lambda each: each.scenario * run.has_scenarios,
        "highest load known to be kept": lambda each: tag(
            "span" if each.level is None else "b", each.words, title=str(each.why or "")
        ),
        "highest kept – lowest missed, by start": lambda each: each.brackets,
    },
    lambda each: Of(each.deployment),
    "plain",
    is_bare=True,
)
TRIALS = Table[Tried](
    "Every load that was tried",
    lambda run: [load for each in capacities_of(run) for answer in each.answers for load in answer.tried],
    lambda run: {
        "deployment": lambda load: macro("dep", looks(run)[load.cells[0].label]),
        "start": lambda load: str(load.cells[0].planned.repeat + 1),
        "load": lambda load: load.load,
        "windows": lambda load: str(len(load.cells)),
        "SLO": lambda load: cells.kept_cell(load.judged),
        "why not": lambda load: (
            "" if load.judged else several([str(cell.reason or cell.status) for cell in load.cells], "; ")
        ),
    },
    lambda load: Of(load.cells[0].label, load.load, load.cells[0].planned.repeat + 1),
    "words loads",
    is_bare=True,
)
SEARCH = Topic(
    "search",
    "Throughput against latency",
    [
        ANSWERS,
        Block("Every load that was tried", [TRIALS], is_folded=True),
        lambda run: by_load.load_charts(run, "goodput_per_s"),
    ],
    claims.search_claim,
    prose("searched"),
    when=lambda run: run.record.search is not None and bool(values_of(run)),
)
