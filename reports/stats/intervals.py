"""Intervals from repeats by Student's t: of a mean over starts, and of the ratio of two. Pure.

A start gives one value; requests within a start are not independent, so they are never counted as repeats.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtr, stdtrit

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
    """Return whether all values have a finite logarithm."""
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
    if not len(found):
        raise ValueError("an interval needs values")
    if not np.isfinite(found).all():
        raise ValueError("an interval needs finite values")
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
