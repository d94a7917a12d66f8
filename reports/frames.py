"""A run as pandas frames: what was planned, what became of it, and each cell's values.

Reads a results directory through tables; computes on reading, stores nothing, draws nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from harness import store
from harness.contracts import Load, LoadSummary, PlannedCell, PlannedStart
from harness.store import CellRecord, RunRecord, StartRecord
from reports import tables
from reports.metrics import METRICS, Value, is_percentile, mean_value, percentile_values, why_no_mean


@dataclass(frozen=True)
class Cell:
    """A planned cell and its record, if it has one. `status`: completed, failed, interrupted, in flight
    (begun, with no record), or not measured."""

    number: int
    planned: PlannedCell
    start: PlannedStart
    record: CellRecord | None
    status: str
    load_label: str
    reason: str | None

    @property
    def label(self) -> str:
        return self.start.deployment.label

    @property
    def validity(self) -> str:
        return self.record.validity if self.record else "valid"

    @property
    def summary(self) -> LoadSummary | None:
        return self.record.summary if self.record else None

    @property
    def window_s(self) -> float | None:
        """Length of its window; None without one."""
        if self.summary is None or self.summary.window_end_ns <= self.summary.window_start_ns:
            return None
        return (self.summary.window_end_ns - self.summary.window_start_ns) / 1e9

    @property
    def client_cores(self) -> float | None:
        """Cores that its load process kept busy, on average, at most: its CPU time includes its start-up."""
        if self.summary is None or self.summary.ended_ns <= self.summary.started_ns:
            return None
        return self.summary.cpu_s / ((self.summary.ended_ns - self.summary.started_ns) / 1e9)

    @property
    def counts(self) -> bool:
        """Whether its values enter the statistics: completed, and not invalid."""
        return self.status == "completed" and self.validity != "invalid"

    @property
    def key(self) -> tuple[str, str, str]:
        """Deployment, scenario and load: what its repeats have in common."""
        return self.label, self.planned.scenario.label, self.load_label


@dataclass(frozen=True)
class Group:
    """The cells of one deployment, scenario and load: its repeats, in order."""

    deployment: str
    engine: str
    model: str
    quantization: str
    scenario: str
    load: str
    concurrency: int
    cells: tuple[Cell, ...]

    @property
    def counted(self) -> list[Cell]:
        return [cell for cell in self.cells if cell.counts]


@dataclass(frozen=True)
class Aggregate:
    """Starts' values of one metric: their mean, least and greatest, over k starts; n is the observations of
    those k together (of that many requests, where one gives several).

    A percentile is None unless every start that counts has it: a slow start is the one with few requests, and
    leaving it out would favour the fast ones. `why` says why there is no mean; None without a start.
    """

    mean: float | None
    low: float | None
    high: float | None
    k: int
    n: int
    values: tuple[float | None, ...]
    requests: int | None = None
    why: str | None = None


@dataclass(frozen=True)
class Run:
    """One results directory, read. The frames are computed when first asked for.

    `requests`, one row per request of every cell: `cell`, the columns of requests.parquet but chunk_ns,
    output_text and raw_response, and ttft_s, tpot_s, e2e_s, send_lag_s (seconds; NaN where undefined).
    `host` and `device`: samples as stored, with the column `start`; None where there are none.
    """

    path: Path
    record: RunRecord
    start_records: tuple[StartRecord, ...]
    planned_cells: tuple[Cell, ...]

    @cached_property
    def requests(self) -> pd.DataFrame:
        return tables.requests_frame(self.path, [cell.number for cell in self.planned_cells if cell.record])

    @cached_property
    def host(self) -> pd.DataFrame | None:
        return tables.samples_frame(self.path, self._start_names, "host.parquet")

    @cached_property
    def device(self) -> pd.DataFrame | None:
        return tables.samples_frame(self.path, self._start_names, "device.parquet")

    @property
    def _start_names(self) -> list[str]:
        return [record.name for record in self.start_records]

    @cached_property
    def cells(self) -> pd.DataFrame:
        """One row per planned cell: number, start, deployment, engine, model, quantization, repeat, scenario,
        load, concurrency, status, validity, reason, window_s, and one column per value (`ttft_s.p50`)."""
        return pd.DataFrame([_cell_row(self, cell) for cell in self.planned_cells])

    @cached_property
    def starts(self) -> pd.DataFrame:
        """One row per start that was begun: name, index, deployment, repeat, status, error, launch_s,
        memory_kind, memory_peak_bytes (of its whole life), baseline_bytes, after_bytes."""
        return pd.DataFrame([_start_row(self, record) for record in self.start_records])

    @cached_property
    def values(self) -> dict[int, dict[str, Value]]:
        """Each completed cell's values by name."""
        return {c.number: _cell_values(self, c) for c in self.planned_cells if c.status == "completed"}

    @cached_property
    def groups(self) -> tuple[Group, ...]:
        """Deployments in the plan's order, and their loads within."""
        by_key: dict[tuple[str, str, str], list[Cell]] = {}
        for cell in self.planned_cells:
            by_key.setdefault(cell.key, []).append(cell)
        order = list(dict.fromkeys(key[0] for key in by_key))
        groups = [_group(cells) for cells in by_key.values()]
        return tuple(sorted(groups, key=lambda g: (g.scenario, order.index(g.deployment), g.concurrency)))

    def gaps(self, number: int) -> tables.Gaps:
        """Gaps between content chunks of a cell's ok requests in the window; read each time."""
        return tables.chunk_gaps(self.path, number)

    def observations(self, number: int, name: str) -> np.ndarray:
        """A cell's observations of a latency (`ttft_s`, `itl_s` ...): its ok requests in the window."""
        if name == "itl_s":
            return self.gaps(number).seconds
        kept = self.window_requests(number)
        return _known(kept.loc[kept["outcome"] == "ok", name])

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
        """The samples (`host` or `device`) of the cell's start that were taken in its window."""
        if frame is None or cell.record is None or cell.summary is None:
            return pd.DataFrame()
        begin_ns, end_ns = cell.summary.window_start_ns, cell.summary.window_end_ns
        inside = (frame["t_ns"] >= begin_ns) & (frame["t_ns"] < end_ns)
        return frame[inside & (frame["start"] == cell.record.start)]

    def window_requests(self, number: int) -> pd.DataFrame:
        """A cell's requests that were sent in its window, whatever became of them."""
        return self._by_cell.get(number, self.requests.iloc[:0])

    @cached_property
    def _by_cell(self) -> dict[int, pd.DataFrame]:
        inside = self.requests[self.requests["in_window"].fillna(False).astype(bool)]
        return {int(str(number)): frame for number, frame in inside.groupby("cell")}

    def aggregate(self, group: Group, name: str) -> Aggregate:
        """The value of a name over the group's starts that count."""
        found = [self.values[cell.number].get(name, Value(None, 0)) for cell in group.counted]
        values = tuple(value.value for value in found)
        used = [value for value in found if value.value is not None]
        if not used or (is_percentile(name) and len(used) < len(found)):
            why = why_no_mean(name, found) if found else None
            return Aggregate(None, None, None, 0, 0, values, why=why)
        known = [value for value in values if value is not None]
        requests = [value.requests for value in used if value.requests is not None]
        return Aggregate(
            mean=sum(known) / len(known),
            low=min(known),
            high=max(known),
            k=len(used),
            n=sum(value.n for value in used),
            values=values,
            requests=sum(requests) if requests else None,
        )

    def start_of(self, cell: Cell) -> StartRecord | None:
        """The record of the start that the cell was or would be measured on."""
        name = cell.record.start if cell.record else cell.start.name
        return next((record for record in self.start_records if record.name == name), None)


