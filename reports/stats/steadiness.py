"""Requests in flight and throughput over a window, and whether its queue only grew. Pure.

This checks a window that was fixed before the run; it never chooses one.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from harness.contracts import Load, LoadSummary

PARTS = 12
# A third holds ten of them: with fewer, one request more or less is already 10 %.
REQUESTS_NEEDED = 30
# A queue that only grew: by half or more, nearly always upwards, and by more than an occupancy varies where
# the server keeps up (that of an M/G/infinity queue is a Poisson number, so by its square root).
GROWTH = 1.5
GROWTH_ERRORS = 3.0
GROWTH_RANK = 0.8
# Until requests begin to leave, an open loop only fills up. The longest answers take this many times the
# shortest one (lengths from half to one and a half of their mean).
LONGEST_TO_SHORTEST = 3.0


@dataclass(frozen=True)
class Series:
    """A quantity over a window: its mean in each of PARTS equal parts."""

    parts: np.ndarray

    @property
    def mean(self) -> float:
        return float(self.parts.mean())

    @cached_property
    def thirds(self) -> tuple[float, float, float]:
        first, middle, last = self.parts.reshape(3, -1).mean(axis=1).tolist()
        return first, middle, last

    @property
    def only_rises(self) -> bool:
        first, _, last = self.thirds
        # Spearman's correlation with the order (importing scipy.stats takes half a second).
        ranks = np.argsort(np.argsort(self.parts, kind="stable"), kind="stable")
        is_upwards = float(np.corrcoef(np.arange(PARTS), ranks)[0, 1]) >= GROWTH_RANK
        return is_upwards and last > GROWTH * first and last - first > GROWTH_ERRORS * (first + last) ** 0.5


@dataclass(frozen=True)
class Steadiness:
    """A cell's window: requests in flight, output tokens/s (None: not known), and ok requests/s that ended.

    `requests`: how many ended. `is_growing`: see only_grew.
    """

    in_flight: Series
    tokens: Series | None
    ended: Series
    requests: int
    is_growing: bool = False


def only_grew(requests: pd.DataFrame, load: Load, summary: LoadSummary) -> bool:
    """Return whether requests in flight only became more over a window, as beyond a server's capacity.

    An open loop also fills up at first: until the longest of the requests leave that came first at the full
    rate. Where that is later than the window's first third, nothing is said. `requests`: all of the cell.
    """
    begin_ns, end_ns = summary.window_start_ns, summary.window_end_ns
    if load.kind == "closed" or end_ns <= begin_ns:
        return False
    sent = requests[requests["sent_ns"].notna() & requests["end_ns"].notna()]
    ok = (sent["outcome"] == "ok").to_numpy(dtype=bool)
    if not ok.any():
        return False
    sent_ns, left_ns = (sent[name].to_numpy(dtype=float) for name in ("sent_ns", "end_ns"))
    shortest_s = float((left_ns - sent_ns)[ok].min()) / 1e9
    settled_s = (begin_ns - summary.started_ns + (end_ns - begin_ns) / 3) / 1e9 - load.ramp_up_s
    if shortest_s * LONGEST_TO_SHORTEST > settled_s:
        return False
    return occupancy(sent_ns, left_ns, edges_of(begin_ns, end_ns)).only_rises


def edges_of(begin_ns: int, end_ns: int) -> np.ndarray:
    """Return the PARTS + 1 instants that bound a window's parts."""
    return np.linspace(begin_ns, end_ns, PARTS + 1)


def occupancy(sent_ns: np.ndarray, end_ns: np.ndarray, edges: np.ndarray) -> Series:
    """Return requests in flight, the exact mean over each part."""
    lived = [(np.clip(edge - sent_ns, 0, None) - np.clip(edge - end_ns, 0, None)).sum() for edge in edges]
    return Series(np.diff(lived) / np.diff(edges))


def rate(at_ns: np.ndarray, edges: np.ndarray) -> Series:
    """Return events per second in each part."""
    counts, _ = np.histogram(at_ns, edges)
    return Series(counts / (np.diff(edges) / 1e9))
