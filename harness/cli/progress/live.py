"""The panel at the foot of a terminal while a run goes on: what is shown, and how it looks.

Draws a View and keeps nothing; knows no run and no thread (harness/cli/progress/progress.py does).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil, inf
from typing import TYPE_CHECKING

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.progress_bar import ProgressBar
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

BAR_WIDTH = 20
# A bar is left out where no more than so many characters would stand beside it.
LEAST_WORDS = 36
LABEL_WIDTH = 8
# A load process speaks once a second.
_LATE_S = 3.0


@dataclass(frozen=True)
class Doing:
    """A start: its server is being started, and once it `is_ready` its cells are measured.

    `stage` is the last step of its start-up that its log told; `unfit` says why the machine is waited for.
    `progress` was heard at `heard_s`, and `now` read then.
    """

    start: PlannedStart
    place: str
    since_s: float
    is_ready: bool = False
    stage: str | None = None
    unfit: str | None = None
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


def panel(view: View, now_s: float) -> RenderableType:
    """Return what to draw now: a few lines, each cut to the terminal's width."""
    grid = Table.grid(padding=(0, 1), expand=True)
    grid.add_column(width=LABEL_WIDTH, style="cyan", no_wrap=True)
    grid.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
    for label, value in _rows(view, now_s):
        grid.add_row(label, _plain(value) if isinstance(value, str) else value)
    return Group("", grid)


def _rows(view: View, now_s: float) -> Iterator[tuple[str, str | _Bar]]:
    """Yield the label of each line, with its words or a bar."""
    yield "run", _overall(view, now_s)
    match view.doing:
        case Doing() as doing:
            load = f", {doing.cell.load.label}" if doing.cell else ""
            yield "now", f"{doing.start.deployment.label}{load}; {doing.place}"
            yield "phase", _phase(doing, now_s)
            if doing.progress:
                yield from _progress(doing.progress, doing.now)
        case SelfTesting(label, progress):
            yield "now", label
            if progress:
                yield "phase", progress.phase.replace("warmup", "warm-up")
                yield from _progress(progress, None)


def _overall(view: View, now_s: float) -> str | _Bar:
    after = f"after {clock(now_s - view.began_s)}"
    if view.total is None:
        return f"{counted(view.done, view.what)} {after}"
    words = f"{view.done} of {counted(view.total, view.what)} {after}"
    if view.left and view.done != view.total:
        least = "at least" if view.left.is_least or view.may_grow else "about"
        words = f"{words}, {least} {clock(view.left.at(now_s))} left"
    return _Bar((view.done + _share(view.doing, now_s)) / max(1, view.total), words)


def _share(doing: Doing | SelfTesting | None, now_s: float) -> float:
    """Return how much of its cell is over, by the time that its load is to take."""
    if not isinstance(doing, Doing) or doing.cell is None or doing.progress is None:
        return 0.0
    expected_s = max(1.0, load_s(doing.cell.load, doing.cell.scenario))
    return min(1.0, _t_s(doing, doing.progress, now_s) / expected_s)


def _phase(doing: Doing, now_s: float) -> str | _Bar:
    since = clock(now_s - doing.since_s)
    if doing.unfit:
        return f"waiting for a fit machine ({since}), {doing.unfit}"
    if not doing.is_ready:
        stage = f", last step: {doing.stage.replace('_', ' ')}" if doing.stage else ""
        return f"starting, {since}{stage}"
    if doing.cell is None:
        return f"no load, {since}"
    if doing.progress is None:
        return f"the load begins, {since}"
    return _load_phase(doing, doing.cell.load, doing.progress, now_s)


def _load_phase(doing: Doing, load: Load, progress: Progress, now_s: float) -> str | _Bar:
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
        return f"{name}{waits}{late}"
    passed_s = max(0.0, _t_s(doing, progress, now_s) - begin_s)
    if end_s == inf:
        return f"{name}, {clock(passed_s)}{late}"
    length_s = end_s - begin_s
    if name == "window" and length_s:
        # It goes on by whole steps; how many there are is known only once the load says that it goes on.
        length_s *= min(load.steps, max(1, ceil((progress.t_s - begin_s) / length_s)))
    passed_s = min(passed_s, length_s)
    return _Bar(passed_s / length_s if length_s else 1.0, f"{name}, {passed_s:.0f} of {length_s:g} s{late}")


def _t_s(doing: Doing, progress: Progress, now_s: float) -> float:
    """Return where the load is by now, since it spoke."""
    return progress.t_s + min(_LATE_S, max(0.0, now_s - doing.heard_s))


def _progress(progress: Progress, now: Now | None) -> Iterator[tuple[str, str]]:
    yield "lately", _lately(progress.recent)
    kinds = sorted(progress.failures.items(), key=lambda each: -each[1])
    named = f" ({', '.join(f'{count:,} {kind}' for kind, count in kinds)})" if kinds else ""
    yield "requests", f"{progress.requests:,} ok, {progress.failed:,} failed{named}"
    if now:
        under_way, memory = "running and waiting requests not known", "memory not known"
        if now.running is not None:
            waiting = "-" if now.waiting is None else f"{now.waiting:,.0f}"
            under_way = f"{now.running:,.0f} running, {waiting} waiting"
        if now.memory_bytes is not None:
            memory = f"memory {size_text(now.memory_bytes)} ({now.memory_of})"
        yield "server", f"{under_way}; {memory}"
    late = time_text(progress.loop_lag_s)
    yield "client", f"{progress.in_flight:,} in flight; its loop late by p99 {late}"


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
    span = "up to" if recent.is_uneven else "last"
    return f"{rate}; {ttft} ({span} {recent.length_s:.0f} s, n={recent.ttft_n:,})"


@dataclass(frozen=True)
class _Bar:
    """A bar before its words; the words alone where both do not fit."""

    share: float
    words: str

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if options.max_width < BAR_WIDTH + LEAST_WORDS:
            yield _plain(self.words)
            return
        bar = ProgressBar(1.0, min(1.0, max(0.0, self.share)), width=BAR_WIDTH)
        grid = Table.grid(padding=(0, 2), expand=True)
        grid.add_column(width=BAR_WIDTH)
        grid.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
        grid.add_row(bar, _plain(self.words))
        yield grid


def _plain(words: str) -> Text:
    """Return words as they are: what a label or a log holds is neither markup nor a control character."""
    return Text(inert(words), no_wrap=True, overflow="ellipsis")


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
