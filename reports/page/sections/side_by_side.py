"""Side by side: every value and every verdict on two of them. How long servers took to start is folded."""

from functools import partial

from serving_bench.harness.store.store import StartRecord
from serving_bench.reports.data import Group, Run, instants_s, launches_of, stage_titles, start_title
from serving_bench.reports.measures import compared_metrics, number, read_rates, unit_of
from serving_bench.reports.page import cells
from serving_bench.reports.page.declared import AtEachLoad, Block, Chart, Notes, Shows, Table, Topic, of_group
from serving_bench.reports.page.drawing.more_kinds import start_up_bars
from serving_bench.reports.page.looks import Of, prose
from serving_bench.reports.verdicts import LoadCase, ranked_labels, title_of_case
from serving_bench.reports.words import claims
from serving_bench.reports.words.verdict_words import heading_of


def _instant(stage: str, start: StartRecord) -> str:
    return number(instants_s(start).get(stage), 2)


START_UP = Chart[StartRecord](
    "startup",
    "From spawn until the server answers",
    lambda run: [start for launch in launches_of(run) for start in launch.records],
    lambda run, _: start_up_bars(launches_of(run), stage_titles(run)),
    lambda run: {
        "deployment": lambda start: start.deployment.label,
        "start": partial(start_title, run),
        **{f"{title} s": partial(_instant, stage) for stage, title in stage_titles(run).items()},
        "launch s": lambda start: number(start.launch_s, 2),
        "status": lambda start: start.status,
    },
    lambda start: Of(start.deployment.label, start=start.repeat + 1),
    note=(
        "A bar is the mean over its starts; a tick is one start. Each step ends with the stage it is named "
        "after. A stage that was not seen is part of the next step. A first start may have to compile, and "
        "to read its files from disk."
    ),
    is_wide=True,
)


def _values(run: Run, case: LoadCase) -> list[Shows]:
    slo, metrics = ["goodput_per_s"] * bool(run.record.slo), compared_metrics(run)
    names = dict.fromkeys([*read_rates(run, case.groups), *cells.COMPARED, *slo, *metrics])
    order = ranked_labels(run)
    groups = sorted(case.groups, key=lambda group: order.index(group.deployment))
    return [
        Table[Group](
            f"Values, {title_of_case(run, case)}",
            lambda _: groups,
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
    lambda run: f"{claims.BESIDE[claims.repeat_word(run)]} {cells.LEGEND}",
    prose("side_by_side"),
)
