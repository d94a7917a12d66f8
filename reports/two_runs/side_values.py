"""What is shown of two sides: their values, with what stands beside each and the reasons to distrust it.

Shared by `bench compare` and `bench gate`, in the terminal and in files. Decides no verdict.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from reports.checks.examine import findings_of, marks_between, marks_of
from reports.checks.finding import RATES, Finding
from reports.data.cells import Group
from reports.data.run import Run
from reports.measures.over_starts import aggregate, has_interval, span
from reports.measures.written import NOTHING, shown
from reports.two_runs.cases import Case
from reports.verdicts.pairs import Pair

# What goes by how long answers are, besides what needs equal lengths.
_OF_LENGTHS = ("e2e_s", *RATES)


@dataclass(frozen=True)
class Mark:
    """A finding at a number: the check's name, and the finding's title."""

    check: str
    title: str


@dataclass(frozen=True)
class Reason:
    """What the checks found that bears on these values, with its remedy, and which runs' (`sides`)."""

    check: str
    title: str
    remedy: str
    sides: tuple[str, ...]

    @property
    def text(self) -> str:
        """In a line."""
        return f"{self.title} ({' and '.join(self.sides)}). {self.remedy}".rstrip()


@dataclass(frozen=True)
class SideValue:
    """One side's value in its stored unit: the mean over k starts, n observations, and what stands beside it:
    its 95 % interval [low, high], or (`is_range`) the least and the greatest (reports/stats/spans.py).
    None or 0 where absent, and `why` then says why."""

    mean: float | None
    low: float | None
    high: float | None
    is_range: bool
    k: int
    n: int
    why: str | None = None
    marks: tuple[Mark, ...] = ()

    def text(self, metric: str, *, has_why: bool = False) -> str:
        """As a person reads it, without its unit and marks: `104.9 [98.1, 112.2]`, or `104.9 (98.1–112.2)`
        with a range; of one that is absent `has_why` says why."""
        if self.mean is None:
            return f"{NOTHING} ({self.why})" if self.why and has_why else NOTHING
        if self.low is None or self.high is None:
            return shown(metric, self.mean)
        low, high = (_end(metric, end) for end in (self.low, self.high))
        return f"{shown(metric, self.mean)} " + (f"({low}–{high})" if self.is_range else f"[{low}, {high}]")


def _end(metric: str, value: float) -> str:
    """An end of an interval: below zero it has the digits of any other."""
    return f"−{shown(metric, -value)}" if value < 0 else shown(metric, value)


def side_value(run: Run, group: Group, metric: str) -> SideValue:
    """What of a side's value is shown."""
    found = aggregate(run, group, metric)
    low, high = span(found) or (None, None)
    is_range = low is not None and not has_interval(found)
    marks = marked(marks_of(run, group, metric)) if found.mean is not None else ()
    return SideValue(found.mean, low, high, is_range, found.k, found.n, found.why, marks)


def side_values(pair: Pair, metric: str) -> tuple[SideValue, SideValue]:
    """Of both."""
    first, second = (side_value(run, group, metric) for _, run, group in pair.sides)
    return first, second


def marked(found: Iterable[Finding]) -> tuple[Mark, ...]:
    """Each once, in order."""
    return tuple(dict.fromkeys(Mark(each.check, each.title) for each in found))


def marks_of_pair(pair: Pair, metric: str) -> tuple[Mark, ...]:
    """What a comparison of the two on a metric bears."""
    (_, run, first), (_, other, second) = pair.sides
    if pair.is_paired:
        return marked(marks_between(run, first, second, metric))
    name = metric.partition(".")[0]
    own = (each for each in _of_two_runs(pair) if not each.metrics or name in each.metrics)
    return marked([*marks_of(run, first, metric), *marks_of(other, second, metric), *own])


def _of_two_runs(pair: Pair) -> Iterator[Finding]:
    """What the checks of neither run can see. Named as the checks that find it within a run."""
    if why := pair.other_answers:
        yield Finding(
            "output_lengths_differ",
            "Output lengths differ",
            why,
            "Compare figures per token only: E2E and requests/s get no verdict.",
            metrics=_OF_LENGTHS,
        )
    first, second = (group.quantization for group in pair.groups)
    if first != second and "-" not in (first, second):
        yield Finding(
            "quality_not_measured",
            "Quality is not measured",
            f"{first} and {second} need not answer alike.",
            "Judge the answers on a task of yours, or compare at one quantization=NAME.",
        )


def reasons_of(cases: Sequence[Case], metrics: Sequence[str]) -> tuple[Reason, ...]:
    """What the checks of either run found that bears on these values, and what tells the two runs apart."""
    found: dict[tuple[str, str], Reason] = {}
    for case in cases:
        for name, each in _findings(case.pair, metrics):
            known = found.get((each.check, each.title))
            sides = known.sides if known else ()
            if name not in sides:
                remedy = known.remedy if known else each.remedy
                found[each.check, each.title] = Reason(
                    each.check, each.title, remedy, tuple(sorted((*sides, name)))
                )
    return tuple(found.values())


def _findings(pair: Pair, metrics: Sequence[str]) -> Iterator[tuple[str, Finding]]:
    """With the name of the side whose run has it."""
    asked = {metric.partition(".")[0] for metric in metrics}
    for name, run, group in pair.sides:
        cells = {cell.number for cell in group.counted}
        for each in findings_of(run):
            touches = not each.cells or not cells.isdisjoint(each.cells)
            if cells and touches and (not each.metrics or asked & set(each.metrics)):
                yield name, each
    if not pair.is_paired:
        for each in _of_two_runs(pair):
            if not each.metrics or asked & set(each.metrics):
                yield from ((name, each) for name in pair.names)
