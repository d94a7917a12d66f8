"""Tables with a row for each deployment and load of one kind of traffic."""

from collections.abc import Callable, Sequence
from functools import partial

from reports.checks.examine import marks_of
from reports.data import Group, Run
from reports.measures.over_starts import aggregate, unit_of
from reports.measures.traffic.parts import groups_under
from reports.page.cells import aggregate_cell, mark_html, name_cell
from reports.page.declared import Columns, Shown, Table, below, of_group
from reports.words.verdict_words import heading_of


def group_table(
    of: str | Callable[[Run], list[Group]],
    names: Sequence[str],
    more: Callable[[Run], Columns[Group]] = lambda _: {},
) -> Table[Group]:
    """Return the table of a scenario, or of the groups of a run: a column for each value by its name, then
    more. A sweep's scenarios are named."""

    def chosen(run: Run) -> list[Group]:
        return groups_under(run, of) if isinstance(of, str) else of(run)

    return Table[Group](
        "By load",
        chosen,
        lambda run: {
            "deployment": partial(name_cell, run),
            "load": partial(_load, len({group.scenario for group in chosen(run)}) > 1),
            **{
                heading_of(name, unit_of(run, name)): partial(_marked, run, name)
                for name in names
                if name != "goodput_per_s" or run.record.slo
            },
            **more(run),
        },
        of_group,
        is_bare=True,
    )


def _marked(run: Run, name: str, group: Group) -> Shown:
    return aggregate_cell(name, aggregate(run, group, name), mark_html(marks_of(run, group.counted, name)))


def _load(has_several: bool, group: Group) -> Shown:
    return below(group.load, group.scenario) if has_several else group.load
