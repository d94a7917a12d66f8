"""The gate: whether a new run is worse than a base by more than is allowed, case by case.

Every case is decided by its interval, all of them as one family (reports/stats/intervals.py). One that the
interval does not decide is inconclusive, as is one that NEW does not have: what was not seen is not passed.
"""

import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from scipy.special import stdtrit

from harness.contracts import GateTerms
from harness.errors import UserError
from reports.data.cells import Group
from reports.measures import METRICS, NOTHING, check_metric_name, metric_of, plural
from reports.stats.intervals import Estimate, Question
from reports.two_runs.compare import ComparedCase, Comparison, compare_pairs
from reports.two_runs.sides import open_sides, pairs_of
from reports.verdicts.comparisons import estimate_of, mirrored, why_not
from reports.words.verdict_words import family_text, margin_text

Outcome = Literal["pass", "fail", "inconclusive"]
# The worst last.
EXIT_CODES: dict[Outcome, int] = {"pass": 0, "inconclusive": 3, "fail": 1}
NAMES = ("BASE", "NEW")
# With more further repeats it is not worth saying how many.
MOST_REPEATS = 100
_TOO_CLOSE = f"needs more than {MOST_REPEATS} more repeats: what was seen is close to the limit"


@dataclass(frozen=True)
class GatedCase:
    """A case with what came out of it. `why`: why it is inconclusive.

    The verdict of its row has how much worse NEW is, with its interval: a ratio above 1 where it is worse,
    of a share a difference above 0. It has no row where NEW has no such case. `more_repeats`: how many more
    of each side would be likely to decide it; None where that is not known.
    """

    case: ComparedCase
    outcome: Outcome
    why: str | None = None
    more_repeats: int | None = None

    @property
    def cells(self) -> tuple[str, str, str]:
        """Return BASE, NEW and what NEW has against it, for instance `3 % less [5 % less, 1 % less] ▲ 2`."""
        row = next(iter(self.case.rows), None)
        if row and row.verdict and metric_of(row.metric).better == "higher":
            row = replace(row, verdict=mirrored(row.verdict))
        return (*row.values, row.marked_change) if row else (NOTHING, NOTHING, NOTHING)


@dataclass(frozen=True)
class Gate:
    """What came out of all cases that BASE has. `compared`: BASE as A, NEW as B.

    `outcome`: fail if any case fails, else inconclusive if any is, else pass. `created_at`: when NEW was
    begun.
    """

    compared: Comparison
    terms: GateTerms
    outcome: Outcome
    created_at: str
    cases: tuple[GatedCase, ...]

    @property
    def summary(self) -> str:
        worse = f"worse by more than {margin_text(self.terms.max_regression_share)}"
        total, count = plural(len(self.cases), "case"), self.count(self.outcome)
        said = {
            "pass": f"is not {worse} in {total} ({family_text(self.compared.family)})",
            "fail": f"is {worse} in {count} of {total} ({family_text(self.compared.family)})",
            "inconclusive": f"is not decided in {count} of {total}",
        }
        return f"{self.outcome.upper()}: {self.terms.metric} {said[self.outcome]}"

    @property
    def limit_text(self) -> str:
        """Return `5 % more`, or `5 % less` if less is worse; for a share `5 percentage points less`."""
        metric, percent = metric_of(self.terms.metric), margin_text(self.terms.max_regression_share)
        much = percent.replace("%", "percentage points") if metric.is_additive else percent
        return f"{much} {'less' if metric.better == 'higher' else 'more'}"

    @property
    def exit_code(self) -> int:
        return EXIT_CODES[self.outcome]

    def count(self, outcome: Outcome) -> int:
        return sum(each.outcome == outcome for each in self.cases)


