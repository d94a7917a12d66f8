"""Two runs, or two deployments, compared: what differs in how they were made, then B over A, case by case."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harness.contracts import CompareTerms
from reports.checks.examine import findings_of, mark_text, marks_of
from reports.checks.finding import RATES, Finding
from reports.measures.metrics import metric_of, value_names
from reports.measures.over_starts import Aggregate, aggregate, shorter_half
from reports.measures.written import NOTHING, plural, span_text, supported
from reports.stats.family import Question, Verdict, decide
from reports.two_runs.differences import Difference, differences
from reports.two_runs.sides import LeftOut, Side, notes_of, open_sides, pairs_of
from reports.verdicts.comparisons import Pair, question_of
from reports.words.verdict_words import family_text, margin_text, word_of

_PAIRED = "Paired by block: each block of the run started both."
_NOT_INTERLEAVED = (
    "The two runs were not interleaved: whatever changed between them, as the machine's other load or its "
    "temperature, is in the ratios."
)
# As metrics name the unit of a cost, which each run says for itself.
_CURRENCY = "price.currency"
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


@dataclass(frozen=True)
class Row:
    """A metric of a case: both values, and the verdict on the two; None where none was asked for.

    `unit`: that of the values as they are stored; of a cost the currency.
    """

    metric: str
    unit: str
    a: SideValue
    b: SideValue
    verdict: Verdict | None
    marks: tuple[Mark, ...] = ()

    @property
    def shown_unit(self) -> str:
        """The unit that a person reads."""
        return metric_of(self.metric).shown_unit.replace(_CURRENCY, self.unit)


@dataclass(frozen=True)
class ComparedCase:
    """One deployment of each side under a load of a scenario.

    `deployment`: its label, or `b against a` where they differ. `starts_text`: how many of each side count.
    `why_none`: why no metric of it gets a verdict; `notes`: what a reader has to know of it besides.
    """

    deployment: str
    scenario: str
    load: str
    a: str
    b: str
    starts_text: str
    why_none: str | None
    notes: tuple[str, ...]
    rows: tuple[Row, ...]

    @property
    def name(self) -> str:
        return ", ".join((self.deployment, self.scenario, self.load))


@dataclass(frozen=True)
class Comparison:
    """Two sides compared. `how`: a sentence on what their starts have to do with each other.

    `family`: how many verdicts were decided together. `distrust`: what bears on these values.
    """

    a: str
    b: str
    how: str
    margin_share: float
    family: int
    differences: tuple[Difference, ...]
    distrust: tuple[Reason, ...]
    cases: tuple[ComparedCase, ...]
    left_out: tuple[LeftOut, ...]


def compare_runs(a: str | Path, b: str | Path, terms: CompareTerms | None = None) -> Comparison:
    """Read and compare two sides, each `DIR` or `DIR:deployment`.

    Raises StoreError where a run cannot be read, UserError where nothing of the two can be compared.
    """
    terms = terms or CompareTerms()
    sides = open_sides(str(a), str(b))
    pairs, left_out = pairs_of(*sides)
    asked = [question_of(pair, name, terms.margin_share) for pair in pairs for name in terms.metrics]
    return compare_pairs(
        sides, pairs, left_out, terms.metrics, asked, others=value_names(), margin_share=terms.margin_share
    )


def compare_pairs(
    sides: tuple[Side, Side],
    pairs: Sequence[Pair],
    left_out: Sequence[LeftOut],
    metrics: Sequence[str],
    asked: Sequence[Question],
    *,
    others: Sequence[str] = (),
    margin_share: float = 0.0,
) -> Comparison:
    """Decide what is asked of each pair and metric, in that order, as one family, and put values beside it.

    `others` are metrics whose values are shown without a verdict.
    """
    verdicts = decide(asked)
    told = iter(verdicts)
    cases = tuple(_case(pair, {name: next(told) for name in metrics}, others) for pair in pairs)
    (first, second), shown = sides, dict.fromkeys(row.metric for case in cases for row in case.rows)
    return Comparison(
        a=first.text,
        b=second.text,
        how=_PAIRED if first.run is second.run else _NOT_INTERLEAVED,
        margin_share=margin_share,
        family=sum(verdict.kind != "none" for verdict in verdicts),
        differences=differences(first.run, second.run, list(dict.fromkeys((c.a, c.b) for c in cases))),
        distrust=reasons_of(pairs, list(shown)),
        cases=cases,
        left_out=tuple(left_out),
    )


def _case(pair: Pair, verdicts: dict[str, Verdict], others: Sequence[str]) -> ComparedCase:
    a, b = pair.groups
    rows = [_row(pair, name, verdicts.get(name)) for name in dict.fromkeys([*verdicts, *others])]
    have = (
        row for row in rows if row.verdict or row.a.value.mean is not None or row.b.value.mean is not None
    )
    is_restarted = all(run.is_restarted(group.deployment) for _, run, group in pair.sides)
    starts = plural(len(a.counted), "start" if is_restarted else "block")
    starts += " each" if len(a.counted) == len(b.counted) else f" of A, {len(b.counted):,} of B"
    return ComparedCase(
        a.deployment if a.deployment == b.deployment else f"{b.deployment} against {a.deployment}",
        a.scenario,
        a.load,
        a.deployment,
        b.deployment,
        starts,
        pair.why_none,
        notes_of(pair),
        tuple(have),
    )


def _row(pair: Pair, metric: str, verdict: Verdict | None) -> Row:
    own = [marks_of(run, group, metric) for _, run, group in pair.sides]
    values = [aggregate(run, group, metric) for _, run, group in pair.sides]
    a, b = (
        SideValue(value, _marks(marks) if value.mean is not None else ())
        for value, marks in zip(values, own, strict=True)
    )
    both = [each for each in _of_two_runs(pair) if _bears_on(each, [metric])]
    marks = _marks([*own[0], *own[1], *both]) if verdict else ()
    return Row(metric, _unit(metric, pair), a, b, verdict, marks)


def _unit(metric: str, pair: Pair) -> str:
    """Return a metric's stored unit, of a cost the currency, or both currencies."""
    unit = metric_of(metric).unit
    prices = [run.record.price for run in pair.runs if unit == _CURRENCY]
    found = [price.currency for price in prices if price and price.gpu_hour is not None]
    return " and ".join(dict.fromkeys(found)) or unit


