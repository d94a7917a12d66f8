"""Shows a run in the terminal: a live line on a terminal, plain lines elsewhere, nothing with --quiet.

Everything goes to stderr; stdout is for results.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn

from harness import plan as planning
from harness.contracts import Plan, PlannedCell, PlannedStart
from harness.load.processes import Progress as LoadProgress

if TYPE_CHECKING:  # they import pyarrow and numpy, for which `bench fit` need not wait
    from harness.selftest import Ladder, Rung
    from harness.store import CellRecord


class Show:
    """A run's Observer (harness/run.py), and `line` for all else; a `with` block holds the live line."""

    def __init__(self, *, quiet: bool) -> None:
        self.quiet = quiet
        self.console = Console(stderr=True, quiet=quiet, highlight=False, soft_wrap=True)
        self._live = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            TextColumn("{task.fields[left]}"),
            console=self.console,
            disable=quiet or not self.console.is_terminal,
            transient=True,
            refresh_per_second=2,  # it is drawn while we measure, on the same machine
        )
        self._task = self._live.add_task("", total=None, left="", visible=False)
        self._cells = self._ended_cells = 0
        self._awaited_at: str | None = None
        self._said: str | None = None

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def line(self, text: str) -> None:
        self._said = None
        self.console.print(escape(text))

    def _failure(self, before: str, error: str, after: str = "") -> None:
        """The error, unless the line above ends with it: a server that dies fails its cells and its start."""
        said = "for the same reason" if error == self._said else error
        self.line(f"{before}: {said}{after}")
        self._said = None if after else error

    def begin(self, plan: Plan) -> None:
        """The starts of this plan are about to run: the bar spans their cells."""
        self._cells = sum(len(start.cells) for start in plan.starts)
        self._live.update(self._task, total=self._cells, visible=True)

    def grow(self, block: Sequence[PlannedStart], why: str) -> None:
        """These starts follow those before: the bar spans their cells, too."""
        self._cells += sum(len(start.cells) for start in block)
        self._live.update(self._task, total=self._cells)
        self.line(why)

    def begin_search(self) -> None:
        """Starts are about to be searched, of whose cells only the first are known: the bar has no end."""
        self._live.update(self._task, total=None, visible=True)

    def start_begins(self, start: PlannedStart) -> None:
        self._live.update(self._task, description=f"{escape(start.deployment.label)}: starting", left="")

    def start_held(self, start: PlannedStart, unfit: str) -> None:
        self.line(f"{start.name}: waiting for a fit machine, {unfit}")

    def start_waits(self, start: PlannedStart, age_s: float, problem: str) -> None:
        self.line(f"{start.name}: still starting after {age_s:.0f} s ({problem})")

    def start_ready(self, start: PlannedStart, launch_s: float | None) -> None:
        took = f" after {launch_s:.1f} s" if launch_s is not None else ""
        self.line(f"{start.name}: ready{took}")

    def start_failed(self, start: PlannedStart, error: str) -> None:
        self._failure(f"{start.name}: failed", error)

    def cell_waits(self, start: PlannedStart, cell: PlannedCell, unfit: str) -> None:
        self.line(f"  cell {cell.number:03d}: waiting for a fit machine, {unfit}")

    def cell_begins(self, start: PlannedStart, cell: PlannedCell) -> None:
        self._describe(start.deployment.label, cell, "")
        if cell.load.bind and cell.load.bind != self._awaited_at:
            self._awaited_at = cell.load.bind
            others = _counted(cell.load.workers, "load worker")
            port = cell.load.bind.rpartition(":")[2]
            command = f"`bench worker --master HOST:{port}`"
            self.line(f"waiting for {others}: start each with {command} (this machine)")

    def cell_progress(self, cell: PlannedCell, progress: LoadProgress) -> None:
        failed = f", {progress.failed} failed" if progress.failed else ""
        text = f"{progress.phase}: {progress.requests} requests{failed}, {progress.in_flight} in flight"
        expected_s = max(1.0, planning.load_s(cell.load, cell.scenario))
        share = min(1.0, progress.t_s / expected_s)
        self._live.update(self._task, completed=self._ended_cells + share, left=text)

    def rung(self, ladder: Ladder, rung: Rung, progress: LoadProgress | None) -> None:
        """Where on its ladder the self-test is; `progress` as the load runs."""
        left = f"{progress.phase}: {progress.requests} requests" if progress else "starting"
        done, total = ladder.rungs.index(rung), len(ladder.rungs)
        self._live.update(
            self._task, description=rung.label, completed=done, total=total, visible=True, left=left
        )

    def _describe(self, label: str, cell: PlannedCell, left: str) -> None:
        text = f"{escape(label)}, {cell.load.label}"
        self._live.update(self._task, description=text, left=left)

    def cell_ends(self, start: PlannedStart, record: CellRecord) -> None:
        self._ended_cells += 1
        self._live.update(self._task, completed=self._ended_cells, left="")
        count = _counted(record.summary.requests, "request") if record.summary else "no requests"
        doubt = f" ({record.validity}: {'; '.join(record.reasons)})" if record.reasons else ""
        cell = f"  cell {record.number:03d} {record.deployment}, {record.load.label}: {record.status}"
        if record.status == "completed" or record.error == record.status:
            self.line(f"{cell}, {count}{doubt}")
        else:
            self._failure(cell, record.error or "", doubt)


def _counted(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"
