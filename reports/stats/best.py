"""Which of several is the best, from paired values of repeats, and how many repeats would tell. Pure.

The leader is named if it beats each other one in its own paired two-sided t test at the full level: an
intersection-union test (Berger 1982, Technometrics 24:295), so that a wrong name needs the truly best one to
lose its own test. No correction for the number of others is due.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

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
    metric that is not on a log scale), whichever way the metric is better. `repeats`: pairs that were used.
    """

    leader: str
    over: Mapping[str, Estimate]
    alpha: float
    repeats: int

    @property
    def p(self) -> float:
        """Return the largest p of the leader's two-sided tests: it is named where this is at most alpha."""
        return max(min(1.0, 2 * each.p_beyond(0.0)) for each in self.over.values())

    @property
    def is_named(self) -> bool:
        return self.p <= self.alpha

    @property
    def nearest(self) -> str:
        """Return the one that the leader is least surely ahead of."""
        return min(self.over, key=lambda label: self.lead_over(label)[0])

    @property
    def next(self) -> str:
        """Return the one with the next best mean."""
        return min(self.over, key=lambda label: self.over[label].mean)

    def lead_over(self, label: str) -> tuple[float, float]:
        """Return the ends of the interval of the test against one other."""
        return self.over[label].interval(1 - self.alpha)

    @property
    def least_lead(self) -> float:
        """Return the least lower bound of the leads: it holds for all of them together."""
        return self.lead_over(self.nearest)[0]


def best_of(
    values: Mapping[str, Sequence[float]], *, is_higher_better: bool, is_log: bool, alpha: float
) -> Best:
    """Return the leader of two labels or more, each with a value of the same repeats in the same order.

    The leader has the best mean (of logarithms where `is_log`). Raises ValueError as of_pairs.
    """
    sign = 1 if is_higher_better else -1

    def mean(label: str) -> float:
        scaled = [math.log(each) if is_log else each for each in values[label]]
        return sign * sum(scaled) / len(scaled)

    leader = max(values, key=mean)
    over = {}
    for label, theirs in values.items():
        if label != leader:
            a, b = (values[leader], theirs) if is_higher_better else (theirs, values[leader])
            over[label] = of_pairs(a, b, is_log=is_log)
    return Best(leader, over, alpha, len(values[leader]))


def repeats_to_tell(best: Best, alpha: float) -> int | None:
    """Return how many repeats in all would name the leader at level `alpha`, at the lead and noise seen.

    Takes the least n of which t(1 - alpha / 2) + t(0.8), each with n - 1 degrees of freedom, fits into
    mean sqrt(n) / s: the usual sample size of a paired t test with 80 % power. None beyond 60.
    """
    counts = [_repeats(each, alpha) for each in best.over.values()]
    known = [count for count in counts if count is not None]
    return max(known) if len(known) == len(counts) else None


def _repeats(lead: Estimate, alpha: float) -> int | None:
    if lead.k < 2 or lead.mean <= 0:
        return None
    spread = lead.error * math.sqrt(lead.k)
    for n in range(2, REPEATS_AT_MOST + 1):
        needed = float(stdtrit(n - 1, 1 - alpha / 2) + stdtrit(n - 1, POWER))
        if needed * spread <= lead.mean * math.sqrt(n):
            return n
    return None
