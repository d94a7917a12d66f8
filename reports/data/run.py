"""A run as records and pandas frames: what was planned, what was measured, and each request and sample.

Reads a results directory. Computes on reading, stores nothing, draws nothing.
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

from serving_bench.harness.contracts import (
    AlikeTest,
    Deployment,
    Fact,
    SelfTest,
    ToldClaim,
    because,
    facts,
    masked_values,
    timing,
)
from serving_bench.harness.errors import StoreError
from serving_bench.harness.store import store
from serving_bench.harness.store.files import builtins_of, record_of
from serving_bench.harness.store.store import NodeRecord, RunRecord, StartRecord
from serving_bench.reports.data.cells import Cell, Group, groups_of, load_labels
from serving_bench.reports.data.tables import (
    floats,
    of_start,
    requests_frame,
    samples_frame,
    taken,
    with_columns,
)

Function = TypeVar("Function", bound=Callable[..., Any])
Stored = TypeVar("Stored")
SampleKind = Literal["host", "device", "server"]
# Why nothing is tested on a server that bench did not start.
NOT_RESTARTED = because("not_restarted")


def once(function: Function) -> Function:
    """Keep a function's results with the run that is its first argument.

    Its other arguments are cells, groups, start records or names, passed by position. Callers must not change
    a result.
    """

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
    """One results directory. Its frames are read when first used.

    `asked_alone`: starts that were only asked for quality.

    `requests` has one row per request of every cell: `cell`, the columns of requests.parquet except chunk_ns
    and the texts, ttft_s, tpot_s, e2e_s and send_lag_s (seconds; NaN where undefined), and `stays`: whether
    its user waits for the whole answer. `host`, `device` and `server` are the stored samples with a column
    `start`; None if there are none. The frames have every value that was measured; use `aggregate` for values
    that may be compared.
    """

    path: Path
    record: RunRecord
    start_records: tuple[StartRecord, ...]
    planned_cells: tuple[Cell, ...]
    asked_alone: tuple[StartRecord, ...] = ()

    @cached_property
    def claim(self) -> ToldClaim | None:
        """The claim that it was last judged by."""
        claim = store.read_claim(self.path)
        return claim and cast(ToldClaim, without_secrets(claim))

    @cached_property
    def requests(self) -> pd.DataFrame:
        # Other tools count latency from the send, and not all record when a request was due.
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
        """Whether bench is still measuring it, so that more cells may follow."""
        return store.is_going_on(self.path, self.record.status)

    @cached_property
    def is_cut_short(self) -> bool:
        """Whether it was ended before all was measured, so that --resume measures more."""
        if self.foreign or self.is_going_on or self.record.status == "completed":
            return False
        may_grow = self.record.search or (self.record.until and not self.record.stopped_because)
        if race := self.record.plan.race:
            return race.may_go_on
        return bool(may_grow) or any(not cell.counts for cell in self.planned_cells)

    @property
    def foreign(self) -> Fact | None:
        """Which other tool measured it; None if bench did. A foreign run gets no verdict."""
        return because("foreign", tool=self.record.foreign.name) if self.record.foreign else None

    @property
    def why_untested(self) -> Fact | None:
        """Why it gets no test and no verdict: another tool measured it, or its server was not restarted. None
        if it may have them."""
        is_restarted = all(map(self.is_restarted, self.deployments))
        return self.foreign or (None if is_restarted else NOT_RESTARTED)

    @cached_property
    def found_once(self) -> dict[Hashable, Any]:
        """The results of functions decorated with `once`."""
        return {}

    @cached_property
    def groups(self) -> tuple[Group, ...]:
        """The groups: deployments in the order asked for, then their loads."""
        return groups_of(self.planned_cells, list(self.deployments), self.record.settings)

    @cached_property
    def has_scenarios(self) -> bool:
        """Whether it has several scenarios, so that a group's name needs its scenario."""
        return len({group.scenario for group in self.groups}) > 1

    @cached_property
    def deployments(self) -> dict[str, Deployment]:
        """The deployments by label, in the order asked for (not the order of the starts)."""
        return self.record.plan.deployments

    @cached_property
    def repeats(self) -> int:
        return len({cell.planned.repeat for cell in self.planned_cells})

    @cached_property
    def selftest(self) -> SelfTest | None:
        """The error of bench itself, from its self-test on this machine; None if there was none."""
        return self._of_environment("selftest", SelfTest)

    @cached_property
    def alike(self) -> AlikeTest | None:
        """How deployments that are the same differ on this machine; None if that was not measured."""
        return self._of_environment("alike", AlikeTest)

    def _of_environment(self, name: str, kind: type[Stored]) -> Stored | None:
        try:
            return msgspec.convert(self.record.environment.get(name), kind | None)
        except msgspec.ValidationError as error:
            raise StoreError(f"{self.path / 'run.json'}: damaged (environment.{name}: {error})") from error

    @cached_property
    def _clocks_ns(self) -> dict[int, int]:
        """The offset from CLOCK_MONOTONIC to the wall clock on a repeat's node, by repeat."""
        return {
            repeat: _clock_ns(node, "realtime_ns") - _clock_ns(node, "monotonic_ns")
            for node in self.record.nodes
            for repeat in node.repeats
        }

    # --- starts ---

    def began_ns(self, record: StartRecord) -> int | None:
        """Return when a start was spawned. In a merged run this is by the wall clock, the only one that its
        machines share."""
        return (
            None if record.spawned_ns is None else record.spawned_ns + self._clocks_ns.get(record.repeat, 0)
        )

    @once
    def starts_of(self, label: str) -> list[StartRecord]:
        return [record for record in self.start_records if record.deployment.label == label]

    @once
    def start_of(self, cell: Cell) -> StartRecord | None:
        """Return the record of the start that the cell belongs to; None if it was never started."""
        name = cell.record.start if cell.record else cell.start.name
        return next((record for record in self.start_records if record.name == name), None)

    def counted_on(self, record: StartRecord) -> list[Cell]:
        return [cell for cell in self.planned_cells if cell.counts and self.start_of(cell) is record]

    def is_restarted(self, label: str) -> bool:
        """Return whether bench started a new server for each repeat of a deployment."""
        return not any(record.attached for record in self.starts_of(label))

    @once
    def start_samples(self, kind: SampleKind, start: str) -> pd.DataFrame:
        """Return the samples of the start with this name; no columns if the run has none of that kind."""
        frame = {"host": self.host, "device": self.device, "server": self.server}[kind]
        return pd.DataFrame() if frame is None else of_start(frame, start)

    @once
    def window_samples(self, kind: SampleKind, cell: Cell) -> pd.DataFrame:
        """Return the samples taken in the cell's window."""
        if cell.record is None or cell.window_ns is None:
            return pd.DataFrame()
        samples, (begin_ns, end_ns) = self.start_samples(kind, cell.record.start), cell.window_ns
        if "t_ns" not in samples:
            return samples
        t_ns = samples["t_ns"].to_numpy(dtype=np.int64)
        return taken(samples, (t_ns >= begin_ns) & (t_ns < end_ns))

    def window_values(self, kind: SampleKind, cell: Cell, name: str) -> np.ndarray:
        """Return a column of `window_samples`. NaN is unknown; all are NaN if the run has no such column."""
        samples = self.window_samples(kind, cell)
        return floats(samples[name]) if name in samples else np.full(len(samples), np.nan)

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

    # Slicing a frame of a few hundred rows costs more than reading it, so what every cell needs are arrays.

    def values(self, number: int, name: str) -> np.ndarray:
        """Return a numeric column of all requests of a cell, NaN where unknown."""
        return floats(self._column(name)[self._rows(number)])

    def holds(self, number: int, name: str, value: str | bool) -> np.ndarray:
        """Return a mask over all requests of a cell: whether a column has this value. False where unknown."""
        return np.asarray(self._holds(name, value)[self._rows(number)])

    @once
    def is_counted(self, number: int) -> np.ndarray:
        """Return a mask over all requests of a cell: whether it counts, that is, was sent in the window by a
        user who stays.

        Of those that their user would abandon only the ones that are answered in time would count, and which
        ones these are depends on the engine.
        """
        return np.asarray(self.holds(number, "in_window", True) & self.holds(number, "stays", True))

    @once
    def is_ok(self, number: int) -> np.ndarray:
        """Return a mask over all requests of a cell: whether it counts and is ok."""
        return np.asarray(self.is_counted(number) & self.holds(number, "outcome", "ok"))

    @once
    def cell_requests(self, number: int) -> pd.DataFrame:
        return self.requests.iloc[self._rows(number)]

    def requests_with(self, number: int, *columns: str) -> pd.DataFrame:
        """Return all requests of a cell with columns that `requests` leaves out. Reads the file each time."""
        return with_columns(self.path, number, self.cell_requests(number), columns)

    def ok_requests_with(self, number: int, *columns: str) -> pd.DataFrame:
        """Return a cell's requests that count and are ok, with columns that `requests` leaves out."""
        return taken(self.requests_with(number, *columns), self.is_ok(number))

    @property
    def failed_requests(self) -> pd.DataFrame:
        """All requests that were neither answered nor left by their user, in and out of windows."""
        return self.requests[~self.requests["outcome"].isin(("ok", "left"))]

    def ok_requests(self, number: int, *columns: str) -> pd.DataFrame:
        """Return these columns of a cell's requests that count and are ok."""
        return taken(self.cell_requests(number)[list(columns)], self.is_ok(number))

    def holds_ok(self, number: int, name: str, value: str) -> np.ndarray:
        """Return a mask over a cell's requests that count and are ok: whether the column has this value."""
        return np.asarray(self.holds(number, name, value)[self.is_ok(number)])

    def ok_values(self, number: int, name: str) -> np.ndarray:
        """Return a numeric column of a cell's requests that count and are ok, NaN where unknown."""
        return np.asarray(self.values(number, name)[self.is_ok(number)])

    @once
    def observations(self, number: int, name: str) -> np.ndarray:
        """Return the known values of a latency (`ttft_s` ...) over a cell's requests that count and are ok.

        The array is read-only. Gaps between chunks are not here; see Measured.gaps.
        """
        values = self.ok_values(number, name)
        present: np.ndarray = values[~np.isnan(values)]
        present.flags.writeable = False
        return present


