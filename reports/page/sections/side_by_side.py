"""Side by side: every value, every verdict, and how long servers took to start."""

from collections.abc import Mapping, Sequence
from functools import partial

from harness.store.store import StartRecord
from reports.data.cells import Group
from reports.data.run import Run
from reports.data.samples import LATER, Launch, instants_s, launches_of, stage_titles, start_title
from reports.measures.over_starts import unit_of
from reports.measures.written import number
from reports.page.by_load import of_group
from reports.page.cells import (
    COMPARED,
    LEGEND,
    cell_marks,
    compared_cell,
    requests_cell,
)
from reports.page.declared import (
    AtEachLoad,
    Block,
    Chart,
    Columns,
    Section,
    Topic,
    filled,
)
from reports.page.drawing import charts
from reports.page.drawing.kinds import Bar, Drawn, stacked
from reports.page.looks import STAGES, Of, join, looks, named, paragraph
from reports.verdicts.load_cases import LoadCase, title_of_case
from reports.words import claims as words
from reports.words.verdict_words import heading_of


def _values(run: Run, case: LoadCase) -> list[charts.Part]:
    names = dict.fromkeys([*COMPARED, *["goodput_per_s"] * bool(run.record.slo), *run.record.compare.metrics])
    columns: Columns[Group] = {
        "deployment": lambda group: join([named(looks(run)[group.deployment]), cell_marks(run, group)]),
        **{heading_of(name, unit_of(run, name)): partial(compared_cell, run, name) for name in names},
        "requests ok / failed": partial(requests_cell, run),
    }
    return [
        charts.Table(
            f"Values, {title_of_case(run, case)}",
            *filled(columns, case.groups, of_group),
            "summary verdicts",
        )
    ]


def _instant(stage: str, start: StartRecord) -> str:
    return number(instants_s(start).get(stage), 2)


def _bar(titles: Mapping[str, str], launch: Launch) -> Bar:
    which = f"{len(launch.records)} later" if launch.which == LATER else launch.which
    return Bar(
        Of(launch.label),
        f"{launch.label}, {which}: {number(sum(launch.steps_s.values()), 2)} s",
        {titles[stage]: length_s for stage, length_s in launch.steps_s.items()},
        [
            (max(instants_s(each).values()), Of(launch.label, start=each.repeat + 1))
            for each in launch.records
        ],
    )


def _start_up(run: Run, _: Sequence[StartRecord]) -> Drawn:
    titles = stage_titles(run)
    fills = {title: STAGES.get(stage, ("--mut", "-")) for stage, title in titles.items()}
    return stacked([_bar(titles, each) for each in launches_of(run)], fills, "seconds since the spawn", "s")


START_UP = Chart[StartRecord](
    "startup",
    "From the spawn until the server answers",
    lambda run: [start for launch in launches_of(run) for start in launch.records],
    _start_up,
    lambda run: {
        "deployment": lambda start: start.deployment.label,
        "start": partial(start_title, run),
        **{f"{title} s": partial(_instant, stage) for stage, title in stage_titles(run).items()},
        "launch s": lambda start: number(start.launch_s, 2),
        "status": lambda start: start.status,
    },
    lambda start: Of(start.deployment.label, start=start.repeat + 1),
    note=words.START_UP,
    is_wide=True,
)
VALUES = Topic(
    "values",
    "Side by side",
    [
        lambda run: [paragraph(words.ratios(run))] if run.planned_cells else [],
        AtEachLoad(_values),
        Block("Start-up, step by step", [START_UP], is_folded=True),
    ],
    lambda run: f"{words.BESIDE[words.repeats_word(run)]} {LEGEND}",
    words.SIDE_BY_SIDE,
)
SECTION = Section("side", "Side by side", [VALUES])
