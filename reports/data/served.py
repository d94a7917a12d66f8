"""What servers told of themselves in a cell: gauges over its window, and how far counters grew.

Reads Run.server, whose columns are the terms of harness.contracts.ServerTerm.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np
import pandas as pd

from harness.contracts import ServerTerm
from reports.data.cells import Cell, Group
from reports.data.run import Run, once
from reports.data.tables import of_start

TERMS: tuple[ServerTerm, ...] = get_args(ServerTerm)
# Between samples this far apart (they are due each second) a counter's course is not known.
GAP_S = 5.0


@once
def samples_of(run: Run, start: str) -> pd.DataFrame:
    """Return a start's samples in order, as floats; empty where it has none. `t_ns` has lost some 100 ns."""
    columns = ["t_ns", *TERMS]
    if run.server is None:
        return pd.DataFrame(columns=columns, dtype=float)
    return of_start(run.server, start).reindex(columns=columns).astype(float).sort_values("t_ns")


# --- gauges ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Gauge:
    """Mean and peak of a gauge's samples."""

    mean: float
    peak: float


def gauge(run: Run, cell: Cell, term: ServerTerm) -> Gauge | None:
    """Return a gauge over the cell's window; None where no sample has the term."""
    samples = run.window_samples(run.server, cell)
    known = samples[term].dropna().astype(float) if len(samples) else pd.Series(dtype=float)
    return Gauge(float(known.mean()), float(known.max())) if len(known) else None


def mean_gauge(run: Run, group: Group, term: ServerTerm) -> Gauge | None:
    """Return the mean of the means, and the highest peak, over a group's starts that have the term."""
    found = [known for cell in group.counted if (known := gauge(run, cell, term))]
    if not found:
        return None
    return Gauge(sum(each.mean for each in found) / len(found), max(each.peak for each in found))


def never_told(run: Run, starts: Sequence[str]) -> list[ServerTerm]:
    """Return the terms that no sample of these starts has."""
    frames = [samples_of(run, start) for start in starts]
    return [term for term in TERMS if not any(frame[term].notna().any() for frame in frames)]


# --- counters --------------------------------------------------------------------------------------


def _course(run: Run, cell: Cell, term: ServerTerm) -> tuple[np.ndarray, np.ndarray]:
    """Return instants and values of a term on the cell's start, where it is known."""
    samples = samples_of(run, cell.record.start if cell.record else "")
    known = samples[["t_ns", term]].dropna().to_numpy()
    return known[:, 0], known[:, 1]


def growth(run: Run, cell: Cell, term: ServerTerm) -> float | None:
    """Return how far a counter grew from the window's begin to its end, each interpolated between the samples
    around it; None where one of them is missing or the counter fell (the server was started again)."""
    if cell.record is None or cell.summary is None:
        return None
    t_ns, counts = _course(run, cell, term)
    ends = [cell.summary.window_start_ns, cell.summary.window_end_ns]
    after = np.searchsorted(t_ns, ends)
    if after[0] == 0 or after[1] == len(t_ns):
        return None
    if ((t_ns[after] - t_ns[after - 1]) > GAP_S * 1e9).any():
        return None
    if (np.diff(counts[after[0] - 1 : after[1] + 1]) < 0).any():
        return None
    begun, ended = np.interp(ends, t_ns, counts)
    return float(ended - begun)


def grown_in_cell(run: Run, cell: Cell, term: ServerTerm) -> float | None:
    """Return how far a counter grew over the whole of a cell, its warm-up and its last answers included: from
    the last sample before its load to the last one before the next cell, while nothing was asked; None where
    one is missing or the counter fell."""
    if cell.record is None or cell.summary is None:
        return None
    record = run.start_of(cell)
    began = [phase.t_ns for phase in (record.phases if record else ()) if phase.name.endswith("reset")]
    next_ns = min((ns for ns in began if ns >= cell.summary.ended_ns), default=np.inf)
    t_ns, counts = _course(run, cell, term)
    first = int(np.searchsorted(t_ns, cell.summary.started_ns, side="right")) - 1
    last = int(np.searchsorted(t_ns, next_ns)) - 1
    if first < 0 or last < 0 or t_ns[last] < cell.summary.ended_ns:
        return None
    between = counts[first : last + 1]
    return None if (np.diff(between) < 0).any() else float(between[-1] - between[0])


def pooled(run: Run, group: Group, above: ServerTerm, below: ServerTerm | None) -> float | None:
    """Return the growth of one counter per growth of another (None: per second) over the windows of a group's
    starts that count and have both; None where there is nothing to divide by."""
    pairs = [
        (grown, per)
        for cell in group.counted
        if (grown := growth(run, cell, above)) is not None
        if (per := growth(run, cell, below) if below else cell.window_s) is not None
    ]
    total = sum(per for _, per in pairs)
    return sum(grown for grown, _ in pairs) / total if total else None


def total(run: Run, group: Group, term: ServerTerm) -> float | None:
    """Return a counter's growth over the windows of a group's starts; None where one is not known."""
    found = [growth(run, cell, term) for cell in group.counted]
    known = [each for each in found if each is not None]
    return sum(known) if known and len(known) == len(found) else None
