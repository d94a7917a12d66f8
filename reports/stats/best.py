"""Which of several is the best, from paired values of repeats, and how many repeats would tell. Pure.

The leader is named if it beats each other one in its own paired two-sided t test at the full level: an
intersection-union test (Berger 1982, Technometrics 24:295), so that a wrong name needs the truly best one to
lose its own test. No correction for the number of others is due.
"""

import itertools
import math
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import stdtrit

from reports.stats.intervals import Estimate, of_pairs

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
    for place, each in enumerate(sorted(p)):
        if each > alpha / (len(p) - place):
            return alpha / (len(p) - place)
    return alpha


def repeats_to_tell(best: Best, alpha: float) -> int | None:
    """Return how many repeats in all would name the leader at level `alpha`, at the lead and noise seen.

    Takes the least n of which t(1 - alpha / 2) + t(0.8), each with n - 1 degrees of freedom, fits into
    mean sqrt(n) / s: the usual sample size of a paired t test with 80 % power. None beyond 60.
    """
    noise = max(e.error * math.sqrt(e.k) / e.mean if e.mean > 0 else math.inf for e in best.over.values())
    n = np.arange(2, REPEATS_AT_MOST + 1)
    enough = n[(stdtrit(n - 1, 1 - alpha / 2) + stdtrit(n - 1, POWER)) * noise <= np.sqrt(n)]
    return int(enough[0]) if len(enough) else None
