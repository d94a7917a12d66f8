"""A run as pandas frames: what was planned, what became of it, and each cell's values.

Reads a results directory through tables; computes on reading, stores nothing, draws nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pandas as pd

from harness import store
from harness.contracts import Deployment, PlannedCell, PlannedStart, SelfTest, masked_values
from harness.errors import StoreError
from harness.store import CellRecord, RunRecord, StartRecord
from reports import equal_work, intervals, tables, values
from reports.cells import Aggregate, Cell, Group, groups_of, load_labels
from reports.comparisons import Comparisons, comparisons_of
from reports.equal_work import Work
from reports.memory_samples import memory_over_time
from reports.metrics import Value, is_percentile, metric_of, value_of_start, why_no_mean
from reports.values import Measured

if TYPE_CHECKING:
    from reports.checks.finding import Finding
    from reports.searches import Capacity


@dataclass(frozen=True)
class Run:
    """One results directory, read. The frames are computed when first asked for.

    `requests`, one row per request of every cell: `cell`, the columns of requests.parquet but chunk_ns and
    the texts, and ttft_s, tpot_s, e2e_s, send_lag_s (seconds; NaN where undefined).
    `host`, `device` and `server`: samples as stored, with the column `start`; None where there are none. The
    frames have every value that was measured, `aggregate` those that may stand side by side.
    """

    path: Path
    record: RunRecord
    start_records: tuple[StartRecord, ...]
    planned_cells: tuple[Cell, ...]

    @cached_property
    def requests(self) -> pd.DataFrame:
        origins = {cell.number: cell.origin for cell in self.planned_cells if cell.record}
        return tables.requests_frame(self.path, origins)

    @cached_property
    def host(self) -> pd.DataFrame | None:
        return tables.samples_frame(self.path, self._start_names, "host.parquet")

    @cached_property
    def device(self) -> pd.DataFrame | None:
        return tables.samples_frame(self.path, self._start_names, "device.parquet")

    @cached_property
    def server(self) -> pd.DataFrame | None:
        return tables.samples_frame(self.path, self._start_names, "server.parquet")

    @property
    def _start_names(self) -> list[str]:
        return [record.name for record in self.start_records]

    @cached_property
    def cells(self) -> pd.DataFrame:
        """One row per planned cell: number, start, deployment, engine, model, quantization, repeat, scenario,
        load, concurrency, rate_per_s, status, validity, reason, window_s, and a column per value
        (`ttft_s.p50`)."""
        return pd.DataFrame([_cell_row(self, cell) for cell in self.planned_cells])

    @cached_property
    def starts(self) -> pd.DataFrame:
        """One row per start that was begun: name, index, deployment, repeat, status, error, launch_s,
        memory_kind, memory_peak_bytes (of its whole life), baseline_bytes, after_bytes."""
        return pd.DataFrame([_start_row(self, record) for record in self.start_records])

    @cached_property
    def measured(self) -> dict[int, Measured]:
        """What each completed cell came to, by its number."""
        return {c.number: values.measured(self, c) for c in self.planned_cells if c.status == "completed"}

    @cached_property
    def values(self) -> dict[int, dict[str, Value]]:
        """Each completed cell's values by name."""
        return {number: found.values for number, found in self.measured.items()}

    @cached_property
    def groups(self) -> tuple[Group, ...]:
        """Deployments in the order asked for, and their loads within."""
        return groups_of(self.planned_cells, list(self.deployments))

    @cached_property
    def deployments(self) -> dict[str, Deployment]:
        """By label, in the order asked for; starts are in another."""
        return self.record.plan.deployments

    @cached_property
    def work(self) -> Work:
        """Which deployments did the same work."""
        return equal_work.work_of(self)

    @cached_property
    def comparisons(self) -> Comparisons:
        """What may be said of its deployments, two at a time."""
        return comparisons_of(self)

    @cached_property
    def capacities(self) -> list[Capacity]:
        """Of a search, what each deployment's starts came to."""
        from reports import searches  # it needs the checks' marks, so importing it above would be a circle

        return searches.capacities_of(self)

    @cached_property
    def examined(self) -> dict[str, tuple[Finding, ...]]:
        """What each check found, by what it looks for."""
        from reports import checks  # they read runs, so importing them above would be a circle

        return checks.examine(self)

    @cached_property
    def findings(self) -> tuple[Finding, ...]:
        """The reasons to distrust it."""
        return tuple(finding for found in self.examined.values() for finding in found)

    @cached_property
    def selftest(self) -> SelfTest | None:
        """What bench had measured of its own error on this machine; None where it had not."""
        recorded = self.record.environment.get("selftest")
        if recorded is None:
            return None
        try:
            return msgspec.convert(recorded, SelfTest)
        except msgspec.ValidationError as error:
            raise StoreError(f"{self.path / 'run.json'}: damaged (environment.selftest: {error})") from error

    def gaps(self, number: int) -> tables.Gaps:
        """Gaps between content chunks of a cell's ok requests in the window; read each time."""
        return tables.chunk_gaps(tables.read_chunks(self.path, number))

    def observations(self, number: int, name: str) -> np.ndarray:
        """A cell's observations of a latency (`ttft_s`, `itl_s` ...): its ok requests in the window."""
        if name == "itl_s":
            return self.gaps(number).seconds
        kept = self.window_requests(number)
        return values.known(kept.loc[kept["outcome"] == "ok", name])

    def by_turn(self, number: int, name: str) -> pd.DataFrame:
        """A cell's observations of a latency with the request and the turn (from 0) of each, in the columns
        `seconds`, `request` and `turn`."""
        if name == "itl_s":
            gaps = self.gaps(number)
            return pd.DataFrame({"seconds": gaps.seconds, "request": gaps.request, "turn": gaps.turn})
        kept = self.window_requests(number)
        ok = kept[(kept["outcome"] == "ok") & kept[name].notna()]
        seconds, turn = ok[name].to_numpy(dtype=float), ok["turn"].to_numpy(dtype=int)
        return pd.DataFrame({"seconds": seconds, "request": np.arange(len(ok)), "turn": turn})

    def window_samples(self, frame: pd.DataFrame | None, cell: Cell) -> pd.DataFrame:
        """The samples (`host`, `device` or `server`) of the cell's start that were taken in its window."""
        if frame is None or cell.record is None or cell.summary is None:
            return pd.DataFrame()
        begin_ns, end_ns = cell.summary.window_start_ns, cell.summary.window_end_ns
        inside = (frame["t_ns"] >= begin_ns) & (frame["t_ns"] < end_ns)
        return frame[inside & (frame["start"] == cell.record.start)]

    def window_requests(self, number: int) -> pd.DataFrame:
        """A cell's requests that were sent in its window, whatever became of them."""
        return self._in_windows.get(number, self.requests.iloc[:0])

    def cell_requests(self, number: int) -> pd.DataFrame:
        """All of a cell's requests."""
        return self._by_cell.get(number, self.requests.iloc[:0])

    @cached_property
    def _by_cell(self) -> dict[int, pd.DataFrame]:
        return {int(str(number)): frame for number, frame in self.requests.groupby("cell")}

    @cached_property
    def _in_windows(self) -> dict[int, pd.DataFrame]:
        inside = self.requests[self.requests["in_window"].fillna(False).astype(bool)]
        return {int(str(number)): frame for number, frame in inside.groupby("cell")}

    def aggregate(self, group: Group, name: str) -> Aggregate:
        """The value of a name over the group's starts that count; none where the group's answers have not the
        length that it needs."""
        if why := self.withheld(group.key, name):
            return Aggregate(None, None, None, 0, 0, (), why=why)
        found = list(self.by_start(group, name).values())
        by_start = tuple(value.value for value in found)
        used = [value for value in found if value.value is not None]
        if not used or (is_percentile(name) and len(used) < len(found)):
            why = why_no_mean(name, found) if found else None
            return Aggregate(None, None, None, 0, 0, by_start, why=why)
        known = [value for value in by_start if value is not None]
        requests = [value.requests for value in used if value.requests is not None]
        # A value of 0 has no logarithm: such means are as additive ones.
        is_log = not metric_of(name).is_additive and intervals.may_be_logged(known)
        estimate = intervals.of_values(known, is_log=is_log)
        return Aggregate(
            mean=estimate.shown,
            low=min(known),
            high=max(known),
            k=len(used),
            n=sum(value.n for value in used),
            values=by_start,
            requests=sum(requests) if requests else None,
            interval=estimate.interval() if len(known) > 1 else None,
            is_of_starts=self.is_restarted(group.deployment),
        )

    def by_start(self, group: Group, name: str) -> dict[int, Value]:
        """The value of a name of each start that counts, by its repeat: over all its windows at that load."""
        return {
            cells[0].planned.repeat: value_of_start(
                [self.values[cell.number].get(name, Value(None, 0)) for cell in cells]
            )
            for cells in group.counted_by_start
        }

    def is_restarted(self, label: str) -> bool:
        """Whether each repeat of a deployment had a server of its own; not one that was running already."""
        return not any(record.attached for record in self.starts_of(label))

    def withheld(self, key: tuple[str, str, str], name: str) -> str | None:
        """Why a value is not offered for the cells of this key (deployment, scenario, load); None: it is."""
        return self.work.per_token_only.get(key) if metric_of(name).needs_equal_lengths else None

    def starts_of(self, label: str) -> list[StartRecord]:
        """The records of a deployment's starts, in order."""
        return [record for record in self.start_records if record.deployment.label == label]

    def start_of(self, cell: Cell) -> StartRecord | None:
        """The record of the start that the cell was or would be measured on."""
        name = cell.record.start if cell.record else cell.start.name
        return next((record for record in self.start_records if record.name == name), None)


