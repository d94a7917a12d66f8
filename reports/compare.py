"""Two runs, or two deployments, compared: what differs in how they were made, then B over A, case by case.

Ratios come with their intervals and are decided as one family (reports/verdicts.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harness.contracts import CompareTerms
from harness.errors import UserError
from reports.cases import Case, LeftOut, aggregates, cases_of, estimate_of, reasons_to_distrust, why_not
from reports.cells import Aggregate
from reports.differences import Difference, differences
from reports.frames import Run
from reports.markup import NOTHING, plural, shown
from reports.metrics import METRICS, PERCENTILES, metric_of
from reports.sides import open_sides
from reports.verdict_words import margin_text, word_of
from reports.verdicts import Question, Verdict, decide, log_margin

VALUE_NAMES = tuple(
    name
    for metric in METRICS
    for name in (
        [f"{metric.name}.p{level}" for level in PERCENTILES] if metric.is_distribution else [metric.name]
    )
)
# As metrics name the unit of a cost, which each run says for itself.
_CURRENCY = "price.currency"
PAIRED = "Paired by block: each block of the run started both."
NOT_INTERLEAVED = (
    "The two runs were not interleaved: whatever changed between them, as the machine's other load or its "
    "temperature, is in the ratios."
)


@dataclass(frozen=True)
class SideValue:
    """One side's value in its stored unit: the mean over k starts, its 95 % interval [low, high] where there
    are two or more, and n observations; None or 0 where absent, and `why` then says why."""

    mean: float | None
    low: float | None
    high: float | None
    k: int
    n: int
    why: str | None = None

    def text(self, metric: str, *, has_why: bool = False) -> str:
        """As a person reads it, without its unit; of one that is absent `has_why` says why."""
        if self.mean is None:
            return f"{NOTHING} ({self.why})" if self.why and has_why else NOTHING
        if self.low is None or self.high is None:
            return shown(metric, self.mean)
        return f"{shown(metric, self.mean)} [{_end(metric, self.low)}, {_end(metric, self.high)}]"


def _end(metric: str, value: float) -> str:
    """An end of an interval: below zero it has the digits of any other."""
    return f"−{shown(metric, -value)}" if value < 0 else shown(metric, value)


@dataclass(frozen=True)
class Row:
    """A metric of a case: both values, and the verdict on B over A; None where none was asked for."""

    metric: str
    unit: str
    a: SideValue
    b: SideValue
    verdict: Verdict | None

    @property
    def shown_unit(self) -> str:
        """The unit that a person reads: a cost has its run's currency."""
        shown_unit = metric_of(self.metric).shown_unit
        return self.unit if shown_unit == _CURRENCY else shown_unit


@dataclass(frozen=True)
class ComparedCase:
    """One deployment of each side under a load of a scenario. `starts`: of each side, those that count.
    `why_none`: why no metric of it gets a verdict."""

    deployment: str
    scenario: str
    load: str
    a: str
    b: str
    starts: tuple[int, int]
    why_none: str | None
    marks: tuple[str, ...]
    rows: tuple[Row, ...]

    @property
    def name(self) -> str:
        """Deployment, scenario and load."""
        return ", ".join((self.deployment, self.scenario, self.load))

    @property
    def starts_text(self) -> str:
        """How many starts its values come from."""
        first, second = self.starts
        return plural(first, "start") + (" each" if first == second else f" of A, {second:,} of B")


@dataclass(frozen=True)
class Comparison:
    """`a` and `b` as they were given. `how`: a sentence on what their starts have to do with each other.
    `family`: how many verdicts were decided together. `distrust`: by title the sides whose checks found it.
    """

    a: str
    b: str
    how: str
    margin_share: float
    metrics: tuple[str, ...]
    family: int
    differences: tuple[Difference, ...]
    distrust: dict[str, tuple[str, ...]]
    cases: tuple[ComparedCase, ...]
    left_out: tuple[LeftOut, ...]


