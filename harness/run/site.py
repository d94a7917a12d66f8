"""What every step of a run is given: where it takes place, and who is told of it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from harness.contracts import PlannedCell, PlannedStart
from harness.install.provision import Provisions
from harness.load.pulse import Progress
from harness.run.watch import Now
from harness.sampling.guard import Guard
from harness.store.request_table import Result
from harness.store.store import CellRecord


class Observer(Protocol):
    """Who shows a run. All calls come from the thread that runs it, but for `start_stage`."""

    def line(self, text: str) -> None: ...
    def grow(self, block: Sequence[PlannedStart], why: str) -> None: ...
    def start_begins(self, start: PlannedStart) -> None: ...
    def start_held(self, start: PlannedStart, unfit: str) -> None: ...
    def start_launches(self, start: PlannedStart) -> None: ...
    def start_stage(self, start: PlannedStart, stage: str) -> None: ...
    def start_ready(self, start: PlannedStart, launch_s: float | None) -> None: ...
    def start_failed(self, start: PlannedStart, error: str) -> None: ...
    def cell_waits(self, start: PlannedStart, cell: PlannedCell, unfit: str) -> None: ...
    def cell_begins(self, start: PlannedStart, cell: PlannedCell) -> None: ...
    def cell_progress(self, cell: PlannedCell, progress: Progress, now: Now) -> None: ...
    def cell_ends(self, start: PlannedStart, record: CellRecord, result: Result) -> None: ...


@dataclass(frozen=True)
class Site:
    """Where a run takes place: its directory, bench's cache directory, device indices, what is installed, and
    who looks whether the machine is fit."""

    run_dir: Path
    cache_dir: Path
    devices: tuple[int, ...]
    guard: Guard
    observer: Observer
    provisions: Provisions = field(default_factory=Provisions)

    @property
    def state_dir(self) -> Path:
        """Records of what runs, shared by all runs."""
        return self.cache_dir / "running"
