"""What the content chunks of a cell come to, from one reading of their lists, a batch at a time. Pure.

Gaps between chunks are counted in fixed bins, from which distributions are drawn; their percentiles are
exact. In memory at once: one batch, 8 bytes per gap of the cell, and counts.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

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


@dataclass(frozen=True)
class GapCounts:
    """Gaps of ok requests that were sent in the window, of one cell or of several together: how many are in
    each bin, and of how many requests."""

    counts: np.ndarray
    requests: int

    @property
    def n(self) -> int:
        return int(self.counts.sum())


NO_GAPS = GapCounts(np.zeros(BINS, dtype=np.int64), 0)


def together(found: Iterable[GapCounts]) -> GapCounts:
    """Return the counts of several cells added."""
    each = [NO_GAPS, *found]
    return GapCounts(np.sum([gaps.counts for gaps in each], axis=0), sum(gaps.requests for gaps in each))


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
    until = np.cumsum(counts)
    if not until[-1]:
        return None
    rank = (until[-1] - 1) * share
    ranks = np.floor(rank), np.ceil(rank)
    at = np.searchsorted(until, ranks, side="right")
    inside = (ranks - until[at] + counts[at] + 0.5) / counts[at]
    return float(np.interp(rank, ranks, EDGES_S[at] + np.diff(EDGES_S)[at] * inside))


@dataclass(frozen=True)
class ChunkTotals:
    """Totals of one cell: its gaps counted, their exact percentiles by level, and the sum of all; output
    tokens that arrived in each of PARTS parts of the window (None: not known); and of the window's ok
    requests with a token count those tokens, their chunks, and their number."""

    gaps: GapCounts
    gap_percentiles_s: Mapping[int, float]
    streamed_s: float
    arrived: np.ndarray | None
    tokens: float
    chunks: int
    counted_requests: int


def chunk_totals(
    batches: Iterable[Chunks], window_ns: tuple[int, int] | None, levels: Sequence[int] = ()
) -> ChunkTotals:
    """Read all batches of a cell. `window_ns`: its begin and end; None without one. `levels`: of the gaps'
    percentiles."""
    counts, requests, gaps = NO_GAPS.counts.copy(), 0, [np.empty(0, dtype=np.int64)]
    of_counted = np.zeros(3)  # tokens, chunks, requests
    arrived = np.zeros(PARTS + 2)  # before the window, in its parts, after it
    for batch in batches:
        lengths = np.diff(batch.begins)
        good = batch.is_ok & batch.in_window
        counted = good & ~np.isnan(batch.tokens) & (lengths > 0)
        of_counted += batch.tokens[counted].sum(), lengths[counted].sum(), counted.sum()
        gaps.append(_gaps_ns(batch, np.repeat(good, lengths)))
        counts += np.bincount(bins_of(gaps[-1]), minlength=BINS)
        requests += int((good & (lengths > 1)).sum())
        if window_ns is not None:
            arrived += _arrived(batch, lengths, *window_ns)
    all_ns = np.concatenate(gaps)
    is_known = window_ns is not None and not np.isnan(arrived[1:-1]).any()
    return ChunkTotals(
        GapCounts(counts, requests),
        dict(zip(levels, (np.percentile(all_ns, levels) / 1e9).tolist(), strict=True)) if len(all_ns) else {},
        streamed_s=int(all_ns.sum()) / 1e9,
        arrived=arrived[1:-1] if is_known else None,
        tokens=float(of_counted[0]),
        chunks=int(of_counted[1]),
        counted_requests=int(of_counted[2]),
    )


def _gaps_ns(batch: Chunks, is_kept: np.ndarray) -> np.ndarray:
    """Return the steps from chunk to chunk of each kept request, and none between two requests."""
    is_gap = is_kept[1:].copy()
    first = batch.begins[1:-1]
    is_gap[first[(first > 0) & (first < len(batch.at_ns))] - 1] = False
    return np.asarray(np.maximum(np.diff(batch.at_ns)[is_gap], 0))


def _arrived(batch: Chunks, lengths: np.ndarray, begin_ns: int, end_ns: int) -> np.ndarray:
    """Return the tokens that arrived before, in each part of, and after the window: a request's spread evenly
    over its chunks. NaN where an ok request's are not known; none are taken of a failed one's."""
    part = np.clip((batch.at_ns - begin_ns) * PARTS // (end_ns - begin_ns) + 1, 0, PARTS + 1)
    tokens = np.where(batch.is_ok, batch.tokens, np.nan_to_num(batch.tokens))
    per_chunk = np.repeat(tokens / np.maximum(lengths, 1), lengths)
    return np.bincount(part, weights=per_chunk, minlength=PARTS + 2)