def open_run(run_dir: Path) -> Run:
    """Read a results directory that `bench run` made. Raises StoreError where it cannot be read."""
    record = store.read_run(run_dir)
    starts = tuple(store.read_starts(run_dir))
    records = {cell.number: cell for cell in store.read_cells(run_dir)}
    planned = [(start, cell) for start in record.plan.starts for cell in start.cells]
    labels = load_labels([cell.load for _, cell in planned])
    cells = []
    for start, cell in planned:
        found = records.get(cell.number)
        status, reason = _status(run_dir, start, cell, found, starts)
        cells.append(Cell(cell.number, cell, start, found, status, labels[cell.load], reason))
    return Run(run_dir, record, starts, tuple(sorted(cells, key=lambda c: c.number)))


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


def load_labels(loads: Sequence[Load]) -> dict[Load, str]:
    """A name per load: the users, and whatever else differs between loads with the same users."""
    labels = {}
    for load in dict.fromkeys(loads):
        rivals = [other for other in loads if other.concurrency == load.concurrency and other != load]
        parts = [f"{load.concurrency} user" + ("s" if load.concurrency != 1 else "")]
        for name in (f.name for f in fields(load)):
            if any(getattr(other, name) != getattr(load, name) for other in rivals):
                parts.append(f"{name} {getattr(load, name)}")
        labels[load] = ", ".join(parts)
    return labels


