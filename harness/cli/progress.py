"""Shows a run in the terminal, on stderr: lines, on a terminal a panel below them, nothing with --quiet."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import inf
from statistics import median, median_low
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from harness.contracts import Load, PlannedCell, PlannedStart, Standing
from harness.load.play.arrivals import phases
from harness.load.pulse import Glance, Progress
from harness.plan import plan
from harness.run.budget import Budget
from harness.settings.units import counted, duration_text, number_text

if TYPE_CHECKING:  # they import pyarrow, for which `bench fit` need not wait
    from harness.store.request_table import Result
    from harness.store.store import CellRecord

# Of what goes into a file or a pipe: rich would take 80 columns.
PIPE_WIDTH = 120
LABEL_WIDTH = 8
BAR_WIDTH = 20
# It is drawn while we measure, on the same machine; what it shows comes once a second.
REFRESHES_PER_S = 2
STARTING = "starting"


class Show:
    """A run's Observer (harness/run/watch.py), and `line` for all else. `begin` brings the panel."""

    def __init__(self, *, quiet: bool) -> None:
        width = None if sys.stderr.isatty() or "COLUMNS" in os.environ else PIPE_WIDTH
        self.console = Console(stderr=True, quiet=quiet, highlight=False, emoji=False, width=width)
        self._live: Live | None = None
        # The panel's thread draws what the run's and its log's watcher change.
        self._lock = threading.Lock()
        self._view = View(time.monotonic())
        self._outlook = Outlook([], 0.0)

    def close_panel(self) -> None:
        """Take the panel away: there is nothing more to watch. Lines may follow."""
        if self._live:
            self._live.stop()
            self._live = None

    def _draw(self) -> Group:
        with self._lock:
            return panel(self._view, self._outlook, time.monotonic())

    def _change(self, **changes: Any) -> None:
        with self._lock:
            self._view = replace(self._view, **changes)

    def line(self, text: str, style: str = "", *, is_whole: bool = False) -> None:
        """Print words as they are: what a model or a log says is neither markup nor a control character.

        A terminal has them folded between words, but a command or a path whole, to be copied.
        """
        said = Text(inert(text, keep="\n"), style)
        self.console.print(said, soft_wrap=is_whole or not self.console.is_terminal)

    def begin(
        self,
        starts: Sequence[PlannedStart],
        repeats: int = 1,
        budget: Budget | None = None,
        *,
        may_grow: bool = False,
        is_search: bool = False,
    ) -> None:
        """Show that these starts are about to run, of a plan of so many repeats, within a budget.

        A search has no bar: its cells are not known yet.
        """
        now_s = time.monotonic()
        self._outlook = Outlook(starts, now_s)
        total = None if is_search else sum(len(start.cells) for start in starts)
        self._change(began_s=now_s, total=total, may_grow=may_grow, repeats=repeats, budget=budget)
        if self.console.is_interactive and not self.console.quiet:
            # What is printed comes above it; what goes elsewhere is not ours.
            self._live = Live(
                console=self.console,
                get_renderable=self._draw,
                refresh_per_second=REFRESHES_PER_S,
                transient=True,
                redirect_stdout=sys.stdout.isatty(),
            )
            # Signals belong to the main thread: a thread that is begun here takes none.
            before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
            try:
                self._live.start()
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def grow(self, block: Sequence[PlannedStart], why: str) -> None:
        with self._lock:
            self._outlook.add(block)
        repeats = max(self._view.repeats, *(start.repeat + 1 for start in block))
        total = (self._view.total or 0) + sum(len(start.cells) for start in block)
        self._change(total=total, repeats=repeats)
        self.line(why)

    def cut(self, starts: Sequence[PlannedStart], why: str) -> None:
        """Show that these starts are not going to be made after all."""
        with self._lock:
            for start in starts:
                self._outlook.fails(start, time.monotonic())
        repeats = min(self._view.repeats, *(start.repeat for start in starts))
        total = (self._view.total or 0) - sum(len(start.cells) for start in starts)
        self._change(total=total, repeats=repeats)
        self.line(why)

    def standing(self, found: Sequence[Standing]) -> None:
        """Show how each answer stands after a repeat, and how long the rest takes."""
        now_s = time.monotonic()
        with self._lock:
            left = _left(self._view, self._outlook, now_s).replace(",", ";", 1)
        for each in found:
            of = f"{each.repeats} of {counted(self._view.repeats, 'repeat')}"
            self.line(f"after {of}: {each.words}{left}")
            left = ""
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        self._change(standing=f"{found[0].words}{more}" if found else "")

    def _ends(self, key: str | int, cells: int) -> None:
        now_s = time.monotonic()
        with self._lock:
            self._outlook.ends(key, now_s)
            self._view = replace(
                self._view,
                done=self._view.done + cells,
                since_s=now_s,
                what="no load",
                detail="",
                cell=None,
                progress=None,
            )

    def start_begins(self, start: PlannedStart) -> None:
        self._change(start=start, since_s=time.monotonic(), what=STARTING, detail="", cell=None)

    def start_stage(self, start: PlannedStart, stage: str) -> None:
        """Show a step that its log tells of. Called from another thread, which may be late."""
        with self._lock:
            if self._view.start == start and self._view.what == STARTING:
                detail = f", last step: {stage.replace('_', ' ')}"
                self._view = replace(self._view, detail=detail)

    def start_ready(self, start: PlannedStart, launch_s: float | None) -> None:
        self._ends(start.name, cells=0)
        took = f" after {launch_s:.1f} s" if launch_s is not None else ""
        self.line(f"{start.name}: ready{took}")

    def start_failed(self, start: PlannedStart, error: str, cells: int) -> None:
        """Show that a start failed, and `cells` with it that were not measured."""
        with self._lock:
            self._outlook.fails(start, time.monotonic())
            self._view = replace(self._view, done=self._view.done + cells, start=None)
        self.line(f"{start.name}: failed: {error}")

    def cell_progress(self, cell: PlannedCell, progress: Progress, server: str) -> None:
        self._change(cell=cell, progress=progress, server=server)

    def cell_ends(self, start: PlannedStart, record: CellRecord, result: Result) -> None:
        self._ends(record.number, cells=int(record.status != "interrupted"))
        count = counted(record.summary.requests, "request") if record.summary else "no requests"
        if record.status == "completed":
            figures = f"{number_text(result.tokens_per_s)} tokens/s, TTFT p50 {time_text(result.ttft_p50_s)}"
            said = f"completed, {count}, {figures} (n={result.ttft_n:,})"
        elif record.status == "interrupted":
            said = f"interrupted, {count}"
        else:
            said = f"{record.status}: {record.error}"
        # The report has all reasons.
        more = f"; and {len(record.reasons) - 1} more" if len(record.reasons) > 1 else ""
        doubt = f" ({record.validity}: {record.reasons[0]}{more})" if record.reasons else ""
        cell = f"  cell {record.number:03d} {record.deployment}, {record.load.label}"
        self.line(f"{cell}: {said}{doubt}")


