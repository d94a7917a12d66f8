"""Throughput against latency: the frontier, who keeps the SLO, and throughput by load; or a search."""

from collections.abc import Sequence

from reports.data.cells import Group
from reports.data.run import Run
from reports.measures.over_starts import aggregate
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
from reports.page.declared import Block, Chart, Section, Topic
from reports.page.drawing import charts
from reports.page.drawing.kinds import frontier
from reports.page.looks import looks
from reports.page.sections.search import SEARCH
from reports.verdicts.searches import slo_rows
from reports.words import speed as words
from reports.words.verdict_words import slo_words, title_at, title_of

_TITLE = "Throughput against latency"


def frontier_charts(run: Run) -> list[charts.Chart]:
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
    titles = f"{latency}, ms, lower is better", "output tokens/s, higher is better"
    return Chart(
        f"frontier-{metric}-{at}".replace("_", "-"),
        f"Output tokens/s against {latency}{suffix}",
        lambda _: groups if points else [],
        lambda run, _: frontier(looks(run), points, *titles, slo_limit(run, name)),
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
    found = [each for row in slo_rows(run) for each in row.standings]
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
SECTION = Section("frontier", "Throughput", [AGAINST, SEARCH], _TITLE)
