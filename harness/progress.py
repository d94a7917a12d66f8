"""Shows a run in the terminal: lines, on a terminal a panel below them, nothing with --quiet.

Everything goes to stderr; stdout is for results. What the panel looks like: harness/live.py.
"""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.console import Console, RenderableType
from rich.live import Live
from rich.markup import escape

from harness import live
from harness.contracts import Plan, PlannedCell, PlannedStart
from harness.live import Measuring, Overall, SelfTesting, Starting, View
from harness.load.pulse import Progress
from harness.outlook import Outlook
from harness.plan import Expect, nothing_learnt
from harness.plan_text import counted
from harness.result import Result

if TYPE_CHECKING:  # they import pyarrow and numpy, for which `bench fit` need not wait
    from harness.selftest import Ladder, Rung
    from harness.store import CellRecord
    from harness.watch import Now

# It is drawn while we measure, on the same machine; what it shows comes once a second.
REFRESHES_PER_S = 2


class Show:
    """A run's Observer (harness/run.py), and `line` for all else; a `with` block holds the panel, which is
    there from the first thing that it can show on."""

    def __init__(self, *, quiet: bool) -> None:
        self.quiet = quiet
        self.console = Console(stderr=True, quiet=quiet, highlight=False)
        self._has_panel = not quiet and self.console.is_terminal and not self.console.is_dumb_terminal
        self._live: Live | None = None
        # The panel's thread draws the view, the run's and its log's watcher change it.
        self._lock = threading.Lock()
        self._view = View(Overall(time.monotonic()))
        self._outlook: Outlook | None = None
        self._starts: int | None = None
        self._begun = 0
        self._awaited_at: str | None = None
        self._said: str | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close_panel()

    def close_panel(self) -> None:
        """There is nothing more to watch; lines may follow."""
        if self._live:
            self._live.stop()
            self._live = None

    def _draw(self) -> RenderableType:
        return live.panel(self._view, time.monotonic())

    def _change(self, doing: Starting | Measuring | SelfTesting | None, **overall: object) -> None:
        with self._lock:
            self._view = View(replace(self._view.overall, **overall), doing)  # type: ignore[arg-type]
        if self._has_panel and self._live is None:
            self._live = _started(self.console, self._draw)

    @property
    def _starting(self) -> Starting | None:
        return self._view.doing if isinstance(self._view.doing, Starting) else None

    @property
    def _measuring(self) -> Measuring | None:
        return self._view.doing if isinstance(self._view.doing, Measuring) else None

    def line(self, text: str) -> None:
        self._said = None
        self.console.print(escape(text), soft_wrap=True)

    def _failure(self, before: str, error: str, after: str = "") -> None:
        """The error, unless the line above ends with it: a server that dies fails its cells and its start."""
        said = "for the same reason" if error == self._said else error
        self.line(f"{before}: {said}{after}")
        self._said = None if after else error

    # --- the whole -----------------------------------------------------------------------------------

    def begin(self, plan: Plan, expect: Expect = nothing_learnt, *, may_grow: bool = False) -> None:
        """The starts of this plan are about to run, and with `may_grow` others: the bar spans their cells."""
        now_s = time.monotonic()
        self._outlook, self._starts = Outlook(plan.starts, expect, now_s), len(plan.starts)
        total = sum(len(start.cells) for start in plan.starts)
        self._change(None, began_s=now_s, total=total, left=self._outlook.left(), may_grow=may_grow)

    def grow(self, block: Sequence[PlannedStart], why: str) -> None:
        """These starts follow those before: the bar spans their cells, too."""
        self._starts = (self._starts or 0) + len(block)
        total = (self._view.overall.total or 0) + sum(len(start.cells) for start in block)
        if self._outlook:
            self._outlook.add(block)
        self._change(None, total=total, left=self._outlook.left() if self._outlook else None)
        self.line(why)

    def begin_search(self, starts: int) -> None:
        """So many starts are about to be searched; their cells are not known yet: there is no bar."""
        self._starts = starts
        self._change(None, began_s=time.monotonic(), total=None)

    def _ends(self, key: str | int, doing: Starting | Measuring | None, *, is_telling: bool = True) -> None:
        """A step of the plan has ended: a start by its name, a cell by its number."""
        if self._outlook:
            self._outlook.ends(key, time.monotonic(), is_telling=is_telling)
            self._change(doing, left=self._outlook.left())
        else:
            self._change(doing)

    # --- a start -------------------------------------------------------------------------------------

    def start_begins(self, start: PlannedStart) -> None:
        self._begun += 1
        of = f" of {self._starts}" if self._starts else ""
        self._change(Starting(start, f"start {self._begun}{of}", time.monotonic()))

    def start_stage(self, start: PlannedStart, stage: str) -> None:
        """Its log tells of a step. From another thread, which may be late."""
        with self._lock:
            if self._starting and self._starting.start == start:
                self._view = replace(self._view, doing=replace(self._starting, stage=stage, unfit=None))

    def start_held(self, start: PlannedStart, unfit: str) -> None:
        if self._starting:
            self._change(replace(self._starting, unfit=unfit))
        self.line(f"{start.name}: waiting for a fit machine, {unfit}")

    def start_waits(self, start: PlannedStart, age_s: float, problem: str) -> None:
        self.line(f"{start.name}: still starting after {age_s:.0f} s ({problem})")

    def start_ready(self, start: PlannedStart, launch_s: float | None) -> None:
        place = self._starting.place if self._starting else ""
        self._ends(start.name, Measuring(start, place, time.monotonic()))
        took = f" after {launch_s:.1f} s" if launch_s is not None else ""
        self.line(f"{start.name}: ready{took}")

    def start_failed(self, start: PlannedStart, error: str) -> None:
        self._ends(start.name, None, is_telling=False)
        self._failure(f"{start.name}: failed", error)

    # --- a cell --------------------------------------------------------------------------------------

    def cell_waits(self, start: PlannedStart, cell: PlannedCell, unfit: str) -> None:
        if self._measuring:
            self._change(replace(self._measuring, cell=cell, since_s=time.monotonic(), unfit=unfit))
        self.line(f"  cell {cell.number:03d}: waiting for a fit machine, {unfit}")

    def cell_begins(self, start: PlannedStart, cell: PlannedCell) -> None:
        if self._measuring:
            self._change(replace(self._measuring, cell=cell, since_s=time.monotonic(), unfit=None))
        if cell.load.bind and cell.load.bind != self._awaited_at:
            self._awaited_at = cell.load.bind
            others = counted(cell.load.workers, "load worker")
            port = cell.load.bind.rpartition(":")[2]
            command = f"`bench worker --master HOST:{port}`"
            self.line(f"waiting for {others}: start each with {command} (this machine)")

    def cell_progress(self, cell: PlannedCell, progress: Progress, now: Now) -> None:
        if self._measuring:
            heard_s = time.monotonic()
            self._change(replace(self._measuring, progress=progress, now=now, heard_s=heard_s))

    def cell_ends(self, start: PlannedStart, record: CellRecord, result: Result) -> None:
        measured = self._measuring
        after = Measuring(start, measured.place, time.monotonic()) if measured else None
        self._ends(record.number, after, is_telling=record.status == "completed")
        self._change(after, done=self._view.overall.done + 1)
        count = counted(record.summary.requests, "request") if record.summary else "no requests"
        doubt = f" ({record.validity}: {'; '.join(record.reasons)})" if record.reasons else ""
        cell = f"  cell {record.number:03d} {record.deployment}, {record.load.label}: {record.status}"
        if record.status == "completed":
            self.line(f"{cell}, {count}, {_words(result)}{doubt}")
        elif record.error == record.status:
            self.line(f"{cell}, {count}{doubt}")
        else:
            self._failure(cell, record.error or "", doubt)

    # --- the self-test -------------------------------------------------------------------------------

    def rung(self, ladder: Ladder, rung: Rung, progress: Progress | None) -> None:
        """Where on its ladder the self-test is; `progress` as the load runs."""
        done, total = ladder.rungs.index(rung), len(ladder.rungs)
        self._change(
            SelfTesting(rung.label, progress, time.monotonic()),
            what="load",
            done=done,
            total=total,
            left=None,
        )


def _words(result: Result) -> str:
    """A cell's figures, `-` where there is none."""
    ttft = "-" if result.ttft_p50_s is None else live.time_text(result.ttft_p50_s)
    return f"{live.number(result.tokens_per_s)} tokens/s, TTFT p50 {ttft} (n={result.ttft_n:,})"


def _started(console: Console, draw: live.Draw) -> Live:
    """The panel, drawn by a thread of its own."""
    shown = Live(
        console=console,
        get_renderable=draw,
        refresh_per_second=REFRESHES_PER_S,
        transient=True,
        # What is printed comes above it; what goes elsewhere is not ours.
        redirect_stdout=sys.stdout.isatty(),
    )
    with _signals_held():
        shown.start()
    return shown


@contextmanager
def _signals_held() -> Iterator[None]:
    # Signals belong to the main thread: a thread that is begun here takes none.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
