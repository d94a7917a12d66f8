"""Windows: too few requests, too short, or not steady."""

from __future__ import annotations

from collections.abc import Iterator

from reports.cells import Cell
from reports.checks.finding import Finding, cell_name, measured_cells
from reports.frames import Run
from reports.markup import number, plural, several
from reports.steadiness import Series, Steadiness

FEW_REQUESTS = 100
SHORT_WINDOW_S = 30.0


def few_requests(run: Run) -> Iterator[Finding]:
    """Windows with too few requests for a tail percentile."""
    counts = [len(run.observations(cell.number, "e2e_s")) for cell in measured_cells(run)]
    few = [n for n in counts if n < FEW_REQUESTS]
    if few:
        yield Finding(
            "few_requests",
            "Few requests",
            f"{len(few)} of {plural(len(counts), 'cell')} {'has' if len(few) == 1 else 'have'} "
            f"fewer than {FEW_REQUESTS} ok "
            "requests in the window "
            f"(the fewest: {min(few):,}); no tail percentile, and a median that moves.",
            "A longer window: load.duration=60s, or a longer trace.",
        )


def short_windows(run: Run) -> Iterator[Finding]:
    """Windows too short to see drift."""
    lengths = [cell.window_s for cell in measured_cells(run) if cell.window_s is not None]
    short = [length for length in lengths if length < SHORT_WINDOW_S]
    if short:
        yield Finding(
            "short_windows",
            "Short windows",
            f"{len(short)} of {plural(len(lengths), 'window')} {'is' if len(short) == 1 else 'are'} "
            "shorter than "
            f"{SHORT_WINDOW_S:.0f} s (the shortest: "
            f"{number(min(short))} s); throttling and drift take longer to show.",
            "A longer window: load.duration=60s, or a longer trace.",
        )


def queue_only_grew(run: Run) -> Iterator[Finding]:
    """Open loops in which the requests in flight only became more: beyond what the server can do."""
    said = [
        f"{cell_name(cell)}: {number(steady.in_flight.thirds[0])} in flight in the window's first third, "
        f"{number(steady.in_flight.thirds[2])} in its last"
        for cell, steady in _windows(run)
        if cell.load.kind == "open" and steady.is_growing
    ]
    if said:
        yield Finding(
            "queue_only_grew",
            "The queue only grew",
            f"{several(said, '; ')}. More came than the server answers: latencies of these cells say how "
            "long the window was, and not how fast the server is.",
            "A lower load.rate; capacity is about the requests/s that ended.",
        )


def not_steady(run: Run) -> Iterator[Finding]:
    """Windows whose throughput or requests in flight drifted from their first third to their last.

    A trace has the drift that it has, and is left out, as are queues that only grew.
    """
    said = []
    for cell, steady in _windows(run):
        has_grown = cell.load.kind == "open" and steady.is_growing
        if cell.load.kind == "trace" or has_grown:
            continue
        if drifts := [f"{what} {_drift(series)}" for what, series in steady.drifts.items()]:
            said.append(f"{cell_name(cell)}: {', '.join(drifts)} (n = {steady.requests:,} requests)")
    if said:
        yield Finding(
            "not_steady",
            "The window was not steady",
            f"From its first third to its last, {several(said, '; ')}. Its values are means over a change.",
            "A longer load.warmup; a longer load.duration, so that the change shows or ends.",
        )


def _windows(run: Run) -> Iterator[tuple[Cell, Steadiness]]:
    for cell in measured_cells(run):
        if steady := run.measured[cell.number].steadiness:
            yield cell, steady


def _drift(series: Series) -> str:
    first, _, last = series.thirds
    return f"{number(first)} to {number(last)} ({100 * series.drift:+.0f} %)"
