"""Throughput against latency: the front, who keeps the SLO, and throughput by load.

For a search: the highest load at which each deployment keeps the SLO, and every load that was tried.
"""

from serving_bench.reports.data import Run
from serving_bench.reports.measures import read_rates, several, values_of
from serving_bench.reports.page import by_load, cells
from serving_bench.reports.page.looks import Of, Row, looks, macro, named, prose, tag
from serving_bench.reports.page.parts import Block, Part, Table, Topic
from serving_bench.reports.verdicts import SPEED, capacities_of, slo_rows
from serving_bench.reports.words import claims, verdict_words

_TITLE = "Throughput against latency"


def against(run: Run) -> Topic:
    kept = [
        (each.group, cells.kept_cell(each.judged))
        for row in slo_rows(run)
        for each in row.standings
        if each.group
    ]
    tables = by_load.load_tables(run, f"Who keeps the SLO ({verdict_words.slo_words(run.record.slo)})", kept)
    names = (SPEED, *read_rates(run, run.groups), "requests_per_s", "goodput_per_s")
    return Topic(
        "throughput",
        _TITLE,
        [
            *by_load.frontier_charts(run),
            *(Block(each.title, [each]) for each in tables),
            Block("Throughput by load", by_load.load_charts(run, *names)),
        ],
        prose("against", run),
        prose("how_against", run),
    )


def search(run: Run) -> Topic:
    tried = Block("Every load that was tried", [trials(run)], is_folded=True)
    parts: list[Part] = [answers(run), tried, *by_load.load_charts(run, "goodput_per_s")]
    parts = parts if values_of(run) else []
    return Topic("search", _TITLE, parts, claims.search_claim(run), prose("searched", run))


def answers(run: Run) -> Table:
    rows = [
        Row(
            {
                "deployment": named(looks(run)[each.deployment]),
                "scenario": each.scenario * run.has_scenarios,
                "highest load known to be kept": tag(
                    "span" if each.level is None else "b", each.words, title=str(each.why or "")
                ),
                "highest kept – lowest missed, by start": each.brackets,
            },
            Of(each.deployment),
        )
        for each in capacities_of(run)
    ]
    return Table("Search", rows, "plain", is_bare=True)


def trials(run: Run) -> Table:
    tried = [load for each in capacities_of(run) for answer in each.answers for load in answer.tried]
    rows = [
        Row(
            {
                "deployment": macro("dep", looks(run)[load.cells[0].label]),
                "start": str(load.cells[0].planned.repeat + 1),
                "load": load.load,
                "windows": str(len(load.cells)),
                "SLO": cells.kept_cell(load.judged),
                "why not": ""
                if load.judged
                else several([str(cell.reason or cell.status) for cell in load.cells], "; "),
            },
            Of(load.cells[0].label, load.load, load.cells[0].planned.repeat + 1),
        )
        for load in tried
    ]
    return Table("Every load that was tried", rows, "words loads", is_bare=True)
