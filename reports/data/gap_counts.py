"""Gaps between content chunks, counted in fixed bins: a cell's millions of gaps as some thousand numbers.

What a distribution, a curve by turn or a map over time is drawn from, so that lists of chunks are read once
(reports/data/chunk_totals.py). Percentiles of a cell are exact and come from there; those of counts are
not. Pure.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

# Bins as those of HdrHistogram: each doubling, from 8.2 us to 1,100 s, in 64 equal parts, so a bin is 0.8 to
# 1.6 % wide, and a value's bin is the leading bits of its floating-point number.
_PARTS = 64
_LEAST, _GREATEST = 13, 40  # powers of two, in ns
_SHIFT = 52 - 6  # of a float64's 52 bits behind the point, the first 6 are the part of 64
_PER_COARSE = 8
BINS = 1 + (_GREATEST - _LEAST) * _PARTS
_edges_ns = (2.0**power * (1 + part / _PARTS) for power in range(_LEAST, _GREATEST) for part in range(_PARTS))
# Bin k is from EDGES_S[k] to EDGES_S[k + 1], in seconds; the first one begins at 0, and the last one has what
# is longer, too.
EDGES_S: np.ndarray = np.array([0.0, *_edges_ns, 2.0**_GREATEST]) / 1e9
# Of 8 bins each, 7 to 13 % wide, for maps.
COARSE_EDGES_S: np.ndarray = np.concatenate([EDGES_S[:1], EDGES_S[1::_PER_COARSE]])
COARSE_BINS = len(COARSE_EDGES_S) - 1
# Equal parts of a window; a multiple of steadiness.PARTS.
TIME_BINS = 60
# Later turns are counted as the last.
MOST_TURNS = 100


@dataclass(frozen=True)
class GapCounts:
    """Counts of the gaps of ok requests that were sent in the window, of one cell or of several together.

    `by_turn`: turns (from 0) x BINS, all gaps. `by_time`: TIME_BINS x COARSE_BINS, the gaps that ended in the
    window, by when they did. `requests`: by turn, how many requests have a gap. `in_time`: TIME_BINS, how
    many requests have a gap that ended then; `new_in_time`: those of them without one earlier in the window.
    """

    by_turn: np.ndarray
    by_time: np.ndarray
    requests: np.ndarray
    in_time: np.ndarray
    new_in_time: np.ndarray

    @property
    def n(self) -> int:
        return int(self.counts.sum())

    @property
    def turns(self) -> int:
        return len(self.by_turn)

    @cached_property
    def counts(self) -> np.ndarray:
        """By bin, over all turns."""
        return np.asarray(self.by_turn.sum(axis=0))

    def requests_by_part(self, parts: int) -> np.ndarray:
        """How many requests have a gap in each of so many equal parts of the window, a divisor of TIME_BINS;
        without those that go through the part's first bin without one."""
        first = self.in_time.reshape(parts, -1)[:, 0]
        return np.asarray(first + self.new_in_time.reshape(parts, -1)[:, 1:].sum(axis=1))

    def of_turn(self, turn: int) -> np.ndarray:
        """By bin, of one turn (from 0)."""
        return np.asarray(self.by_turn[turn])


NO_GAPS = GapCounts(
    np.zeros((0, BINS), dtype=np.int64),
    np.zeros((TIME_BINS, COARSE_BINS), dtype=np.int64),
    np.zeros(0, dtype=np.int64),
    np.zeros(TIME_BINS, dtype=np.int64),
    np.zeros(TIME_BINS, dtype=np.int64),
)


def together(found: Iterable[GapCounts]) -> GapCounts:
    """The counts of several cells added; their windows lie on each other, each from 0 to 1."""
    parts = [NO_GAPS, *found]
    turns = max(part.turns for part in parts)
    return GapCounts(
        sum((_grown(part.by_turn, turns) for part in parts), np.zeros((turns, BINS), dtype=np.int64)),
        np.sum([part.by_time for part in parts], axis=0),
        sum((_grown(part.requests, turns) for part in parts), np.zeros(turns, dtype=np.int64)),
        np.sum([part.in_time for part in parts], axis=0),
        np.sum([part.new_in_time for part in parts], axis=0),
    )


def _grown(counts: np.ndarray, turns: int) -> np.ndarray:
    missing = turns - len(counts)
    return np.concatenate([counts, np.zeros((missing, *counts.shape[1:]), dtype=counts.dtype)])


_BEFORE_FIRST = int(np.float64(2.0**_LEAST).view(np.int64) >> _SHIFT) - 1


def bins_of(gaps_ns: np.ndarray) -> np.ndarray:
    """The bin of each gap."""
    places = gaps_ns.astype(np.float64).view(np.int64)
    places >>= _SHIFT
    places -= _BEFORE_FIRST
    return np.clip(places, 0, BINS - 1, out=places)


def coarse(counts: np.ndarray) -> np.ndarray:
    """Counts by bin (the last axis) as counts by coarse bin."""
    first, others = counts[..., :1], counts[..., 1:]
    summed = others.reshape(*others.shape[:-1], COARSE_BINS - 1, _PER_COARSE).sum(axis=-1)
    return np.concatenate([first, summed], axis=-1)


def quantile(counts: np.ndarray, share: float, edges_s: np.ndarray = EDGES_S) -> float | None:
    """A quantile in seconds by numpy's linear rule, values taken to lie evenly in their bins; None of none.

    Wrong by less than the width of its bin: 1.6 % of the value from 8.2 us on, 13 % with COARSE_EDGES_S.
    """
    n = int(counts.sum())
    if not n:
        return None
    until = np.cumsum(counts)
    rank = (n - 1) * share
    low, high = (_at_rank(until, k, edges_s) for k in (int(rank), min(int(rank) + 1, n - 1)))
    return low + (high - low) * (rank - int(rank))


def _at_rank(until: np.ndarray, rank: int, edges_s: np.ndarray) -> float:
    """The value of that rank, from 0."""
    at = int(np.searchsorted(until, rank, side="right"))
    before = int(until[at - 1]) if at else 0
    inside = (rank - before + 0.5) / (int(until[at]) - before)
    return float(edges_s[at] + (edges_s[at + 1] - edges_s[at]) * inside)