def open_run(run_dir: Path) -> Run:
    """Read a results directory that `bench run` made, without the secrets that a server's texts may have.

    Raises StoreError where it cannot be read.
    """
    record: RunRecord = _without_secrets(store.read_run(run_dir))
    starts: tuple[StartRecord, ...] = tuple(map(_without_secrets, store.read_starts(run_dir)))
    cell_records: list[CellRecord] = list(map(_without_secrets, store.read_cells(run_dir)))
    records = {cell.number: cell for cell in cell_records}
    planned = [(start, cell) for start in record.plan.starts for cell in start.cells]
    labels = load_labels([cell.load for _, cell in planned])
    cells = []
    for start, cell in planned:
        found = records.get(cell.number)
        status, reason = _status(run_dir, start, cell, found, starts)
        cells.append(Cell(cell.number, cell, start, found, status, labels[cell.load], reason))
    return Run(run_dir, record, starts, tuple(sorted(cells, key=lambda c: c.number)))


def _without_secrets(record: Any) -> Any:
    """A record of the same type. Many of its fields embed a server's text (an error, a reason, a log's end),
    so all are masked."""
    return msgspec.convert(masked_values(msgspec.to_builtins(record)), type(record))


def _status(
    run_dir: Path,
    start: PlannedStart,
    cell: PlannedCell,
    record: CellRecord | None,
    starts: Sequence[StartRecord],
) -> tuple[str, str | None]:
    if record is not None:
        return record.status, record.error or ("; ".join(record.reasons) or None)
    if store.cell_dir(run_dir, cell.number).exists():
        return "in flight", "the run ended while it was being measured"
    begun = next((found for found in starts if found.name == start.name), None)
    if begun is None:
        return "not measured", "its server was not started"
    return "not measured", begun.error or "the run ended before it"


