"""The results directory: what a run leaves on disk, how it is written, and how it is read back.

    results/<run>/run.json                     RunRecord (and .lock, held by the bench that measures it)
                  starts/<nn>-<deployment>/    start.json (StartRecord), server.log, {host,device}.parquet
                  cells/<nnn>/                 cell.json (CellRecord), requests.parquet, load.log

Every file is written beside its name and moved into place, so a reader never sees half of one; requests are
in `rows.jsonl` only while their cell runs. Knows no statistics: instants and counts are the record.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from harness.contracts import (
    CellStatus,
    Deployment,
    Load,
    LoadSummary,
    Plan,
    RequestRow,
    RunStatus,
    Scalar,
    ScenarioChoice,
    StartStatus,
    Validity,
)
from harness.errors import StoreError

SCHEMA_VERSION = 1
SCHEMA_HISTORY = {1: "first format"}


@dataclass(frozen=True)
class RunRecord:
    """run.json. `settings` maps each dotted key that was given to its values, as text that parses again;
    `environment` is facts of the machine, by topic."""

    schema_version: int
    run_id: str
    created_at: str  # ISO 8601 with offset
    argv: tuple[str, ...]
    settings: Mapping[str, Sequence[str]]
    plan: Plan
    environment: Mapping[str, Any]
    status: RunStatus = "running"
    ended_at: str | None = None


@dataclass(frozen=True)
class Phase:
    """A named instant in a start's life: spawned, ready, cell 003 warm-up, cell 003 window, stopping ..."""

    name: str
    t_ns: int


@dataclass(frozen=True)
class StartRecord:
    """start.json. Memory figures are of the machine (host) or the device, `memory_kind` says which.

    `baseline_bytes` was in use before the start, `after_bytes` once the server had stopped;
    `returned_to_baseline` compares the two. `launch_s` runs from the spawn to the first good generation.
    """

    name: str
    index: int
    deployment: Deployment
    repeat: int
    status: StartStatus
    attached: bool = False
    spawned_ns: int | None = None
    ready_ns: int | None = None
    stopped_ns: int | None = None
    pid: int | None = None
    exit_code: int | None = None
    error: str | None = None
    log_tail: str | None = None
    memory_kind: str = "host"
    memory_note: str | None = None
    baseline_bytes: int | None = None
    after_bytes: int | None = None
    returned_to_baseline: bool | None = None
    phases: tuple[Phase, ...] = ()
    resolved: Mapping[str, Scalar] = field(default_factory=dict)
    sampler: Mapping[str, Scalar] = field(default_factory=dict)
    weights: Mapping[str, Scalar] = field(default_factory=dict)

    @property
    def launch_s(self) -> float | None:
        if self.spawned_ns is None or self.ready_ns is None:
            return None
        return (self.ready_ns - self.spawned_ns) / 1e9


@dataclass(frozen=True)
class CellRecord:
    """cell.json. `start` names the directory of the start that it was measured on."""

    number: int
    start: str
    deployment: str  # label
    repeat: int
    scenario: ScenarioChoice
    load: Load
    seed: int
    status: CellStatus
    validity: Validity = "valid"
    reasons: tuple[str, ...] = ()
    error: str | None = None
    summary: LoadSummary | None = None


# --- tables ----------------------------------------------------------------------------------------

_REQUEST_TYPES: dict[str, pa.DataType] = {
    "request_id": pa.string(),
    "user": pa.int32(),
    "conversation": pa.int32(),
    "turn": pa.int16(),
    "outcome": pa.string(),
    "error": pa.string(),
    "http_status": pa.int16(),
    "scheduled_ns": pa.int64(),
    "sent_ns": pa.int64(),
    "first_content_ns": pa.int64(),
    "last_content_ns": pa.int64(),
    "end_ns": pa.int64(),
    "chunk_ns": pa.list_(pa.int64()),
    "input_tokens": pa.int32(),
    "output_tokens": pa.int32(),
    "cached_tokens": pa.int32(),
    "token_source": pa.string(),
    "max_tokens": pa.int32(),
    "finish_reason": pa.string(),
    "output_text": pa.string(),
    "raw_response": pa.string(),
    "in_window": pa.bool_(),
}
REQUEST_SCHEMA = pa.schema([pa.field(name, kind) for name, kind in _REQUEST_TYPES.items()])
_DELTA_COLUMNS = ("scheduled_ns", "sent_ns", "first_content_ns", "last_content_ns", "end_ns")
_COLUMN_ENCODING = dict.fromkeys((*_DELTA_COLUMNS, "chunk_ns.list.element"), "DELTA_BINARY_PACKED")
# Text and enumerations keep the dictionary; pyarrow refuses a dictionary and an explicit encoding together.
_DICTIONARY = ["outcome", "error", "token_source", "finish_reason"]


def requests_table(rows: Sequence[RequestRow], summary: LoadSummary | None) -> pa.Table:
    """Rows as an Arrow table of REQUEST_SCHEMA, in the order of sending.

    `in_window` is null without a summary.
    """
    ordered = sorted(rows, key=lambda row: row.sent_ns if row.sent_ns is not None else row.scheduled_ns)
    columns: dict[str, list[Any]] = {
        name: [getattr(row, name) for row in ordered] for name in _REQUEST_TYPES if name != "in_window"
    }
    columns["in_window"] = [in_window(row, summary) for row in ordered]
    return pa.table(columns, schema=REQUEST_SCHEMA)


