"""Windows: too few requests, too short, beyond the server's capacity, or not steady."""

import math
from collections.abc import Iterator

import numpy as np

from harness.contracts import timing
from reports.checks.finding import (
    FROM_SENDING,
    RATES,
    SPEED,
    Finding,
    are_all,
    cell_name,
    measured_cells,
    numbers,
)
from reports.data.cells import Cell
from reports.data.run import Run
from reports.data.served import gauge
from reports.measures.values import measured_of
from reports.measures.written import number, plural, several
from reports.stats.drift import drift
from reports.stats.steadiness import REQUESTS_NEEDED, Series, Steadiness

SHORT_WINDOW_S = 30.0
# Windows that are meant to be equal are so to the nanosecond.
_UNEQUAL = 1.01
_DRIFTING = (("ttft_s", "TTFT"), ("tpot_s", "TPOT"))


def few_requests(run: Run) -> Iterator[Finding]:
    """Windows with too few requests for a tail percentile, and those with too few for any value."""
    counts = _counts(run)
    hardly, enough = REQUESTS_NEEDED, timing.needed(95)
    for check, title, fewest, least, so in (
        ("few_requests", "Few requests", hardly, enough, "no p95, and a median that moves"),
        ("hardly_any_requests", "Hardly any requests", 0, hardly, "one more or less moves every value"),
    ):
        few = [(n, cell) for n, cell in counts if fewest <= n < least]
        if few:
            yield Finding(
                check,
                title,
                f"{len(few)} of {plural(len(counts), 'cell')} {'has' if len(few) == 1 else 'have'} fewer "
                f"than {least} ok requests in the window (the fewest: {min(n for n, _ in few):,}): {so}.",
                _longer(run),
                cells=numbers(cell for _, cell in few),
                metrics=SPEED,
                marks=check == "hardly_any_requests",
            )


def _counts(run: Run) -> list[tuple[int, Cell]]:
    """How many ok requests the window of each cell has."""
    return [(len(run.observations(cell.number, "e2e_s")), cell) for cell in measured_cells(run)]


def _longer(run: Run) -> str:
    """How long a window would give the slowest cell requests enough for a p95, in whole minutes: one remedy
    for all that is said of windows."""
    few = [(n, cell) for n, cell in _counts(run) if 0 < n < timing.needed(95)]
    longest_s = max((timing.needed(95) * (cell.window_s or 0.0) / n for n, cell in few), default=0.0)
    return f"A longer window: load.duration={60 * max(math.ceil(longest_s / 60), 1)}s, or a longer trace."


def short_windows(run: Run) -> Iterator[Finding]:
    """Windows too short to see drift."""
    lengths = [(cell.window_s, cell) for cell in measured_cells(run) if cell.window_s is not None]
    short = [(length, cell) for length, cell in lengths if length < SHORT_WINDOW_S]
    if short:
        cells = numbers(cell for _, cell in short)
        yield Finding(
            "short_windows",
            "Short windows",
            f"{len(short)} of {plural(len(lengths), 'window')} {'is' if len(short) == 1 else 'are'} "
            f"shorter than {SHORT_WINDOW_S:.0f} s (the shortest: {number(min(s for s, _ in short))} s); "
            "throttling and drift take longer to show.",
            _longer(run),
            cells=cells,
            metrics=SPEED,
            marks=not are_all(run, cells),
        )


def windows_differ(run: Run) -> Iterator[Finding]:
    """Windows of one load of which some went on for more steps: few requests had been sent in them."""
    said, unequal = [], []
    for load in dict.fromkeys(cell.load_label for cell in run.planned_cells):
        cells = [cell for cell in measured_cells(run) if cell.load_label == load]
        timed = [cell for cell in cells if cell.summary and cell.summary.ended_by == "duration"]
        lengths = {cell.number: cell.window_s for cell in timed if cell.window_s}
        shortest, longest = min(lengths.values(), default=0.0), max(lengths.values(), default=0.0)
        if longest > _UNEQUAL * shortest:
            said.append(f"at {load}, from {number(shortest)} to {number(longest)} s")
            unequal += [each for each, length in lengths.items() if length > _UNEQUAL * shortest]
    if said:
        yield Finding(
            "windows_differ",
            "Windows differ in length",
            f"A window in which few requests were sent went on for longer: {several(said, '; ')}. Rates are "
            "per second of each one's own window.",
            _longer(run),
            cells=tuple(sorted(unequal)),
            metrics=SPEED,
            marks=False,
        )


def conversations_cut(run: Run) -> Iterator[Finding]:
    """Conversations that had begun when load.conversations ran out, and were not finished in time."""
    said, found = [], []
    for cell in measured_cells(run):
        if cell.summary and cell.summary.cut_conversations:
            found.append(cell)
            cut, turns = cell.summary.cut_conversations, cell.summary.cut_turns
            where = f"{cell_name(cell)}, start {cell.planned.repeat + 1}"
            said.append(f"{where}: {cut:,} with {turns:,} turns left")
    if said:
        yield Finding(
            "conversations_cut",
            "Conversations were cut",
            f"They had begun and were not finished within load.grace: {several(said, '; ')}. Late turns, "
            "which are the longest, are fewer than planned.",
            "A longer load.grace.",
            cells=numbers(found),
            metrics=SPEED,
            marks=False,
        )