def _cell_row(run: Run, cell: Cell) -> dict[str, Any]:
    deployment = cell.start.deployment
    return {
        "number": cell.number,
        "start": cell.record.start if cell.record else cell.start.name,
        "deployment": cell.label,
        "engine": deployment.engine,
        "model": deployment.model,
        "quantization": deployment.quantization,
        "repeat": cell.planned.repeat,
        "scenario": cell.planned.scenario.label,
        "load": cell.load_label,
        "concurrency": cell.load.concurrency if cell.load.kind == "closed" else None,
        "rate_per_s": cell.load.rate_per_s,
        "status": cell.status,
        "validity": cell.validity,
        "reason": cell.reason,
        "window_s": cell.window_s,
        **{name: value.value for name, value in run.values.get(cell.number, {}).items()},
    }


def _start_row(run: Run, record: StartRecord) -> dict[str, Any]:
    memory = memory_over_time(run, record)
    return {
        "name": record.name,
        "index": record.index,
        "deployment": record.deployment.label,
        "repeat": record.repeat,
        "status": record.status,
        "error": record.error,
        "launch_s": record.launch_s,
        "memory_kind": record.memory_kind,
        "memory_peak_bytes": memory.size_bytes.max() if len(memory.t_ns) else None,
        "baseline_bytes": record.baseline_bytes,
        "after_bytes": record.after_bytes,
    }


def deployments(run: Run) -> Iterator[tuple[str, str, str]]:
    """Label, engine and quantization of each deployment, in the order asked for."""
    for label, deployment in run.deployments.items():
        yield label, deployment.engine, deployment.quantization
