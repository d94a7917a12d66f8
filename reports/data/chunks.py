"""What the content chunks of a cell come to, from one reading of their lists, a batch at a time. Pure.

Gaps between chunks are counted in fixed bins, from which distributions and curves by turn are drawn; their
percentiles are exact. In memory at once: one batch, 8 bytes per gap of the cell, and counts.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from reports.data.tables import Chunks
from reports.stats.steadiness import PARTS

# Bins as those of HdrHistogram: each doubling, from 8.2 us to 1,100 s, in 64 equal parts, so a bin is 0.8 to
# 1.6 % wide, and a value's bin is the leading bits of its floating-point number.
_PARTS = 64
_LEAST, _GREATEST = 13, 40  # powers of two, in ns
_SHIFT = 52 - 6  # of a float64's 52 bits behind the point, the first 6 are the part of 64
BINS = 1 + (_GREATEST - _LEAST) * _PARTS
_edges_ns = (2.0**power * (1 + part / _PARTS) for power in range(_LEAST, _GREATEST) for part in range(_PARTS))
# Bin k is from EDGES_S[k] to EDGES_S[k + 1], in seconds. The first begins at 0, the last has what is longer.
EDGES_S: np.ndarray = np.array([0.0, *_edges_ns, 2.0**_GREATEST]) / 1e9
_BEFORE_FIRST = int(np.float64(2.0**_LEAST).view(np.int64) >> _SHIFT) - 1
# Later turns are counted as the last.
MOST_TURNS = 100


@dataclass(frozen=True)
class GapCounts:
    """Gaps of ok requests that were sent in the window, of one cell or of several together: `by_turn`, turns
    (from 0) x BINS, and `requests`, by turn how many requests have a gap."""

    by_turn: np.ndarray
    requests: np.ndarray

    @property
    def n(self) -> int:
        return int(self.counts.sum())

    @property
    def turns(self) -> int:
        return len(self.by_turn)

    @cached_property
    def counts(self) -> np.ndarray:
        """Counts by bin, over all turns."""
        return np.asarray(self.by_turn.sum(axis=0))

    def of_turn(self, turn: int) -> np.ndarray:
        """Return the counts by bin of one turn, from 0."""
        return np.asarray(self.by_turn[turn])


NO_GAPS = GapCounts(np.zeros((0, BINS), dtype=np.int64), np.zeros(0, dtype=np.int64))


def together(found: Iterable[GapCounts]) -> GapCounts:
    """Return the counts of several cells added."""
    by_turn, requests = NO_GAPS.by_turn, NO_GAPS.requests
    for each in found:
        by_turn, requests = _sum(by_turn, each.by_turn), _sum(requests, each.requests)
    return GapCounts(by_turn, requests)


def _sum(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return two arrays added, the shorter one taken to go on with zeros."""
    long, short = (a, b) if len(a) >= len(b) else (b, a)
    total = long.copy()
    total[: len(short)] += short
    return total


def bins_of(gaps_ns: np.ndarray) -> np.ndarray:
    """Return the bin of each gap."""
    places = gaps_ns.astype(np.float64).view(np.int64)
    places >>= _SHIFT
    places -= _BEFORE_FIRST
    return np.clip(places, 0, BINS - 1, out=places)


def quantile(counts: np.ndarray, share: float) -> float | None:
    """Return a quantile in seconds by numpy's linear rule, within 1.6 % from 8.2 us on; None of no gap.

    Gaps are taken to lie evenly in their bins.
    """
    n = int(counts.sum())
    if not n:
        return None
    until = np.cumsum(counts)
    rank = (n - 1) * share
    low, high = (_at_rank(until, k) for k in (int(rank), min(int(rank) + 1, n - 1)))
    return low + (high - low) * (rank - int(rank))


def _at_rank(until: np.ndarray, rank: int) -> float:
    at = int(np.searchsorted(until, rank, side="right"))
    before = int(until[at - 1]) if at else 0
    inside = (rank - before + 0.5) / (int(until[at]) - before)
    return float(EDGES_S[at] + (EDGES_S[at + 1] - EDGES_S[at]) * inside)


# --- all chunks of a cell --------------------------------------------------------------------------


@dataclass(frozen=True)
class ChunkTotals:
    """Totals of one cell: its gaps counted, their exact percentiles by level, and the sum of all; output
    tokens that arrived in each of PARTS parts of the window (None: not known); and of the window's ok
    requests with a token count those tokens, their chunks, and their number."""

    counts: GapCounts
    gap_percentiles_s: Mapping[int, float]
    streamed_s: float
    arrived: np.ndarray | None
    tokens: float
    chunks: int
    counted_requests: int


