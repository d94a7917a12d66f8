"""The gate: whether a new run is worse than a base by more than is allowed, case by case.

Every case is decided by its interval, all of them as one family (reports/stats/family.py). One that the
interval does not decide is inconclusive, as is one that NEW does not have: what was not seen is not passed.
"""

import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from harness.contracts import GateTerms
from harness.errors import UserError
from reports.data.run import Run
from reports.measures.metrics import METRICS, check_metric_name, metric_of
from reports.measures.written import plural
from reports.stats.family import Question, Verdict, decide
from reports.stats.intervals import CONFIDENCE, Estimate
from reports.two_runs.differences import Difference, differences
from reports.two_runs.side_values import (
    Mark,
    Reason,
    SideValue,
    marks_of_pair,
    reasons_of,
    side_value,
    side_values,
)
from reports.two_runs.sides import Case, LeftOut, cases_of, check_common, open_sides
from reports.verdicts.pairs import estimate_of, why_not
from reports.words.verdict_words import family_text

Outcome = Literal["pass", "fail", "inconclusive"]
EXIT_CODES: dict[Outcome, int] = {"pass": 0, "fail": 1, "inconclusive": 3}
NAMES = ("BASE", "NEW")
# With more further repeats it is not worth saying how many.
MOST_REPEATS = 100
_TOO_CLOSE = f"needs more than {MOST_REPEATS} more repeats: what was seen is close to the limit"
_OUTCOMES: dict[str, Outcome] = {"better": "pass", "worse": "fail"}
_WORST_LAST: tuple[Outcome, ...] = ("pass", "inconclusive", "fail")


@dataclass(frozen=True)
class GatedCase:
    """One deployment of each side under a load of a scenario.

    `regression` within [`low`, `high`] at `confidence`: how much worse NEW is, as a ratio above 1 where it is
    worse (`is_ratio`), else as a difference above 0; None without an interval. `why`: why it is inconclusive.
    `more_repeats`: how many more of each side would be likely to decide it; None where that is not known.
    """

    deployment: str
    scenario: str
    load: str
    outcome: Outcome
    base: SideValue
    new: SideValue
    is_ratio: bool
    why: str | None
    regression: float | None = None
    low: float | None = None
    high: float | None = None
    confidence: float = CONFIDENCE
    starts: int = 0
    more_repeats: int | None = None
    notes: tuple[str, ...] = ()
    marks: tuple[Mark, ...] = ()

    def regression_text(self, metric: str) -> str:
        """Return `1.031x [1.012, 1.050]`, of a share `+0.50 [-0.10, +1.10] %`; empty without an interval."""
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
        return ", ".join((self.deployment, self.scenario, self.load))


@dataclass(frozen=True)
class Gate:
    """What came out for all cases that BASE has; `left_out`: what only NEW has.

    `outcome`: fail if any case fails, else inconclusive if any is, else pass. `created_at`: when NEW was
    begun. `family`: how many verdicts were decided together. `distrust`: what the marks stand for.
    """

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
    check_common(base, new, found, left_out)
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
        outcome=max((case.outcome for case in cases), key=_WORST_LAST.index),
        created_at=runs[1].record.created_at,
        is_interleaved=runs[0] is runs[1],
        family=sum(verdict.kind != "none" for verdict in verdicts),
        differences=differences(*runs, pairs),
        distrust=reasons_of(found, [terms.metric]),
        cases=tuple(cases),
        left_out=tuple(each for each in left_out if each.side == NAMES[1]),
    )


def _question(case: Case, terms: GateTerms) -> Question:
    """Ask whether NEW is worse, counted from the limit: an interval below 0 is all within it."""
    estimate = _regression(case, terms.metric)
    shifted = estimate and replace(estimate, mean=estimate.mean - limit_of(terms))
    return Question(shifted, "lower", 0.0, why_not(case.pair, terms.metric))


def _regression(case: Case, metric: str) -> Estimate | None:
    return estimate_of(case.pair, metric, is_inverse=metric_of(metric).better == "higher")


