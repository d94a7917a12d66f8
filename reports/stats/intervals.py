"""Student's t intervals from repeats, verdicts on two deployments, and the best of several. Pure.

A start gives one value. Requests within a start are not independent, so they never count as repeats.

The comparisons that a reader sees together are a family. Each has its own interval at the level 5 % / m in a
family of m, so that no verdict is wrong in 95 % of families (Bonferroni). A stepwise procedure such as Holm's
is not used: with "same" and "differs" both possible, up to 14 % of families had a false verdict.

The leader is named if it beats each other contender in its own paired two-sided t test at the full level.
This is an intersection-union test (Berger 1982, Technometrics 24:295): a wrong name needs the truly best one
to lose its own test, so no correction for the number of contenders is due.
"""

import itertools
import math
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Literal

import numpy as np
from scipy.special import stdtr, stdtrit

from serving_bench.harness.contracts import STARTS_NEEDED as STARTS_NEEDED
from serving_bench.harness.contracts import Fact, because

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Dependence:
    """What is known of how the starts of a deployment depend on each other, on a log scale.

    `lag`: the correlation of a start with the next one. `of_run`: how far a run moves one deployment and not
    the others, as a standard deviation; `between`: how far it moves a deployment whatever moves the others.
    """

    lag: float = 0.0
    of_run: float = 0.0
    between: float = 0.0


INDEPENDENT = Dependence()


@dataclass(frozen=True)
class Estimate:
    """A mean with its standard error, both of logarithms if `is_log`.

    `df`: degrees of freedom. `k`: how many values or pairs it comes from; of two samples, those of the
    smaller. With k = 1 the error is infinite: one start says nothing about the next. `floor`: the part of the
    error that more starts in the same run do not reduce.
    """

    mean: float
    error: float
    df: float
    k: int
    is_log: bool
    floor: float = 0.0

    @property
    def shown(self) -> float:
        """The mean as a person reads it: a geometric mean or a ratio for logarithms."""
        return math.exp(self.mean) if self.is_log else self.mean

    def interval(self, confidence: float = CONFIDENCE) -> tuple[float, float]:
        """Return the low and high end on the scale of `shown`; infinitely wide for one value."""
        if self.k < 2:
            return (0.0, math.inf) if self.is_log else (-math.inf, math.inf)
        half = float(stdtrit(self.df, 0.5 + confidence / 2)) * self.error
        low, high = self.mean - half, self.mean + half
        return (math.exp(low), math.exp(min(high, 700.0))) if self.is_log else (low, high)

    @property
    def p(self) -> float:
        """The two-sided probability of a mean this far from 0 (a ratio this far from 1) by chance."""
        if self.k < 2 or self.mean == 0:
            return 1.0
        return 2 * float(stdtr(self.df, -abs(self.mean) / self.error)) if self.error > 0 else 0.0


def may_be_logged(values: Sequence[float]) -> bool:
    return all(0 < value < math.inf for value in values)


def of_values(values: Sequence[float], *, is_log: bool) -> Estimate:
    """Return the mean over starts.

    Raises ValueError without values, for one that is not finite, and with `is_log` for one of 0 or less.
    """
    return _estimate(_on_scale(values, is_log), is_log)


def of_pairs(
    a: Sequence[float], b: Sequence[float], *, is_log: bool, starts: Dependence = INDEPENDENT
) -> Estimate:
    """Return a / b (a - b if not `is_log`) from pairs, each of one block.

    Raises ValueError as of_values does, and if the lengths differ.
    """
    if len(a) != len(b):
        raise ValueError(f"pairs need two sequences of one length, not {len(a)} and {len(b)}")
    differences = _on_scale(a, is_log) - _on_scale(b, is_log)
    return _estimate(differences, is_log, starts.lag, math.sqrt(2) * starts.of_run)


def of_blocks(
    a: Mapping[int, float], b: Mapping[int, float], *, is_log: bool, starts: Dependence = INDEPENDENT
) -> Estimate:
    """Return a / b (a - b if not `is_log`) from the blocks that both have; without one nothing is known.

    Raises ValueError as of_values does, for values of such blocks.
    """
    both = [block for block in a if block in b]
    if not both:
        return Estimate(0.0, math.inf, 0.0, 0, is_log)
    return of_pairs(*([side[block] for block in both] for side in (a, b)), is_log=is_log, starts=starts)


