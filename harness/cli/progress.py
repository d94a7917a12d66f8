"""Show a run on stderr: lines, on a terminal with a panel below them, and nothing with --quiet."""

from __future__ import annotations

import errno
import os
import signal
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import IO, TYPE_CHECKING, Any, cast

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from serving_bench.harness.cli.panel import (
    STARTING,
    WAITING,
    Outlook,
    View,
    left_text,
    panel,
    phase_text,
    time_text,
)
from serving_bench.harness.contracts import Load, PlannedCell, PlannedStart, Standing, inert, plural
from serving_bench.harness.contracts.timing import LEAST_FOR_MEDIAN
from serving_bench.harness.load.play.arrivals import phases
from serving_bench.harness.load.pulse import Progress
from serving_bench.harness.run.budget import Budget
from serving_bench.harness.settings.units import number_text

if TYPE_CHECKING:  # they import pyarrow, and `bench fit` must not wait for that
    from serving_bench.harness.store.request_table import Result
    from serving_bench.harness.store.store import CellRecord

# How often a cell that is longer than planned is told of where there is no panel.
LATE_EVERY_S = 30
# Columns in a file or a pipe, where rich would take 80.
PIPE_WIDTH = 120
# Low, since the panel is drawn on the machine that is measured; its values come once a second.
REFRESHES_PER_S = 2


class _Stderr:
    """stderr that ignores a closed terminal, since SIGHUP tells of it and ends the run in order."""

    def __init__(self) -> None:
        self._stream = sys.stderr

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        with _closed_terminal():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with _closed_terminal():
            self._stream.flush()


@contextmanager
def _closed_terminal() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno != errno.EIO:
            raise


