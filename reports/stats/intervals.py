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
    error is infinite: one start says nothing about the next. `below`, `above`: how far to either side the
    mean may lie apart from chance, where each value is known to within a bracket only.
    """

    mean: float
    error: float
    df: float
    k: int
    is_log: bool
    below: float = 0.0
    above: float = 0.0

    @property
    def shown(self) -> float:
        """The mean as a person reads it: a geometric mean or a ratio for logarithms."""
        return math.exp(self.mean) if self.is_log else self.mean

    def interval(self, confidence: float = CONFIDENCE) -> tuple[float, float]:
        """Return low and high end, as a person reads them; infinitely wide for one value."""
        if self.k < 2:
            return (0.0, math.inf) if self.is_log else (-math.inf, math.inf)
        half = float(stdtrit(self.df, 0.5 + confidence / 2)) * self.error
        low, high = self.mean - self.below - half, self.mean + self.above + half
        return (math.exp(low), math.exp(min(high, 700.0))) if self.is_log else (low, high)

    def p_beyond(self, bound: float) -> float:
        """Return the probability of a mean at least this far above `bound` if the truth is `bound`.

        `bound` is on the scale of `mean`.
        """
        if self.k < 2:
            return 1.0
        least = self.mean - self.below
        if self.error == 0:
            return 0.0 if least > bound else 1.0
        return float(stdtr(self.df, (bound - least) / self.error))


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
    _check_pairs(a, b)
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


def of_brackets(brackets: Sequence[tuple[float, float]]) -> Estimate:
    """Return the geometric mean of quantities that each lie between two ends; shown is that of the low ends.

    The interval reaches from the low ends' limit to the high ends'. Its error is the larger of theirs, and at
    least that of values spread evenly over their brackets (width / sqrt(12)), since starts that come to the
    same bracket do not show how much they differ within it. Raises ValueError as of_values.
    """
    lows, highs = (_on_scale(ends, is_log=True) for ends in zip(*brackets, strict=True))
    return _bracketed(lows, lows, highs, float((highs - lows).mean()))


def of_bracket_pairs(a: Sequence[tuple[float, float]], b: Sequence[tuple[float, float]]) -> Estimate:
    """Return a / b of such quantities from pairs of one block each; shown is that of the low ends.

    The interval reaches from a's low end over b's high one to a's high over b's low. Raises as of_pairs.
    """
    _check_pairs(a, b)
    low_a, high_a = (_on_scale(ends, is_log=True) for ends in zip(*a, strict=True))
    low_b, high_b = (_on_scale(ends, is_log=True) for ends in zip(*b, strict=True))
    width = math.hypot(float((high_a - low_a).mean()), float((high_b - low_b).mean()))
    return _bracketed(low_a - low_b, low_a - high_b, high_a - low_b, width)


def _check_pairs(a: Sequence[object], b: Sequence[object]) -> None:
    if len(a) != len(b):
        raise ValueError(f"pairs need as many of both, not {len(a)} and {len(b)}")


def _bracketed(shown: np.ndarray, lows: np.ndarray, highs: np.ndarray, width: float) -> Estimate:
    low, high = _estimate(lows, True), _estimate(highs, True)
    middle = float(shown.mean())
    error = max(low.error, high.error, width / math.sqrt(12 * low.k))
    return Estimate(middle, error, low.df, low.k, True, middle - low.mean, high.mean - middle)


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