def _group(cells: Sequence[Cell]) -> Group:
    first = cells[0]
    deployment = first.start.deployment
    return Group(
        deployment=deployment.label,
        engine=deployment.engine,
        model=deployment.model,
        quantization=deployment.quantization,
        scenario=first.planned.scenario.label,
        load=first.load_label,
        concurrency=first.planned.load.concurrency,
        cells=tuple(sorted(cells, key=lambda cell: cell.planned.repeat)),
    )


def _known(series: pd.Series[Any]) -> np.ndarray:
    values = series.astype("Float64").to_numpy(dtype=float, na_value=np.nan)
    return np.asarray(values[~np.isnan(values)])


def _cell_values(run: Run, cell: Cell) -> dict[str, Value]:
    values: dict[str, Value] = {}
    for metric in METRICS:
        if metric.name == "itl_s":
            gaps = run.gaps(cell.number)
            values |= percentile_values(metric.name, gaps.seconds, gaps.requests)
        elif metric.is_distribution:
            values |= percentile_values(metric.name, run.observations(cell.number, metric.name))
    sent = run.window_requests(cell.number)
    ok = sent[sent["outcome"] == "ok"]
    for name in ("input_tokens", "output_tokens", "cached_tokens"):
        values[name] = mean_value(_known(ok[name]))
    values["success_share"] = Value(len(ok) / len(sent) if len(sent) else None, len(sent))
    values |= _rates(run, cell)
    start = run.start_of(cell)
    launch_s = start.launch_s if start else None
    values["launch_s"] = Value(launch_s, int(launch_s is not None))
    values["memory_peak_bytes"] = _peak_in(run, cell)
    return values


def _rates(run: Run, cell: Cell) -> dict[str, Value]:
    summary, window_s = cell.summary, cell.window_s
    if summary is None or window_s is None:
        return {"output_tokens_per_s": Value(None, 0), "requests_per_s": Value(None, 0)}
    begin_ns, end_ns = summary.window_start_ns, summary.window_end_ns
    frame = run.requests
    ok = frame[(frame["cell"] == cell.number) & (frame["outcome"] == "ok")]
    ended = int(((ok["end_ns"] >= begin_ns) & (ok["end_ns"] < end_ns)).sum())
    tokens = tables.tokens_arrived(run.path, cell.number, begin_ns, end_ns)
    return {
        "output_tokens_per_s": Value(None if tokens is None else tokens / window_s, ended),
        "requests_per_s": Value(ended / window_s, ended),
    }


def _peak_in(run: Run, cell: Cell) -> Value:
    summary, start = cell.summary, run.start_of(cell)
    if summary is None or start is None:
        return Value(None, 0)
    memory = memory_over_time(run, start)
    inside = memory.size_bytes[(memory.t_ns >= summary.started_ns) & (memory.t_ns <= summary.ended_ns)]
    return Value(float(inside.max()) if len(inside) else None, len(inside))


@dataclass(frozen=True)
class Memory:
    """A server's memory over time: known samples only. `what` says in words whose memory it is."""

    what: str
    t_ns: np.ndarray
    size_bytes: np.ndarray

    @property
    def peak(self) -> int:
        """Index of the highest sample."""
        return int(self.size_bytes.argmax())


def memory_over_time(run: Run, start: StartRecord) -> Memory:
    """A start's memory, empty where nothing was sampled.

    On a device, the server's own memory where NVML ever attributes it (samples without are left out), else
    all memory in use.
    """
    if start.memory_kind == "host":
        what, column, frame = "host memory (RSS of the server's process tree)", "rss_bytes", run.host
    else:
        what, column, frame = "device memory of the server's processes", "process_bytes", run.device
    if frame is None:
        return Memory(what, np.empty(0), np.empty(0))
    own = frame[frame["start"] == start.name]
    if start.memory_kind != "host" and not len(_known(own["process_bytes"])):
        what, column = "device memory in use (all processes)", "used_bytes"
    # A server on several devices: the devices' samples of one reading are added.
    reading = own.groupby("device").cumcount() if "device" in own else np.arange(len(own))
    kept = pd.DataFrame({"t_ns": own["t_ns"], "bytes": own[column], "reading": reading}).dropna()
    samples = kept.astype(float).groupby("reading").agg({"t_ns": "min", "bytes": "sum"})
    return Memory(what, samples["t_ns"].to_numpy(), samples["bytes"].to_numpy())


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
        "concurrency": cell.planned.load.concurrency,
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
    """Label, engine and quantization of each deployment, in the plan's order."""
    found = {start.deployment.label: start.deployment for start in run.record.plan.starts}
    for label, deployment in found.items():
        yield label, deployment.engine, deployment.quantization