def gate_runs(base: str | Path, new: str | Path, terms: GateTerms) -> Gate:
    """Read two sides, each `DIR` or `DIR:deployment`, and decide.

    Raises StoreError where a run cannot be read, UserError for a metric that cannot be gated and where
    nothing of the two can be compared.
    """
    check_terms(terms)
    sides = open_sides(str(base), str(new))
    pairs, left_out = pairs_of(*sides, NAMES)
    # How much worse NEW is: NEW over BASE where less is better, else BASE over NEW.
    is_inverse = metric_of(terms.metric).better == "higher"
    estimates = [estimate_of(pair, terms.metric, is_inverse=is_inverse) for pair in pairs]
    asked = [
        [Question(estimate, "lower", 0.0, why_not(pair, terms.metric))]
        for pair, estimate in zip(pairs, estimates, strict=True)
    ]
    only_new = [each for each in left_out if each.side == NAMES[1]]
    compared = compare_pairs(sides, pairs, only_new, [terms.metric], asked)
    limit = limit_of(terms)
    cases = [
        _gated(case, each, limit, _unmeasured(pair.groups[1]))
        for case, each, pair in zip(compared.cases, estimates, pairs, strict=True)
    ]
    cases += [
        GatedCase(
            ComparedCase(each.deployment, each.scenario, each.load),
            "inconclusive",
            f"NEW has no {each.what}" if each.side == NAMES[0] else each.why,
        )
        for each in left_out
        if each not in only_new
    ]
    return Gate(
        compared,
        terms,
        outcome=max((each.outcome for each in cases), key=list(EXIT_CODES).index),
        created_at=sides[1].run.record.created_at,
        cases=tuple(cases),
    )


def _gated(case: ComparedCase, estimate: Estimate | None, limit: float, missing: str) -> GatedCase:
    verdict = case.rows[0].verdict
    if verdict is None or verdict.kind == "none" or estimate is None:
        return GatedCase(case, "inconclusive", verdict.why if verdict else None)
    low, high = estimate.interval(verdict.confidence)
    if low > limit:
        return GatedCase(case, "fail")
    if high < limit:
        return GatedCase(case, "inconclusive", missing) if missing else GatedCase(case, "pass")
    more = more_repeats(estimate, limit, verdict.confidence)
    why = f"needs about {plural(more, 'more repeat')}, if the difference seen is true" if more else _TOO_CLOSE
    return GatedCase(case, "inconclusive", why, more)


def _unmeasured(group: Group) -> str:
    """Return how many of NEW's starts have no value, and why: starts that die do not make it faster."""
    lost = [cell for cell in group.cells if not cell.counts]
    why = next((cell.reason for cell in lost if cell.reason), "not measured")
    return f"{len(lost)} of {len(group.cells)} starts of NEW have no value ({why})" if lost else ""


def more_repeats(estimate: Estimate, limit: float, confidence: float) -> int | None:
    """Return how many more repeats of each side would be likely to separate what was seen from the limit.

    That is the least number whose expected interval, with the noise that was seen, does not reach it. The
    error of a mean falls with the square root of the repeats, and its degrees of freedom grow in proportion.
    None: more than MOST_REPEATS.
    """
    more = np.arange(1, MOST_REPEATS + 1)
    errors = estimate.error * np.sqrt(estimate.k / (estimate.k + more))
    df = estimate.df * (estimate.k + more - 1) / (estimate.k - 1)
    distance = abs(estimate.mean - (math.log(limit) if estimate.is_log else limit))
    enough = more[stdtrit(df, 0.5 + confidence / 2) * errors < distance]
    return int(enough[0]) if len(enough) else None


def gate_to_builtins(gate: Gate) -> dict[str, Any]:
    made = asdict(gate)
    return {**made.pop("compared"), **made.pop("terms"), **made, "exit_code": gate.exit_code}


# --- what can be gated, and by how much ------------------------------------------------------------


def check_terms(terms: GateTerms) -> None:
    """Raise UserError for a metric that no share limits, and for a limit that lets everything pass: nothing
    loses more than all it has."""
    name, share = terms.metric, terms.max_regression_share
    check_metric_name(name, "gate.metric")
    if not _is_gateable(name):
        names = (f"{each.name}.p95" if each.is_distribution else each.name for each in METRICS)
        raise UserError(
            f"gate.metric={name}: it has no better and worse, or is compared by a difference, which no share "
            f"limits; choose from {', '.join(filter(_is_gateable, names))}"
        )
    if share >= 1 and _is_of_less(name):
        raise UserError(f"gate.max_regression={100 * share:g}%: {name} cannot fall by more than 100 %")


def _is_gateable(name: str) -> bool:
    metric = metric_of(name)
    return metric.better != "-" and (not metric.is_additive or metric.unit == "share")


def _is_of_less(name: str) -> bool:
    return metric_of(name).better == "higher" and not metric_of(name).is_additive


def limit_of(terms: GateTerms) -> float:
    """Return the greatest regression that passes: for 5 % a ratio of 1.05, of a rate of 1 / 0.95, and 0.05
    of a share."""
    share = terms.max_regression_share
    if metric_of(terms.metric).is_additive:
        return share
    return 1 / (1 - share) if _is_of_less(terms.metric) else 1 + share
