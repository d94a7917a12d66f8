"""Gaps between content chunks, counted in fixed bins: a cell's millions of gaps as some thousand numbers.

What a distribution, a curve by turn or a map over time is drawn from, so that lists of chunks are read once
(reports/data/chunk_totals.py). Percentiles of a cell are exact and come from there; those of counts are
not. Pure.
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


_LONG_NS = 2**32  # 4.3 s: longer gaps are few, and kept apart


@dataclass(frozen=True)
class ExactGaps:
    """All gaps of a cell in ns, in no order: those under 4.3 s in 4 bytes each, and the longer ones."""

    short: np.ndarray
    long: np.ndarray

    def __len__(self) -> int:
        return len(self.short) + len(self.long)

    def percentiles_s(self, levels: Iterable[int]) -> list[float]:
        """Percentiles in seconds by numpy's linear rule. Moves the gaps about in memory."""
        ranks = [(len(self) - 1) * level / 100 for level in levels]
        below = sorted({int(rank) + k for rank in ranks for k in (0, 1) if int(rank) + k < len(self)})
        if inside := [k for k in below if k < len(self.short)]:
            self.short.partition(inside)
        ordered = np.sort(self.long)
        at = {k: int(self.short[k] if k < len(self.short) else ordered[k - len(self.short)]) for k in below}
        found = []
        for rank in ranks:
            low = at[int(rank)]
            high = at.get(int(rank) + 1, low)
            found.append((low + (high - low) * (rank - int(rank))) / 1e9)
        return found


@dataclass(frozen=True)
class ChunkTotals:
    """Of one cell: its gaps counted, their exact percentiles by level, and the sum of all; output tokens that
    arrived in each of PARTS parts of the window (None: not known), and those of the window's ok requests with
    their content chunks (`tokens`, `chunks`, of `counted_requests`)."""

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
    adding = _Adding(window_ns)
    for chunks in batches:
        adding.add(_Batch(chunks))
    return adding.totals(levels)


class _Batch:
    """One batch, and what several sums need of it."""

    def __init__(self, chunks: Chunks) -> None:
        self.chunks = chunks
        self.kept = chunks.is_ok & chunks.in_window
        self.lengths = np.diff(chunks.begins)
        # A step from chunk to chunk is no gap where the next one is another request's.
        first = chunks.begins[1:-1]
        self.no_gap = first[(first > 0) & (first < len(chunks.at_ns))] - 1

    def of_chunks(self, of_requests: np.ndarray) -> np.ndarray:
        """A value of each request, for each of its chunks."""
        return np.repeat(of_requests, self.lengths)


