"""A search: the highest load that each deployment keeps the SLO at, and every load that was tried."""

from reports.data.run import Run
from reports.measures.values import values_of
from reports.measures.written import several
from reports.page.by_load import by_load_charts
from reports.page.cells import kept_cell
from reports.page.declared import Block, Columns, Topic, tabled
from reports.page.drawing.charts import Part
from reports.page.looks import looks, named
from reports.page.markup import Of, tag
from reports.verdicts.searches import Answer, Capacity, Tried, capacities_of
from reports.words import speed as words

# A deployment, its answer on a start, and a load that was tried there.
_Trial = tuple[str, Answer, Tried]


def _answers(run: Run) -> list[Part]:
    found = capacities_of(run)
    columns: Columns[Capacity] = {
        "deployment": lambda each: named(looks(run)[each.deployment]),
        "scenario": lambda each: each.scenario if len({e.scenario for e in found}) > 1 else "",
        "highest load known to be kept": lambda each: (
            tag("span", each.words, title=each.why or "") if each.level is None else tag("b", each.words)
        ),
        "kept – broken, by start": words.kept_and_broken,
    }
    return [tabled("Search", columns, found, lambda each: Of(each.deployment), "plain")]


def _trials(run: Run) -> list[Part]:
    tried = [
        (each.deployment, answer, load)
        for each in capacities_of(run)
        for answer in each.answers
        for load in answer.tried
    ]
    columns: Columns[_Trial] = {
        "deployment": lambda each: named(looks(run)[each[0]]),
        "start": lambda each: str(each[1].repeat + 1),
        "load": lambda each: each[2].load,
        "windows": lambda each: str(len(each[2].cells)),
        "SLO": lambda each: kept_cell(each[2].judged),
        "why not": lambda each: (
            "" if each[2].judged else several([cell.reason or cell.status for cell in each[2].cells], "; ")
        ),
    }
    return [
        tabled(
            "Every load that was tried",
            columns,
            tried,
            lambda each: Of(each[0], each[2].load, each[1].repeat + 1),
            "words loads",
        )
    ]


SEARCH = Topic(
    "search",
    "Throughput against latency",
    [
        _answers,
        Block("Every load that was tried", [_trials], is_folded=True),
        lambda run: by_load_charts(run, "goodput_per_s"),
    ],
    words.search_claim,
    words.SEARCHED,
    when=lambda run: run.record.search is not None and bool(values_of(run)),
)
