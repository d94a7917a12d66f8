"""How the latencies of requests are distributed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from reports.data import EDGES_S, Cell, Group, Run, together
from reports.measures.metrics import counted, is_supported
from reports.measures.over_starts import calm_starts, value_cells, withheld
from reports.measures.values import measured_of

# A log axis has no zero.
LEAST_S = 1e-6


@dataclass(frozen=True)
class Steps:
    """Where a distribution rises (`at_s`, in seconds, ascending), and how many observations are at or below.
    `requests`: how many they come from, where one gives several (gaps, which come in bins)."""

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
        """Return at most `most` of the places where it rises, evenly by rank, the first and the last kept."""
        ranks = np.linspace(1, self.n, min(self.n, most))
        return np.unique(self.at_s[np.searchsorted(self.upto, ranks.round())])

    def shares(self, at_s: np.ndarray) -> list[float | None]:
        """Return the share at or below each value; None where there are too few observations."""
        if not self.is_enough:
            return [None] * len(at_s)
        before = np.searchsorted(self.at_s, at_s, side="right")
        return (np.concatenate([[0], self.upto])[before] / self.n).round(4).tolist()  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Spread:
    """A group's distribution of a latency over the starts that its values are over; `starts` has each start's
    by its number, where that is asked for."""

    group: Group
    whole: Steps
    starts: Mapping[int, Steps]


def spreads_of(run: Run, groups: Sequence[Group], name: str, *, is_split: bool) -> list[Spread]:
    """Return the distributions of a latency (`ttft_s`); none if no group has enough for a median.
    `is_split`: with those of single starts."""
    found = []
    for group in groups:
        starts = calm_starts(run, group)
        split = starts.items() if is_split and len(starts) > 1 else ()
        by_start = {repeat + 1: _steps(run, cells, name) for repeat, cells in split}
        if not withheld(run, group.key, name):
            found.append(Spread(group, _steps(run, value_cells(run, group), name), by_start))
    return found if any(each.whole.is_enough for each in found) else []


def _steps(run: Run, cells: Sequence[Cell], name: str) -> Steps:
    if name == "itl_s":
        found = together(measured_of(run)[cell.number].gaps for cell in cells)
        is_there = found.counts > 0
        # A bin's gaps are all at its upper edge.
        return Steps(EDGES_S[1:][is_there], np.cumsum(found.counts)[is_there], found.requests)
    values = np.concatenate([np.empty(0), *(run.observations(cell.number, name) for cell in cells)])
    return Steps(np.sort(values), np.arange(1, len(values) + 1))