# --- doubts ----------------------------------------------------------------------------------------


def _marks(found: Iterable[Finding]) -> tuple[Mark, ...]:
    return tuple(dict.fromkeys(Mark(each.check, each.title) for each in found))


def with_marks(said: str, marks: Sequence[Mark]) -> str:
    """Return `104.9 ▲ 2`: text with how many marks it bears."""
    return f"{said} {mark_text(marks)}".rstrip()


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
        for name, run, group in pair.sides:
            cells = {cell.number for cell in group.counted}
            own = [each for each in findings_of(run) if not each.cells or not cells.isdisjoint(each.cells)]
            for each in [*(own if cells else ()), *_of_two_runs(pair)]:
                if _bears_on(each, metrics):
                    _, sides = found.setdefault((each.check, each.title), (each.remedy, set()))
                    sides.add(name)
    return tuple(Reason(*key, remedy, tuple(sorted(sides))) for key, (remedy, sides) in found.items())


def _bears_on(found: Finding, metrics: Sequence[str]) -> bool:
    return not found.metrics or any(metric.partition(".")[0] in found.metrics for metric in metrics)


# --- in words --------------------------------------------------------------------------------------


def verdict_line(comparison: Comparison) -> str:
    """Return by which rule the verdicts were given."""
    if not comparison.family:
        return "Ratios are B over A, with 95 % intervals; no verdicts."
    return (
        f"Ratios are B over A; verdicts on B, {family_text(comparison.family)}; same: within "
        f"{margin_text(comparison.margin_share)}. A ratio's interval is at the level that decides it."
    )


def verdict_text(metric: str, verdict: Verdict, margin_share: float) -> str:
    """Return `B faster`, `same within 5 %`, `cannot tell`, or why there is none."""
    if verdict.kind == "none":
        return f"none: {verdict.why}"
    word = word_of(metric, verdict, margin_share)
    return f"B {word}" if verdict.kind in ("better", "worse") else word


def to_builtins(comparison: Comparison) -> dict[str, Any]:
    """Return the comparison as plain JSON values, in stored units."""
    return asdict(comparison)
