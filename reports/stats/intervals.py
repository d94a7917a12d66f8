"""Intervals from repeats by Student's t, what they say of two, and which of several is the best. Pure.

A start gives one value; requests within a start are not independent, so they are never counted as repeats.

The comparisons that a reader sees together are a family. Each is decided by its own interval, at the level
5 % / m for a family of m, so that in 95 % of such families no word is wrong (Bonferroni). Steps such as
Holm's are not taken: with "same" and "differs" both sayable up to 14 % of families had a false word.

The leader is named if it beats each other one in its own paired two-sided t test at the full level: an
intersection-union test (Berger 1982, Technometrics 24:295), so that a wrong name needs the truly best one to
lose its own test. No correction for the number of others is due.
"""

import itertools
import math
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from scipy.special import stdtr, stdtrit

from harness.contracts import STARTS_NEEDED as STARTS_NEEDED

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Estimate:
    """A mean with its standard error, of logarithms where `is_log`.

    `df`: degrees of freedom; `k`: values (pairs, or those of the smaller side) it comes from. With k = 1 the
    error is infinite: one start says nothing about the next.
    """

    mean: float
    error: float
    df: float
    k: int
    is_log: bool

    @property
    def shown(self) -> float:
        """The mean as a person reads it: a geometric mean or a ratio for logarithms."""
        return math.exp(self.mean) if self.is_log else self.mean

    def interval(self, confidence: float = CONFIDENCE) -> tuple[float, float]:
        """Return low and high end, as a person reads them; infinitely wide for one value."""
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

    Raises ValueError for no value, one that is not finite, and a logarithm of 0 or less.
    """
    return _estimate(_on_scale(values, is_log), is_log)


def of_pairs(a: Sequence[float], b: Sequence[float], *, is_log: bool) -> Estimate:
    """Return a / b (a - b where not `is_log`) from pairs of one block each, in order.

    Raises ValueError as of_values, and where a value has no partner.
    """
    if len(a) != len(b):
        raise ValueError(f"pairs need as many of both, not {len(a)} and {len(b)}")
    return _estimate(_on_scale(a, is_log) - _on_scale(b, is_log), is_log)


def of_two_samples(a: Sequence[float], b: Sequence[float], *, is_log: bool) -> Estimate:
    """Return a / b (a - b where not `is_log`) from starts that are no pairs, as those of two runs.

    Welch's unequal variances, with the degrees of freedom of Welch (1947) and Satterthwaite (1946).
    """
    first, second = (_estimate(_on_scale(side, is_log), is_log) for side in (a, b))
    k = min(first.k, second.k)
    mean, error = first.mean - second.mean, math.hypot(first.error, second.error)
    if k < 2:
        return Estimate(mean, math.inf, 0.0, k, is_log)
    if error == 0:
        return Estimate(mean, 0.0, first.df + second.df, k, is_log)
    spread = sum((side.error / error) ** 4 / side.df for side in (first, second))
    return Estimate(mean, error, 1 / spread, k, is_log)


def _on_scale(values: Sequence[float], is_log: bool) -> np.ndarray:
    found = np.asarray(values, dtype=float)
    if not len(found) or not np.isfinite(found).all():
        raise ValueError("an interval needs values, all of them finite")
    if is_log and not (found > 0).all():
        raise ValueError("a logarithm needs values above 0")
    return np.asarray(np.log(found) if is_log else found)


def _estimate(values: np.ndarray, is_log: bool) -> Estimate:
    k = len(values)
    if k > 1 and (values == values[0]).all():
        # Their mean is rounded, and would differ from each of them by more than its error.
        return Estimate(float(values[0]), 0.0, k - 1.0, k, is_log)
    error = float(values.std(ddof=1)) / math.sqrt(k) if k > 1 else math.inf
    return Estimate(float(values.mean()), error, k - 1.0, k, is_log)


# --- what may be said of two -----------------------------------------------------------------------

Kind = Literal["better", "worse", "same", "unknown", "none"]


@dataclass(frozen=True)
class Verdict:
    """`kind`: of the first of the two, by its metric; `none`: nothing is said, and `why` says why.

    `ratio` within [`low`, `high`] at `confidence` (the family's, 0.95 or more): the first's value
    over the second's, their difference where `is_log` is False; None without an estimate. `k`: blocks.
    """

    kind: Kind
    ratio: float | None = None
    low: float | None = None
    high: float | None = None
    confidence: float = CONFIDENCE
    k: int = 0
    is_log: bool = True
    why: str | None = None


@dataclass(frozen=True)
class Question:
    """One comparison of a family.

    `margin`: on the scale of the estimate, 0 where nothing counts as the same. That of a ratio is log(1.05):
    within 5 % is from 1/1.05 to 1.05, so that a / b and b / a agree.
    `why_none`: why it gets no verdict, though it may have an estimate; it does not count for the family.
    """

    estimate: Estimate | None
    better: Literal["higher", "lower"]
    margin: float
    why_none: str | None = None


def decide(questions: Sequence[Question], alpha: float = 1 - CONFIDENCE) -> list[Verdict]:
    """Return a verdict for each question of one family, in order.

    By its interval at level alpha / m: `same` where it lies within the margin (two one-sided tests), else
    `better` or `worse` where it lies on one side of no difference, else `unknown`.
    """
    count = sum(each.why_none is None and each.estimate is not None for each in questions)
    return [_decided(each, 1 - alpha / max(count, 1)) for each in questions]


def _decided(question: Question, confidence: float) -> Verdict:
    estimate, why = question.estimate, question.why_none
    if estimate is None:
        return Verdict("none", why=why or "no value of both")
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

# What all looks at a run may spend together, and the first of them.
ALPHA, FIRST_LOOK = 0.05, 0.04
# How likely the repeats that are advised are to tell, if the truth is what was seen.
POWER = 0.8
REPEATS_AT_MOST = 60


def level_of_look(looks_before: int) -> float:
    """Return the level of a look at a run: 4 % of the 5 % for the first, then each time half of the rest."""
    return FIRST_LOOK if looks_before == 0 else (ALPHA - FIRST_LOOK) * 0.5**looks_before


@dataclass(frozen=True)
class Best:
    """The leader of several and what is proven of it, at level `alpha`.

    `over`: by each other label, how far the leader is ahead: a ratio above 1 (or a difference above 0 of a
    metric that is not on a log scale), whichever way the metric is better.
    """

    leader: str
    over: Mapping[str, Estimate]
    alpha: float

    @property
    def p(self) -> float:
        """Return the largest p of the leader's two-sided tests: it is named where this is at most alpha."""
        return max(each.p for each in self.over.values())

    @property
    def is_named(self) -> bool:
        return self.p <= self.alpha

    @property
    def nearest(self) -> str:
        """Return the one that the leader is least surely ahead of: its lower bound holds for all together."""
        return min(self.over, key=lambda label: self.lead_over(label)[0])

    @property
    def even(self) -> list[str]:
        """Return those that the leader does not beat, the one that is hardest to tell from it first."""
        labels = (label for label, each in self.over.items() if each.p > self.alpha)
        return sorted(labels, key=lambda label: -self.over[label].p)

    @property
    def next(self) -> str:
        return min(self.over, key=lambda label: self.over[label].mean)

    def lead_over(self, label: str) -> tuple[float, float]:
        """Return the ends of the interval of the test against one other."""
        return self.over[label].interval(1 - self.alpha)


def best_of(
    values: Mapping[str, Sequence[float]],
    *,
    is_higher_better: bool,
    is_log: bool,
    alpha: float,
    margin: float = 0.0,
) -> Best:
    """Return the leader of two labels or more, each with a value of the same repeats in the same order.

    The leader has the best mean (of logarithms where `is_log`). What never varies has no test: within the
    margin, on the scale of the estimate, it is even. Raises ValueError as of_pairs.
    """
    sign = 1 if is_higher_better else -1
    means = {label: sign * np.mean(np.log(own) if is_log else own) for label, own in values.items()}
    leader = max(means, key=lambda label: means[label])
    over = {}
    for label in (each for each in values if each != leader):
        a, b = (leader, label) if is_higher_better else (label, leader)
        found = of_pairs(values[a], values[b], is_log=is_log)
        is_even = found.error == 0 and abs(found.mean) <= margin
        over[label] = replace(found, mean=0.0) if is_even else found
    return Best(leader, over, alpha)


def beaten(points: Mapping[str, Sequence[float]]) -> dict[str, str]:
    """Return who is nowhere better than another one and somewhere worse, and than whom: those that are not on
    the front of several metrics, of all of which more is better."""
    pairs = itertools.permutations(points.items(), 2)
    return {a: b for (a, own), (b, other) in pairs if own != other and all(map(operator.le, own, other))}


def holm(p: Sequence[float], alpha: float) -> float:
    """Return the level at which Holm's step-down procedure (1979) stops: p at or below it is told."""
    levels = (alpha / (len(p) - place) for place in range(len(p)))
    return next((level for each, level in zip(sorted(p), levels, strict=True) if each > level), alpha)


def repeats_to_tell(best: Best, alpha: float) -> int | None:
    """Return how many repeats in all would name the leader at level `alpha`, at the lead and noise seen.

    Takes the least n of which t(1 - alpha / 2) + t(0.8), each with n - 1 degrees of freedom, fits into
    mean sqrt(n) / s: the usual sample size of a paired t test with 80 % power. None beyond 60.
    """
    noise = max(e.error * math.sqrt(e.k) / e.mean if e.mean > 0 else math.inf for e in best.over.values())
    n = np.arange(2, REPEATS_AT_MOST + 1)
    enough = n[(stdtrit(n - 1, 1 - alpha / 2) + stdtrit(n - 1, POWER)) * noise <= np.sqrt(n)]
    return int(enough[0]) if len(enough) else None


def odd_ones(labels: Sequence[str], differences: Mapping[frozenset[str], str]) -> tuple[dict[str, str], bool]:
    """Return who differs from those that most are like, and why; and whether no work is that of most.

    No two of the rest differ.
    """
    unlike = {label: sum(frozenset((label, each)) in differences for each in labels) for label in labels}
    rest: list[str] = []
    odd: dict[str, str] = {}
    for label in sorted(labels, key=lambda name: unlike[name]):
        rival = next((other for other in rest if frozenset((other, label)) in differences), None)
        if rival is None:
            rest.append(label)
        else:
            odd[label] = differences[frozenset((rival, label))]
    return odd, any(unlike[label] <= unlike[rest[0]] for label in odd)
