"""What the content chunks of a cell come to, from one reading of their lists, a batch at a time.

In memory at once: one batch, 4 bytes per gap of the cell, and counts. Knows no run and no metric's name.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from reports.data.gap_counts import BINS, MOST_TURNS, NO_GAPS, TIME_BINS, GapCounts, bins_of, coarse
from reports.data.tables import Chunks
from reports.stats.steadiness import PARTS

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
