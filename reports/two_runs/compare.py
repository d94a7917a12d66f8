"""Two runs, or two deployments, compared: what differs in how they were made, then B over A, case by case."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harness.contracts import CompareTerms
from reports.data.run import Run
from reports.measures.metrics import metric_of, value_names
from reports.measures.written import plural
from reports.stats.family import Verdict, decide
from reports.two_runs.differences import Difference, differences
from reports.two_runs.side_values import (
    Mark,
    Reason,
    SideValue,
    marks_of_pair,
    reasons_of,
    side_values,
)
from reports.two_runs.sides import Case, LeftOut, cases_of, check_common, open_sides
from reports.verdicts.pairs import question_of
from reports.words.verdict_words import family_text, margin_text, word_of

# As metrics name the unit of a cost, which each run says for itself.
_CURRENCY = "price.currency"
PAIRED = "Paired by block: each block of the run started both."
NOT_INTERLEAVED = (
    "The two runs were not interleaved: whatever changed between them, as the machine's other load or its "
    "temperature, is in the ratios."
)


@dataclass(frozen=True)
class Row:
    """A metric of a case: both values, and the verdict on B over A; None where none was asked for."""

    metric: str
    unit: str
    a: SideValue
    b: SideValue
    verdict: Verdict | None
    marks: tuple[Mark, ...] = ()

    @property
    def shown_unit(self) -> str:
        """The unit that a person reads: a cost has its run's currency."""
        shown_unit = metric_of(self.metric).shown_unit
        return self.unit if shown_unit == _CURRENCY else shown_unit


@dataclass(frozen=True)
class ComparedCase:
    """One deployment of each side under a load of a scenario.

    `starts`: those of each side that count; blocks where a server was not restarted (`are_starts`).
    `why_none`: why no metric of it gets a verdict; `notes`: what a reader has to know of it besides.
    """

    deployment: str
    scenario: str
    load: str
    a: str
    b: str
    starts: tuple[int, int]
    why_none: str | None
    notes: tuple[str, ...]
    rows: tuple[Row, ...]
    are_starts: bool = True

    @property
    def name(self) -> str:
        return ", ".join((self.deployment, self.scenario, self.load))

    @property
    def starts_text(self) -> str:
        first, second = self.starts
        word = "start" if self.are_starts else "block"
        return plural(first, word) + (" each" if first == second else f" of A, {second:,} of B")


@dataclass(frozen=True)
class Comparison:
    """Two sides compared. `how`: a sentence on what their starts have to do with each other.

    `family`: how many verdicts were decided together. `distrust`: what bears on these values.
    """

    a: str
    b: str
    how: str
    margin_share: float
    metrics: tuple[str, ...]
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
    cases, left_out = cases_of(*sides)
    check_common(a, b, cases, left_out)
    runs = sides[0].run, sides[1].run
    asked = [question_of(case.pair, name, terms.margin_share) for case in cases for name in terms.metrics]
    verdicts = decide(asked)
    # In the order in which they were asked: case by case, each with all metrics.
    told = iter(verdicts)
    compared = tuple(_compared(case, {name: next(told) for name in terms.metrics}) for case in cases)
    pairs = list(dict.fromkeys((case.a.deployment, case.b.deployment) for case in cases))
    return Comparison(
        a=str(a),
        b=str(b),
        how=PAIRED if runs[0] is runs[1] else NOT_INTERLEAVED,
        margin_share=terms.margin_share,
        metrics=terms.metrics,
        family=sum(verdict.kind != "none" for verdict in verdicts),
        differences=differences(*runs, pairs),
        distrust=reasons_of(cases, list(dict.fromkeys(row.metric for case in compared for row in case.rows))),
        cases=compared,
        left_out=tuple(left_out),
    )


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


def _compared(case: Case, verdicts: dict[str, Verdict]) -> ComparedCase:
    names = [*verdicts, *(name for name in value_names() if name not in verdicts)]
    rows = [_row(case, name, verdicts.get(name)) for name in names]
    return ComparedCase(
        case.deployment,
        case.a.scenario,
        case.a.load,
        case.a.deployment,
        case.b.deployment,
        (len(case.a.counted), len(case.b.counted)),
        case.pair.why_none,
        case.notes,
        tuple(row for row in rows if row.verdict or row.a.mean is not None or row.b.mean is not None),
        all(run.is_restarted(group.deployment) for _, run, group in case.pair.sides),
    )


def _row(case: Case, metric: str, verdict: Verdict | None) -> Row:
    first, second = side_values(case.pair, metric)
    marks = marks_of_pair(case.pair, metric) if verdict else ()
    return Row(metric, _unit(metric, *case.pair.runs), first, second, verdict, marks)


def _unit(name: str, first: Run, second: Run) -> str:
    unit = metric_of(name).unit
    if unit != _CURRENCY:
        return unit
    prices = {"A": first.record.price, "B": second.record.price}
    found = {side: price.currency for side, price in prices.items() if price and price.gpu_hour is not None}
    if len(set(found.values())) == 1:
        return next(iter(found.values()))
    return ", ".join(f"{side} in {currency}" for side, currency in found.items()) or unit


def to_builtins(comparison: Comparison) -> dict[str, Any]:
    """Return the comparison as plain JSON values, in stored units."""
    return asdict(comparison)