def of_two_samples(
    a: Sequence[float], b: Sequence[float], *, is_log: bool, starts: Dependence = INDEPENDENT
) -> Estimate:
    """Return a / b (a - b if not `is_log`) from starts that are not paired, as those of two runs.

    Allows unequal variances, with the degrees of freedom of Welch (1947) and Satterthwaite (1946).
    """
    first, second = (
        _estimate(_on_scale(side, is_log), is_log, starts.lag, starts.between) for side in (a, b)
    )
    k, floor = min(first.k, second.k), math.hypot(first.floor, second.floor)
    mean, error = first.mean - second.mean, math.hypot(first.error, second.error)
    if k < 2:
        return Estimate(mean, math.inf, 0.0, k, is_log)
    if error == 0:
        return Estimate(mean, 0.0, first.df + second.df, k, is_log)
    spread = sum((side.error / error) ** 4 / side.df for side in (first, second))
    return Estimate(mean, error, 1 / spread, k, is_log, floor)


def _on_scale(values: Sequence[float], is_log: bool) -> np.ndarray:
    scaled = np.asarray(values, dtype=float)
    if not len(scaled) or not np.isfinite(scaled).all():
        raise ValueError("an interval needs values, all of them finite")
    if is_log and not (scaled > 0).all():
        raise ValueError("a logarithm needs values above 0")
    return np.asarray(np.log(scaled) if is_log else scaled)


def _estimate(values: np.ndarray, is_log: bool, lag: float = 0.0, floor: float = 0.0) -> Estimate:
    k, floor = len(values), floor * is_log
    if k > 1 and (values == values[0]).all():
        # The rounded mean of equal values could differ from them by more than its error.
        return Estimate(float(values[0]), floor, math.inf if floor else k - 1.0, k, is_log, floor)
    longer = math.sqrt(mean_varies(k, lag) / scatter_less(k, lag)) if k > 1 else 1.0
    error = float(values.std(ddof=1)) / math.sqrt(k) * longer if k > 1 else math.inf
    total = math.hypot(error, floor)
    # A variance of values that correlate has fewer degrees of freedom (Bartlett 1946). Without correlation, a
    # floor, which is known, adds some (Satterthwaite 1946).
    is_added = floor and error < math.inf and not lag
    df = (k - 1) * ((total / error) ** 4 if is_added else (1 - lag**2) / (1 + lag**2))
    return Estimate(float(values.mean()), total, df, k, is_log, floor)


def mean_varies(k: int, lag: float) -> float:
    """Return how much more the mean of k values varies, each of which correlates with the next by `lag`, than
    that of k independent ones (Anderson 1971, The Statistical Analysis of Time Series, section 8.2)."""
    return 1 + 2 * math.fsum((1 - place / k) * lag**place for place in range(1, k))


def scatter_less(k: int, lag: float) -> float:
    """Return the share of their variance by which k such values scatter around their mean, with k - 1 degrees
    of freedom."""
    return 1 - (mean_varies(k, lag) - 1) / (k - 1)


# --- what may be said of two -----------------------------------------------------------------------

Kind = Literal["better", "worse", "same", "unknown", "none"]


@dataclass(frozen=True)
class Verdict:
    """What is said of the first of two deployments, compared with the second on one metric.

    `kind`: `none` means that there is no verdict, and `why` says why. `ratio`: the first's value over the
    second's, or their difference if not `is_log`, with its interval [`low`, `high`] at `confidence` (the
    family's, 0.95 or more); None without an estimate. `k`: the number of blocks.
    """

    kind: Kind
    ratio: float | None = None
    low: float | None = None
    high: float | None = None
    confidence: float = CONFIDENCE
    k: int = 0
    is_log: bool = True
    why: Fact | None = None


@dataclass(frozen=True)
class Question:
    """One comparison of a family.

    `margin`: what still counts as the same, on the scale of the estimate; 0 if nothing does. For a ratio it
    is log(1.05): within 5 % is from 1/1.05 to 1.05, so that a / b and b / a agree.
    `why_none`: why it gets no verdict, though it may have an estimate. It then does not count in the family.
    `alpha`: a level of its own, of one that left a race earlier.
    """

    estimate: Estimate | None
    better: Literal["higher", "lower"]
    margin: float
    why_none: Fact | None = None
    alpha: float | None = None