class Outlook:
    """How long the rest of a plan takes: as the steps of this run took so far, else as planned."""

    def __init__(self, starts: Iterable[PlannedStart], now_s: float) -> None:
        # The steps that are left, in order: each start by its name, each cell by its number.
        self._left: dict[str | int, PlannedStart | PlannedCell] = {}
        self._launches_s: defaultdict[str, list[float]] = defaultdict(list)
        # What each cell took, waiting included, over what was planned; and the plan's own word, since the
        # first wait for a fit machine is the longest.
        self._over_plan = [1.0]
        self._began_s = now_s
        self.add(starts)

    def add(self, starts: Iterable[PlannedStart]) -> None:
        for start in starts:
            self._left[start.name] = start
            self._left |= {cell.number: cell for cell in start.cells}

    def ends(self, key: str | int, now_s: float) -> None:
        """Note that a cell has ended, or that a start is ready."""
        step, took_s = self._left.pop(key, None), now_s - self._began_s
        if isinstance(step, PlannedStart):
            self._launches_s[step.deployment.label].append(took_s)
        elif step:
            self._over_plan.append(took_s / plan.cell_s(step))
        self._began_s = now_s

    def fails(self, start: PlannedStart, now_s: float) -> None:
        """Note that a start has failed, with its cells that are left."""
        self._left.pop(start.name, None)
        for cell in start.cells:
            self._left.pop(cell.number, None)
        self._began_s = now_s

    def left(self, now_s: float) -> tuple[float, bool]:
        """Return the seconds that are left, and whether they are only the least: an engine is new here."""
        expected = [self._expected(step) for step in self._left.values()]
        if not expected:
            return 0.0, False
        passed_s = min(now_s - self._began_s, expected[0][0])
        return sum(seconds for seconds, _ in expected) - passed_s, any(least for _, least in expected)

    def _expected(self, step: PlannedStart | PlannedCell) -> tuple[float, bool]:
        if isinstance(step, PlannedCell):
            return plan.cell_s(step) * median_low(self._over_plan), False
        if seen_s := self._launches_s.get(step.deployment.label):
            return median(seen_s), False
        return plan.start_s(step.deployment), not step.deployment.terms.base_url


@dataclass(frozen=True)
class View:
    """How far the whole is, and what goes on now. Instants are of time.monotonic(), in seconds.

    `total` is None if its end is not known. `detail` follows `what` goes on and how long it takes.
    """

    began_s: float
    done: int = 0
    total: int | None = None
    may_grow: bool = False
    start: PlannedStart | None = None
    since_s: float = 0.0
    what: str = STARTING
    detail: str = ""
    cell: PlannedCell | None = None
    progress: Progress | None = None
    server: str = ""
    repeats: int = 1
    budget: Budget | None = None
    standing: str = ""


