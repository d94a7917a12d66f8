"""The panel at the foot of a terminal while a run goes on: what is shown, and how it looks.

Draws a View and keeps nothing; knows no run and no thread (harness/cli/progress/progress.py does).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil, inf
from typing import TYPE_CHECKING

from rich.console import Group
from rich.table import Table
from rich.text import Text

from harness.cli.progress.outlook import Left
from harness.contracts import Load, PlannedCell, PlannedStart
from harness.load.play.arrivals import phases
from harness.load.pulse import Glance, Progress
from harness.plan.plan import load_s
from harness.settings.units import counted, size_text

if TYPE_CHECKING:  # it imports pyarrow, for which `bench fit` need not wait
    from harness.run.watch import Now

LABEL_WIDTH = 8
BAR_WIDTH = 20
# Below this a bar would leave too little room for the words behind it.
_LEAST_WIDTH_FOR_BARS = 65
STARTING = "starting"
# A load process speaks once a second.
_LATE_S = 3.0


@dataclass(frozen=True)
class Doing:
    """A start: what goes on with it `since_s`, and the cell that is measured.

    `detail` follows `what` and how long it takes. `progress` was heard at `heard_s`, and `now` read then.
    """

    start: PlannedStart
    place: str
    since_s: float
    what: str = STARTING
    detail: str = ""
    cell: PlannedCell | None = None
    progress: Progress | None = None
    now: Now | None = None
    heard_s: float = 0.0


@dataclass(frozen=True)
class SelfTesting:
    """A load of the self-test, by its label."""

    label: str
    progress: Progress | None


@dataclass(frozen=True)
class View:
    """All that the panel shows: how far the whole is, and what goes on now.

    `total` is None if its end is not known; `may_grow`: more repeats may follow. Instants are of
    time.monotonic(), in seconds.
    """

    began_s: float
    what: str = "cell"
    done: int = 0
    total: int | None = None
    left: Left | None = None
    may_grow: bool = False
    doing: Doing | SelfTesting | None = None


def panel(view: View, now_s: float, width: int) -> Group:
    """Return what to draw now on a terminal of this width: a few lines, each cut to it."""
    grid = Table.grid(padding=(0, 1), expand=True)
    grid.add_column(width=LABEL_WIDTH, style="cyan", no_wrap=True)
    grid.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
    for label, share, words in _rows(view, now_s):
        line = Text(no_wrap=True, overflow="ellipsis")
        if share is not None and width >= _LEAST_WIDTH_FOR_BARS:
            done = round(BAR_WIDTH * min(1.0, max(0.0, share)))
            line.append("━" * done, "bar.complete").append("╌" * (BAR_WIDTH - done), "bar.back").append("  ")
        grid.add_row(label, line.append(inert(words)))
    return Group("", grid)


# How much is done, None if that is not known; and in words.
_How = tuple[float | None, str]


def _rows(view: View, now_s: float) -> Iterator[tuple[str, float | None, str]]:
    """Yield each line: its label, how much is done (None: no bar), and its words."""
    yield "run", *_overall(view, now_s)
    match view.doing:
        case Doing() as doing:
            load = f", {doing.cell.load.label}" if doing.cell else ""
            yield "now", None, f"{doing.start.deployment.label}{load}; {doing.place}"
            if doing.cell and doing.progress:
                yield "phase", *_load_phase(doing, doing.cell.load, doing.progress, now_s)
                yield from _progress(doing.progress, doing.now)
            else:
                yield "phase", None, f"{doing.what}, {clock(now_s - doing.since_s)}{doing.detail}"
        case SelfTesting(label, progress):
            yield "now", None, label
            if progress:
                yield "phase", None, progress.phase.replace("warmup", "warm-up")
                yield from _progress(progress, None)


def _overall(view: View, now_s: float) -> _How:
    after = f"after {clock(now_s - view.began_s)}"
    if view.total is None:
        return None, f"{counted(view.done, view.what)} {after}"
    words = f"{view.done} of {counted(view.total, view.what)} {after}"
    if view.left and view.done != view.total:
        least = "at least" if view.left.is_least or view.may_grow else "about"
        words = f"{words}, {least} {clock(view.left.at(now_s))} left"
    done: float = view.done
    if isinstance(view.doing, Doing) and view.doing.cell and view.doing.progress:
        expected_s = max(1.0, load_s(view.doing.cell.load, view.doing.cell.scenario))
        done += min(1.0, _t_s(view.doing, view.doing.progress, now_s) / expected_s)
    return done / max(1, view.total), words


def _load_phase(doing: Doing, load: Load, progress: Progress, now_s: float) -> _How:
    """Return the phase of a load, and how far it is if its length is known."""
    silent_s = now_s - doing.heard_s
    late = f" (last heard {clock(silent_s)} ago)" if silent_s > _LATE_S else ""
    ends, name = phases(load), progress.phase.replace("warmup", "warm-up")
    begin_s, end_s = {
        "ramp-up": (0.0, ends.ramp_up_end_s),
        "warm-up": (ends.ramp_up_end_s, ends.window_start_s),
        "window": (ends.window_start_s, ends.window_end_s),
        "ramp-down": (ends.window_end_s, ends.end_s),
    }.get(name, (inf, inf))
    if begin_s == inf:
        waits = f", {counted(progress.in_flight, 'request')} to end" if name == "drain" else ""
        return None, f"{name}{waits}{late}"
    passed_s = max(0.0, _t_s(doing, progress, now_s) - begin_s)
    length_s = end_s - begin_s
    if length_s == inf:
        return None, f"{name}, {clock(passed_s)}{late}"
    if name == "window" and length_s:
        # It goes on by whole steps; how many there are is known only once the load says that it goes on.
        length_s *= min(load.steps, max(1, ceil((progress.t_s - begin_s) / length_s)))
    passed_s = min(passed_s, length_s)
    return passed_s / length_s if length_s else 1.0, f"{name}, {passed_s:.0f} of {length_s:g} s{late}"


def _t_s(doing: Doing, progress: Progress, now_s: float) -> float:
    """Return where the load is by now, since it spoke."""
    return progress.t_s + min(_LATE_S, max(0.0, now_s - doing.heard_s))


def _progress(progress: Progress, now: Now | None) -> Iterator[tuple[str, None, str]]:
    yield "lately", None, _lately(progress.recent)
    kinds = sorted(progress.failures.items(), key=lambda each: -each[1])
    named = f" ({', '.join(f'{count:,} {kind}' for kind, count in kinds)})" if kinds else ""
    yield "requests", None, f"{progress.requests:,} ok, {progress.failed:,} failed{named}"
    if now:
        under_way, memory = "running and waiting requests not known", "memory not known"
        if now.running is not None:
            waiting = "-" if now.waiting is None else f"{now.waiting:,.0f}"
            under_way = f"{now.running:,.0f} running, {waiting} waiting"
        if now.memory_bytes is not None:
            memory = f"memory {size_text(now.memory_bytes)} ({now.memory_of})"
        yield "server", None, f"{under_way}; {memory}"
    late = time_text(progress.loop_lag_s)
    yield "client", None, f"{progress.in_flight:,} in flight; its loop late by p99 {late}"


def _lately(recent: Glance | None) -> str:
    if recent is None:
        return "no request has ended well"
    if not recent.requests:
        return f"no request has ended well in the last {recent.length_s:.0f} s"
    if recent.tokens_per_s is not None:
        rate = f"{number(recent.tokens_per_s)} tokens/s"
    else:  # the server tells no count, and a chunk is not a token
        rate = f"{number(recent.chunks_per_s)} chunks/s"
    ttft = f"TTFT p50 {time_text(recent.ttft_p50_s)}, p95 {time_text(recent.ttft_p95_s)}"
    return f"{rate}; {ttft} (last {recent.length_s:.0f} s, n={recent.ttft_n:,})"


def inert(words: str, keep: str = "") -> str:
    """Return the words without control characters and marks of direction, but for those of `keep`.

    They could move the cursor, or turn what stands beside them.
    """
    return "".join(each if each.isprintable() or each in keep else " " for each in words)


def number(value: float | None) -> str:
    """Return a number with three digits, or with all before the point."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 99.95 else f"{value:#.3g}"


def time_text(seconds: float | None) -> str:
    """Return `4.21 ms`, `842 ms` or `12.3 s`."""
    if seconds is None:
        return "-"
    return f"{number(seconds * 1e3)} ms" if seconds < 1 else f"{number(seconds)} s"


def clock(seconds: float) -> str:
    """Return `42 s`, `12 min` or `2.1 h`."""
    if seconds < 120:
        return f"{max(0.0, seconds):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