def sent_in_window(requests: pd.DataFrame) -> pd.DataFrame:
    """Return the requests that count: sent in the window by users who stay."""
    return taken(requests, (requests["in_window"] & requests["stays"]).to_numpy(dtype=bool, na_value=False))


# --- records ---------------------------------------------------------------------------------------


def open_run(run_dir: Path) -> Run:
    """Read a results directory of `bench run`. Secrets in a server's texts are masked.

    Raises StoreError if it cannot be read.
    """
    record: RunRecord = without_secrets(store.read_run(run_dir))
    starts: tuple[StartRecord, ...] = tuple(map(without_secrets, store.read_starts(run_dir)))
    for start_record in starts:
        if start_record.deployment.label not in record.plan.deployments:
            raise StoreError(
                f"{run_dir}: damaged: its plan has no {start_record.deployment.label} ({start_record.name})"
            )
    records = {each.number: without_secrets(each) for each in store.read_cells(run_dir)}
    for number, each in records.items():
        requests = store.cell_dir(run_dir, number) / "requests.parquet"
        if each.status == "completed" and not requests.is_file():
            raise StoreError(f"{requests}: damaged: no regular file there")
        if each.status == "completed" and all(start_record.name != each.start for start_record in starts):
            raise StoreError(f"{run_dir}/starts/{each.start}/start.json: damaged: no regular file there")
    planned = [(start, cell) for start in record.plan.starts for cell in start.cells]
    labels = load_labels([cell.load for _, cell in planned])
    by_name = {start_record.name: start_record for start_record in starts}
    begun = {phase.name for start_record in starts for phase in start_record.phases}
    is_going_on = store.is_going_on(run_dir, record.status)
    cells = []
    for start, cell in planned:
        if cell_record := records.get(cell.number):
            status, reason = cell_record.status, cell_record.why
        elif store.cell_dir(run_dir, cell.number).exists():
            status, reason = "in flight", None if is_going_on else because("cut_off")
        else:
            is_begun = store.phase_of(cell.number, "warm-up") in begun
            why = _why_not_measured(cell.number, by_name.get(start.name), is_begun, is_going_on)
            status, reason = "not measured", why
        cells.append(Cell(cell.number, cell, start, cell_record, status, labels[cell.load], reason))
    alone = tuple(start for start in starts if start.is_for_quality)
    measured = tuple(start for start in starts if not start.is_for_quality)
    return Run(run_dir, record, measured, tuple(sorted(cells, key=lambda each: each.number)), alone)


def _why_not_measured(number: int, start: StartRecord | None, is_begun: bool, is_going_on: bool) -> Fact:
    """Return why a cell has neither a record nor a folder. `start`: the record of its start."""
    if start and start.error:
        return start.error
    if is_going_on:
        return because("not_yet")
    if is_begun:
        return because("folder_missing", number=number)
    return because("before_it" if start else "not_started")


def _clock_ns(node: NodeRecord, name: str) -> int:
    return int(facts.number(facts.at(node.environment, "clock", name)) or 0)


def without_secrets(record: Any) -> Any:
    """Return a record of the same type with secrets masked. Any text field may quote a server (an error, the
    end of a log)."""
    return record_of(masked_values(builtins_of(record)), type(record))
