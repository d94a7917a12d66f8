"""Define what every step of a run is given (Site, Observer), and watch one start: its samplers and phases."""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from serving_bench.harness.contracts import PlannedCell, PlannedStart, ServerMetric, ServerTerm, Standing
from serving_bench.harness.install.provisions import Provisions
from serving_bench.harness.load.pulse import Progress
from serving_bench.harness.quality.planned import Due
from serving_bench.harness.run.budget import Budget
from serving_bench.harness.sampling import guard, host
from serving_bench.harness.sampling.device_sample import DeviceReader
from serving_bench.harness.sampling.process_tree import ProcessTree
from serving_bench.harness.sampling.sampling import Sampling, total
from serving_bench.harness.servers import scrape
from serving_bench.harness.settings.units import size_text
from serving_bench.harness.store import store
from serving_bench.harness.store.request_table import Result

# Samples come at 10 Hz, those of the server's page at 1 Hz. An older one says nothing about now.
_FRESH_S = 5.0
_OUT_OF_SIGHT = "the server is out of sight: only the machine's memory is known"


class Observer(Protocol):
    """Shows a run. All calls come from the thread that runs it, except `start_stage`."""

    def line(self, text: str) -> None: ...
    def standing(self, standings: Sequence[Standing]) -> None: ...
    def grow(self, block: Sequence[PlannedStart], why: str) -> None: ...
    def cut(self, starts: Sequence[PlannedStart], why: str) -> None: ...
    def waits(self, what: str, unfit: str) -> None: ...
    def start_begins(self, start: PlannedStart) -> None: ...
    def start_stage(self, start: PlannedStart, stage: str) -> None: ...
    def start_ready(self, start: PlannedStart, launch_s: float | None) -> None: ...
    def start_failed(self, start: PlannedStart, error: str, cells: int) -> None: ...
    def cell_progress(self, cell: PlannedCell, progress: Progress, server: str) -> None: ...
    def cell_ends(self, start: PlannedStart, record: store.CellRecord, result: Result) -> None: ...


def planned_cell(start: PlannedStart, done: Sequence[store.CellRecord]) -> PlannedCell | None:
    return start.cells[len(done)] if len(done) < len(start.cells) else None


@dataclass(frozen=True)
class Site:
    """Where a run takes place, what is installed there, and what shows it."""

    run_dir: Path
    cache_dir: Path
    devices: tuple[int, ...]
    guard: guard.Guard
    observer: Observer
    provisions: Provisions = field(default_factory=Provisions)
    emptied: set[str] = field(default_factory=set)  # deployments whose prefix cache was shown to be emptied
    seen_leaving: set[str] = field(
        default_factory=set
    )  # deployments whose server was seen after clients left
    quality: Due | None = None
    # What a start measures next, given what it has measured. None: the start is done.
    next_cell: Callable[[PlannedStart, Sequence[store.CellRecord]], PlannedCell | None] = planned_cell
    budget: Budget | None = None  # without one a window lasts up to STEPS times load.duration

    @property
    def state_dir(self) -> Path:
        return self.cache_dir / "running"


