"""Reasons to distrust windows: too short, unlike each other, beyond the server, or not steady."""

import math
from collections.abc import Iterator

import numpy as np

from harness.contracts import timing
from reports.checks.finding import (
    BY_OBJECTIVES,
    FROM_SENDING,
    Finding,
    Seen,
    cell_name,
    drift_text,
    found,
    measured_cells,
    start_name,
)
from reports.data.cells import Cell
from reports.data.run import Run
from reports.measures.values import measured_of
from reports.measures.written import number, plural
from reports.stats.drift import window_change, window_drifts
from reports.stats.humps import Humps, humps
from reports.stats.steadiness import Steadiness

SHORT_WINDOW_S = 30.0
STARTS_DIFFER = 0.2
WINDOW_DRIFT_SHARE = 0.1
_SHORT = {"output_tokens_per_s": "output tokens/s", "ttft_s": "TTFT", "tpot_s": "TPOT"}


# --- length ----------------------------------------------------------------------------------------


def few_requests(run: Run) -> list[Finding]:
    """Find windows with too few requests for a p95."""
    counts = _counts(run)
    least = timing.needed(95)
    few = [(n, cell) for n, cell in counts if n < least]
    have = "has" if len(few) == 1 else "have"
    return found(
        "few_requests",
        "Few requests",
        f"{len(few)} of {plural(len(counts), 'cell')} {have} fewer than {least} ok requests in the window "
        f"(the fewest: {min((n for n, _ in few), default=0):,}): no p95, and a median that moves.",
        _longer(run),
        [("", [cell]) for _, cell in few],
    )


def _counts(run: Run) -> list[tuple[int, Cell]]:
    return [(len(run.observations(cell.number, "e2e_s")), cell) for cell in measured_cells(run)]


def _longer(run: Run) -> str:
    """Return the one remedy for what is said of windows: how long, in whole minutes, gives the slowest cell
    requests enough for a p95."""
    few = [(n, cell) for n, cell in _counts(run) if 0 < n < timing.needed(95)]
    longest_s = max((timing.needed(95) * (cell.window_s or 0.0) / n for n, cell in few), default=0.0)
    return f"A longer window: load.duration={60 * max(math.ceil(longest_s / 60), 1)}s, or a longer trace."


def short_windows(run: Run) -> list[Finding]:
    """Find windows too short to see drift."""
    lengths = [(cell.window_s, cell) for cell in measured_cells(run) if cell.window_s is not None]
    short = [(length, cell) for length, cell in lengths if length < SHORT_WINDOW_S]
    least = number(min((length for length, _ in short), default=None))
    return found(
        "short_windows",
        "Short windows",
        f"{len(short)} of {plural(len(lengths), 'window')} {'is' if len(short) == 1 else 'are'} shorter than "
        f"{SHORT_WINDOW_S:.0f} s (the shortest: {least} s); throttling and drift take longer to show.",
        _longer(run),
        [("", [cell]) for _, cell in short],
    )


# --- course ----------------------------------------------------------------------------------------


def queue_only_grew(run: Run) -> list[Finding]:
    """Find open loops in which the requests in flight only became more: beyond what the server can do."""
    seen: list[Seen] = [
        (
            f"{cell_name(cell)}: {number(steady.in_flight.thirds[0])} in flight in the window's first third, "
            f"{number(steady.in_flight.thirds[2])} in its last",
            [cell],
        )
        for cell, steady in _windows(run)
        if _has_grown(cell, steady)
    ]
    return found(
        "queue_only_grew",
        "The queue only grew",
        "{}. More came than the server answers: latencies of these cells say how long the window was, and "
        "not how fast the server is.",
        "A lower load.rate; capacity is about the requests/s that ended, and bench search finds it.",
        seen,
        FROM_SENDING,
    )


def window_drifted(run: Run) -> list[Finding]:
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
    drifts = window_drifts(changes, WINDOW_DRIFT_SHARE)
    groups = {group.key: group for group in run.groups}
    seen: list[Seen] = [
        (
            f"{groups[key].deployment} at {groups[key].load}: {_SHORT[metric]} {drift_text(drift)}",
            groups[key].counted,
        )
        for (key, metric), drift in drifts.items()
    ]
    return found(
        "window_drifted",
        "Windows were not steady",
        "From a window's first third to its last, {}. Values are means over a change.",
        "A longer load.warmup, and load.duration=120s to see whether it ends; a lower load.rate where "
        "requests in flight rise with it, else look at clocks and memory.",
        seen,
    )


def _windows(run: Run) -> Iterator[tuple[Cell, Steadiness]]:
    for cell in measured_cells(run):
        if steady := measured_of(run)[cell.number].steadiness:
            yield cell, steady


def _has_grown(cell: Cell, steady: Steadiness) -> bool:
    return cell.load.kind == "open" and steady.is_growing


def bimodal(run: Run) -> list[Finding]:
    """Find groups in which TTFT or TPOT of one turn has two clearly separated humps in most starts.

    Turn by turn, since later ones have longer prompts; start by start, since each has its own luck.
    """
    findings = []
    for metric in ("ttft_s", "tpot_s"):
        seen: list[Seen] = []
        for group in run.groups:
            own = [(cell, clearest) for cell in group.counted if (clearest := _clearest(run, cell, metric))]
            if 2 * len(own) > len(group.counted):
                cell, (turn, two) = own[0]
                said = (
                    f"{start_name(cell)}, turn {turn + 1}: {number(two.low_s * 1e3)} ms, and "
                    f"{number(two.high_s * 1e3)} ms in {100 * two.upper_share:.0f} % (n = {two.n:,} requests)"
                )
                seen.append((said, [each for each, _ in own]))
        findings += found(
            f"bimodal_{metric.removesuffix('_s')}",
            f"{_SHORT[metric]} has two humps",
            "The medians of the two: {}. A median or a mean of both is of neither, and jumps when their "
            "shares change.",
            "See the distribution under Latency; tell the two apart, as by load.concurrency=1 or "
            "engine.prefix_cache=false.",
            seen,
            (metric, *BY_OBJECTIVES),
        )
    return findings


def _clearest(run: Run, cell: Cell, metric: str) -> tuple[int, Humps] | None:
    """Return the turn (from 0) whose humps are furthest apart, with them."""
    values, turns = (run.ok_values(cell.number, name) for name in (metric, "turn"))
    both = [
        (int(turn), two)
        for turn in np.unique(turns)
        if (two := humps(values[(turns == turn) & ~np.isnan(values)]))
    ]
    return max(both, key=lambda pair: pair[1].high_s / pair[1].low_s, default=None)
