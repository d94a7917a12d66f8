"""A run as pandas frames: what was planned, what became of it, and each request and sample.

Reads a results directory through tables; computes on reading, stores nothing, draws nothing.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

import msgspec
import numpy as np
import pandas as pd

from harness.contracts import Deployment, SelfTest, ToldClaim, facts, masked_values, timing
from harness.errors import StoreError
from harness.store import store
from harness.store.store import NodeRecord, RunRecord, StartRecord
from reports.data.cells import Cell, Group, groups_of, load_labels
from reports.data.tables import floats, of_start, requests_frame, samples_frame, taken, with_columns

Function = TypeVar("Function", bound=Callable[..., Any])
SampleKind = Literal["host", "device", "server"]
# Why nothing is tested or known of a server that was not started here.
NOT_RESTARTED = "the server was running already, so its repeats are blocks on one start"


def once(function: Function) -> Function:
    """Decorate a function of a run, and of its cells, groups, start records or names, given by their places:
    what it gave is kept with the run, and is not to be changed."""

    @functools.wraps(function)
    def known(run: Run, /, *given: Any) -> Any:
        place = (function, *map(_key, given))
        if place not in run.found_once:
            run.found_once[place] = function(run, *given)
        return run.found_once[place]

    return cast(Function, known)


def _key(given: Any) -> Hashable:
    if isinstance(given, Cell | Group):
        return given.key if isinstance(given, Group) else given.number
    return given.name if isinstance(given, StartRecord) else cast(Hashable, given)


@dataclass(frozen=True)
class Run:
    """One results directory, read. The frames are computed when first asked for. `asked_alone`: starts on
    which nothing was measured, that were asked for quality. `claim`: what it was judged by last.

    `requests`, one row per request of every cell: `cell`, the columns of requests.parquet but chunk_ns and
    the texts, and ttft_s, tpot_s, e2e_s, send_lag_s (seconds; NaN where undefined), and `stays`: whether its
    user stays until the answer has ended, or leaves before.
    `host`, `device` and `server`: samples as stored, with the column `start`; None where there are none. The
    frames have every value that was measured, `aggregate` those that may stand side by side.
    """

    path: Path
    record: RunRecord
    start_records: tuple[StartRecord, ...]
    planned_cells: tuple[Cell, ...]
    asked_alone: tuple[StartRecord, ...] = ()
    claim: ToldClaim | None = None

    @cached_property
    def requests(self) -> pd.DataFrame:
        # Other tools count from the sending, and not all say when a request was due.
        origins = {
            cell.number: "sent_ns" if self.record.foreign else timing.origin_of(cell.load)
            for cell in self.planned_cells
            if cell.record
        }
        return requests_frame(self.path, origins)

    @cached_property
    def host(self) -> pd.DataFrame | None:
        return self._samples("host.parquet")

    @cached_property
    def device(self) -> pd.DataFrame | None:
        return self._samples("device.parquet")

    @cached_property
    def server(self) -> pd.DataFrame | None:
        return self._samples("server.parquet")

    def _samples(self, file_name: str) -> pd.DataFrame | None:
        return samples_frame(self.path, [record.name for record in self.start_records], file_name)

    @cached_property
    def is_going_on(self) -> bool:
        """True while a bench measures it; what follows is of the cells that there are."""
        return store.is_going_on(self.path, self.record.status)

    @property
    def foreign(self) -> str | None:
        """Return `measured by AIPerf 0.13.0, not by bench`; None of what bench measured. Such a run gets no
        verdict."""
        return self.record.foreign.words if self.record.foreign else None

    @property
    def why_untested(self) -> str | None:
        """Why nothing of it is tested or compared by a verdict: another tool measured it, or its server was
        not restarted. None where it may be."""
        is_restarted = all(map(self.is_restarted, self.deployments))
        return self.foreign or (None if is_restarted else NOT_RESTARTED)

    @cached_property
    def found_once(self) -> dict[Hashable, Any]:
        """Results of functions under `once`."""
        return {}

    @cached_property
    def groups(self) -> tuple[Group, ...]:
        """Deployments in the order asked for, and their loads within."""
        return groups_of(self.planned_cells, list(self.deployments), self.record.settings)

    @cached_property
    def has_scenarios(self) -> bool:
        """Whether it has several scenarios, so that each is named where groups stand."""
        return len({group.scenario for group in self.groups}) > 1

    @cached_property
    def deployments(self) -> dict[str, Deployment]:
        """Deployments by label, in the order asked for; starts are in another."""
        return self.record.plan.deployments

    @cached_property
    def repeats(self) -> int:
        return len({cell.planned.repeat for cell in self.planned_cells})

    @cached_property
    def selftest(self) -> SelfTest | None:
        """The error that bench had measured of itself on this machine; None where it had not."""
        try:
            return msgspec.convert(self.record.environment.get("selftest"), SelfTest | None)
        except msgspec.ValidationError as error:
            raise StoreError(f"{self.path / 'run.json'}: damaged (environment.selftest: {error})") from error

    @cached_property
    def _clocks_ns(self) -> dict[int, int]:
        """Return by repeat how far the wall's clock was ahead of CLOCK_MONOTONIC on the machine of a node."""
        return {
            repeat: _clock_ns(node, "realtime_ns") - _clock_ns(node, "monotonic_ns")
            for node in self.record.nodes
            for repeat in node.repeats
        }

    # --- starts ---

    def began_ns(self, record: StartRecord) -> int | None:
        """Return when a start was spawned; of a merged run by the wall's clock, since its machines share no
        other."""
        return (
            None if record.spawned_ns is None else record.spawned_ns + self._clocks_ns.get(record.repeat, 0)
        )

    @once
    def starts_of(self, label: str) -> list[StartRecord]:
        return [record for record in self.start_records if record.deployment.label == label]

    @once
    def start_of(self, cell: Cell) -> StartRecord | None:
        """Return the record of the start that the cell was or would be measured on."""
        name = cell.record.start if cell.record else cell.start.name
        return next((record for record in self.start_records if record.name == name), None)

    def counted_on(self, record: StartRecord) -> list[Cell]:
        return [cell for cell in self.planned_cells if cell.counts and self.start_of(cell) is record]

    def is_restarted(self, label: str) -> bool:
        """Return whether each repeat of a deployment had a server of its own, none that was running
        already."""
        return not any(record.attached for record in self.starts_of(label))

    @once
    def start_samples(self, kind: SampleKind, start: str) -> pd.DataFrame:
        """Return the samples of the start of this name; no columns where the run has none of that kind."""
        frame = {"host": self.host, "device": self.device, "server": self.server}[kind]
        return pd.DataFrame() if frame is None else of_start(frame, start)

    @once
    def window_samples(self, kind: SampleKind, cell: Cell) -> pd.DataFrame:
        """Return the samples of the cell's start that were taken in its window."""
        if cell.record is None or cell.window_ns is None:
            return pd.DataFrame()
        own, (begin_ns, end_ns) = self.start_samples(kind, cell.record.start), cell.window_ns
        if "t_ns" not in own:
            return own
        t_ns = own["t_ns"].to_numpy(dtype=np.int64)
        return taken(own, (t_ns >= begin_ns) & (t_ns < end_ns))

    def window_values(self, kind: SampleKind, cell: Cell, name: str) -> np.ndarray:
        """Return a column of `window_samples`, NaN where one is not known; all NaN where the run has no such
        column."""
        own = self.window_samples(kind, cell)
        return floats(own[name]) if name in own else np.full(len(own), np.nan)

    # --- requests ---

    @once
    def _rows(self, number: int) -> slice:
        numbers = self.requests["cell"].to_numpy(dtype=np.int64)
        return slice(*np.searchsorted(numbers, [number, number + 1]))

    @once
    def _column(self, name: str) -> Any:
        return self.requests[name].array

    @once
    def _holds(self, name: str, value: str | bool) -> np.ndarray:
        return np.asarray((self.requests[name] == value).to_numpy(dtype=bool, na_value=False))

    # Frames of a few hundred rows cost more to cut than to read: what is asked of every cell comes as arrays.

    def values(self, number: int, name: str) -> np.ndarray:
        """Return a column of numbers of all of a cell's requests, NaN where one is not known."""
        return floats(self._column(name)[self._rows(number)])

    def holds(self, number: int, name: str, value: str | bool) -> np.ndarray:
        """Return of each of a cell's requests whether a column has this value; not where it is not known."""
        return np.asarray(self._holds(name, value)[self._rows(number)])

    @once
    def is_counted(self, number: int) -> np.ndarray:
        """Return of each of a cell's requests whether it counts: it was sent in the window, by a user who
        stays. See `window_requests`."""
        return np.asarray(self.holds(number, "in_window", True) & self.holds(number, "stays", True))

    @once
    def is_ok(self, number: int) -> np.ndarray:
        """Return of each of a cell's requests whether it counts and is ok."""
        return np.asarray(self.is_counted(number) & self.holds(number, "outcome", "ok"))

    @once
    def cell_requests(self, number: int) -> pd.DataFrame:
        return self.requests.iloc[self._rows(number)]

    @once
    def window_requests(self, number: int) -> pd.DataFrame:
        """Return a cell's requests that were sent in its window, whatever became of them; but none that its
        user would leave: which of those are answered sooner depends on the engine."""
        return taken(self.cell_requests(number), self.is_counted(number))

    def requests_with(self, number: int, *columns: str) -> pd.DataFrame:
        """Return all of a cell's requests with columns that `requests` leaves out, read for this call."""
        return with_columns(self.path, number, self.cell_requests(number), columns)

    def ok_requests_with(self, number: int, *columns: str) -> pd.DataFrame:
        """Return the window's ok requests, with these columns."""
        return taken(self.requests_with(number, *columns), self.is_ok(number))

    @property
    def failed_requests(self) -> pd.DataFrame:
        return self.requests[~self.requests["outcome"].isin(("ok", "left"))]

    def ok_requests(self, number: int, *columns: str) -> pd.DataFrame:
        """Return these columns of a cell's requests that count and are ok."""
        return taken(self.cell_requests(number)[list(columns)], self.is_ok(number))

    def holds_ok(self, number: int, name: str, value: str) -> np.ndarray:
        """Return of each of a cell's ok requests whether a column has this value."""
        return np.asarray(self.holds(number, name, value)[self.is_ok(number)])

    def ok_values(self, number: int, name: str) -> np.ndarray:
        """Return a column of numbers of a cell's ok requests, NaN where one is not known."""
        return np.asarray(self.values(number, name)[self.is_ok(number)])

    @once
    def observations(self, number: int, name: str) -> np.ndarray:
        """Return a cell's observations of a latency (`ttft_s` ...): its ok requests in the window. Not to be
        written to. Gaps between chunks are counted instead (Measured.gaps)."""
        values = self.ok_values(number, name)
        known: np.ndarray = values[~np.isnan(values)]
        known.flags.writeable = False
        return known