class Show:
    """Shows a run: the Observer of harness/run/watch.py, with `line` for everything else."""

    def __init__(self, *, quiet: bool) -> None:
        width = None if sys.stderr.isatty() or "COLUMNS" in os.environ else PIPE_WIDTH
        self.console = Console(
            file=cast(IO[str], _Stderr()), quiet=quiet, highlight=False, emoji=False, width=width
        )
        self._live: Live | None = None
        # The panel's thread draws what the run's thread and the log watcher's thread change.
        self._lock = threading.Lock()
        self._view = View(time.monotonic())
        self._outlook = Outlook([], 0.0)

    def close_panel(self) -> None:
        """Remove the panel. Lines may follow."""
        if self._live:
            self._live.stop()
            self._live = None

    def __rich__(self) -> Group:
        with self._lock:
            return panel(self._view, self._outlook, time.monotonic())

    def _change(self, **changes: Any) -> None:
        with self._lock:
            self._view = replace(self._view, **changes)

    def line(self, text: str, style: str = "", *, is_whole: bool = False) -> None:
        """Print text as it is: markup and control characters from a model or a log have no effect.

        A terminal wraps it between words, unless `is_whole`: a command or a path can then be copied.
        """
        styled = Text(inert(text, keep="\n"), style)
        self.console.print(styled, soft_wrap=is_whole or not self.console.is_terminal)

    def lines(self, texts: Iterable[str]) -> None:
        for text in texts:
            self.line(text)

    def begin(
        self,
        starts: Sequence[PlannedStart],
        repeats: int = 1,
        budget: Budget | None = None,
        *,
        may_grow: bool = False,
        is_search: bool = False,
    ) -> None:
        """Open the panel for these starts, which are about to run, of a plan of `repeats` repeats.

        A search has no bar, since its cells are not known yet.
        """
        now_s = time.monotonic()
        self._outlook = Outlook(starts, now_s)
        total = None if is_search else cells_of(starts)
        self._change(began_s=now_s, total=total, may_grow=may_grow, repeats=repeats, budget=budget)
        self.open_panel(self)

    def open_panel(self, content: RenderableType) -> None:
        """Show this below the lines, on a terminal, until `close_panel`."""
        if self.console.quiet or not self.console.is_interactive:
            return
        # Lines are printed above the panel; output that is redirected stays as it is.
        self._live = Live(
            content,
            console=self.console,
            refresh_per_second=REFRESHES_PER_S,
            transient=True,
            redirect_stdout=sys.stdout.isatty(),
        )
        # Signals belong to the main thread: the thread started here must take none.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            self._live.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def grow(self, block: Sequence[PlannedStart], why: str) -> None:
        with self._lock:
            self._outlook.add(block)
        repeats = max(self._view.repeats, *(start.repeat + 1 for start in block))
        self._change(total=(self._view.total or 0) + cells_of(block), repeats=repeats)
        self.line(why)

    def cut(self, starts: Sequence[PlannedStart], why: str) -> None:
        with self._lock:
            for start in starts:
                self._outlook.fails(start, time.monotonic())
        repeats = min(self._view.repeats, *(start.repeat for start in starts))
        self._change(total=(self._view.total or 0) - cells_of(starts), repeats=repeats)
        self.line(why)

    def standing(self, standings: Sequence[Standing]) -> None:
        """Show how each answer stands after a repeat, and how long the rest takes."""
        now_s = time.monotonic()
        with self._lock:
            left = left_text(self._view, self._outlook, now_s, ";")
        for each in standings:
            whole = plural(self._view.repeats, "repeat")
            of = plural(each.repeats, "repeat") if self._view.may_grow else f"{each.repeats} of {whole}"
            self.line(f"after {of}: {each.words}{left}")
            left = ""
        more = f" (and {len(standings) - 1} more)" if len(standings) > 1 else ""
        self._change(standing=f"{standings[0].words}{more}" if standings else "")

    def _ends(self, key: str | int, cells: int) -> None:
        now_s, done = time.monotonic(), self._view.done + cells
        with self._lock:
            self._outlook.ends(key, now_s)
        self._change(done=done, since_s=now_s, what="no load", detail="", cell=None, progress=None)

    def start_begins(self, start: PlannedStart) -> None:
        self._change(start=start, since_s=time.monotonic(), what=STARTING, detail="", cell=None)

    def start_stage(self, start: PlannedStart, stage: str) -> None:
        """Show a step of a start-up, found in its log. Called from another thread, perhaps too late."""
        with self._lock:
            if self._view.start == start and self._view.what in (STARTING, WAITING):
                detail = f", last step: {stage.replace('_', ' ')}"
                self._view = replace(self._view, what=STARTING, detail=detail)

    def waits(self, what: str, unfit: str) -> None:
        """Show that a start or cell waits. With a panel no line is printed: on a busy machine all wait."""
        self._change(what=WAITING, detail=f", {unfit}", since_s=time.monotonic())
        if self._live is None:
            self.line(f"{what}: {WAITING}, {unfit}")

    def start_ready(self, start: PlannedStart, launch_s: float | None) -> None:
        self._ends(start.name, cells=0)
        self.line(f"{start.name}: ready" + ("" if launch_s is None else f" after {launch_s:.1f} s"))

    def start_failed(self, start: PlannedStart, error: str, cells: int) -> None:
        with self._lock:
            self._outlook.fails(start, time.monotonic())
        self._change(done=self._view.done + cells, start=None)
        self.line(f"{start.name}: failed: {error}")

    def cell_progress(self, cell: PlannedCell, progress: Progress, server: str) -> None:
        """Show how a cell goes on. Without a panel only one that takes longer than planned is told of."""
        before = self._view.progress if self._view.cell == cell else None
        self._change(cell=cell, progress=progress, server=server)
        if self._live is None and _times_late(cell.load, progress) > _times_late(cell.load, before):
            late_s = progress.t_s - phases(cell.load).end_s
            line = f"{phase_text(cell.load, progress)}; {plural(progress.requests, 'request')} ok so far"
            self.line(f"  cell {cell.number:03d}: {late_s:.0f} s longer than planned ({line})")

    def cell_ends(self, start: PlannedStart, record: CellRecord, result: Result) -> None:
        self._ends(record.number, cells=int(record.status != "interrupted"))
        count = plural(record.summary.requests, "request") if record.summary else "no requests"
        if record.status == "completed":
            line = f"completed, {count}, {_figures(result)}"
        elif record.status == "interrupted":
            line = f"interrupted, {count}"
        else:
            line = f"{record.status}: {record.error}"
        # The report has all reasons.
        more = f"; and {len(record.reasons) - 1} more" if len(record.reasons) > 1 else ""
        doubt = f" ({record.validity}: {record.reasons[0]}{more})" if record.reasons else ""
        self.line(f"  cell {record.number:03d} {record.deployment}, {record.load.label}: {line}{doubt}")


def _times_late(load: Load, progress: Progress | None) -> int:
    """Return how many times LATE_EVERY_S a load has taken beyond its plan."""
    late_s = progress.t_s - phases(load).end_s if progress else 0.0
    return int(max(0.0, late_s) // LATE_EVERY_S)


def _figures(result: Result) -> str:
    tokens = "" if result.tokens_per_s is None else f"{number_text(result.tokens_per_s)} tokens/s, "
    if result.ttft_p50_s is None:
        return f"{tokens}too few requests for a TTFT p50 ({result.ttft_n} of {LEAST_FOR_MEDIAN})"
    return f"{tokens}TTFT p50 {time_text(result.ttft_p50_s)} (n={result.ttft_n:,})"


def cells_of(starts: Sequence[PlannedStart]) -> int:
    return sum(len(start.cells) for start in starts)
