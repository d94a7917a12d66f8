"""What servers told of themselves in a cell: gauges over its window, and how far counters grew.

Reads Run.server, whose columns are the terms of harness.contracts.ServerTerm. Draws nothing, judges nothing.
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


@dataclass(frozen=True)
class Gauge:
    """Mean and peak of a gauge's samples."""

    mean: float
    peak: float


@once
def samples_of(run: Run, start: str) -> pd.DataFrame:
    """A start's samples in order, as floats; empty where it has none. `t_ns` has lost some 100 ns."""
    frame = run.server
    if frame is None:
        return pd.DataFrame(columns=["t_ns", *TERMS], dtype=float)
    own = of_start(frame, start)
    return own.reindex(columns=["t_ns", *TERMS]).astype(float).sort_values("t_ns")


def gauge(run: Run, cell: Cell, term: ServerTerm) -> Gauge | None:
    """Of the samples in the cell's window; None where none has the term."""
    samples = run.window_samples(run.server, cell)
    known = samples[term].dropna().astype(float) if len(samples) else pd.Series(dtype=float)
    return Gauge(float(known.mean()), float(known.max())) if len(known) else None


def growth(run: Run, cell: Cell, term: ServerTerm) -> float | None:
    """How far a counter grew from the window's begin to its end, each reckoned between the samples around it;
    None where one of them is missing or the counter fell (the server was started anew)."""
    if cell.record is None or cell.summary is None:
        return None
    t_ns, counts = _course(run, cell.record.start, term)
    ends = [_at(t_ns, counts, ns) for ns in (cell.summary.window_start_ns, cell.summary.window_end_ns)]
    begun, ended = ends
    if begun is None or ended is None or _fell(t_ns, counts, cell):
        return None
    return ended - begun


def _course(run: Run, start: str, term: ServerTerm) -> tuple[np.ndarray, np.ndarray]:
    """Instants and values of a term where it is known."""
    samples = samples_of(run, start)
    t_ns, values = samples["t_ns"].to_numpy(), samples[term].to_numpy()
    is_known = ~np.isnan(values)
    return t_ns[is_known], values[is_known]


def _at(t_ns: np.ndarray, counts: np.ndarray, ns: int) -> float | None:
    after = int(np.searchsorted(t_ns, ns))
    if after == 0 or after == len(t_ns) or t_ns[after] - t_ns[after - 1] > GAP_S * 1e9:
        return None
    return float(np.interp(ns, t_ns[after - 1 : after + 1], counts[after - 1 : after + 1]))


def _fell(t_ns: np.ndarray, counts: np.ndarray, cell: Cell) -> bool:
    assert cell.summary is not None
    first = max(int(np.searchsorted(t_ns, cell.summary.window_start_ns)) - 1, 0)
    last = int(np.searchsorted(t_ns, cell.summary.window_end_ns)) + 1
    return bool((np.diff(counts[first:last]) < 0).any())


def pooled(run: Run, group: Group, above: ServerTerm, below: ServerTerm | None) -> float | None:
    """Growth of one counter per growth of another (None: per second) over the windows of a group's starts
    that count and have both; None where there is nothing to divide by."""
    pairs = []
    for cell in group.counted:
        parts = growth(run, cell, above), growth(run, cell, below) if below else cell.window_s
        if None not in parts:
            pairs.append(parts)
    total = sum(part or 0.0 for _, part in pairs)
    return sum(part or 0.0 for part, _ in pairs) / total if total else None


def total(run: Run, group: Group, term: ServerTerm) -> float | None:
    """Growth of a counter over the windows of a group's starts that count; None where one is not known."""
    found = [growth(run, cell, term) for cell in group.counted]
    known = [each for each in found if each is not None]
    return sum(known) if known and len(known) == len(found) else None


def mean_gauge(run: Run, group: Group, term: ServerTerm) -> Gauge | None:
    """The mean of the means and the highest peak over a group's starts that count and have the term."""
    found = [known for cell in group.counted if (known := gauge(run, cell, term))]
    if not found:
        return None
    return Gauge(sum(each.mean for each in found) / len(found), max(each.peak for each in found))


def never_told(run: Run, starts: Sequence[str]) -> list[ServerTerm]:
    """Terms that no sample of these starts has."""
    frames = [samples_of(run, start) for start in starts]
    return [term for term in TERMS if not any(frame[term].notna().any() for frame in frames)]


def grown_in_cell(run: Run, cell: Cell, term: ServerTerm) -> float | None:
    """How far a counter grew over the whole of a cell, its warm-up and its last answers included: from the
    last sample before its load to the last one before the next cell, while nothing was asked; None where
    one is missing or the counter fell."""
    if cell.record is None or cell.summary is None:
        return None
    t_ns, counts = _course(run, cell.record.start, term)
    first = int(np.searchsorted(t_ns, cell.summary.started_ns, side="right")) - 1
    last = int(np.searchsorted(t_ns, _next_load_ns(run, cell, cell.summary.ended_ns))) - 1
    if first < 0 or last < 0 or t_ns[last] < cell.summary.ended_ns:
        return None
    between = counts[first : last + 1]
    return None if (np.diff(between) < 0).any() else float(between[-1] - between[0])


def _next_load_ns(run: Run, cell: Cell, ended_ns: int) -> float:
    """Return when the same start's next cell began, with prompts of bench's own; infinite if there is
    none."""
    record = run.start_of(cell)
    phases = record.phases if record else ()
    began = [phase.t_ns for phase in phases if phase.name.endswith("reset") and phase.t_ns >= ended_ns]
    return min(began, default=float("inf"))
