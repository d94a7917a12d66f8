"""Throughput against latency: the frontier, who keeps the SLO, and throughput by load; or a search.

A search tells the highest load that each deployment keeps the SLO at, and every load that was tried.
"""

from collections.abc import Sequence

from reports.data.cells import Group
from reports.data.run import Run
from reports.measures.over_starts import aggregate
from reports.measures.values import values_of
from reports.measures.written import several
from reports.page.by_load import (
    SPEED,
    by_load_charts,
    families,
    in_plane,
    load_tables,
    most_drawn,
    of_group,
    slo_limit,
)
from reports.page.cells import kept_cell, mean_cell
from reports.page.declared import Block, Chart, Section, Table, Topic
from reports.page.drawing import charts
from reports.page.drawing.kinds import frontier
from reports.page.looks import Of, looks, named, tag
from reports.verdicts.searches import Answer, Capacity, Tried, capacities_of, slo_rows
from reports.words import claims as words
from reports.words.verdict_words import slo_words, title_at, title_of

_TITLE = "Throughput against latency"


def frontier_charts(run: Run) -> list[charts.Part]:
    """Return a chart against TTFT and one against TPOT for each scenario and family of loads."""
    return [
        chart
        for at, (suffix, groups) in enumerate(families(run))
        for metric in ("ttft_s", "tpot_s")
        for chart in _against(run, metric, groups, suffix, at)(run)
    ]


def _against(run: Run, metric: str, groups: Sequence[Group], suffix: str, at: int) -> Chart[Group]:
    name, wanted = most_drawn(run, groups, metric)
    points, latency = in_plane(run, groups, name), " ".join(reversed(title_of(name).split(" ")))
    absent = [group for group in groups if of_group(group) not in {point.of for point in points}]
    return Chart(
        f"frontier-{metric}-{at}".replace("_", "-"),
        f"Output tokens/s against {latency}{suffix}",
        lambda _: groups if points else [],
        lambda run, _: frontier(
            looks(run),
            points,
            f"{latency}, ms, lower is better",
            "output tokens/s, higher is better",
            slo_limit(run, name),
        ),
        lambda run: {
            "deployment": lambda group: group.deployment,
            "load": lambda group: group.load,
            f"{title_of(name)} ms": lambda group: mean_cell(run, group, name),
            "output tokens/s": lambda group: mean_cell(run, group, SPEED),
            "starts": lambda group: str(aggregate(run, group, SPEED).k),
        },
        of_group,
        finding=lambda run: title_at(run, SPEED if metric == "ttft_s" else name, groups),
        note=words.not_drawn(name, wanted, absent),
        names_ends=True,
        is_wide=at == 0,
    )


def _who_keeps_it(run: Run) -> list[charts.Part]:
    found = (each for row in slo_rows(run) for each in row.standings)
    cells = [(each.group, kept_cell(each.judged)) for each in found if each.group]
    tables = load_tables(run, f"Who keeps the SLO ({slo_words(run.record.slo)})", cells)
    return [charts.Block(table.name, [table]) for table in tables]


AGAINST = Topic(
    "throughput",
    _TITLE,
    [
        frontier_charts,
        _who_keeps_it,
        Block(
            "Throughput by load",
            [lambda run: by_load_charts(run, SPEED, "requests_per_s", "goodput_per_s")],
        ),
    ],
    words.AGAINST,
    words.how_against,
    when=lambda run: run.record.search is None,
)

# --- search ----------------------------------------------------------------------------------------

# A deployment, its answer on a start, and a load that was tried there.
_Trial = tuple[str, Answer, Tried]


def _tried(run: Run) -> list[_Trial]:
    found = ((each.deployment, answer) for each in capacities_of(run) for answer in each.answers)
    return [(deployment, answer, load) for deployment, answer in found for load in answer.tried]


def _kept_and_broken(found: Capacity) -> str:
    said = list(dict.fromkeys(map(_bracket, found.answers)))
    return "; ".join(map(_bracket, found.answers)) if said[1:] else said[0]


def _bracket(answer: Answer) -> str:
    if not answer.is_whole or answer.broken is None:
        return answer.words
    return f"{'none' if answer.kept is None else f'{answer.kept:g}'} – {answer.broken:g}"


_ANSWERS = Table[Capacity](
    "Search",
    capacities_of,
    lambda run: {
        "deployment": lambda each: named(looks(run)[each.deployment]),
        "scenario": lambda each: each.scenario if len({e.scenario for e in capacities_of(run)}) > 1 else "",
        "highest load known to be kept": lambda each: tag(
            "span" if each.level is None else "b", each.words, title=each.why or ""
        ),
        "kept – broken, by start": _kept_and_broken,
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
    lambda each: Of(each[0], each[2].load, each[1].repeat + 1),
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
SECTION = Section("frontier", "Throughput", [AGAINST, SEARCH], _TITLE)