def decide(questions: Sequence[Question], alpha: float = 1 - CONFIDENCE) -> list[Verdict]:
    """Return a verdict for each question of one family, in order.

    The interval at level alpha / m decides: `same` if it lies within the margin (two one-sided tests), else
    `better` or `worse` if it excludes no difference, else `unknown`.
    """
    count = sum(each.why_none is None and each.estimate is not None for each in questions)
    levels = (alpha if each.alpha is None else each.alpha for each in questions)
    return [_decided(each, 1 - level / max(count, 1)) for each, level in zip(questions, levels, strict=True)]


def _decided(question: Question, confidence: float) -> Verdict:
    estimate, why = question.estimate, question.why_none
    if estimate is None:
        return Verdict("none", why=why or because("no_value_of_both"))
    confidence = CONFIDENCE if why else confidence
    low, high = estimate.interval(confidence)
    kind = "none" if why else _kind(question, low, high, estimate.is_log)
    return Verdict(kind, estimate.shown, low, high, confidence, estimate.k, estimate.is_log, why)


def _kind(question: Question, low: float, high: float, is_log: bool) -> Kind:
    margin, none = (math.exp(question.margin), 1.0) if is_log else (question.margin, 0.0)
    if (1 / margin if is_log else -margin) < low and high < margin:
        return "same"
    if low <= none <= high:
        return "unknown"
    return "better" if (low > none) == (question.better == "higher") else "worse"


# --- the best of several ---------------------------------------------------------------------------

# The level that all looks at a run may spend together, and that of the first look.
ALPHA, FIRST_LOOK = 0.05, 0.04
# The power that the advised number of repeats has, if the true lead and noise are those seen.
POWER = 0.8
REPEATS_AT_MOST = 60


def level_of_look(looks_before: int) -> float:
    """Return the level of a look at a run: 4 of the 5 % for the first, then half of the rest each time."""
    return FIRST_LOOK if looks_before == 0 else (ALPHA - FIRST_LOOK) * 0.5**looks_before


@dataclass(frozen=True)
class Best:
    """The leader of several deployments, and its tests against the others at level `alpha`.

    `over`: by each other label, the leader's lead as a ratio above 1 (or a difference above 0 if not on a log
    scale), whether higher or lower is better. `left`: by the labels that have left a race, the level of their
    intervals; they were beaten at a look of their own. `wrong`: how often a wrong one is named at most; more
    than `alpha` in a race, in all of its looks together. `levels`: how far apart the two levels are that
    starts have, on the scale of the estimates, or 0. A smaller lead may be luck, and beats nobody.
    """

    leader: str
    over: Mapping[str, Estimate]
    alpha: float
    left: Mapping[str, float] = field(default_factory=dict)
    wrong: float = ALPHA
    levels: float = 0.0

    def p_over(self, label: str) -> float:
        """Return the two-sided p of the test against one other; 1 for too few pairs, or a lead that may be
        smaller than starts' levels are apart."""
        over = self.over[label]
        is_small = self.levels and self.lead_over(label)[0] <= math.exp(self.levels)
        return 1.0 if over.k < STARTS_NEEDED or is_small else over.p

    @property
    def p(self) -> float:
        """The largest p of the leader's two-sided tests. It is named if this is at most alpha."""
        return max((self.p_over(label) for label in self.over if label not in self.left), default=0.0)

    @property
    def is_named(self) -> bool:
        return self.p <= self.alpha

    @property
    def nearest(self) -> str:
        """The one with the smallest lower bound of the lead, which holds for all others together."""
        return min(self.over, key=lambda label: self.lead_over(label)[0])

    @property
    def even(self) -> list[str]:
        """Those that the leader does not beat, the one with the largest p first."""
        labels = (each for each in self.over if each not in self.left and self.p_over(each) > self.alpha)
        return sorted(labels, key=lambda label: -self.p_over(label))

    @property
    def next(self) -> str:
        """The one with the smallest mean distance to the leader."""
        return min(self.over, key=lambda label: self.over[label].mean)

    def lead_over(self, label: str) -> tuple[float, float]:
        """Return the interval of the leader's lead over one other, at alpha or the level of one that left."""
        return self.over[label].interval(1 - self.left.get(label, self.alpha))