def sent_in_window(requests: pd.DataFrame) -> pd.DataFrame:
    """Return those of a cell's requests that count: sent in its window, by users who stay."""
    return taken(requests, (requests["in_window"] & requests["stays"]).to_numpy(dtype=bool, na_value=False))


# --- records ---------------------------------------------------------------------------------------


def open_run(run_dir: Path) -> Run:
    """Read a results directory that `bench run` made, without the secrets that a server's texts may have.

    Raises StoreError where it cannot be read.
    """
    record: RunRecord = without_secrets(store.read_run(run_dir))
    starts: tuple[StartRecord, ...] = tuple(map(without_secrets, store.read_starts(run_dir)))
    for found in starts:
        if found.deployment.label not in record.plan.deployments:
            raise StoreError(f"{run_dir}: damaged: its plan has no {found.deployment.label} ({found.name})")
    records = {each.number: without_secrets(each) for each in store.read_cells(run_dir)}
    for number, each in records.items():
        requests = store.cell_dir(run_dir, number) / "requests.parquet"
        if each.status == "completed" and not requests.is_file():
            raise StoreError(f"{requests}: damaged: no regular file there")
        if each.status == "completed" and all(found.name != each.start for found in starts):
            raise StoreError(f"{run_dir}/starts/{each.start}/start.json: damaged: no regular file there")
    planned = [(start, cell) for start in record.plan.starts for cell in start.cells]
    labels = load_labels([cell.load for _, cell in planned])
    errors = {found.name: found.error for found in starts}
    begun = {phase.name.partition(" warm-up")[0] for found in starts for phase in found.phases}
    is_going_on = store.is_going_on(run_dir, record.status)
    cells = []
    for start, cell in planned:
        own, status, reason = records.get(cell.number), "not measured", errors.get(start.name)
        if own is not None:
            status, reason = own.status, own.error or "; ".join(own.reasons) or None
        elif store.cell_dir(run_dir, cell.number).exists():
            status, reason = "in flight", None if is_going_on else "the run ended while it was being measured"
        elif not reason:
            ended = (
                "interrupted: the run ended before it"
                if start.name in errors
                else "its server was not started"
            )
            lost = f"its folder cells/{cell.number:03d} is missing, though it was begun"
            reason = "not yet" if is_going_on else lost if f"cell {cell.number:03d}" in begun else ended
        cells.append(Cell(cell.number, cell, start, own, status, labels[cell.load], reason))
    alone = tuple(start for start in starts if start.is_for_quality)
    measured = tuple(start for start in starts if not start.is_for_quality)
    claim = store.read_claim(run_dir)
    claim = claim and without_secrets(claim)
    return Run(run_dir, record, measured, tuple(sorted(cells, key=lambda each: each.number)), alone, claim)


def _clock_ns(node: NodeRecord, name: str) -> int:
    return int(facts.number(facts.at(node.environment, "clock", name)) or 0)


def without_secrets(record: Any) -> Any:
    """Return a record of the same type. Many fields embed a server's text (an error, a log's end), so all are
    masked."""
    return msgspec.convert(masked_values(msgspec.to_builtins(record)), type(record))
