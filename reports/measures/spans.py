"""What stands beside a mean over starts, the same in charts, tables and words: its interval, or less.

From three starts on the mean's 95 % interval. Of two a t interval has one degree of freedom and would be 13
times as wide as they lie apart: their range stands there, which says no more than what they were. Of one
nothing: nobody knows how much another would differ. Blocks on a server that was not restarted have their
range, however many: they do not say how starts differ.
"""

from reports.data.cells import Aggregate
from reports.stats.family import STARTS_NEEDED

BARS = (
    "Bars: the mean's 95 % interval, by how much starts differ; of two, and of blocks on a server that "
    "was not restarted, their range; of one nothing."
)


def has_interval(found: Aggregate) -> bool:
    """Whether enough starts have the value for an interval that says something."""
    return found.is_of_starts and found.k >= STARTS_NEEDED and found.interval is not None


def span(found: Aggregate) -> tuple[float, float] | None:
    """Low and high end of what is shown beside the mean; None for fewer than two values."""
    if has_interval(found):
        return found.interval
    if found.k < 2 or found.low is None or found.high is None:
        return None
    return found.low, found.high


def shorter_half(found: Aggregate) -> float:
    """From the mean to the nearer end of its interval: the uncertainty that its digits are cut to; 0 where
    there is no interval."""
    if not has_interval(found) or found.interval is None or found.mean is None:
        return 0.0
    low, high = found.interval
    return min(found.mean - low, high - found.mean)
