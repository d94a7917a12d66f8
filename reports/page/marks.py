"""Marks behind numbers on the page. Which findings mark a number: reports/checks/examine.py."""

from collections.abc import Sequence

from reports.checks.examine import Marking, mark_text, marks_of
from reports.data.cells import Group
from reports.data.run import Run
from reports.measures.over_starts import aggregate
from reports.measures.written import plural
from reports.page.markup import Html, aggregate_cell, join, tag


def marked_cell(run: Run, group: Group, name: str) -> Html:
    """A group's value of a name as tables show it, with its interval and its mark."""
    return aggregate_cell(name, aggregate(run, group, name), mark_html(marks_of(run, group, name)))


def mark_html(found: Sequence[Marking]) -> Html:
    """` ▲ 2` behind a number: a link to the reasons, or to the only one; nothing for none."""
    if not found:
        return Html("")
    titles = "; ".join(dict.fromkeys(each.title for each in found))
    target = found[0].check if len(found) == 1 else ""
    link = tag(
        "a",
        mark_text(found),
        href=f"#distrust-{target}" if target else "#distrust",
        class_="doubt",
        title=titles,
        aria_label=f"{plural(len(found), 'reason')} to distrust this: {titles}",
    )
    return join([" ", link])