@dataclass
class _Adding:
    """Sums over the batches so far."""

    window_ns: tuple[int, int] | None
    short: bytearray = field(default_factory=bytearray)
    long: list[np.ndarray] = field(default_factory=list)
    by_turn: np.ndarray = field(default_factory=lambda: NO_GAPS.by_turn)
    by_time: np.ndarray = field(default_factory=lambda: np.zeros((TIME_BINS + 2) * BINS, dtype=np.int64))
    requests: np.ndarray = field(default_factory=lambda: NO_GAPS.requests)
    in_time: np.ndarray = field(default_factory=lambda: np.zeros(TIME_BINS + 2, dtype=np.int64))
    new_in_time: np.ndarray = field(default_factory=lambda: np.zeros(TIME_BINS + 2, dtype=np.int64))
    streamed_ns: int = 0
    arrived: np.ndarray = field(default_factory=lambda: np.zeros(TIME_BINS + 2))
    is_known: bool = True
    tokens: float = 0.0
    chunks: int = 0
    counted_requests: int = 0

    def add(self, batch: _Batch) -> None:
        time_bin = self._time_bins(batch.chunks.at_ns)
        if time_bin is not None:
            self._add_arrived(batch, time_bin)
        self._add_gaps(batch, time_bin)
        chunks = batch.chunks
        counted = batch.kept & ~np.isnan(chunks.tokens) & (batch.lengths > 0)
        self.tokens += float(chunks.tokens[counted].sum())
        self.chunks += int(batch.lengths[counted].sum())
        self.counted_requests += int(counted.sum())

    def _time_bins(self, at_ns: np.ndarray) -> np.ndarray | None:
        """The part of the window that each instant is in, from 1 to TIME_BINS; 0: before, one more: after."""
        if self.window_ns is None:
            return None
        begin_ns, end_ns = self.window_ns
        part = (at_ns - begin_ns) * TIME_BINS
        part //= end_ns - begin_ns
        part += 1
        return np.clip(part, 0, TIME_BINS + 1, out=part)

    def _add_arrived(self, batch: _Batch, time_bin: np.ndarray) -> None:
        chunks = batch.chunks
        unknown = chunks.is_ok & np.isnan(chunks.tokens)
        if unknown.any():
            their = time_bin[batch.of_chunks(unknown)]
            self.is_known &= not ((their > 0) & (their <= TIME_BINS)).any()
        per_chunk = batch.of_chunks(np.nan_to_num(chunks.tokens) / np.maximum(batch.lengths, 1))
        self.arrived += np.bincount(time_bin, weights=per_chunk, minlength=TIME_BINS + 2)

    def _add_gaps(self, batch: _Batch, time_bin: np.ndarray | None) -> None:
        turn = np.clip(batch.chunks.turn, 0, MOST_TURNS - 1).astype(np.int64)
        with_gap = turn[batch.kept & (batch.lengths > 1)]
        if not len(with_gap):
            return
        turns = int(with_gap.max()) + 1
        self.requests = _sum(self.requests, np.bincount(with_gap, minlength=turns))
        # Steps that are no gap are counted, too, in a row behind the turns.
        row = batch.of_chunks(np.where(batch.kept, turn, turns) * BINS)[1:]
        row[batch.no_gap] = turns * BINS
        steps_ns = np.diff(batch.chunks.at_ns)
        self._add_exact(steps_ns[row < turns * BINS])
        bins = bins_of(steps_ns)
        by_turn = np.bincount(row + bins, minlength=(turns + 1) * BINS)
        self.by_turn = _sum(self.by_turn, by_turn.reshape(-1, BINS)[:turns])
        if time_bin is not None:
            ended = np.where(row < turns * BINS, time_bin[1:], 0)
            self._add_requests(ended)
            ended *= BINS
            by_time = np.bincount(ended + bins, minlength=len(self.by_time))
            self.by_time += by_time

    def _add_requests(self, ended: np.ndarray) -> None:
        """`ended`: by step, the part of the window in which a gap ended; 0 of what is none, as between any
        two requests, and before the window."""
        changed = np.flatnonzero(ended[1:] != ended[:-1])
        at = np.concatenate([ended[:1], ended[changed + 1]])
        before = np.concatenate([[0], ended[changed]])
        self.in_time += np.bincount(at, minlength=TIME_BINS + 2)
        self.new_in_time += np.bincount(at[before == 0], minlength=TIME_BINS + 2)

    def _add_exact(self, gaps_ns: np.ndarray) -> None:
        # A cast to unsigned would make an hour of a step back.
        np.maximum(gaps_ns, 0, out=gaps_ns)
        self.streamed_ns += int(gaps_ns.sum())
        if gaps_ns.max(initial=0) >= _LONG_NS:
            self.long.append(gaps_ns[gaps_ns >= _LONG_NS])
            gaps_ns = gaps_ns[gaps_ns < _LONG_NS]
        self.short += gaps_ns.astype(np.uint32).tobytes()

    def totals(self, levels: Callable[[int, int], Sequence[int]]) -> ChunkTotals:
        short = np.frombuffer(self.short, dtype=np.uint32)
        gaps = ExactGaps(short, np.concatenate([np.empty(0, dtype=np.int64), *self.long]))
        wanted = levels(len(gaps), int(self.requests.sum()))
        arrived = self.arrived[1:-1].reshape(PARTS, -1).sum(axis=1)
        return ChunkTotals(
            counts=GapCounts(
                self.by_turn,
                coarse(self.by_time.reshape(-1, BINS)[1:-1]),
                self.requests,
                self.in_time[1:-1],
                self.new_in_time[1:-1],
            ),
            gap_percentiles_s=dict(zip(wanted, gaps.percentiles_s(wanted), strict=True)),
            streamed_s=self.streamed_ns / 1e9,
            arrived=arrived if self.is_known and self.window_ns is not None else None,
            tokens=self.tokens,
            chunks=self.chunks,
            counted_requests=self.counted_requests,
        )


def _sum(total: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Two arrays added, the shorter one taken to go on with zeros."""
    if len(total) < len(counts):
        total, counts = counts, total
    if len(total) == len(counts):
        return np.asarray(total + counts)
    total = total.copy()
    total[: len(counts)] += counts
    return total
