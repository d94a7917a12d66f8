"""Shows a run in the terminal: lines, on a terminal a panel below them, nothing with --quiet.

Everything goes to stderr; stdout is for results. What the panel looks like: harness/cli/progress/live.py.
"""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self

from rich.console import Console, RenderableType
from rich.live import Live
from rich.text import Text

from harness.cli.progress import live
from harness.cli.progress.live import Doing, SelfTesting, View
from harness.cli.progress.outlook import Outlook
from harness.contracts import PlannedCell, PlannedStart
from harness.contracts.timing import LEAST_FOR_MEDIAN
from harness.load.pulse import Progress
from harness.settings.units import counted
from harness.store.request_table import Result

if TYPE_CHECKING:  # they import pyarrow and numpy, for which `bench fit` need not wait
    from harness.run.watch import Now
    from harness.selftest.selftest import Ladder, Rung
    from harness.store.store import CellRecord

# It is drawn while we measure, on the same machine; what it shows comes once a second.
REFRESHES_PER_S = 2
_WAITING = "waiting for a fit machine"


class Show:
    """A run's Observer (harness/run/site.py), and `line` for all else.

    A `with` block holds the panel, which is there from the first thing that it can show on.
    """

    def __init__(self, *, quiet: bool) -> None:
        self.quiet = quiet
        self.console = Console(stderr=True, quiet=quiet, highlight=False)
        self._has_panel = not quiet and self.console.is_terminal and not self.console.is_dumb_terminal
        self._live: Live | None = None
        # The panel's thread draws the view, the run's and its log's watcher change it.
        self._lock = threading.Lock()
        self._view = View(time.monotonic())
        self._outlook = Outlook([], 0.0)
        self._starts = self._begun = 0
        self._said: str | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close_panel()

    def close_panel(self) -> None:
        """Take the panel away: there is nothing more to watch. Lines may follow."""
        if self._live:
            self._live.stop()
            self._live = None

    def _draw(self) -> RenderableType:
        return live.panel(self._view, time.monotonic(), self.console.width)

    def _change(self, doing: Doing | SelfTesting | None, **whole: Any) -> None:
        """Show what is going on now, and what of the whole has changed, in one frame."""
        with self._lock:
            self._view = replace(self._view, doing=doing, **whole)
        if self._has_panel and self._live is None:
            self._live = Live(
                console=self.console,
                get_renderable=self._draw,
                refresh_per_second=REFRESHES_PER_S,
                transient=True,
                # What is printed comes above it; what goes elsewhere is not ours.
                redirect_stdout=sys.stdout.isatty(),
            )
            # Signals belong to the main thread: a thread that is begun here takes none.
            before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
            try:
                self._live.start()
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def _doing(self, **changes: Any) -> Doing | None:
        """Return what goes on with the start, with these changes, or None if there is no start."""
        doing = self._view.doing
        return replace(doing, **changes) if isinstance(doing, Doing) else None

    def line(self, text: str) -> None:
        """Print words as they are: what a model or a log says is neither markup nor a control character."""
        self._said = None
        self.console.print(Text(live.inert(text, keep="\n")), soft_wrap=True)

    def _failure(self, before: str, error: str, after: str = "") -> None:
        """Print the error, unless the line above ends with it: a server that dies fails its cells, too."""
        said = "for the same reason" if error == self._said else error
        self.line(f"{before}: {said}{after}")
        self._said = None if after else error

    # --- the whole -----------------------------------------------------------------------------------

    def begin(
        self, starts: Sequence[PlannedStart], *, may_grow: bool = False, is_search: bool = False
    ) -> None:
        """Show that these starts are about to run: the bar spans their cells.

        With `may_grow` others may follow. The cells of a search are not known yet, so that it has no bar.
        """
        now_s = time.monotonic()
        self._outlook = Outlook(starts, now_s)
        self._starts = len(starts)
        total = None if is_search else sum(len(start.cells) for start in starts)
        self._change(None, began_s=now_s, total=total, left=self._outlook.left(), may_grow=may_grow)

    def grow(self, block: Sequence[PlannedStart], why: str) -> None:
        """Show that these starts follow: the bar spans their cells, too."""
        self._starts += len(block)
        total = (self._view.total or 0) + sum(len(start.cells) for start in block)
        self._outlook.add(block)
        self._change(None, total=total, left=self._outlook.left())
        self.line(why)

    def _ends(self, key: str | int, doing: Doing | None, *, is_ready: bool = True, cells: int = 0) -> None:
        """Show the end of a step of the plan (a start by its name, a cell by its number)."""
        self._outlook.ends(key, time.monotonic(), is_ready=is_ready)
        self._change(doing, done=self._view.done + cells, left=self._outlook.left())

    # --- a start -------------------------------------------------------------------------------------

    def start_begins(self, start: PlannedStart) -> None:
        self._begun += 1
        of = f" of {self._starts}" if self._starts else ""
        self._change(Doing(start, f"start {self._begun}{of}", time.monotonic()))

    def start_stage(self, start: PlannedStart, stage: str) -> None:
        """Show a step that its log tells of. Called from another thread, which may be late."""
        with self._lock:
            doing = self._doing(detail=f", last step: {stage.replace('_', ' ')}")
            if doing and doing.start == start and doing.what == live.STARTING:
                self._view = replace(self._view, doing=doing)

    def start_held(self, start: PlannedStart, unfit: str) -> None:
        self._change(self._doing(what=_WAITING, detail=f", {unfit}"))
        self.line(f"{start.name}: {_WAITING}, {unfit}")

    def start_launches(self, start: PlannedStart) -> None:
        self._change(self._doing(since_s=time.monotonic(), what=live.STARTING, detail=""))

    def start_ready(self, start: PlannedStart, launch_s: float | None) -> None:
        self._ends(start.name, self._doing(since_s=time.monotonic(), what="no load", detail=""))
        took = f" after {launch_s:.1f} s" if launch_s is not None else ""
        self.line(f"{start.name}: ready{took}")

    def start_failed(self, start: PlannedStart, error: str) -> None:
        self._ends(start.name, None, is_ready=False)
        self._failure(f"{start.name}: failed", error)

    # --- a cell --------------------------------------------------------------------------------------

    def cell_waits(self, start: PlannedStart, cell: PlannedCell, unfit: str) -> None:
        self._change(self._doing(since_s=time.monotonic(), what=_WAITING, detail=f", {unfit}", cell=cell))
        self.line(f"  cell {cell.number:03d}: {_WAITING}, {unfit}")

    def cell_begins(self, start: PlannedStart, cell: PlannedCell) -> None:
        self._change(self._doing(since_s=time.monotonic(), what="the load begins", detail="", cell=cell))

    def cell_progress(self, cell: PlannedCell, progress: Progress, now: Now) -> None:
        self._change(self._doing(progress=progress, now=now, heard_s=time.monotonic()))

    def cell_ends(self, start: PlannedStart, record: CellRecord, result: Result) -> None:
        after = self._doing(
            since_s=time.monotonic(), what="no load", detail="", cell=None, progress=None, now=None
        )
        self._ends(record.number, after, cells=int(record.status != "interrupted"))
        count = counted(record.summary.requests, "request") if record.summary else "no requests"
        # The report has all reasons.
        more = f"; and {len(record.reasons) - 1} more" if len(record.reasons) > 1 else ""
        doubt = f" ({record.validity}: {record.reasons[0]}{more})" if record.reasons else ""
        cell = f"  cell {record.number:03d} {record.deployment}, {record.load.label}: {record.status}"
        if record.status == "completed":
            self.line(f"{cell}, {count}, {_words(result)}{doubt}")
        elif record.error == record.status:
            self.line(f"{cell}, {count}{doubt}")
        else:
            self._failure(cell, record.error or "", doubt)

    # --- the self-test -------------------------------------------------------------------------------

    def rung(self, ladder: Ladder, rung: Rung, progress: Progress | None) -> None:
        """Show where on its ladder the self-test is, and `progress` while the load runs."""
        testing = SelfTesting(rung.label, progress)
        self._change(testing, what="load", done=ladder.rungs.index(rung), total=len(ladder.rungs), left=None)


def _words(result: Result) -> str:
    """Return a cell's figures, `-` for what is not known."""
    rate, n = f"{live.number(result.tokens_per_s)} tokens/s", f"n={result.ttft_n:,}"
    if result.ttft_p50_s is None:
        return f"{rate}, TTFT p50 - ({n}, needs {LEAST_FOR_MEDIAN})"
    return f"{rate}, TTFT p50 {live.time_text(result.ttft_p50_s)} ({n})"
