"""A search: the highest load that each deployment keeps the SLO at, and every load that was tried."""

from reports.data.run import Run
from reports.measures.values import values_of
from reports.measures.written import several
from reports.page.by_load import by_load_charts
from reports.page.cells import kept_cell
from reports.page.declared import Block, Shown, Table, Topic
from reports.page.looks import looks, named
from reports.page.markup import Of, tag
from reports.verdicts.searches import Answer, Capacity, Tried, capacities_of
from reports.words import speed as words

# A deployment, its answer on a start, and a load that was tried there.
_Trial = tuple[str, Answer, Tried]


def _highest(each: Capacity) -> Shown:
    return tag("span", each.words, title=each.why or "") if each.level is None else tag("b", each.words)


def _tried(run: Run) -> list[_Trial]:
    found = ((each.deployment, answer) for each in capacities_of(run) for answer in each.answers)
    return [(deployment, answer, load) for deployment, answer in found for load in answer.tried]


def _of_trial(each: _Trial) -> Of:
    deployment, answer, load = each
    return Of(deployment, load.load, answer.repeat + 1)


_ANSWERS = Table[Capacity](
    "Search",
    capacities_of,
    lambda run: {
        "deployment": lambda each: named(looks(run)[each.deployment]),
        "scenario": lambda each: each.scenario if len({e.scenario for e in capacities_of(run)}) > 1 else "",
        "highest load known to be kept": _highest,
        "kept – broken, by start": words.kept_and_broken,
    },
    lambda each: Of(each.deployment),
    "plain",
    is_bare=True,
)
_TRIALS = Table[_Trial](
    "Every load that was tried",
    _tried,
    lambda run: {
        "deployment": lambda each: named(looks(run)[each[0]]),
        "start": lambda each: str(each[1].repeat + 1),
        "load": lambda each: each[2].load,
        "windows": lambda each: str(len(each[2].cells)),
        "SLO": lambda each: kept_cell(each[2].judged),
        "why not": lambda each: (
            "" if each[2].judged else several([cell.reason or cell.status for cell in each[2].cells], "; ")
        ),
    },
    _of_trial,
    "words loads",
    is_bare=True,
)
SEARCH = Topic(
    "search",
    "Throughput against latency",
    [
        _ANSWERS,
        Block("Every load that was tried", [_TRIALS], is_folded=True),
        lambda run: by_load_charts(run, "goodput_per_s"),
    ],
    words.search_claim,
    words.SEARCHED,
    when=lambda run: run.record.search is not None and bool(values_of(run)),
)
