"""A search: the highest load at which each deployment keeps the SLO, and every load that was tried."""

from reports.measures import several, values_of
from reports.page import by_load, cells
from reports.page.declared import Block, Table, Topic
from reports.page.looks import Of, looks, macro, named, prose, tag
from reports.verdicts.searches import Capacity, Tried, capacities_of
from reports.words import claims

ANSWERS = Table[Capacity](
    "Search",
    capacities_of,
    lambda run: {
        "deployment": lambda each: named(looks(run)[each.deployment]),
        "scenario": lambda each: each.scenario * (len({group.scenario for group in run.groups}) > 1),
        "highest load known to be kept": lambda each: tag(
            "span" if each.level is None else "b", each.words, title=each.why or ""
        ),
        "kept – broken, by start": lambda each: each.brackets,
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
            "" if load.judged else several([cell.reason or cell.status for cell in load.cells], "; ")
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