def panel(view: View, outlook: Outlook, now_s: float) -> Group:
    """Return what to draw: a few lines, each cut to the terminal's width."""
    grid = Table.grid(padding=(0, 1), expand=True)
    grid.add_column(width=LABEL_WIDTH, style="cyan", no_wrap=True)
    grid.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
    for label, words in _rows(view, outlook, now_s):
        grid.add_row(label, Text(inert(words), no_wrap=True, overflow="ellipsis"))
    return Group("", grid)


def _rows(view: View, outlook: Outlook, now_s: float) -> Iterator[tuple[str, str]]:
    yield "run", _overall(view, outlook, now_s)
    if view.standing:
        yield "standing", view.standing
    if view.start is None:
        return
    load = f", {view.cell.load.label}" if view.cell else ""
    yield "now", f"{view.start.deployment.label}{load}; start {view.start.index}"
    if view.cell is None or view.progress is None:
        yield "phase", f"{view.what}, {_clock(now_s - view.since_s)}{view.detail}"
        return
    progress = view.progress
    yield "phase", _phase(view.cell.load, progress)
    yield "lately", _lately(progress.recent)
    kinds = sorted(progress.failures.items(), key=lambda each: -each[1])
    named = f" ({', '.join(f'{count:,} {kind}' for kind, count in kinds)})" if kinds else ""
    yield "requests", f"{progress.requests:,} ok, {progress.failed:,} failed{named}"
    yield "server", view.server
    yield "client", f"{progress.in_flight:,} in flight; its loop late by p99 {time_text(progress.loop_lag_s)}"


def _overall(view: View, outlook: Outlook, now_s: float) -> str:
    after = f"after {_clock(now_s - view.began_s)}"
    if view.total is None:
        return f"{counted(view.done, 'cell')} {after}"
    filled = round(BAR_WIDTH * view.done / max(1, view.total))
    bar = "━" * filled + "╌" * (BAR_WIDTH - filled)
    return f"{view.done} of {counted(view.total, 'cell')} {after}{_left(view, outlook, now_s)} {bar}"


def _left(view: View, outlook: Outlook, now_s: float) -> str:
    """Return `, about 3 minutes left`, or nothing where nothing is."""
    if view.total is None or view.done == view.total:
        return ""
    left_s, is_least = outlook.left(now_s)
    if view.budget and left_s > view.budget.left_s:
        return f", about {_clock(view.budget.left_s)} left of {view.budget.text}"
    return f", {'at least' if is_least or view.may_grow else 'about'} {_clock(left_s)} left"


def _phase(load: Load, progress: Progress) -> str:
    ends, name = phases(load), progress.phase.replace("warmup", "warm-up")
    spans = {
        "ramp-up": (0.0, ends.ramp_up_end_s),
        "warm-up": (ends.ramp_up_end_s, ends.window_start_s),
        "window": (ends.window_start_s, ends.window_end_s),
        "ramp-down": (ends.window_end_s, ends.end_s),
    }
    begin_s, end_s = spans.get(name, (inf, inf))
    if begin_s == inf:
        waits = f", {counted(progress.in_flight, 'request')} to end" if name == "drain" else ""
        return f"{name}{waits}"
    passed_s, length_s = max(0.0, progress.t_s - begin_s), end_s - begin_s
    of = f" of {length_s:g}" if passed_s <= length_s < inf else ""
    return f"{name}, {passed_s:.0f}{of} s"


def _lately(recent: Glance | None) -> str:
    if recent is None or not recent.requests:
        return "no request has ended well"
    if recent.tokens_per_s is not None:
        rate = f"{number_text(recent.tokens_per_s)} tokens/s"
    else:  # the server tells no count, and a chunk is not a token
        rate = f"{number_text(recent.chunks_per_s)} chunks/s"
    ttft = f"TTFT p50 {time_text(recent.ttft_p50_s)}, p95 {time_text(recent.ttft_p95_s)}"
    return f"{rate}; {ttft} (last {recent.length_s:.0f} s, n={recent.ttft_n:,})"


def inert(words: str, keep: str = "") -> str:
    """Return the words without control characters and marks of direction, which could move the cursor."""
    return "".join(each if each.isprintable() or each in keep else " " for each in words)


def time_text(seconds: float | None) -> str:
    """Return `4.21 ms`, `842 ms` or `12.3 s`."""
    if seconds is None:
        return "-"
    return f"{number_text(seconds * 1e3)} ms" if seconds < 1 else f"{number_text(seconds)} s"


def _clock(seconds: float) -> str:
    return duration_text(max(0, round(seconds)))
