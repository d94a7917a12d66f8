"""Reasons to distrust windows: too short, beyond the server, or not steady."""

import math
from collections.abc import Iterator

import numpy as np

from harness.contracts import timing
from reports.checks.finding import (
    FROM_SENDING,
    SPEED,
    Seen,
    cell_name,
    check,
    drift_text,
    measured_cells,
    start_name,
)
from reports.data.cells import Cell
from reports.data.run import Run
from reports.measures.values import measured_of
from reports.measures.written import number
from reports.stats.drift import window_change, window_drifts
from reports.stats.humps import Humps, humps
from reports.stats.steadiness import Steadiness

SHORT_WINDOW_S = 30.0
WINDOW_DRIFT_SHARE = 0.1
_SHORT = {"output_tokens_per_s": "output tokens/s", "ttft_s": "TTFT", "tpot_s": "TPOT"}
_ENOUGH = timing.needed(95)


def _requests(run: Run, cell: Cell) -> int:
    return len(run.observations(cell.number, "e2e_s"))


def _longer(run: Run) -> str:
    """Return the one remedy for what is said of windows: how long, in whole minutes, gives the slowest cell
    requests enough for a p95."""
    few = [(n, cell) for cell in measured_cells(run) if 0 < (n := _requests(run, cell)) < _ENOUGH]
    longest_s = max((_ENOUGH * (cell.window_s or 0.0) / n for n, cell in few), default=0.0)
    return f"A longer window: load.duration={60 * max(math.ceil(longest_s / 60), 1)}s, or a longer trace."


@check(
    "too few requests",
    "Few requests",
    f"Fewer than {_ENOUGH} ok requests in the window, so no p95, and a median that moves: {{}}.",
    _longer,
)
def few_requests(run: Run) -> Iterator[Seen]:
    """Find windows with too few requests for a p95, the fewest first."""
    counts = [(_requests(run, cell), cell) for cell in measured_cells(run)]
    for n, cell in sorted(counts, key=lambda pair: pair[0]):
        if n < _ENOUGH:
            yield f"{start_name(cell)}: {n:,}", [cell]


@check(
    "short windows",
    "Short windows",
    f"Shorter than {SHORT_WINDOW_S:.0f} s, and throttling and drift take longer to show: {{}}.",
    _longer,
)
def short_windows(run: Run) -> Iterator[Seen]:
    """Find windows too short to see drift."""
    for cell in measured_cells(run):
        if cell.window_s is not None and cell.window_s < SHORT_WINDOW_S:
            yield f"{cell_name(cell)}, {number(cell.window_s)} s", [cell]


@check(
    "a queue that only grew",
    "The queue only grew",
    "{}. More came than the server answers: latencies of these cells say how long the window was, and not "
    "how fast the server is.",
    "A lower load.rate; capacity is about the requests/s that ended, and bench search finds it.",
    FROM_SENDING,
)
def queue_only_grew(run: Run) -> Iterator[Seen]:
    """Find open loops in which the requests in flight only became more: beyond what the server can do."""
    for cell, steady in _windows(run):
        if _has_grown(cell, steady):
            first, _, last = steady.in_flight.thirds
            said = f"{number(first)} in flight in the window's first third, {number(last)} in its last"
            yield f"{cell_name(cell)}: {said}", [cell]


@check(
    "windows over which speed drifts",
    "Windows were not steady",
    "From a window's first third to its last, {}. Values are means over a change.",
    "A longer load.warmup, and load.duration=120s to see whether it ends; a lower load.rate where requests "
    "in flight rise with it, else look at clocks and memory.",
)
def window_drifted(run: Run) -> Iterator[Seen]:
    """Find deployments whose speed rose or fell over the windows of their starts.

    A trace has the drift that it has, and is left out, as are queues that only grew.
    """
    changes: dict[tuple[tuple[str, str, str], str], list[float]] = {}
    for cell, steady in _windows(run):
        if cell.load.kind == "trace" or _has_grown(cell, steady):
            continue
        for metric in ("ttft_s", "tpot_s"):
            at, seconds, turn = (run.ok_values(cell.number, name) for name in ("sent_ns", metric, "turn"))
            if (change := window_change(at, seconds, turn)) is not None:
                changes.setdefault((cell.key, metric), []).append(change)
        first, _, last = steady.throughput.thirds
        if steady.is_judged and first > 0 and last > 0:
            changes.setdefault((cell.key, "output_tokens_per_s"), []).append(math.log(last / first))
    groups = {group.key: group for group in run.groups}
    for (key, metric), drift in window_drifts(changes, WINDOW_DRIFT_SHARE).items():
        group = groups[key]
        yield f"{group.deployment} at {group.load}: {_SHORT[metric]} {drift_text(drift)}", group.counted


def _windows(run: Run) -> Iterator[tuple[Cell, Steadiness]]:
    for cell in measured_cells(run):
        if steady := measured_of(run)[cell.number].steadiness:
            yield cell, steady


def _has_grown(cell: Cell, steady: Steadiness) -> bool:
    return cell.load.kind == "open" and steady.is_growing


@check(
    "latencies with two humps",
    "A latency has two humps",
    "The medians of the two: {}. A median or a mean of both is of neither, and jumps when their shares "
    "change.",
    "See the distribution under Latency; tell the two apart, as by load.concurrency=1 or "
    "engine.prefix_cache=false.",
    SPEED,
)
def bimodal(run: Run) -> Iterator[Seen]:
    """Find groups in which TTFT or TPOT of one turn has two clearly separated humps in most starts.

    Turn by turn, since later ones have longer prompts; start by start, since each has its own luck.
    """
    for metric in ("ttft_s", "tpot_s"):
        for group in run.groups:
            own = [(cell, clearest) for cell in group.counted if (clearest := _clearest(run, cell, metric))]
            if 2 * len(own) > len(group.counted):
                cell, (turn, two) = own[0]
                low, high = (f"{number(1e3 * each)} ms" for each in (two.low_s, two.high_s))
                humps_text = f"{low}, and {high} in {100 * two.upper_share:.0f} % (n = {two.n:,} requests)"
                said = f"{_SHORT[metric]} of {start_name(cell)}, turn {turn + 1}: {humps_text}"
                yield said, [each for each, _ in own]


def _clearest(run: Run, cell: Cell, metric: str) -> tuple[int, Humps] | None:
    """Return the turn (from 0) whose humps are furthest apart, with them."""
    values, turns = (run.ok_values(cell.number, name) for name in (metric, "turn"))
    both = [
        (int(turn), two)
        for turn in np.unique(turns)
        if (two := humps(values[(turns == turn) & ~np.isnan(values)]))
    ]
    return max(both, key=lambda pair: pair[1].high_s / pair[1].low_s, default=None)
