"""bench's own error: cells beyond what its self-test covers, and cells that it matters in."""

from collections.abc import Iterator

from harness.contracts import SelfTest
from reports.checks.finding import BY_OBJECTIVES, LATENCIES, Finding, cell_name, measured_cells, numbers
from reports.data.cells import Cell
from reports.data.run import Run
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
from reports.measures.written import number, several

# Of the median TTFT: as much as other checks call a difference.
ERROR_SHARE = 0.1


def beyond_selftest(run: Run) -> Iterator[Finding]:
    """Cells whose load is larger than any at which bench's own error is known, or known to be small."""
    selftest = run.selftest
    if selftest is None or not known_steps(selftest):
        return
    said, beyond = [], []
    for cell, load in _loads(run):
        if why := _why_beyond(selftest, load):
            text = f"{load.streams:,.0f} streams x {load.chunks_per_s:,.0f} chunks/s"
            said.append(f"{cell_name(cell)} ({text}): {why}; {quoted(nearest_step(selftest, load))}")
            beyond.append(cell)
    if said:
        yield Finding(
            "beyond_selftest",
            "Beyond what bench was tested at",
            f"{several(said, '. ')}.",
            "load.workers=2, or free cores for the client; bench selftest shows how far it reaches.",
            cells=numbers(beyond),
            metrics=(*LATENCIES, *BY_OBJECTIVES),
        )


def _why_beyond(selftest: SelfTest, load: Reached) -> str | None:
    if is_beyond_tested(selftest, load):
        return "more than any load of the self-test"
    if not is_beyond_good(selftest, load):
        return None
    if selftest.largest is None:
        return "the self-test found no load at which the p99 error of TTFT is under 1 ms"
    streams, chunks_per_s = selftest.largest
    return f"more than the largest load with a p99 error under 1 ms ({streams:,} x {chunks_per_s:,.0f})"


def error_not_small(run: Run) -> Iterator[Finding]:
    """Cells whose TTFT is not much larger than bench's own error at that load."""
    selftest = run.selftest
    if selftest is None or not known_steps(selftest):
        return
    said, unsure = [], []
    for cell, load in _loads(run):
        step = nearest_step(selftest, load)
        ttft_s, (_, error_s) = values_of(run)[cell.number]["ttft_s.p50"].value, ttft_error_s(step)
        if ttft_s is not None and error_s > ERROR_SHARE * ttft_s:
            said.append(
                f"{cell_name(cell)}: TTFT p50 {number(ttft_s * 1e3)} ms, error p99 {ms(error_s)} ms "
                f"({named(step)}, n = {step.requests:,} requests)"
            )
            unsure.append(cell)
    if said:
        yield Finding(
            "error_not_small",
            "bench's own error is a part of TTFT",
            f"{several(said, '; ')}.",
            "load.workers=2 with free cores for them; differences of that size say nothing of the server.",
            cells=numbers(unsure),
            metrics=("ttft_s", "itl_s", *BY_OBJECTIVES),
        )


def _loads(run: Run) -> Iterator[tuple[Cell, Reached]]:
    for cell in measured_cells(run):
        if load := reached(run, cell):
            yield cell, load
