"""The records of a results directory: masked, and what became of each planned cell. Computes no value."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from harness.contracts import PlannedCell, PlannedStart, masked_values
from harness.errors import StoreError
from harness.store import store
from harness.store.store import CellRecord, RunRecord, StartRecord
from reports.data.cells import Cell, load_labels


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
