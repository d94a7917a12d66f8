"""The gate: whether a new run is worse than a base by more than is allowed, case by case.

Every case is decided by its interval, all of them as one family (reports/stats/family.py); a case that
the interval does not decide is inconclusive, and says how many repeats would. So is one that NEW does not
have: what was not seen is not passed.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from harness.contracts import GateTerms
from harness.errors import UserError
from reports.data.run import Run
from reports.measures.metrics import metric_of
from reports.measures.written import plural
from reports.stats.family import Question, Verdict, decide
from reports.stats.intervals import CONFIDENCE, Estimate
from reports.two_runs.cases import Case, LeftOut, cases_of
from reports.two_runs.compare import why_nothing
from reports.two_runs.differences import Difference, differences
from reports.two_runs.gate_limit import check_limit, check_metric, limit_of
from reports.two_runs.side_values import (
    Mark,
    Reason,
    SideValue,
    marks_of_pair,
    reasons_of,
    side_value,
    side_values,
)
from reports.two_runs.sides import open_sides
from reports.verdicts.pairs import estimate_of, why_not
from reports.words.verdict_words import family_text

Outcome = Literal["pass", "fail", "inconclusive"]
EXIT_CODES: dict[Outcome, int] = {"pass": 0, "fail": 1, "inconclusive": 3}
NAMES = ("BASE", "NEW")
# With more than so many further repeats it is not worth saying how many.
MOST_REPEATS = 100
_OUTCOMES: dict[str, Outcome] = {"better": "pass", "worse": "fail"}


@dataclass(frozen=True)
class GatedCase:
    """One deployment of each side under a load of a scenario. `regression` within [`low`, `high`] at
    `confidence`: how much worse NEW is, as a ratio that is above 1 where it is worse (`is_ratio`), else as a
    difference that is above 0; None without an interval. `why`: of one that is inconclusive, why.
    `more_repeats`: how many more of each side would be likely to decide it; None where that is not known.
    `notes`: what a reader has to know of it; `marks`: what the comparison bears."""

    deployment: str
    scenario: str
    load: str
    outcome: Outcome
    base: SideValue
    new: SideValue
    regression: float | None
    low: float | None
    high: float | None
    confidence: float
    is_ratio: bool
    starts: int
    why: str | None
    more_repeats: int | None
    notes: tuple[str, ...] = ()
    marks: tuple[Mark, ...] = ()

    def regression_text(self, metric: str) -> str:
        """`1.031x [1.012, 1.050]`, above 1 where NEW is worse; of a share `+0.50 [-0.10, +1.10] %`; empty
        without an interval."""
        if self.regression is None or self.low is None or self.high is None:
            return ""
        values = (self.regression, self.low, self.high)
        if self.is_ratio:
            mean, low, high = (f"{value:.3f}" for value in values)
            return f"{mean}x [{low}, {high}]"
        row = metric_of(metric)
        mean, low, high = (f"{value * row.shown_scale:+.2f}" for value in values)
        return f"{mean} [{low}, {high}] {row.shown_unit}"

    @property
    def name(self) -> str:
        """Deployment, scenario and load."""
        return ", ".join((self.deployment, self.scenario, self.load))


@dataclass(frozen=True)
class Gate:
    """`outcome`: fail if any case fails, else inconclusive if any is, else pass. `cases`: all that BASE has.
    `left_out`: what only NEW has. `created_at`: when NEW was begun. Else as
    reports.two_runs.compare.Comparison."""

    base: str
    new: str
    metric: str
    max_regression_share: float
    outcome: Outcome
    created_at: str
    is_interleaved: bool
    family: int
    differences: tuple[Difference, ...]
    distrust: tuple[Reason, ...]
    cases: tuple[GatedCase, ...]
    left_out: tuple[LeftOut, ...]

    @property
    def summary(self) -> str:
        """The verdict in one line."""
        limit = f"{100 * self.max_regression_share:g} %"
        total = plural(len(self.cases), "case")
        family = family_text(self.family)
        if self.outcome == "pass":
            return f"PASS: {self.metric} is not worse by more than {limit} in {total} ({family})"
        count = self.count(self.outcome)
        if self.outcome == "fail":
            return f"FAIL: {self.metric} is worse by more than {limit} in {count} of {total} ({family})"
        whys = dict.fromkeys(case.why for case in self.cases if case.outcome == "inconclusive")
        why = next(iter(whys)) if len(whys) == 1 else "each with its reason above"
        return f"INCONCLUSIVE: {self.metric} is not decided in {count} of {total}: {why}"

    @property
    def exit_code(self) -> int:
        """0 pass, 1 fail, 3 inconclusive."""
        return EXIT_CODES[self.outcome]

    def count(self, outcome: Outcome) -> int:
        return sum(case.outcome == outcome for case in self.cases)


def gate_runs(base: str | Path, new: str | Path, terms: GateTerms | None = None) -> Gate:
    """Read two sides, each `DIR` or `DIR:deployment`, and decide.

    Raises StoreError where a run cannot be read, UserError for a metric that cannot be gated and where
    nothing of the two can be compared.
    """
    terms = terms or GateTerms()
    check_metric(terms.metric)
    check_limit(terms)
    sides = open_sides(str(base), str(new))
    found, left_out = cases_of(*sides, NAMES)
    if not found:
        raise UserError(f"{base} and {new} cannot be compared: {why_nothing(left_out)}")
    runs = sides[0].run, sides[1].run
    verdicts = decide([_question(case, terms) for case in found])
    cases = [_gated(case, verdict, terms) for case, verdict in zip(found, verdicts, strict=True)]
    cases += [_unseen(runs[0], each, terms) for each in left_out if each.side != NAMES[1]]
    pairs = list(dict.fromkeys((case.a.deployment, case.b.deployment) for case in found))
    return Gate(
        base=str(base),
        new=str(new),
        metric=terms.metric,
        max_regression_share=terms.max_regression_share,
        outcome=_whole([case.outcome for case in cases]),
        created_at=runs[1].record.created_at,
        is_interleaved=runs[0] is runs[1],
        family=sum(verdict.kind != "none" for verdict in verdicts),
        differences=differences(*runs, pairs),
        distrust=reasons_of(found, [terms.metric]),
        cases=tuple(cases),
        left_out=tuple(each for each in left_out if each.side == NAMES[1]),
    )


def _question(case: Case, terms: GateTerms) -> Question:
    """Whether NEW is worse, counted from the limit: an interval below 0 is all within it."""
    estimate = _regression(case, terms.metric)
    shifted = estimate and replace(estimate, mean=estimate.mean - limit_of(terms))
    return Question(shifted, "lower", 0.0, why_not(case.pair, terms.metric))


def _regression(case: Case, metric: str) -> Estimate | None:
    """How much worse NEW is: above 1 (above 0, where additive) where it is."""
    return estimate_of(case.pair, metric, is_inverse=metric_of(metric).better == "higher")


def _gated(case: Case, verdict: Verdict, terms: GateTerms) -> GatedCase:
    base, new = side_values(case.pair, terms.metric)
    outcome = _OUTCOMES.get(verdict.kind, "inconclusive")
    why, more = None, None
    if verdict.kind == "unknown":
        estimate = _regression(case, terms.metric)
        assert estimate is not None
        more = more_repeats(estimate, limit_of(terms), verdict.confidence)
        why = _needs(more)
    elif outcome == "inconclusive":
        why = verdict.why
    low, ratio, high = (
        None if value is None else _unshifted(value, verdict, terms)
        for value in (verdict.low, verdict.ratio, verdict.high)
    )
    return GatedCase(
        deployment=case.deployment,
        scenario=case.a.scenario,
        load=case.a.load,
        outcome=outcome,
        base=base,
        new=new,
        regression=ratio,
        low=low,
        high=high,
        confidence=verdict.confidence,
        is_ratio=not metric_of(terms.metric).is_additive,
        starts=verdict.k,
        why=why,
        more_repeats=more,
        notes=case.notes,
        marks=marks_of_pair(case.pair, terms.metric),
    )


def _unseen(base: Run, left_out: LeftOut, terms: GateTerms) -> GatedCase:
    """A case of BASE that has no partner."""
    key = left_out.deployment, left_out.scenario, left_out.load
    group = next(group for group in base.groups if group.key == key)
    is_absent = left_out.side == NAMES[0]
    return GatedCase(
        *key,
        outcome="inconclusive",
        base=side_value(base, group, terms.metric),
        new=SideValue(None, None, None, False, 0, 0, left_out.why),
        regression=None,
        low=None,
        high=None,
        confidence=CONFIDENCE,
        is_ratio=not metric_of(terms.metric).is_additive,
        starts=0,
        why=f"NEW has no {left_out.what}" if is_absent else left_out.why,
        more_repeats=None,
    )


def _unshifted(value: float, verdict: Verdict, terms: GateTerms) -> float:
    return value * math.exp(limit_of(terms)) if verdict.is_log else value + limit_of(terms)


def more_repeats(estimate: Estimate, limit: float, confidence: float) -> int | None:
    """How many more repeats of each side would be likely to separate what was seen from the limit: the least
    whose expected interval, at this confidence and with the noise that was seen, does not reach it. None:
    more than MOST_REPEATS.

    The error of a mean falls with the square root of the repeats, and its degrees of freedom grow in
    proportion (those of Welch's too, while both sides grow alike).
    """
    distance = abs(estimate.mean - limit)
    for more in range(1, MOST_REPEATS + 1):
        k = estimate.k + more
        expected = Estimate(
            distance,
            estimate.error * math.sqrt(estimate.k / k),
            estimate.df * (k - 1) / (estimate.k - 1),
            k,
            is_log=False,
        )
        if expected.interval(confidence)[0] > 0:
            return more
    return None


def _needs(more: int | None) -> str:
    if more is None:
        return f"needs more than {MOST_REPEATS} more repeats: what was seen is close to the limit"
    return f"needs about {plural(more, 'more repeat')}"


def _whole(outcomes: Sequence[Outcome]) -> Outcome:
    worst_first: tuple[Outcome, ...] = ("fail", "inconclusive")
    return next((outcome for outcome in worst_first if outcome in outcomes), "pass")


def gate_to_builtins(gate: Gate) -> dict[str, Any]:
    """The gate as plain JSON values, in stored units."""
    return {**asdict(gate), "exit_code": gate.exit_code}
