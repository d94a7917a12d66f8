"""The gate: whether a new run is worse than a base by more than is allowed, case by case.

Every case is decided by its interval, all of them as one family (reports/stats/intervals.py). A case is
inconclusive if its interval does not decide it or NEW does not have it: what was not seen does not pass.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from scipy.special import stdtrit

from serving_bench.harness.contracts import Fact, GateTerms, because
from serving_bench.harness.errors import UserError
from serving_bench.reports.data import Group, grouped
from serving_bench.reports.measures import METRICS, NOTHING, check_metric_name, metric_of, plural
from serving_bench.reports.measures.quality import furthest
from serving_bench.reports.stats.intervals import Estimate, Question
from serving_bench.reports.two_runs.answers import Answers, answers_of
from serving_bench.reports.two_runs.compare import ComparedCase, Comparison, compare_pairs
from serving_bench.reports.two_runs.matching import open_sides, pairs_of
from serving_bench.reports.verdicts import estimate_of, mirrored, why_not
from serving_bench.reports.words.quality import HEADS
from serving_bench.reports.words.verdict_words import family_text, margin_text

Outcome = Literal["pass", "fail", "inconclusive"]
# Worst last.
EXIT_CODES: dict[Outcome, int] = {"pass": 0, "inconclusive": 3, "fail": 1}
NAMES = ("BASE", "NEW")
# Beyond this many more repeats, their number is not said.
MOST_REPEATS = 100
_NO_CELLS = (NOTHING, NOTHING, NOTHING)


@dataclass(frozen=True)
class Rule:
    """A limit that cases are held to. `name`: a metric, or an objective of quality.

    `text`: the rule with unit and limit. `broken`: what a case is that breaks it. `sure`: how sure either is.
    """

    name: str
    text: str
    broken: str
    sure: str

    def clause(self, cases: Sequence["GatedCase"]) -> str:
        """Return the outcome of its cases: `ttft_s.p50 is not worse by more than 5 % in 2 cases (95 %)`."""
        outcome, total = _worst(cases), plural(len(cases), "case")
        some = f"{sum(each.outcome == outcome for each in cases)} of {total}"
        return {
            "pass": f"{self.name} is not {self.broken} in {total} ({self.sure})",
            "fail": f"{self.name} is {self.broken} in {some} ({self.sure})",
            "inconclusive": f"{self.name} is not decided in {some}",
        }[outcome]


@dataclass(frozen=True)
class GatedCase:
    """A case of a rule with its outcome. `why`: why it is inconclusive.

    The verdict of the case's row says how much worse NEW is, with its interval: a ratio above 1 if it is
    worse, or for a share a difference above 0. A case has no row if NEW does not have it, or if it is about
    quality. `cells`: BASE, NEW, and NEW relative to BASE, for instance `3 % less [5 % less, 1 % less] ▲ 2`.
    `more_repeats`: how many more repeats of each side would probably decide it; None if not known.
    """

    rule: Rule
    case: ComparedCase
    outcome: Outcome
    why: Fact | None = None
    more_repeats: int | None = None
    cells: tuple[str, ...] = _NO_CELLS


@dataclass(frozen=True)
class Gate:
    """The outcome of all cases that BASE has, and of the quality of NEW. `compared`: BASE as A, NEW as B.

    `outcome`: fail if any case fails, else inconclusive if any is, else pass. `created_at`: when NEW began.
    """

    compared: Comparison
    terms: GateTerms
    outcome: Outcome
    created_at: str
    cases: tuple[GatedCase, ...]

    @property
    def summary(self) -> str:
        clauses = [rule.clause(cases) for rule, cases in self.by_rule.items()]
        return f"{self.outcome.upper()}: {'; '.join(clauses)}"

    @property
    def by_rule(self) -> dict[Rule, list[GatedCase]]:
        return grouped(self.cases, lambda each: each.rule)

    @property
    def exit_code(self) -> int:
        return EXIT_CODES[self.outcome]

    def count(self, outcome: Outcome) -> int:
        return sum(each.outcome == outcome for each in self.cases)


def gate_runs(base: str | Path, new: str | Path, terms: GateTerms) -> Gate:
    """Read two sides, each `DIR` or `DIR:deployment`, and decide.

    Raises StoreError if a run cannot be read, UserError if the metric cannot be gated or the two have nothing
    that can be compared.
    """
    check_terms(terms)
    sides = open_sides(str(base), str(new))
    for side in sides:
        if side.run.foreign:
            raise UserError(
                f"{side.text}: {side.run.foreign}, so it is not gated; bench compare shows its values"
            )
    pairs, left_out = pairs_of(*sides, NAMES)
    # How much worse NEW is: NEW over BASE if lower is better, else BASE over NEW.
    sign = -1 if metric_of(terms.metric).better == "higher" else 1
    of_pairs = [estimate_of(pair, terms.metric) for pair in pairs]
    estimates = [each and replace(each, mean=sign * each.mean) for each in of_pairs]
    questions = [
        [Question(estimate, "lower", 0.0, why_not(pair, terms.metric))]
        for pair, estimate in zip(pairs, estimates, strict=True)
    ]
    only_new = [each for each in left_out if each.side == NAMES[1]]
    answers = answers_of(sides, NAMES) if terms.limits else []
    compared = compare_pairs(sides, pairs, only_new, [terms.metric], questions, answers)
    rule, limit = _rule(terms, compared.family), limit_of(terms)
    cases = [
        _gated(rule, case, each, limit, _unmeasured(pair.groups[1]))
        for case, each, pair in zip(compared.cases, estimates, pairs, strict=True)
    ]
    cases += [
        GatedCase(
            rule,
            ComparedCase(each.deployment, each.scenario, each.load),
            "inconclusive",
            because("not_in", side=NAMES[1], what=each.what) if each.side == NAMES[0] else each.why,
        )
        for each in left_out
        if each not in only_new
    ]
    for key, value in terms.limits.items():
        cases += [case for each in answers for case in _OF_QUALITY[key](each, value)]
    return Gate(
        compared,
        terms,
        outcome=_worst(cases),
        created_at=sides[1].run.record.created_at,
        cases=tuple(cases),
    )


def _worst(cases: Sequence[GatedCase]) -> Outcome:
    return max((each.outcome for each in cases), key=list(EXIT_CODES).index)


def _rule(terms: GateTerms, family: int) -> Rule:
    metric, percent = metric_of(terms.metric), margin_text(terms.max_regression_share)
    much = f"{100 * terms.max_regression_share:g} percentage points" if metric.is_additive else percent
    limit = f"limit: {much} {'less' if metric.better == 'higher' else 'more'} than BASE"
    text = f"{terms.metric} in {metric.shown_unit}, {limit}"
    return Rule(terms.metric, text, f"worse by more than {percent}", family_text(family))


def _gated(
    rule: Rule, case: ComparedCase, estimate: Estimate | None, limit: float, missing: Fact | None
) -> GatedCase:
    row = case.rows[0]
    verdict = row.verdict
    mirrored_verdict = mirrored(verdict) if verdict and metric_of(row.metric).better == "higher" else verdict
    cells = (*row.values, replace(row, verdict=mirrored_verdict).marked_change)
    gated = GatedCase(rule, case, "inconclusive", cells=cells)
    if verdict is None or verdict.kind == "none" or estimate is None:
        return replace(gated, why=verdict.why if verdict else None)
    low, high = estimate.interval(verdict.confidence)
    if low > limit:
        return replace(gated, outcome="fail")
    if high < limit:
        return replace(gated, why=missing) if missing else replace(gated, outcome="pass")
    more = more_repeats(estimate, limit, verdict.confidence)
    if more is None:
        return replace(gated, why=because("too_close", most=MOST_REPEATS))
    return replace(gated, why=because("needs_repeats", repeats=more), more_repeats=more)


def _unmeasured(group: Group) -> Fact | None:
    """Return how many of NEW's starts have no value, and why; None if all have one.

    A start that died must not make NEW look faster.
    """
    lost = [cell for cell in group.cells if not cell.counts]
    why = next((cell.reason for cell in lost if cell.reason), because("not_measured"))
    starts = {"lost": len(lost), "starts": len(group.cells), "side": NAMES[1]}
    return because("starts_without_value", why=why, **starts) if lost else None


def more_repeats(estimate: Estimate, limit: float, confidence: float) -> int | None:
    """Return how many more repeats of each side would probably tell the measured difference from the limit.

    That is the smallest number whose expected interval, with the measured noise, does not reach the limit.
    The error of a mean falls with the square root of the repeats, and its degrees of freedom grow in
    proportion. None: more than MOST_REPEATS.
    """
    more = np.arange(1, MOST_REPEATS + 1)
    errors = estimate.error * np.sqrt(estimate.k / (estimate.k + more))
    df = estimate.df * (estimate.k + more - 1) / (estimate.k - 1)
    distance = abs(estimate.mean - (math.log(limit) if estimate.is_log else limit))
    enough = more[stdtrit(df, 0.5 + confidence / 2) * errors < distance]
    return int(enough[0]) if len(enough) else None


def gate_to_builtins(gate: Gate) -> dict[str, Any]:
    builtins = asdict(gate)
    return {**builtins.pop("compared"), **builtins.pop("terms"), **builtins, "exit_code": gate.exit_code}


# --- quality ---------------------------------------------------------------------------------------


def _by_tokens(answers: Answers, limit: float) -> Iterator[GatedCase]:
    """Yield the case of a deployment's mean KL divergence.

    It is held against its reference in NEW and against the same deployment of BASE, and the worse one counts:
    in a version in which everything is broken, deployments do not differ from their reference. The reference
    itself, and a deployment without one, are held against BASE only.
    """
    quality = answers.b if answers.b and answers.b.against and not answers.b.is_reference else None
    first = quality or answers.b_to_a
    nearnesses = [each for each in (quality, answers.b_to_a) if each and each.interval]
    gated = GatedCase(
        Rule("slo.kl_nats.mean", f"slo.kl_nats.mean={limit:g}, in nats", f"above {limit:g}", "95 % each"),
        ComparedCase(answers.deployment, notes=tuple(f"held against {each.against}" for each in nearnesses)),
        "inconclusive",
        first.why_not_known if first else answers.missing[-1],
        cells=answers.figures.get(HEADS[0], _NO_CELLS),
    )
    yield _held_to(gated, furthest([each.interval for each in nearnesses if each.interval]), limit)


def _by_items(answers: Answers, least: float) -> Iterator[GatedCase]:
    """Yield a case for each task that the deployment was asked in BASE or in NEW; one case if none."""
    percent = margin_text(least)
    for task, (_, score) in (answers.scores or {"": (None, None)}).items():
        missing = because("task_not_asked" if task else "no_task_asked", task=task, side=NAMES[1])
        gated = GatedCase(
            Rule("slo.tasks.score", f"slo.tasks.score={percent}", f"below {percent}", "95 % each"),
            ComparedCase(answers.deployment, task),
            "inconclusive",
            because("few_scores", items=score.scored) if score else missing,
            cells=answers.figures.get(task, _NO_CELLS),
        )
        interval = score.interval if score else None
        yield _held_to(gated, interval and (-interval[1], -interval[0]), -least)


def _held_to(gated: GatedCase, interval: tuple[float, float] | None, limit: float) -> GatedCase:
    if interval is None:
        return gated
    low, high = interval
    if low <= limit < high:
        return replace(gated, why=because("limit_within"))
    return replace(gated, outcome="fail" if low > limit else "pass", why=None)


_OF_QUALITY = {"slo.kl_nats.mean": _by_tokens, "slo.tasks.score": _by_items}


# --- what can be gated, and by how much ------------------------------------------------------------


def check_terms(terms: GateTerms) -> None:
    """Raise UserError for a metric that gate.max_regression cannot limit."""
    name = terms.metric
    check_metric_name(name, "gate.metric")
    if not _is_gateable(name):
        names = (f"{each.name}.p95" if each.is_distribution else each.name for each in METRICS)
        raise UserError(
            f"gate.metric={name}: neither direction is better, or it is compared by a difference, which a "
            f"share cannot limit; choose from {', '.join(filter(_is_gateable, names))}"
        )


def _is_gateable(name: str) -> bool:
    metric = metric_of(name)
    return metric.better != "-" and (not metric.is_additive or metric.unit == "share")


def limit_of(terms: GateTerms) -> float:
    """Return the largest regression that passes: for 5 %, a ratio of 1.05, or 1 / 0.95 for a rate, or a
    difference of 0.05 for a share."""
    metric, share = metric_of(terms.metric), terms.max_regression_share
    if metric.is_additive:
        return share
    return 1 / (1 - share) if metric.better == "higher" else 1 + share
