"""Reasons to distrust the client: its lags, its stamps, its schedule, and its own error by the self-test."""

from collections.abc import Iterator

import numpy as np

from harness.contracts import SelfTest
from reports.checks.finding import (
    BY_OBJECTIVES,
    FROM_SENDING,
    LATENCIES,
    Seen,
    cell_name,
    check,
    measured_cells,
)
from reports.data.cells import Cell
from reports.data.run import Run
from reports.measures.metrics import is_supported
from reports.measures.selftest import (
    Reached,
    is_beyond_good,
    is_beyond_tested,
    known_steps,
    ms,
    named,
    nearest_step,
    quoted,
    reached,
    ttft_error_s,
)
from reports.measures.values import values_of
from reports.measures.written import number, plural

# A tenth of the median TTFT is a difference that people act on; 10 ms is one that they feel, however slow the
# server. A timer is late from 5 ms on.
ERROR_SHARE = 0.1
LATE_SEND_S = 0.010
LATE_LOOP_S = 0.005


@check(
    "a TTFT near bench's own error",
    "bench's own error is a part of TTFT",
    "{}.",
    "load.workers=2 with free cores for them; differences of that size say nothing of the server.",
    ("ttft_s", "itl_s", *BY_OBJECTIVES),
    marks=True,
)
def error_not_small(run: Run) -> Iterator[Seen]:
    """Find cells whose TTFT is not much larger than bench's own error at that load."""
    for cell, load, selftest in _loads(run):
        step = nearest_step(selftest, load)
        ttft_s, (_, error_s) = values_of(run)[cell.number]["ttft_s.p50"].value, ttft_error_s(step)
        if ttft_s is not None and error_s > ERROR_SHARE * ttft_s:
            error = f"error p99 {ms(error_s)} ms ({named(step)}, n = {step.requests:,} requests)"
            yield f"{cell_name(cell)}: TTFT p50 {number(ttft_s * 1e3)} ms, {error}", [cell]


@check(
    "a late client",
    "The client was late",
    "The load process's 10 ms timer was late ({}); requests left that much later.",
    "load.workers=2 with free cores for them, or fewer users (load.concurrency).",
    (*FROM_SENDING, "itl_s"),
    marks=True,
)
def client_late(run: Run) -> Iterator[Seen]:
    """Find cells whose load process was late by much of their TTFT."""
    for cell in measured_cells(run):
        lags_s = cell.summary.loop_lag_s if cell.summary else None
        ttft_s = run.observations(cell.number, "ttft_s")
        if lags_s and len(ttft_s) and lags_s[1] > max(LATE_LOOP_S, ERROR_SHARE * float(np.median(ttft_s))):
            of = f"of a median TTFT of {number(float(np.median(ttft_s)) * 1e3)} ms"
            yield f"{cell_name(cell)}: {number(lags_s[1] * 1e3)} ms at p99 {of}", [cell]


@check(
    "a schedule that was not kept",
    "The schedule was not kept",
    "Requests left later than they were due: {}. The lag is a part of their TTFT and E2E.",
    "load.workers=2 with free cores for them, or a lower load.rate.",
    FROM_SENDING,
    marks=True,
)
def schedule_not_kept(run: Run) -> Iterator[Seen]:
    """Find open loops and traces whose requests left late, and added to their latency."""
    for cell in measured_cells(run):
        lags_s = run.observations(cell.number, "send_lag_s")
        ttft_s = run.observations(cell.number, "ttft_s")
        if cell.load.kind == "closed" or not len(lags_s) or not len(ttft_s):
            continue
        lag_s, median_s = float(np.percentile(lags_s, 99)), float(np.median(ttft_s))
        if lag_s > min(LATE_SEND_S, ERROR_SHARE * median_s):
            yield f"{cell_name(cell)}: {_lag(lags_s, ttft_s)} (n = {len(lags_s):,})", [cell]


def _lag(lags_s: np.ndarray, ttft_s: np.ndarray) -> str:
    """Return `p99 12.0 ms of a median TTFT of 79.1 ms`; with too few requests for either, the greatest."""
    is_p99, is_median = is_supported(99, len(lags_s)), is_supported(50, len(ttft_s))
    lag_s = float(np.percentile(lags_s, 99) if is_p99 else lags_s.max())
    of_s = float(np.median(ttft_s) if is_median else ttft_s.max())
    lag, of = "p99" if is_p99 else "up to", "a median TTFT of" if is_median else "a TTFT of up to"
    return f"{lag} {number(1e3 * lag_s)} ms of {of} {number(1e3 * of_s)} ms"


@check(
    "conversations that never began",
    "Less came than was asked for",
    "Conversations that were due before the window's end never began: {}.",
    "load.workers=2 with free cores for them, a higher limit of open files, or a lower load.rate.",
    (),
    marks=True,
)
def conversations_never_began(run: Run) -> Iterator[Seen]:
    """Find open loops and traces in which conversations that were due never began: the load was another."""
    for cell in measured_cells(run):
        if cell.load.kind != "closed" and cell.summary and cell.summary.left_out:
            yield f"{cell_name(cell)}: {plural(cell.summary.left_out, 'conversation')}", [cell]


@check(
    "loads beyond the self-test",
    "Beyond what bench was tested at",
    "{}.",
    "load.workers=2, or free cores for the client; bench selftest shows how far it reaches.",
    (*LATENCIES, *BY_OBJECTIVES),
)
def beyond_selftest(run: Run) -> Iterator[Seen]:
    """Find cells whose load is larger than any at which bench's own error is known, or known to be small."""
    for cell, load, selftest in _loads(run):
        if why := _why_beyond(selftest, load):
            text = f"{load.streams:,.0f} streams x {load.chunks_per_s:,.0f} chunks/s"
            yield f"{cell_name(cell)} ({text}): {why}; {quoted(nearest_step(selftest, load))}", [cell]


def _why_beyond(selftest: SelfTest, load: Reached) -> str | None:
    if is_beyond_tested(selftest, load):
        return "more than any load of the self-test"
    if not is_beyond_good(selftest, load):
        return None
    if selftest.largest is None:
        return "the self-test found no load at which the p99 error of TTFT is under 1 ms"
    streams, chunks_per_s = selftest.largest
    return f"more than the largest load with a p99 error under 1 ms ({streams:,} x {chunks_per_s:,.0f})"


def _loads(run: Run) -> Iterator[tuple[Cell, Reached, SelfTest]]:
    selftest = run.selftest
    for cell in measured_cells(run) if selftest and known_steps(selftest) else ():
        if selftest and (load := reached(run, cell)):
            yield cell, load, selftest


@check(
    "arrivals without the kernel's stamp",
    "Arrivals are stamped after reading",
    "The kernel gave no receive time for at least one read; such an answer is timed when bench read it, and "
    "a busy client adds its own lag to that ({}).",
    "Run the client on Linux, which gives them, with TLS too.",
    (*LATENCIES, *BY_OBJECTIVES),
)
def stamps_not_kernel(run: Run) -> Iterator[Seen]:
    """Find cells with arrivals that the client stamped after reading, not the kernel."""
    for cell in measured_cells(run):
        if cell.summary and cell.summary.stamp_source != "kernel":
            yield cell_name(cell), [cell]
