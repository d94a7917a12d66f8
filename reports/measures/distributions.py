"""Distributions of the requests' latencies."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from serving_bench.reports.data import EDGES_S, Cell, Group, Run, together
from serving_bench.reports.measures.metrics import counted, is_supported
from serving_bench.reports.measures.over_starts import calm_starts, value_cells, withheld
from serving_bench.reports.measures.values import measured_of

# A log axis has no zero.
LEAST_S = 1e-6


@dataclass(frozen=True)
class Steps:
    """A cumulative distribution: `upto` observations are at or below `at_s` (seconds, ascending).

    `requests`: how many requests they come from, if one gives several (gaps, which are binned).
    """

    at_s: np.ndarray
    upto: np.ndarray
    requests: int | None = None

    @property
    def n(self) -> int:
        return int(self.upto[-1]) if len(self.upto) else 0

    @property
    def counted(self) -> str:
        return counted(self.n, self.requests)

    @property
    def is_enough(self) -> bool:
        return is_supported(50, self.n, self.requests)

    def drawn(self, most: int) -> np.ndarray:
        """Return up to `most` of `at_s`, evenly spaced by rank, with the first and the last."""
        ranks = np.linspace(1, self.n, min(self.n, most))
        return np.unique(self.at_s[np.searchsorted(self.upto, ranks.round())])

    def shares(self, at_s: np.ndarray) -> list[float | None]:
        """Return the share of observations at or below each value; all None if there are too few for a
        median."""
        if not self.is_enough:
            return [None] * len(at_s)
        before = np.searchsorted(self.at_s, at_s, side="right")
        return (np.concatenate([[0], self.upto])[before] / self.n).round(4).tolist()  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Spread:
    """A group's distribution of a latency over the starts that its values come from. `starts`: that of each
    start by its number, if asked for."""

    group: Group
    whole: Steps
    starts: Mapping[int, Steps]


def spreads_of(run: Run, groups: Sequence[Group], name: str, *, is_split: bool) -> list[Spread]:
    """Return the groups' distributions of a latency (`ttft_s`); nothing if no group has enough for a median.
    `is_split`: also return those of single starts."""
    spreads = []
    for group in groups:
        starts = calm_starts(run, group)
        split = starts.items() if is_split and len(starts) > 1 else ()
        by_start = {repeat + 1: _steps(run, cells, name) for repeat, cells in split}
        if not withheld(run, group.key, name):
            spreads.append(Spread(group, _steps(run, value_cells(run, group), name), by_start))
    return spreads if any(each.whole.is_enough for each in spreads) else []


def _steps(run: Run, cells: Sequence[Cell], name: str) -> Steps:
    if name == "itl_s":
        gaps = together(measured_of(run)[cell.number].gaps for cell in cells)
        is_there = gaps.counts > 0
        # All gaps of a bin count at its upper edge.
        return Steps(EDGES_S[1:][is_there], np.cumsum(gaps.counts)[is_there], gaps.requests)
    values = np.concatenate([np.empty(0), *(run.observations(cell.number, name) for cell in cells)])
    return Steps(np.sort(values), np.arange(1, len(values) + 1))