def _gated(case: Case, verdict: Verdict, terms: GateTerms) -> GatedCase:
    base, new = side_values(case.pair, terms.metric)
    outcome, why, more = _OUTCOMES.get(verdict.kind, "inconclusive"), verdict.why, None
    estimate = _regression(case, terms.metric)
    if verdict.kind == "unknown" and estimate:
        more = more_repeats(estimate, limit_of(terms), verdict.confidence)
        why = f"needs about {plural(more, 'more repeat')}" if more else _TOO_CLOSE
    limit = limit_of(terms)
    low, ratio, high = (
        None if value is None else value * math.exp(limit) if verdict.is_log else value + limit
        for value in (verdict.low, verdict.ratio, verdict.high)
    )
    return GatedCase(
        case.deployment,
        case.a.scenario,
        case.a.load,
        outcome,
        base,
        new,
        is_ratio=not metric_of(terms.metric).is_additive,
        why=why,
        regression=ratio,
        low=low,
        high=high,
        confidence=verdict.confidence,
        starts=verdict.k,
        more_repeats=more,
        notes=case.notes,
        marks=marks_of_pair(case.pair, terms.metric),
    )


def _unseen(base: Run, left_out: LeftOut, terms: GateTerms) -> GatedCase:
    """Return a case of BASE that has no partner."""
    key = left_out.deployment, left_out.scenario, left_out.load
    group = next(group for group in base.groups if group.key == key)
    is_absent = left_out.side == NAMES[0]
    return GatedCase(
        *key,
        outcome="inconclusive",
        base=side_value(base, group, terms.metric),
        new=SideValue(None, None, None, False, 0, 0, left_out.why),
        is_ratio=not metric_of(terms.metric).is_additive,
        why=f"NEW has no {left_out.what}" if is_absent else left_out.why,
    )


def more_repeats(estimate: Estimate, limit: float, confidence: float) -> int | None:
    """Return how many more repeats of each side would be likely to separate what was seen from the limit.

    That is the least number whose expected interval, with the noise that was seen, does not reach it. The
    error of a mean falls with the square root of the repeats, and its degrees of freedom grow in proportion.
    None: more than MOST_REPEATS.
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


def gate_to_builtins(gate: Gate) -> dict[str, Any]:
    """Return the gate as plain JSON values, in stored units."""
    return {**asdict(gate), "exit_code": gate.exit_code}


# --- what can be gated, and by how much ------------------------------------------------------------


def check_metric(name: str) -> None:
    """Raise UserError for a metric that does not exist, or of which nothing worse can be told by a share."""
    check_metric_name(name, "gate.metric")
    metric = metric_of(name)
    if metric.better == "-":
        raise UserError(
            f"gate.metric={name}: more of it is neither better nor worse; choose from {_gateable()}"
        )
    if not _is_gateable(name):
        raise UserError(
            f"gate.metric={name}: is compared by its difference, which a share does not limit; "
            f"choose from {_gateable()}"
        )


def check_limit(terms: GateTerms) -> None:
    """Raise UserError where it lets everything pass: nothing loses more than all it has."""
    share = terms.max_regression_share
    if _is_of_less(terms) and share >= 1:
        raise UserError(
            f"gate.max_regression={100 * share:g}%: {terms.metric} cannot fall by more than 100 %; "
            "give less, such as 5%"
        )


def _is_of_less(terms: GateTerms) -> bool:
    """Return whether worse is less of it, by a ratio."""
    metric = metric_of(terms.metric)
    return metric.better == "higher" and not metric.is_additive


def _is_gateable(name: str) -> bool:
    metric = metric_of(name)
    return metric.better != "-" and (not metric.is_additive or metric.unit == "share")


def _gateable() -> str:
    return ", ".join(
        f"{metric.name}.p95" if metric.is_distribution else metric.name
        for metric in METRICS
        if _is_gateable(metric.name)
    )


def limit_of(terms: GateTerms) -> float:
    """Return the limit on the estimate's scale: 5 % are 1.05 times the time, 0.95 times the rate (as
    logarithms), or 0.05 of a share."""
    share = terms.max_regression_share
    if metric_of(terms.metric).is_additive:
        return share
    return -math.log1p(-share) if _is_of_less(terms) else math.log1p(share)


def limit_text(metric: str, max_regression_share: float) -> str:
    """Return `1.05x`; `1.053x (5 % less)` where worse is less; of a share `+5 %`."""
    limit, percent = limit_of(GateTerms(metric, max_regression_share)), f"{100 * max_regression_share:g} %"
    if metric_of(metric).is_additive:
        return f"+{percent}"
    if metric_of(metric).better == "higher":
        return f"{math.exp(limit):.4g}x ({percent} less)"
    return f"{1 + max_regression_share:g}x"