@dataclass
class Watch:
    """The samplers of one start by name, and its phases. The samplers end with `stack`."""

    samplers: dict[str, Sampling[Any]]
    stack: ExitStack
    record: store.Kept[store.StartRecord]
    has_server: bool
    devices: int = 0
    phases: list[store.Phase] = field(default_factory=list)
    kept_until_ns: float = math.inf
    tree: ProcessTree = field(default_factory=lambda: ProcessTree(None))

    def mark(self, name: str, t_ns: int | None = None) -> None:
        """Note that a phase begins, at the past instant `t_ns` or now.

        If now, each sampler also reads what is too slow to read at each sample.
        """
        self.phases.append(store.Phase(name, time.monotonic_ns() if t_ns is None else t_ns))
        if t_ns is None:
            for sampler in list(self.samplers.values()):  # ask_server may add one meanwhile
                sampler.mark()

    def leave_out(self, name: str) -> None:
        """Mark a phase, from the beginning of which no sample is kept."""
        self.mark(name)
        self.kept_until_ns = self.phases[-1].t_ns

    def seen(self, since_ns: int, until_ns: int) -> guard.Seen:
        """Return the samples from `since_ns` to before `until_ns`. On a CPU there are no device rows."""
        host_rows, device_rows = (self._rows(name, since_ns, until_ns) for name in ("host", "device"))
        return guard.Seen(host_rows, device_rows, server=self.tree.ever)

    def _rows(self, name: str, since_ns: int, until_ns: int) -> list[Any]:
        rows = self.samplers[name].rows() if name in self.samplers else []
        return sorted((row for row in rows if since_ns <= row.t_ns < until_ns), key=lambda row: row.t_ns)

    def now(self) -> str:
        """Return what the newest samples say of the server, as text. Cheap however many samples there are."""
        page = self._newest("server")
        under_way = "running and waiting requests not known"
        if page and page[0].running is not None:
            waiting = "-" if page[0].waiting is None else f"{page[0].waiting:,.0f}"
            under_way = f"{page[0].running:,.0f} running, {waiting} waiting"
        size_bytes, whose = self._memory()
        memory = f"{size_text(size_bytes)} ({whose})" if size_bytes is not None else "not known"
        return f"{under_way}; memory {memory}"

    def _memory(self) -> tuple[int | None, str]:
        if not self.devices:
            rows = self._newest("host")
            return rows[0].rss_bytes if rows else None, "RSS of its processes"
        # A reading has one row for each device.
        rows = self._newest("device", self.devices)
        if len({row.device for row in rows}) < self.devices:
            return None, ""
        process_bytes = total(row.process_bytes for row in rows)
        whose = "its own" if process_bytes else "of all"
        return process_bytes or total(row.used_bytes for row in rows), f"on the device, {whose}"

    def _newest(self, name: str, count: int = 1) -> list[Any]:
        since_ns = time.monotonic_ns() - int(_FRESH_S * 1e9)
        rows = self.samplers[name].last(count) if name in self.samplers else []
        return rows if all(row.t_ns >= since_ns for row in rows) else []

    def ask_server(
        self, base_url: str, path: str, metrics: Mapping[ServerTerm, ServerMetric], key: str | None
    ) -> None:
        """Read a ready server's page at `path` once a second until the watch ends, if it has `metrics`."""
        if metrics:
            reader = scrape.PageReader(base_url, path, metrics, key=key)
            self.samplers["server"] = self.stack.enter_context(Sampling(reader, hz=1.0))

    def save(self) -> None:
        """Write {host,device,server}.parquet, and record the phases and the samplers' own cost."""
        timing: dict[str, Any] = {}
        notes = {} if self.has_server else {"memory": _OUT_OF_SIGHT}
        for name, sampler in self.samplers.items():
            kept = (row for row in sampler.rows() if row.t_ns <= self.kept_until_ns)
            rows = sorted(kept, key=lambda row: row.t_ns)
            store.write_samples(self.record.path.with_name(f"{name}.parquet"), rows)
            timing |= {f"{name}_{key}": value for key, value in sampler.timing().items()}
            # Why a value is missing, by sampler and field. Notes on a device already begin with "device".
            notes |= {
                missing if missing.startswith(f"{name} ") else f"{name} {missing}": reason
                for missing, reason in sampler.notes.items()
            }
            if sampler.error:
                notes[f"{name} sampler"] = sampler.error
        phases = tuple(sorted(self.phases, key=lambda phase: phase.t_ns))
        self.record.update(phases=phases, sampler=timing, memory_notes=notes)


@contextmanager
def watch_memory(
    pid: int | None, devices: Sequence[int], record: store.Kept[store.StartRecord]
) -> Iterator[Watch]:
    """Sample at 10 Hz during the block and save at its end. Without a pid only the machine is sampled."""
    tree = ProcessTree(pid)
    with ExitStack() as stack:
        samplers: dict[str, Sampling[Any]] = {"host": stack.enter_context(Sampling(host.HostReader(tree)))}
        if devices:
            samplers["device"] = stack.enter_context(Sampling(DeviceReader(devices, tree)))
        watch = Watch(samplers, stack, record, pid is not None, len(devices), tree=tree)
        try:
            yield watch
        finally:
            watch.save()