def in_window(row: RequestRow, summary: LoadSummary | None) -> bool | None:
    """Whether a request was sent in the window; None without a summary."""
    if summary is None:
        return None
    # A request that never got onto the wire belongs where it was due: a dead server must not look idle.
    at_ns = row.sent_ns if row.sent_ns is not None else row.scheduled_ns
    return summary.window_start_ns <= at_ns < summary.window_end_ns


def write_requests(cell_dir: Path, rows: Sequence[RequestRow], summary: LoadSummary | None) -> None:
    """Write requests.parquet of a cell."""
    table = requests_table(rows, summary)

    def write(path: Path) -> None:
        pq.write_table(
            table, path, compression="zstd", use_dictionary=_DICTIONARY, column_encoding=_COLUMN_ENCODING
        )

    _replace(cell_dir / "requests.parquet", write)


def read_requests(cell_dir: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """requests.parquet of a cell, or an empty table of the same schema where there is none."""
    path = cell_dir / "requests.parquet"
    if not path.is_file():
        empty = REQUEST_SCHEMA.empty_table()
        return empty.select(list(columns)) if columns is not None else empty
    return pq.read_table(path, columns=list(columns) if columns is not None else None)


def read_rows(path: Path) -> list[RequestRow]:
    """The rows that a load process wrote so far; a last line cut by a kill is left out."""
    if not path.is_file():
        return []
    lines = path.read_bytes().split(b"\n")[:-1]
    return [msgspec.json.decode(line, type=RequestRow) for line in lines if line]


def write_samples(path: Path, samples: Sequence[Any]) -> None:
    """Write one row per sample (instances of one frozen dataclass), a column per field. Nothing for none."""
    if not samples:
        return
    names = [f.name for f in fields(samples[0])]
    table = pa.table({name: [getattr(sample, name) for sample in samples] for name in names})
    _replace(path, lambda part: pq.write_table(table, part, compression="zstd"))


def read_samples(path: Path) -> pa.Table | None:
    """host.parquet or device.parquet as it is; None where the start has none."""
    return pq.read_table(path) if path.is_file() else None


# --- records ---------------------------------------------------------------------------------------


def write_record(path: Path, record: RunRecord | StartRecord | CellRecord) -> None:
    """Write a record as indented JSON, whole or not at all."""
    data = msgspec.json.format(msgspec.json.encode(record), indent=1)
    path.parent.mkdir(parents=True, exist_ok=True)
    _replace(path, lambda part: part.write_bytes(data + b"\n"))


def _replace(path: Path, write: Any) -> None:
    part = path.with_name(path.name + ".part")
    write(part)
    os.replace(part, path)


def read_run(run_dir: Path) -> RunRecord:
    """run.json. Raises StoreError with one line: no run there, damaged, or of a newer schema."""
    path = run_dir / "run.json"
    if not path.is_file():
        raise StoreError(
            f"{run_dir}: no run here (run.json is missing); give a directory that `bench run` made"
        )
    try:
        version = msgspec.json.decode(path.read_bytes()).get("schema_version")
        if version not in SCHEMA_HISTORY:
            raise StoreError(
                f"{path}: schema version {version}, this bench reads {sorted(SCHEMA_HISTORY)}; update bench"
            )
        return msgspec.json.decode(path.read_bytes(), type=RunRecord)
    except (msgspec.MsgspecError, AttributeError, TypeError) as error:
        raise StoreError(f"{path}: damaged ({error})") from error


def read_starts(run_dir: Path) -> list[StartRecord]:
    """All start records, in order; starts that were only planned are not among them."""
    records: list[StartRecord] = [_decode(path, StartRecord) for path in run_dir.glob("starts/*/start.json")]
    return sorted(records, key=lambda record: record.index)


def read_cells(run_dir: Path) -> list[CellRecord]:
    """The newest record of each cell that was begun, by number; earlier attempts are in <nnn>.attempt<k>."""
    paths = (path for path in run_dir.glob("cells/*/cell.json") if path.parent.name.isdigit())
    records: list[CellRecord] = [_decode(path, CellRecord) for path in paths]
    return sorted(records, key=lambda record: record.number)


def _decode(path: Path, kind: type[Any]) -> Any:
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except msgspec.MsgspecError as error:
        raise StoreError(f"{path}: damaged ({error})") from error


def cell_dir(run_dir: Path, number: int) -> Path:
    return run_dir / "cells" / f"{number:03d}"


def begin_cell(run_dir: Path, number: int) -> Path:
    """A fresh directory for a cell; an earlier attempt is kept beside it as <nnn>.attempt<k>."""
    path = cell_dir(run_dir, number)
    if path.exists():
        attempt = 1
        while path.with_name(f"{path.name}.attempt{attempt}").exists():
            attempt += 1
        path.rename(path.with_name(f"{path.name}.attempt{attempt}"))
    path.mkdir(parents=True)
    return path


def end_run(run_dir: Path, record: RunRecord, status: RunStatus, ended_at: str) -> RunRecord:
    """Write the run's end and return the new record."""
    ended = replace(record, status=status, ended_at=ended_at)
    write_record(run_dir / "run.json", ended)
    return ended


def as_mapping(options: Any) -> dict[str, Any]:
    """A frozen dataclass of options, or a mapping read back from a file, as plain values."""
    plain: dict[str, Any] = msgspec.to_builtins(options)
    return plain