def queue_only_grew(run: Run) -> Iterator[Finding]:
    """Open loops in which the requests in flight only became more: beyond what the server can do."""
    grown = [(cell, steady) for cell, steady in _windows(run) if _has_grown(cell, steady)]
    if grown:
        said = [
            f"{cell_name(cell)}: {number(steady.in_flight.thirds[0])} in flight in the window's first third, "
            f"{number(steady.in_flight.thirds[2])} in its last"
            for cell, steady in grown
        ]
        yield Finding(
            "queue_only_grew",
            "The queue only grew",
            f"{several(said, '; ')}. More came than the server answers: latencies of these cells say how "
            "long the window was, and not how fast the server is.",
            "A lower load.rate; capacity is about the requests/s that ended, and bench search finds it.",
            cells=numbers(cell for cell, _ in grown),
            metrics=FROM_SENDING,
        )


def mostly_queued(run: Run) -> Iterator[Finding]:
    """Cells in which more requests waited than were served, by the server's own gauges.

    By Little's law the mean number of requests in a place is their rate times the mean time in it, and every
    request passes both places: so each waited longer than it was served.
    """
    said, queued = [], []
    grown = {cell.number for cell, steady in _windows(run) if _has_grown(cell, steady)}
    for cell in measured_cells(run):
        running, waiting = gauge(run, cell, "running"), gauge(run, cell, "waiting")
        if running and waiting and waiting.mean > running.mean > 0 and cell.number not in grown:
            queued.append(cell)
            said.append(
                f"{cell_name(cell)}, start {cell.planned.repeat + 1}: {number(waiting.mean)} waiting, "
                f"{number(running.mean)} served"
            )
    if said:
        yield Finding(
            "mostly_queued",
            "Requests waited longer than they were served",
            f"On average {several(said, '; ')}. TTFT and E2E of these cells are mostly the queue's.",
            "Fewer users (load.concurrency) or a lower load.rate; where memory allows, a higher "
            "engine.concurrent_sequences.",
            cells=numbers(queued),
            metrics=FROM_SENDING,
        )


def not_steady(run: Run) -> Iterator[Finding]:
    """Windows whose throughput or requests in flight drifted from their first third to their last.

    A trace has the drift that it has, and is left out, as are queues that only grew.
    """
    said, unsteady = [], []
    for cell, steady in _windows(run):
        if cell.load.kind == "trace" or _has_grown(cell, steady):
            continue
        if drifts := [f"{what} {_drift(series)}" for what, series in steady.drifts.items()]:
            said.append(f"{cell_name(cell)}: {', '.join(drifts)} (n = {steady.requests:,} requests)")
            unsteady.append(cell)
    if said:
        yield Finding(
            "not_steady",
            "The window was not steady",
            f"From its first third to its last, {several(said, '; ')}. Its values are means over a change.",
            "A longer load.warmup; a longer load.duration, so that the change shows or ends.",
            cells=numbers(unsteady),
            metrics=SPEED,
        )


def latency_drifted(run: Run) -> Iterator[Finding]:
    """Windows over which TTFT or TPOT rose or fell, turn for turn; a finding for each. Traces and queues that
    only grew are left out as above."""
    steadies = dict(_windows_by_number(run))
    for metric, title in _DRIFTING:
        said, drifting = [], []
        for cell in measured_cells(run):
            steady = steadies.get(cell.number)
            if cell.load.kind == "trace" or (steady and _has_grown(cell, steady)):
                continue
            if words := _latency_drift(run, cell, metric):
                said.append(f"{cell_name(cell)}, start {cell.planned.repeat + 1}: {words}")
                drifting.append(cell)
        if said:
            yield Finding(
                f"{metric.removesuffix('_s')}_drifted",
                f"{title} drifted over the window",
                f"From its first third to its last, beside what turns make of it: {several(said, '; ')}. "
                "The value is a mean over a change.",
                "A longer load.warmup, and load.duration=120s to see whether it ends; a lower load.rate "
                "where requests in flight rise with it, else look at clocks and memory.",
                cells=numbers(drifting),
                metrics=FROM_SENDING if metric == "ttft_s" else (metric, "e2e_s", "slo_share", *RATES),
            )


def _latency_drift(run: Run, cell: Cell, metric: str) -> str | None:
    at, seconds, turn = (run.ok_values(cell.number, name) for name in ("sent_ns", metric, "turn"))
    is_known = ~np.isnan(at) & ~np.isnan(seconds)
    found = drift(at[is_known], seconds[is_known], turn[is_known].astype(int))
    return f"{100 * found.share:+.0f} % (n = {found.n:,} requests)" if found else None


def _windows(run: Run) -> Iterator[tuple[Cell, Steadiness]]:
    for cell in measured_cells(run):
        if steady := measured_of(run)[cell.number].steadiness:
            yield cell, steady


def _windows_by_number(run: Run) -> Iterator[tuple[int, Steadiness]]:
    return ((cell.number, steady) for cell, steady in _windows(run))


def _has_grown(cell: Cell, steady: Steadiness) -> bool:
    return cell.load.kind == "open" and steady.is_growing


def _drift(series: Series) -> str:
    first, _, last = series.thirds
    return f"{number(first)} to {number(last)} ({100 * series.drift:+.0f} %)"