def compare_runs(a: str | Path, b: str | Path, terms: CompareTerms | None = None) -> Comparison:
    """Read and compare two sides, each `DIR` or `DIR:deployment`.

    Raises StoreError where a run cannot be read, UserError where nothing of the two can be compared.
    """
    terms = terms or CompareTerms()
    sides = open_sides(str(a), str(b))
    cases, left_out = cases_of(*sides)
    if not cases:
        raise UserError(f"{a} and {b} cannot be compared: {why_nothing(left_out)}")
    runs = sides[0].run, sides[1].run
    asked = [(case, metric) for case in cases for metric in terms.metrics]
    verdicts = decide([_question(case, metric, terms.margin_share) for case, metric in asked])
    by_case = {
        id(case): dict(zip(terms.metrics, verdicts[n * len(terms.metrics) :], strict=False))
        for n, case in enumerate(cases)
    }
    pairs = list(dict.fromkeys((case.a.deployment, case.b.deployment) for case in cases))
    return Comparison(
        a=str(a),
        b=str(b),
        how=PAIRED if runs[0] is runs[1] else NOT_INTERLEAVED,
        margin_share=terms.margin_share,
        metrics=terms.metrics,
        family=sum(verdict.kind != "none" for verdict in verdicts),
        differences=differences(*runs, pairs),
        distrust=distrust(cases, terms.metrics),
        cases=tuple(_compared(case, by_case[id(case)]) for case in cases),
        left_out=tuple(left_out),
    )


def why_nothing(left_out: Sequence[LeftOut]) -> str:
    """Why two sides have no case in common."""
    of_both = list(dict.fromkeys(each.why for each in left_out if " and " in each.side))
    if of_both:
        return "; ".join(of_both[:3])
    listed = [f"{each.side} has {each.what}" for each in left_out[:4]]
    more = f", and {len(left_out) - 4} more" if len(left_out) > 4 else ""
    return (
        f"no deployment, scenario and load in common ({'; '.join(listed)}{more}); "
        "DIR:DEPLOYMENT compares deployments of other names"
    )


def distrust(cases: Sequence[Case], metrics: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Titles of what the checks of either run found that bears on these values, and whose they are."""
    found: dict[str, list[str]] = {}
    for case in cases:
        for name, title in reasons_to_distrust(case, metrics):
            sides = found.setdefault(title, [])
            if name not in sides:
                sides.append(name)
    return {title: tuple(sorted(sides)) for title, sides in found.items()}


def verdict_line(comparison: Comparison) -> str:
    """By which rule the verdicts were given."""
    if not comparison.family:
        return "Ratios are B over A, with 95 % intervals; no verdicts."
    family = plural(comparison.family, "comparison")
    return (
        f"Ratios are B over A; verdicts on B, 95 %, Holm over {family}; same: within "
        f"{margin_text(comparison.margin_share)}. A ratio's interval is at the level that decides it."
    )


def verdict_text(metric: str, verdict: Verdict, margin_share: float) -> str:
    """`B faster`, `same within 5 %`, `cannot tell`, or why there is none."""
    if verdict.kind == "none":
        return f"none: {verdict.why}"
    word = word_of(metric, verdict, margin_share)
    return f"B {word}" if verdict.kind in ("better", "worse") else word


def _question(case: Case, metric: str, margin_share: float) -> Question:
    is_log, better = not metric_of(metric).is_additive, metric_of(metric).better
    return Question(
        estimate_of(case, metric),
        "lower" if better == "lower" else "higher",
        log_margin(margin_share) if is_log else 0.0,
        why_not(case, metric),
    )


def _compared(case: Case, verdicts: dict[str, Verdict]) -> ComparedCase:
    names = [*verdicts, *(name for name in VALUE_NAMES if name not in verdicts)]
    rows = [_row(case, name, verdicts.get(name)) for name in names]
    return ComparedCase(
        case.deployment,
        case.a.scenario,
        case.a.load,
        case.a.deployment,
        case.b.deployment,
        (len(case.a.counted), len(case.b.counted)),
        case.why_none,
        case.marks,
        tuple(row for row in rows if row.verdict or row.a.mean is not None or row.b.mean is not None),
    )


def _row(case: Case, metric: str, verdict: Verdict | None) -> Row:
    first, second = (side_value(found) for found in aggregates(case, metric))
    return Row(metric, _unit(metric, *case.runs), first, second, verdict)


def side_value(found: Aggregate) -> SideValue:
    """What of a side's value is shown."""
    low, high = found.interval or (None, None)
    return SideValue(found.mean, low, high, found.k, found.n, found.why)


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
    """The comparison as plain JSON values, in stored units."""
    return asdict(comparison)
