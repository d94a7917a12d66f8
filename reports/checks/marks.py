"""The mark that a number bears wherever it is shown: how many findings make it doubtful, and which.

Looks up what checks found; finds nothing itself. Which findings mark: reports/checks/finding.py.
"""

from collections.abc import Sequence, Set
from typing import Protocol

from reports.checks.examine import findings_of
from reports.checks.finding import Finding
from reports.data.cells import Group
from reports.data.once import once
from reports.data.run import Run
from reports.verdicts.searches import Capacity, cells_at_highest, slo_metrics

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
    return _touching(run, _counted(run).get(key, frozenset()), metric)


def marks_of_cell(run: Run, number: int, metric: str) -> tuple[Finding, ...]:
    """The findings that mark a value of one cell."""
    return _touching(run, {number}, metric)


def marks_of_answer(run: Run, cells: Set[int], metrics: Sequence[str]) -> tuple[Finding, ...]:
    """The findings that mark an answer which comes from several metrics of these cells."""
    return tuple(
        found
        for found in _about(run, cells)
        if found.marks and any(_bears_on(found, metric) for metric in metrics)
    )


def marks_of_capacity(run: Run, found: Capacity) -> tuple[Finding, ...]:
    """Return the findings about the highest loads kept in a search; above those an overload is expected."""
    return marks_of_answer(run, cells_at_highest(found.answers), slo_metrics(run))


def marks_between(run: Run, a: Group, b: Group, metric: str) -> tuple[Finding, ...]:
    """The findings that mark a comparison of two groups on a metric: those that mark a number of either, and
    those that only make the two unlike."""
    cells = {cell.number for group in (a, b) for cell in group.counted}
    is_across = a.quantization != b.quantization
    return tuple(
        each
        for each in _about(run, cells)
        if (each.marks or each.compares)
        and _bears_on(each, metric)
        and (is_across or each.check not in _ACROSS_QUANTIZATIONS)
    )


def marks_across_quantizations(run: Run) -> tuple[Finding, ...]:
    """What an answer that chooses between quantizations bears."""
    return tuple(each for each in findings_of(run) if each.check in _ACROSS_QUANTIZATIONS)


def _touching(run: Run, cells: Set[int], metric: str) -> tuple[Finding, ...]:
    return tuple(each for each in _about(run, cells) if each.marks and _bears_on(each, metric))


def _bears_on(found: Finding, metric: str) -> bool:
    return not found.metrics or metric.partition(".")[0] in found.metrics


def _about(run: Run, cells: Set[int]) -> list[Finding]:
    """The findings about one of these cells or about the whole run, in the order of the checks; none of no
    cell. A page asks thousands of times."""
    places = _places(run)
    about = {place for cell in cells for place in (*places.get(cell, ()), *places.get(None, ()))}
    return [findings_of(run)[place] for place in sorted(about)]


@once
def _places(run: Run) -> dict[int | None, list[int]]:
    """Places among the findings of those about each cell; of None: about the whole run."""
    places: dict[int | None, list[int]] = {}
    for place, found in enumerate(findings_of(run)):
        for cell in found.cells or (None,):
            places.setdefault(cell, []).append(place)
    return places


@once
def _counted(run: Run) -> dict[tuple[str, str, str], frozenset[int]]:
    """The numbers of the cells that count, by their key."""
    return {group.key: frozenset(cell.number for cell in group.counted) for group in run.groups}


def mark_text(found: Sequence[Marking]) -> str:
    """`▲ 2` for a terminal; empty for none."""
    return f"{SIGN} {len(found)}" if found else ""
