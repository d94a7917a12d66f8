"""The client: its lags, its stamps, and how it kept its schedule."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from reports.cells import Cell
from reports.checks.finding import Finding, cell_name, measured_cells
from reports.frames import Run
from reports.markup import number, plural, several

LATE_LOOP_S = 0.005
# A tenth of the median TTFT is a difference that people act on; 10 ms is one that they feel, however slow the
# server. A schedule that is kept leaves within 1 ms.
LATE_SEND_S = 0.010
LATE_SEND_SHARE = 0.1
# The error of TTFT up to which the self-test calls a load within bench's reach.
UNSURE_CLOCK_NS = 1_000_000


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
            "Free cores for the client, or fewer users.",
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
            "Linux gives them, with TLS too.",
        )


def schedule_not_kept(run: Run) -> Iterator[Finding]:
    """Open loops and traces whose requests left late: a part of their latency is the client's; or whose
    conversations never began."""
    cells = [cell for cell in measured_cells(run) if cell.load.kind != "closed"]
    parts = []
    if late := _late_sends(run, cells):
        parts.append(
            f"Requests left later than they were due: {several(late, '; ')}. The lag is a part of their TTFT "
            "and E2E."
        )
    if missing := [
        f"{cell_name(cell)}: {plural(cell.summary.left_out, 'conversation')}"
        for cell in cells
        if cell.summary and cell.summary.left_out
    ]:
        parts.append(
            f"Conversations that were due before the window's end never began: {several(missing, '; ')}. "
            "Less came than was asked for."
        )
    if parts:
        yield Finding(
            "schedule_not_kept",
            "The schedule was not kept",
            " ".join(parts),
            "Free cores for the client, a higher limit of open files, or load.workers=2.",
        )


def _late_sends(run: Run, cells: Iterable[Cell]) -> list[str]:
    """What is said of each cell whose requests left late."""
    said = []
    for cell in cells:
        lags_s = run.observations(cell.number, "send_lag_s")
        ttft_s = run.observations(cell.number, "ttft_s")
        if not len(lags_s) or not len(ttft_s):
            continue
        lag_s, median_s = float(np.percentile(lags_s, 99)), float(np.median(ttft_s))
        if lag_s > min(LATE_SEND_S, LATE_SEND_SHARE * median_s):
            said.append(
                f"{cell_name(cell)}: p99 {number(lag_s * 1e3)} ms of a median TTFT of "
                f"{number(median_s * 1e3)} ms (n = {len(lags_s):,})"
            )
    return said


def clocks_apart(run: Run) -> Iterator[Finding]:
    """Load processes on other machines whose clock is not known well enough for their latencies."""
    said = [
        f"{cell_name(cell)}, worker {worker.number} on {worker.host}: ± "
        f"{number(worker.offset_uncertainty_ns / 1e6, 2)} ms"
        for cell in measured_cells(run)
        for worker in (cell.summary.workers if cell.summary else ())
        if worker.offset_uncertainty_ns > UNSURE_CLOCK_NS
    ]
    if said:
        yield Finding(
            "clocks_apart",
            "Clocks of the load's machines are not known well",
            f"{several(said, '; ')}. Latencies are of one machine's clock each and stay right; which "
            "requests and tokens belong to the window, and who was in flight with whom, is not.",
            "A quieter network between them.",
        )
