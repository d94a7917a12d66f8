"""A run as pandas frames: what was planned, what became of it, and each cell's values.

Reads a results directory through tables; computes on reading, stores nothing, draws nothing.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar, cast

import msgspec
import numpy as np
import pandas as pd

from harness.contracts import Deployment, PlannedCell, PlannedStart, SelfTest, masked_values
from harness.errors import StoreError
from harness.store import store
from harness.store.store import CellRecord, RunRecord, StartRecord
from reports.data import tables
from reports.data.cells import Cell, Group, groups_of, load_labels
from reports.data.tables import floats


def runs_of(values: np.ndarray) -> Iterator[tuple[int, int]]:
    """Where each stretch of equal values begins and ends."""
    ends = np.flatnonzero(values[1:] != values[:-1]) + 1
    if len(values):
        yield from zip([0, *ends.tolist()], [*ends.tolist(), len(values)], strict=True)


def taken(frame: pd.DataFrame, mask: np.ndarray) -> pd.DataFrame:
    """The rows that a mask takes: a view where they are next to each other, else a copy."""
    count = int(np.count_nonzero(mask))
    if not count:
        return frame.iloc[:0]
    first = int(mask.argmax())
    if mask[first : first + count].all():
        return frame.iloc[first : first + count]
    return frame[mask]


def of_start(samples: pd.DataFrame, name: str) -> pd.DataFrame:
    """The samples of one start, from a frame of `tables.samples_frame`, whose starts follow each other."""
    column = samples["start"].array
    if not isinstance(column, pd.Categorical):
        return samples[samples["start"] == name]
    if name not in column.categories:
        return samples.iloc[:0]
    # Of the codes' own type, else all of them would be converted.
    code = np.asarray(column.categories.get_loc(name), dtype=column.codes.dtype)
    first, last = (int(np.searchsorted(column.codes, code, side)) for side in ("left", "right"))
    return samples.iloc[first:last]


def between(samples: pd.DataFrame, begin_ns: float, end_ns: float) -> pd.DataFrame:
    """The samples with begin_ns <= t_ns < end_ns."""
    t_ns = samples["t_ns"].to_numpy(dtype=np.int64)
    return taken(samples, (t_ns >= begin_ns) & (t_ns < end_ns))


Given = TypeVar("Given")
Found = TypeVar("Found")


def once(function: Callable[[Run], Found]) -> Callable[[Run], Found]:
    """For a function of a run alone."""

    @functools.wraps(function)
    def known(run: Run) -> Found:
        return _kept(run, function, lambda: function(run))

    return known


def once_for(
    key: Callable[[Given], Hashable],
) -> Callable[[Callable[[Run, Given], Found]], Callable[[Run, Given], Found]]:
    """For one of a run and of one thing more, which `key` tells from others of its kind."""

    def decorated(function: Callable[[Run, Given], Found]) -> Callable[[Run, Given], Found]:
        @functools.wraps(function)
        def known(run: Run, given: Given) -> Found:
            return _kept(run, (function, key(given)), lambda: function(run, given))

        return known

    return decorated


def itself(name: str) -> str:
    """The key of a text."""
    return name


def _kept(run: Run, place: Hashable, reckon: Callable[[], Found]) -> Found:
    if place not in run.found_once:
        run.found_once[place] = reckon()
    return cast(Found, run.found_once[place])


def read_records(run_dir: Path) -> tuple[RunRecord, tuple[StartRecord, ...], tuple[Cell, ...]]:
    """The run, its starts in order, and all planned cells by number, without the secrets that a server's
    texts may have.

    Raises StoreError where they cannot be read.
    """
    record: RunRecord = _without_secrets(store.read_run(run_dir))
    starts: tuple[StartRecord, ...] = tuple(map(_without_secrets, store.read_starts(run_dir)))
    cell_records: list[CellRecord] = list(map(_without_secrets, store.read_cells(run_dir)))
    _check_requests(run_dir, cell_records)
    is_going_on = store.is_going_on(run_dir, record.status)
    records = {cell.number: cell for cell in cell_records}
    planned = [(start, cell) for start in record.plan.starts for cell in start.cells]
    labels = load_labels([cell.load for _, cell in planned])
    cells = []
    for start, cell in planned:
        found = records.get(cell.number)
        status, reason = _status(run_dir, start, cell, found, starts, is_going_on=is_going_on)
        cells.append(Cell(cell.number, cell, start, found, status, labels[cell.load], reason))
    return record, starts, tuple(sorted(cells, key=lambda each: each.number))


def _without_secrets(record: Any) -> Any:
    """A record of the same type. Many of its fields embed a server's text (an error, a reason, a log's end),
    so all are masked."""
    return msgspec.convert(masked_values(msgspec.to_builtins(record)), type(record))


def _check_requests(run_dir: Path, records: Sequence[CellRecord]) -> None:
    """Raise StoreError where a completed cell has lost its requests: none would count as 0."""
    for record in records:
        folder = store.cell_dir(run_dir, record.number)
        if record.status == "completed" and not (folder / "requests.parquet").is_file():
            raise StoreError(f"{folder}: damaged: no requests.parquet")


def _status(
    run_dir: Path,
    start: PlannedStart,
    cell: PlannedCell,
    record: CellRecord | None,
    starts: Sequence[StartRecord],
    *,
    is_going_on: bool,
) -> tuple[str, str | None]:
    if record is not None:
        return record.status, record.error or ("; ".join(record.reasons) or None)
    if store.cell_dir(run_dir, cell.number).exists():
        return "in flight", None if is_going_on else "the run ended while it was being measured"
    begun = next((found for found in starts if found.name == start.name), None)
    if begun is None:
        return "not measured", "not yet" if is_going_on else "its server was not started"
    return "not measured", begun.error or ("not yet" if is_going_on else "the run ended before it")


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
    def is_going_on(self) -> bool:
        """Whether a bench measures it now; what follows is of the cells that there are."""
        return store.is_going_on(self.path, self.record.status)

    @cached_property
    def found_once(self) -> dict[Hashable, Any]:
        """See reports/data/once.py."""
        return {}

    @cached_property
    def groups(self) -> tuple[Group, ...]:
        """Deployments in the order asked for, and their loads within."""
        return groups_of(self.planned_cells, list(self.deployments))

    @cached_property
    def deployments(self) -> dict[str, Deployment]:
        """By label, in the order asked for; starts are in another."""
        return self.record.plan.deployments

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
        """Gaps between content chunks of a cell's ok requests in the window, one by one; read each time.
        A page draws from `gap_counts`."""
        return tables.read_gaps(self.path, number)

    def observations(self, number: int, name: str) -> np.ndarray:
        """A cell's observations of a latency (`ttft_s`, `itl_s` ...): its ok requests in the window.
        Not to be written to."""
        if name == "itl_s":
            return self.gaps(number).seconds
        if (number, name) not in self._observed:
            found = self.ok_values(number, name)
            found = found[~np.isnan(found)]
            found.flags.writeable = False
            self._observed[number, name] = found
        return self._observed[number, name]

    @cached_property
    def _observed(self) -> dict[tuple[int, str], np.ndarray]:
        return {}

    def by_turn(self, number: int, name: str) -> pd.DataFrame:
        """A cell's observations of a latency with the request and the turn (from 0) of each, in the columns
        `seconds`, `request` and `turn`."""
        if name == "itl_s":
            gaps = self.gaps(number)
            return pd.DataFrame({"seconds": gaps.seconds, "request": gaps.request, "turn": gaps.turn})
        seconds, turn = self.ok_values(number, name), self.ok_values(number, "turn")
        has_one = ~np.isnan(seconds)
        seconds, turn = seconds[has_one], turn[has_one].astype(int)
        return pd.DataFrame({"seconds": seconds, "request": np.arange(len(seconds)), "turn": turn})

    def window_samples(self, frame: pd.DataFrame | None, cell: Cell) -> pd.DataFrame:
        """The samples (`host`, `device` or `server`) of the cell's start that were taken in its window."""
        if frame is None or cell.record is None or cell.summary is None:
            return pd.DataFrame()
        own = of_start(frame, cell.record.start)
        return between(own, cell.summary.window_start_ns, cell.summary.window_end_ns)

    def window_requests(self, number: int) -> pd.DataFrame:
        """A cell's requests that were sent in its window, whatever became of them."""
        return self._in_windows[number] if number in self._in_windows else self.requests.iloc[:0]

    def ok_requests(self, number: int, *columns: str) -> pd.DataFrame:
        """Those of them that are ok: these columns, or all."""
        sent = self.window_requests(number)
        return taken(sent[list(columns)] if columns else sent, self._ok_mask(number))

    def ok_values(self, number: int, name: str) -> np.ndarray:
        """A column of numbers of those, NaN where one is not known."""
        found = floats(self.window_requests(number)[name])
        return np.asarray(found[self._ok_mask(number)])

    def _ok_mask(self, number: int) -> np.ndarray:
        if number not in self._ok_masks:
            outcome = self.window_requests(number)["outcome"]
            self._ok_masks[number] = np.asarray(outcome == "ok", dtype=bool)
        return self._ok_masks[number]

    @cached_property
    def _ok_masks(self) -> dict[int, np.ndarray]:
        return {}

    def cell_requests(self, number: int) -> pd.DataFrame:
        """All of a cell's requests."""
        return self._by_cell[number] if number in self._by_cell else self.requests.iloc[:0]

    @cached_property
    def _by_cell(self) -> dict[int, pd.DataFrame]:
        numbers = self.requests["cell"].to_numpy()
        return {int(numbers[begin]): self.requests.iloc[begin:end] for begin, end in runs_of(numbers)}

    @cached_property
    def _in_windows(self) -> dict[int, pd.DataFrame]:
        return {
            number: taken(frame, frame["in_window"].to_numpy(dtype=bool, na_value=False))
            for number, frame in self._by_cell.items()
        }

    def is_restarted(self, label: str) -> bool:
        """Whether each repeat of a deployment had a server of its own; not one that was running already."""
        return not any(record.attached for record in self.starts_of(label))

    def starts_of(self, label: str) -> list[StartRecord]:
        """The records of a deployment's starts, in order."""
        return [record for record in self.start_records if record.deployment.label == label]

    def start_of(self, cell: Cell) -> StartRecord | None:
        """The record of the start that the cell was or would be measured on."""
        return self._starts_by_name.get(cell.record.start if cell.record else cell.start.name)

    @cached_property
    def _starts_by_name(self) -> dict[str, StartRecord]:
        return {record.name: record for record in reversed(self.start_records)}


def open_run(run_dir: Path) -> Run:
    """Read a results directory that `bench run` made, without the secrets that a server's texts may have.

    Raises StoreError where it cannot be read.
    """
    record, starts, cells = read_records(run_dir)
    return Run(run_dir, record, starts, cells)


def deployments(run: Run) -> Iterator[tuple[str, str, str]]:
    """Label, engine and quantization of each deployment, in the order asked for."""
    for label, deployment in run.deployments.items():
        yield label, deployment.engine, deployment.quantization
