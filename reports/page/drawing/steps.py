"""The empirical distribution of a latency over several cells, as the steps of its curve. Draws nothing.

Gaps come as counts in bins and everything else as values, so that no list of chunks is read here.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from reports.data.cells import Cell
from reports.data.chunks import EDGES_S, quantile, together
from reports.data.run import Run
from reports.measures.metrics import is_supported
from reports.measures.values import gap_counts_of


@dataclass(frozen=True)
class Steps:
    """Where a distribution rises (`at_s`, in seconds, ascending), and how many observations are at or below.
    `requests`: how many they come from, where one gives several (gaps), whose `counts` go by EDGES_S."""

    at_s: np.ndarray
    upto: np.ndarray
    requests: int | None = None
    counts: np.ndarray | None = None

    @property
    def n(self) -> int:
        return int(self.upto[-1]) if len(self.upto) else 0

    def supports(self, percentile: int) -> bool:
        return is_supported(percentile, self.n, self.requests)

    def percentile(self, level: int) -> float | None:
        """Return it in seconds, of gaps to within their bin; None where there are too few observations."""
        if not self.supports(level):
            return None
        if self.counts is not None:
            return quantile(self.counts, level / 100)
        return float(np.percentile(self.at_s, level))

    def share_at(self, at_s: np.ndarray) -> np.ndarray:
        """Return the share of observations at or below each of these values; there has to be one."""
        before = np.searchsorted(self.at_s, at_s, side="right")
        return np.concatenate([[0], self.upto])[before] / self.n

    def drawn(self, most: int) -> np.ndarray:
        """Return at most `most` of the places where it rises, evenly by rank, the first and the last kept."""
        ranks = np.linspace(1, self.n, min(self.n, most))
        return np.unique(self.at_s[np.searchsorted(self.upto, ranks.round())])


def steps_of_values(values: np.ndarray) -> Steps:
    """Return those of observations one by one, in seconds."""
    return Steps(np.sort(values), np.arange(1, len(values) + 1))


def steps_of_counts(counts: np.ndarray, requests: int) -> Steps:
    """Return those of counts by EDGES_S: a bin's are all at its upper edge."""
    is_there = counts > 0
    return Steps(EDGES_S[1:][is_there], np.cumsum(counts)[is_there], requests, counts)


def steps_of(run: Run, cells: Sequence[Cell], name: str) -> Steps:
    """Return those of a latency (`ttft_s`, `itl_s` ...) of the cells' ok requests in their windows."""
    if name == "itl_s":
        found = together(gap_counts_of(run, cell.number) for cell in cells)
        return steps_of_counts(found.counts, int(found.requests.sum()))
    return steps_of_values(_joined([run.observations(cell.number, name) for cell in cells]))


def _joined(parts: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.empty(0), *parts])
