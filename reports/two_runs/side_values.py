"""What is shown of two sides: their values, what stands beside each, and the reasons to distrust them."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from reports.checks.examine import findings_of, marks_between, marks_of
from reports.checks.finding import RATES, Finding
from reports.data.cells import Group
from reports.data.run import Run
from reports.measures.over_starts import aggregate, has_interval, span
from reports.measures.written import NOTHING, shown
from reports.two_runs.sides import Case
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
    """What the checks found that bears on these values, with its remedy, and in which runs (`sides`)."""

    check: str
    title: str
    remedy: str
    sides: tuple[str, ...]

    @property
    def text(self) -> str:
        return f"{self.title} ({' and '.join(self.sides)}). {self.remedy}".rstrip()


@dataclass(frozen=True)
class SideValue:
    """One side's value in its stored unit: the mean over k starts and n observations.

    Beside it stands its 95 % interval [low, high], or (`is_range`) the least and the greatest. None or 0
    where it is absent, and `why` then says why.
    """

    mean: float | None
    low: float | None
    high: float | None
    is_range: bool
    k: int
    n: int
    why: str | None = None
    marks: tuple[Mark, ...] = ()

    def text(self, metric: str, *, has_why: bool = False) -> str:
        """Return `104.9 [98.1, 112.2]`, or `104.9 (98.1–112.2)` with a range, without unit and marks."""
        if self.mean is None:
            return f"{NOTHING} ({self.why})" if self.why and has_why else NOTHING
        if self.low is None or self.high is None:
            return shown(metric, self.mean)
        low, high = (_end(metric, end) for end in (self.low, self.high))
        return f"{shown(metric, self.mean)} " + (f"({low}–{high})" if self.is_range else f"[{low}, {high}]")


def _end(metric: str, value: float) -> str:
    return f"−{shown(metric, -value)}" if value < 0 else shown(metric, value)


def side_value(run: Run, group: Group, metric: str) -> SideValue:
    """Return what of one side's value is shown."""
    found = aggregate(run, group, metric)
    low, high = span(found) or (None, None)
    is_range = low is not None and not has_interval(found)
    marks = marked(marks_of(run, group, metric)) if found.mean is not None else ()
    return SideValue(found.mean, low, high, is_range, found.k, found.n, found.why, marks)


def side_values(pair: Pair, metric: str) -> tuple[SideValue, SideValue]:
    """Return what is shown of both."""
    first, second = (side_value(run, group, metric) for _, run, group in pair.sides)
    return first, second


def marked(found: Iterable[Finding]) -> tuple[Mark, ...]:
    """Return findings as marks, each once, in order."""
    return tuple(dict.fromkeys(Mark(each.check, each.title) for each in found))


def marks_of_pair(pair: Pair, metric: str) -> tuple[Mark, ...]:
    """Return the marks of a comparison of the two on a metric."""
    (_, run, first), (_, other, second) = pair.sides
    if pair.is_paired:
        return marked(marks_between(run, first, second, metric))
    name = metric.partition(".")[0]
    own = (each for each in _of_two_runs(pair) if not each.metrics or name in each.metrics)
    return marked([*marks_of(run, first, metric), *marks_of(other, second, metric), *own])


def _of_two_runs(pair: Pair) -> Iterator[Finding]:
    """Yield what the checks of neither run can see, named as the checks that find it within a run."""
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
    """Return what the checks of either run found on these values, and what tells the runs apart."""
    remedies: dict[tuple[str, str], str] = {}
    sides: dict[tuple[str, str], set[str]] = {}
    for case in cases:
        for name, each in _findings(case.pair, metrics):
            remedies.setdefault((each.check, each.title), each.remedy)
            sides.setdefault((each.check, each.title), set()).add(name)
    return tuple(Reason(*key, remedy, tuple(sorted(sides[key]))) for key, remedy in remedies.items())


def _findings(pair: Pair, metrics: Sequence[str]) -> Iterator[tuple[str, Finding]]:
    """Yield findings, each with the name of the side whose run has it."""
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
