"""A latency over the window as a map: how many observations fall into each part of time and of latency.

Starts' windows lie on each other, each from its beginning. Draws nothing; reads no list of chunks.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from reports.data.cells import Cell
from reports.data.chunks import COARSE_EDGES_S, TIME_BINS, quantile, together
from reports.data.run import Run
from reports.measures.metrics import is_supported
from reports.measures.values import gap_counts_of

# Parts of a window, finest first: each divides TIME_BINS, so that counts of gaps can be added up to it.
PARTS = tuple(parts for parts in range(TIME_BINS, 5, -1) if TIME_BINS % parts == 0)
# Observations that a part of time should have, so that its column is a distribution and no single request.
_WANTED = 20
# Edges as those of coarse gap counts, 8 to a doubling; the values lie within their first and last.
EDGES_S = COARSE_EDGES_S


@dataclass(frozen=True)
class TimeMap:
    """`counts`: parts of the window x bins of EDGES_S. `window_s`: the longest of the windows. `medians_s`
    and `p95s_s`: of each part of time, None where it has too few observations. `requests`: how many
    requests the observations come from, where one gives several (gaps); `requests_by_part`: of each part."""

    counts: np.ndarray
    window_s: float
    medians_s: tuple[float | None, ...]
    p95s_s: tuple[float | None, ...]
    requests: int | None = None
    requests_by_part: tuple[int, ...] = ()

    @property
    def n(self) -> int:
        return int(self.counts.sum())

    @property
    def edges_share(self) -> np.ndarray:
        """Of the parts of time, as shares of the window."""
        return np.linspace(0.0, 1.0, len(self.counts) + 1)


def time_map(run: Run, cells: Sequence[Cell], name: str, most_parts: int = TIME_BINS) -> TimeMap | None:
    """Of a latency (`ttft_s`, `itl_s` ...) of the cells' ok requests in their windows: a request counts where
    it was sent, a gap where it ended. None where no cell has a window or an observation."""
    timed = [cell for cell in cells if cell.window_s]
    if name == "itl_s":
        return _of_gaps(run, timed, most_parts)
    at, seconds = (np.concatenate([np.empty(0), *each]) for each in _sent(run, timed, name))
    if not len(seconds):
        return None
    parts = _parts(len(seconds), most_parts)
    part = np.clip((at * parts).astype(int), 0, parts - 1)
    bins = np.clip(np.searchsorted(EDGES_S, seconds, side="right") - 1, 0, len(EDGES_S) - 2)
    counts = np.zeros((parts, len(EDGES_S) - 1), dtype=np.int64)
    np.add.at(counts, (part, bins), 1)
    columns = [seconds[part == each] for each in range(parts)]
    medians, p95s = (tuple(_percentile(column, level) for column in columns) for level in (50, 95))
    return TimeMap(counts, _longest(timed), medians, p95s)


def _sent(run: Run, cells: Sequence[Cell], name: str) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """When in its window each request was sent, from 0 to 1, and its latency."""
    found: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    for cell in cells:
        assert cell.summary is not None
        begin_ns, end_ns = cell.summary.window_start_ns, cell.summary.window_end_ns
        sent = run.window_requests(cell.number)
        ok = sent[(sent["outcome"] == "ok") & sent[name].notna() & sent["sent_ns"].notna()]
        # Instants have 64 bits: the begin is taken off before they become floats.
        since_ns = ok["sent_ns"].to_numpy(dtype=np.int64) - begin_ns
        found[0].append(since_ns / (end_ns - begin_ns))
        found[1].append(ok[name].to_numpy(dtype=float))
    return found


def _of_gaps(run: Run, cells: Sequence[Cell], most_parts: int) -> TimeMap | None:
    whole = together(gap_counts_of(run, cell.number) for cell in cells)
    n = int(whole.by_time.sum())
    if not n:
        return None
    parts = _parts(n, most_parts)
    counts = whole.by_time.reshape(parts, -1, whole.by_time.shape[1]).sum(axis=1)
    requests = tuple(map(int, whole.requests_by_part(parts)))
    medians, p95s = (
        tuple(
            quantile(column, level / 100, EDGES_S) if is_supported(level, int(column.sum()), own) else None
            for column, own in zip(counts, requests, strict=True)
        )
        for level in (50, 95)
    )
    return TimeMap(counts, _longest(cells), medians, p95s, int(whole.requests.sum()), requests)


def _parts(n: int, most_parts: int) -> int:
    """The finest division that leaves enough observations in each part."""
    few = (parts for parts in PARTS if parts <= most_parts and n >= parts * _WANTED)
    return next(few, PARTS[-1])


def _longest(cells: Sequence[Cell]) -> float:
    return max(cell.window_s or 0.0 for cell in cells)


def _percentile(values: np.ndarray, level: int) -> float | None:
    return float(np.percentile(values, level)) if is_supported(level, len(values)) else None
