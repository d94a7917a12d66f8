"""The mark that a number bears wherever it is shown: how many findings make it doubtful, and which.

Looks up what checks found; finds nothing itself. Which findings mark: reports/checks/finding.py.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from typing import TYPE_CHECKING, Protocol

from reports.cells import Group
from reports.page.markup import Html, aggregate_cell, join, paragraph, plural, tag

if TYPE_CHECKING:
    from reports.checks.finding import Finding
    from reports.frames import Run

SIGN = "▲"
LEGEND = f"{SIGN} 2 behind a value: two reasons to distrust it, and a link to them."
# Checks that bear on comparisons across quantizations, and on no other.
_ACROSS_QUANTIZATIONS = ("quality_not_measured",)


class Marking(Protocol):
    """What a mark is made of: the check's name, which its link goes to, and the title of what it found."""

    @property
    def check(self) -> str: ...
    @property
    def title(self) -> str: ...


def marks_of(run: Run, group: Group | tuple[str, str, str], metric: str) -> tuple[Finding, ...]:
    """The findings that mark a value (`ttft_s.p95`) of a group, or of its key (deployment, scenario, load):
    those that touch one of its cells that count, and that metric. In the order of the checks."""
    key = group.key if isinstance(group, Group) else group
    cells = {cell.number for cell in run.planned_cells if cell.key == key and cell.counts}
    return _touching(run.findings, cells, metric)


def marks_of_cell(run: Run, number: int, metric: str) -> tuple[Finding, ...]:
    """The findings that mark a value of one cell."""
    return _touching(run.findings, {number}, metric)


def marks_of_answer(run: Run, cells: Set[int], metrics: Sequence[str]) -> tuple[Finding, ...]:
    """The findings that mark an answer which comes from several metrics of these cells."""
    marked = {each for metric in metrics for each in _touching(run.findings, cells, metric)}
    return tuple(each for each in run.findings if each in marked)


def marked_cell(run: Run, group: Group, name: str) -> Html:
    """A group's value of a name as tables show it, with its interval and its mark."""
    return aggregate_cell(name, run.aggregate(group, name), mark_html(marks_of(run, group, name)))


def marks_between(run: Run, a: Group, b: Group, metric: str) -> tuple[Finding, ...]:
    """The findings that mark a comparison of two groups on a metric: those that mark a number of either, and
    those that only make the two unlike."""
    cells = {cell.number for group in (a, b) for cell in group.counted}
    is_across = a.quantization != b.quantization
    return tuple(
        each
        for each in run.findings
        if (each.marks or each.compares)
        and _touches(each, cells, metric)
        and (is_across or each.check not in _ACROSS_QUANTIZATIONS)
    )


def marks_across_quantizations(run: Run) -> tuple[Finding, ...]:
    """What an answer that chooses between quantizations bears."""
    return tuple(each for each in run.findings if each.check in _ACROSS_QUANTIZATIONS)


def unmarked(run: Run) -> Html:
    """The reasons that no number bears a mark for, in a line for the page's top; nothing for none."""
    found = [each for each in run.findings if not each.marks and not each.compares]
    if not found:
        return Html("")
    links = [tag("a", each.title, href=f"#distrust-{each.check}") for each in found]
    parts = [part for link in links for part in ("; ", link)][1:]
    return paragraph(join(["To know of the whole run, and marked at no number: ", *parts, "."]))


def _touching(found: Sequence[Finding], cells: Set[int], metric: str) -> tuple[Finding, ...]:
    return tuple(each for each in found if each.marks and _touches(each, cells, metric))


def _touches(found: Finding, cells: Set[int], metric: str) -> bool:
    if found.metrics and metric.partition(".")[0] not in found.metrics:
        return False
    return not cells.isdisjoint(found.cells) if found.cells else bool(cells)


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


def mark_text(found: Sequence[Marking]) -> str:
    """`▲ 2` for a terminal; empty for none."""
    return f"{SIGN} {len(found)}" if found else ""
