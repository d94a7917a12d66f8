"""The client: its lags, its stamps, and how it kept its schedule."""

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from reports.checks.finding import (
    BY_OBJECTIVES,
    FROM_SENDING,
    LATENCIES,
    Finding,
    cell_name,
    measured_cells,
    numbers,
)
from reports.data.cells import Cell
from reports.data.run import Run
from reports.measures.metrics import is_supported
from reports.measures.written import number, plural, several

LATE_LOOP_S = 0.005
# A tenth of the median TTFT is a difference that people act on; 10 ms is one that they feel, however slow the
# server. A schedule that is kept leaves within 1 ms.
LATE_SEND_S = 0.010
LATE_SEND_SHARE = 0.1


def client_late(run: Run) -> Iterator[Finding]:
    """The load process itself was late."""
    lags = [
        (cell.summary.loop_lag_s[1], cell)
        for cell in measured_cells(run)
        if cell.summary and cell.summary.loop_lag_s
    ]
    late = [pair for pair in lags if pair[0] > LATE_LOOP_S]
    if late:
        worst, cell = max(late, key=lambda pair: pair[0])
        yield Finding(
            "client_late",
            "The client was late",
            f"In {len(late)} of {plural(len(lags), 'cell')} the load process's 10 ms timer was more than "
            f"{number(LATE_LOOP_S * 1e3, 0)} ms late at p99 (worst: {number(worst * 1e3)} ms, "
            f"{cell_name(cell)}); "
            "requests left that much later.",
            "load.workers=2 with free cores for them, or fewer users (load.concurrency).",
            cells=numbers(cell for _, cell in late),
            metrics=(*FROM_SENDING, "itl_s"),
        )


def stamps_not_kernel(run: Run) -> Iterator[Finding]:
    """Arrivals stamped by the client after reading, not by the kernel."""
    cells = [cell for cell in measured_cells(run) if cell.summary and cell.summary.stamp_source != "kernel"]
    if cells:
        yield Finding(
            "stamps_not_kernel",
            "Arrivals are stamped after reading",
            f"In {plural(len(cells), 'cell')} the kernel gave no receive time for at least one read; such an "
            "answer is timed when bench read it, and a busy client adds its own lag to that.",
            "Run the client on Linux, which gives them, with TLS too.",
            cells=numbers(cells),
            metrics=(*LATENCIES, *BY_OBJECTIVES),
            marks=False,
        )


def schedule_not_kept(run: Run) -> Iterator[Finding]:
    """Open loops and traces whose requests left late: a part of their latency is the client's; or whose
    conversations never began."""
    cells = [cell for cell in measured_cells(run) if cell.load.kind != "closed"]
    parts = []
    if late := list(_late_sends(run, cells)):
        parts.append(
            f"Requests left later than they were due: {several([said for _, said in late], '; ')}. The lag "
            "is a part of their TTFT and E2E."
        )
    if missing := [(cell, cell.summary.left_out) for cell in cells if cell.summary and cell.summary.left_out]:
        said = [f"{cell_name(cell)}: {plural(count, 'conversation')}" for cell, count in missing]
        parts.append(
            f"Conversations that were due before the window's end never began: {several(said, '; ')}. "
            "Less came than was asked for."
        )
    if parts:
        yield Finding(
            "schedule_not_kept",
            "The schedule was not kept",
            " ".join(parts),
            "load.workers=2 with free cores for them, a higher limit of open files, or a lower load.rate.",
            cells=numbers(cell for cell, _ in [*late, *missing]),
            # Where conversations never began the load was another one, and every number is of that.
            metrics=() if missing else FROM_SENDING,
        )


def _late_sends(run: Run, cells: Iterable[Cell]) -> Iterator[tuple[Cell, str]]:
    """The cells whose requests left late, and what is said of each."""
    for cell in cells:
        lags_s = run.observations(cell.number, "send_lag_s")
        ttft_s = run.observations(cell.number, "ttft_s")
        if not len(lags_s) or not len(ttft_s):
            continue
        lag_s, median_s = float(np.percentile(lags_s, 99)), float(np.median(ttft_s))
        if lag_s > min(LATE_SEND_S, LATE_SEND_SHARE * median_s):
            yield cell, f"{cell_name(cell)}: {_lag(lags_s, ttft_s)} (n = {len(lags_s):,})"


def _lag(lags_s: NDArray[np.float64], ttft_s: NDArray[np.float64]) -> str:
    """`p99 12.0 ms of a median TTFT of 79.1 ms`; of too few requests for either what there was."""
    lag = "p99" if is_supported(99, len(lags_s)) else "up to"
    lag_s = float(np.percentile(lags_s, 99) if lag == "p99" else np.max(lags_s))
    median = f"a median TTFT of {number(np.median(ttft_s) * 1e3)}"
    of = median if is_supported(50, len(ttft_s)) else f"a TTFT of up to {number(float(np.max(ttft_s)) * 1e3)}"
    return f"{lag} {number(lag_s * 1e3)} ms of {of} ms"
