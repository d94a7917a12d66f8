"""Side by side: every value, and every verdict on two of them; how long servers took to start is folded."""

from functools import partial

from reports.data import Group, Run
from reports.measures.over_starts import read_rates, unit_of
from reports.page import cells
from reports.page.declared import AtEachLoad, Block, Notes, Shows, Table, Topic, of_group
from reports.page.looks import prose
from reports.page.sections.start_up import START_UP
from reports.verdicts.load_cases import LoadCase, title_of_case
from reports.words import claims
from reports.words.verdict_words import heading_of


def _values(run: Run, case: LoadCase) -> list[Shows]:
    slo, asked = ["goodput_per_s"] * bool(run.record.slo), run.record.compare.metrics
    names = dict.fromkeys([*read_rates(run, case.groups), *cells.COMPARED, *slo, *asked])
    return [
        Table[Group](
            f"Values, {title_of_case(run, case)}",
            lambda _: case.groups,
            lambda run: {
                "deployment": partial(cells.name_cell, run),
                **{
                    heading_of(name, unit_of(run, name)): partial(cells.compared_cell, run, name)
                    for name in names
                },
                "requests ok / failed": partial(cells.requests_cell, run),
            },
            of_group,
            "summary verdicts",
            is_bare=True,
        )
    ]


VALUES = Topic(
    "values",
    "Side by side",
    [Notes(claims.ratios), AtEachLoad(_values), Block("Start-up, step by step", [START_UP], is_folded=True)],
    lambda run: f"{claims.BESIDE[claims.repeats_word(run)]} {cells.LEGEND}",
    prose("side_by_side"),
)