def chunk_totals(
    batches: Iterable[Chunks],
    window_ns: tuple[int, int] | None,
    levels: Callable[[int, int], Sequence[int]] = lambda gaps, requests: (),
) -> ChunkTotals:
    """Read all batches of a cell. `window_ns`: its begin and end; None without one. `levels`: which
    percentiles so many gaps, of so many requests, shall have."""
    sums = _Sums()
    for chunks in batches:
        lengths = np.diff(chunks.begins)
        _add_tokens(sums, chunks, lengths)
        _add_gaps(sums, chunks, lengths)
        if window_ns is not None:
            _add_arrived(sums, chunks, lengths, window_ns)
    gaps_ns = np.concatenate([np.empty(0, dtype=np.int64), *sums.gaps_ns])
    wanted = list(levels(len(gaps_ns), int(sums.requests.sum())))
    percentiles = np.percentile(gaps_ns, wanted) / 1e9 if len(gaps_ns) else np.empty(0)
    return ChunkTotals(
        counts=GapCounts(sums.by_turn, sums.requests),
        gap_percentiles_s=dict(zip(wanted, percentiles.tolist(), strict=False)),
        streamed_s=int(gaps_ns.sum()) / 1e9,
        arrived=sums.arrived[1:-1] if sums.is_known and window_ns is not None else None,
        tokens=sums.tokens,
        chunks=sums.chunks,
        counted_requests=sums.counted_requests,
    )


@dataclass
class _Sums:
    """Sums over the batches so far. `arrived` has the time before the window first, and that after it
    last."""

    gaps_ns: list[np.ndarray] = field(default_factory=list)
    by_turn: np.ndarray = field(default_factory=lambda: NO_GAPS.by_turn)
    requests: np.ndarray = field(default_factory=lambda: NO_GAPS.requests)
    arrived: np.ndarray = field(default_factory=lambda: np.zeros(PARTS + 2))
    is_known: bool = True
    tokens: float = 0.0
    chunks: int = 0
    counted_requests: int = 0


def _add_tokens(sums: _Sums, chunks: Chunks, lengths: np.ndarray) -> None:
    counted = chunks.is_ok & chunks.in_window & ~np.isnan(chunks.tokens) & (lengths > 0)
    sums.tokens += float(chunks.tokens[counted].sum())
    sums.chunks += int(lengths[counted].sum())
    sums.counted_requests += int(counted.sum())


def _add_gaps(sums: _Sums, chunks: Chunks, lengths: np.ndarray) -> None:
    kept = chunks.is_ok & chunks.in_window
    turn = np.clip(chunks.turn, 0, MOST_TURNS - 1).astype(np.int64)
    with_gap = turn[kept & (lengths > 1)]
    if not len(with_gap):
        return
    is_gap = np.repeat(kept, lengths)[1:]
    # A step from chunk to chunk is no gap where the next one is another request's.
    first = chunks.begins[1:-1]
    is_gap[first[(first > 0) & (first < len(chunks.at_ns))] - 1] = False
    gaps_ns = np.maximum(np.diff(chunks.at_ns)[is_gap], 0)
    turns = int(with_gap.max()) + 1
    places = np.repeat(turn, lengths)[1:][is_gap] * BINS + bins_of(gaps_ns)
    sums.gaps_ns.append(gaps_ns)
    sums.requests = _sum(sums.requests, np.bincount(with_gap, minlength=turns))
    sums.by_turn = _sum(sums.by_turn, np.bincount(places, minlength=turns * BINS).reshape(turns, BINS))


def _add_arrived(sums: _Sums, chunks: Chunks, lengths: np.ndarray, window_ns: tuple[int, int]) -> None:
    """Add the tokens of each chunk to the part of the window in which it arrived; a request's tokens are
    spread evenly over its chunks."""
    begin_ns, end_ns = window_ns
    part = np.clip((chunks.at_ns - begin_ns) * PARTS // (end_ns - begin_ns) + 1, 0, PARTS + 1)
    unknown = part[np.repeat(chunks.is_ok & np.isnan(chunks.tokens), lengths)]
    sums.is_known &= not ((unknown > 0) & (unknown <= PARTS)).any()
    per_chunk = np.repeat(np.nan_to_num(chunks.tokens) / np.maximum(lengths, 1), lengths)
    sums.arrived += np.bincount(part, weights=per_chunk, minlength=PARTS + 2)