def best_of(
    values: Mapping[str, Mapping[int, float]],
    *,
    is_higher_better: bool,
    is_log: bool,
    alpha: float,
    margin: float = 0.0,
    left: Mapping[str, float] = MappingProxyType({}),
    wrong: float | None = None,
    starts: Dependence = INDEPENDENT,
    levels: float = 0.0,
) -> Best:
    """Return the leader of two labels or more, each with its values by block.

    Each pair uses the blocks that both have. The leader, none of those that have `left`, has the largest sum
    of mean leads (of logarithms if `is_log`) over the others; with the same blocks of all that is the best
    mean. A difference without any noise has no test: it counts as even if it is within the margin (on the
    scale of the estimate). Raises ValueError as of_pairs.
    """

    def lead(a: str, b: str) -> Estimate:
        first, second = (a, b) if is_higher_better else (b, a)
        estimate = of_blocks(values[first], values[second], is_log=is_log, starts=starts)
        is_even = estimate.error == 0 and abs(estimate.mean) <= margin
        return replace(estimate, mean=0.0) if is_even else estimate

    stay = [label for label in values if label not in left]
    sums = {a: sum(lead(a, b).mean for b in stay if b != a) for a in stay}
    leader = max(sums, key=lambda label: sums[label])
    over = {label: lead(leader, label) for label in values if label != leader}
    return Best(leader, over, alpha, left, alpha if wrong is None else wrong, levels * is_log)


def beaten(points: Mapping[str, Sequence[float]]) -> dict[str, str]:
    """Return the names that are not on the Pareto front, each with one that beats it.

    More is better in every metric. One is beaten by another that is nowhere worse and somewhere better.
    """
    pairs = itertools.permutations(points.items(), 2)
    return {a: b for (a, mine), (b, other) in pairs if mine != other and all(map(operator.le, mine, other))}


def holm(p: Sequence[float], alpha: float) -> float:
    """Return the level at which Holm's step-down procedure (1979) stops: p at or below it is significant."""
    levels = (alpha / (len(p) - place) for place in range(len(p)))
    return next((level for each, level in zip(sorted(p), levels, strict=True) if each > level), alpha)


def repeats_to_tell(best: Best, alpha: float) -> int | None:
    """Return how many repeats in total would name the leader at level `alpha`, with the lead and noise seen.

    It is the least n for which t(1 - alpha / 2) + t(0.8), each with n - 1 degrees of freedom, is at most
    mean / error, whose floor no start reduces: the usual sample size of a paired t test with 80 % power. None
    beyond 60, and where levels of starts keep a leader from being named.
    """
    over = [each for label, each in best.over.items() if label not in best.left]
    n = np.arange(2, REPEATS_AT_MOST + 1)
    factor, enough = stdtrit(n - 1, 1 - alpha / 2) + stdtrit(n - 1, POWER), np.full(len(n), not best.levels)
    for each in over:
        errors = np.hypot(math.sqrt((each.error**2 - each.floor**2) * each.k) / np.sqrt(n), each.floor)
        enough &= factor * errors <= each.mean if each.mean > 0 else False
    return int(n[enough][0]) if enough.any() else None


def odd_ones(
    labels: Sequence[str], differences: Mapping[frozenset[str], Fact]
) -> tuple[dict[str, Fact], bool]:
    """Return the labels that differ from the majority, each with a reason, and whether there is no majority.

    `differences`: why two labels differ. No two of the labels that are not returned differ.
    """
    unlike = {label: sum(frozenset((label, each)) in differences for each in labels) for label in labels}
    rest: list[str] = []
    odd: dict[str, Fact] = {}
    for label in sorted(labels, key=lambda name: unlike[name]):
        rival = next((other for other in rest if frozenset((other, label)) in differences), None)
        if rival is None:
            rest.append(label)
        else:
            odd[label] = differences[frozenset((rival, label))]
    return odd, any(unlike[label] <= unlike[rest[0]] for label in odd)
