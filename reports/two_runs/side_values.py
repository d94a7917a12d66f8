"""What is shown of two sides: their values, what stands beside each, and the reasons to distrust them."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from reports.checks.examine import findings_of, mark_text, marks_of
from reports.checks.finding import RATES, Finding
from reports.data.cells import Group
from reports.data.run import Run
from reports.measures.over_starts import Aggregate, aggregate, shorter_half
from reports.measures.written import NOTHING, span_text, supported
from reports.verdicts.comparisons import Pair

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
    """One side's value over its starts, in its stored unit, and its marks."""

    value: Aggregate
    marks: tuple[Mark, ...] = ()

    def text(self, metric: str, *, has_why: bool = False) -> str:
        """Return `104.9 [98.1, 112.2]`, or `104.9 (98.1–112.2)` with a range, without unit and marks."""
        found = self.value
        if found.mean is None:
            return f"{NOTHING} ({found.why})" if found.why and has_why else NOTHING
        return f"{supported(metric, found.mean, shorter_half(found))} {span_text(metric, found)}".rstrip()


def side_value(run: Run, group: Group, metric: str) -> SideValue:
    """Return one side's value of a metric; one that is not there has no marks."""
    found = aggregate(run, group, metric)
    return SideValue(found, _marks(marks_of(run, group, metric)) if found.mean is not None else ())


def _marks(found: Iterable[Finding]) -> tuple[Mark, ...]:
    return tuple(dict.fromkeys(Mark(each.check, each.title) for each in found))


def with_marks(said: str, marks: Sequence[Mark]) -> str:
    """Return `104.9 ▲ 2`: text with how many marks it bears."""
    return f"{said} {mark_text(marks)}".rstrip()


def marks_of_pair(pair: Pair, metric: str) -> tuple[Mark, ...]:
    """Return the marks of a comparison of the two on a metric: of either value, and of both together."""
    own = [each for _, run, group in pair.sides for each in marks_of(run, group, metric)]
    return _marks([*own, *(each for each in _of_two_runs(pair) if _bears_on(each, [metric]))])


def _of_two_runs(pair: Pair) -> Iterator[Finding]:
    """Yield what the checks of neither run can see, named as the checks that find it within a run."""
    if pair.is_paired:
        return
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


def reasons_of(pairs: Sequence[Pair], metrics: Sequence[str]) -> tuple[Reason, ...]:
    """Return what the checks of either run found on these values, and what tells the runs apart."""
    found: dict[tuple[str, str], tuple[str, set[str]]] = {}
    for pair in pairs:
        of_both = [(pair.names, each) for each in _of_two_runs(pair)]
        for names, each in [*_of_either(pair), *of_both]:
            if _bears_on(each, metrics):
                _, sides = found.setdefault((each.check, each.title), (each.remedy, set()))
                sides.update(names)
    return tuple(Reason(*key, remedy, tuple(sorted(sides))) for key, (remedy, sides) in found.items())


def _of_either(pair: Pair) -> Iterator[tuple[tuple[str, ...], Finding]]:
    """Yield the findings about the cells of each side, with its name."""
    for name, run, group in pair.sides:
        cells = {cell.number for cell in group.counted}
        for each in findings_of(run):
            if cells and (not each.cells or not cells.isdisjoint(each.cells)):
                yield (name,), each


def _bears_on(found: Finding, metrics: Sequence[str]) -> bool:
    return not found.metrics or any(metric.partition(".")[0] in found.metrics for metric in metrics)
