"""Write and read the results directory: everything that a run leaves on disk.

    results/<run>/run.json                     RunRecord (beside .lock, held by the bench that measures
                                               it, and SHA256SUMS, see checksums.py)
                  claim.json                   ToldClaim, of a run that `bench claim` judged
                  starts/<nn>-<deployment>/    start.json (StartRecord), server.log,
                                               {host,device,server,quality,tasks}.parquet
                  cells/<nnn>/                 cell.json (CellRecord), requests.parquet, load.log
                  reference/<nn>-<deployment>/ start.json, {quality,tasks}.parquet of the earlier run that
                                               quality is compared with, one folder for each model

Every file is written whole (harness/whole_files.py). `rows.jsonl` exists only while a cell runs; then
request_table turns it into requests.parquet. Knows no statistics: the record is instants and counts.
"""

import fcntl
import os
import shlex
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import count, takewhile
from pathlib import Path
from typing import Any, Generic, TypeVar

import msgspec
import pyarrow as pa

from serving_bench.harness import contracts
from serving_bench.harness.errors import CellError, StoreError
from serving_bench.harness.store import checksums
from serving_bench.harness.store.files import as_stored as as_stored
from serving_bench.harness.store.files import (
    is_sealed,
    opened,
    opened_table,
    read_json,
    write_record,
    write_rows,
)
from serving_bench.harness.store.files import read_samples as read_samples
from serving_bench.harness.store.named_files import CLAIM_FILE, LOCK_FILE, QUALITY_FILE, RUN_FILE, TASKS_FILE
from serving_bench.harness.store.records import (  # noqa: F401
    CellRecord,
    NodeRecord,
    Phase,
    RunRecord,
    StartRecord,
    phase_of,
    with_units,
)
from serving_bench.harness.store.request_table import LATER_COLUMNS, REQUEST_SCHEMA

REFERENCE = "reference"
SCHEMA_VERSION = 12
# The formats that this bench reads. A bench of format 6 would name a winner by speed alone, however bad its
# answers; one of format 7 would call an imported run damaged.
SCHEMA_HISTORY = {
    6: "workers on one machine only, plans without `learnt`; earlier formats are not read",
    7: "quality: in run.json and start.json, {quality,tasks}.parquet, reference/, starts made only for it",
    8: "imported runs, with null for what the other tool does not say; merged runs; SHA256SUMS; claim.json",
    9: "~ and $CACHE in paths; run.json has a seal, and no boot_id",
    10: "reasons are facts: kind, subjects and numbers; texts of earlier formats are read as such",
    11: "facts on who computes on a device and on short memory; whether a cell was disturbed before",
    12: "plan.race: who left a race, at which look, and at which levels",
}


def read_requests(cell_dir: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """Read requests.parquet of a cell; return an empty table if there is none. See request_batches."""
    names = REQUEST_SCHEMA.names if columns is None else list(columns)
    tables = list(request_batches(cell_dir, names))
    return pa.concat_tables(tables) if tables else REQUEST_SCHEMA.empty_table().select(names)


def request_batches(cell_dir: Path, columns: Sequence[str]) -> Iterator[pa.Table]:
    """Yield requests.parquet one row group at a time; LATER_COLUMNS that an old file lacks are null.

    Raises StoreError if any other column is missing.
    """
    path, names = cell_dir / "requests.parquet", list(columns)
    if not path.exists():
        return
    with opened_table(path, REQUEST_SCHEMA) as file:
        there = file.schema_arrow.names
        if missing := [name for name in names if name not in there and name not in LATER_COLUMNS]:
            raise StoreError(f"{path}: damaged: no column {missing[0]}")
        for number in range(file.num_row_groups):
            table = file.read_row_group(number, columns=[name for name in names if name in there])
            for name in (name for name in names if name not in there):
                table = table.append_column(name, pa.nulls(len(table), REQUEST_SCHEMA.field(name).type))
            yield table.select(names).cast(pa.schema([REQUEST_SCHEMA.field(name) for name in names]))


def write_samples(path: Path, samples: Sequence[Any]) -> None:
    """Write instances of one dataclass as a table with a column per field; nothing if there are none."""
    write_rows(path, [*map(vars, samples)])


class _Version(msgspec.Struct):
    schema_version: int


def read_run(run_dir: Path) -> RunRecord:
    """Read run.json. A duration that an earlier bench stored as a bare number gets its unit.

    Raises StoreError if the file is missing, damaged, or of a format that this bench does not read.
    """
    path = run_dir / "run.json"
    if run_dir.is_file() and run_dir.with_name("run.json").is_file():
        raise StoreError(f"{run_dir}: is a file of a run; give the run's directory, {run_dir.parent}")
    if not path.is_file():
        runs = sorted(run_dir.glob("*/run.json"))
        expected = (
            f"one of its runs, such as {runs[-1].parent}" if runs else "a directory that `bench run` made"
        )
        cause = "is a file" if run_dir.is_file() else "no run here (run.json is missing)"
        if not run_dir.exists():
            cause = "no run here (there is no such directory)"
        elif not (run_dir.is_file() or run_dir.is_dir()):
            cause = "is neither a directory nor a bundle"
        raise StoreError(f"{run_dir}: {cause}; give {expected}")
    try:
        version = read_json(path, _Version).schema_version
    except StoreError as error:
        raise StoreError(f"{error}; restore it from a copy or a bundle of this run") from error
    if version not in SCHEMA_HISTORY:
        newer, older = ("a newer", "update bench"), ("an older", "measure it again")
        age, remedy = newer if version > SCHEMA_VERSION else older
        read = f"{min(SCHEMA_HISTORY)} to {SCHEMA_VERSION}"
        cause = f"was written by {age} bench (schema {version}); this one reads {read}"
        raise StoreError(f"{path}: {cause}; {remedy}")
    record = read_json(path, RunRecord)
    return replace(record, settings=with_units(record.settings), seal="")  # see is_own


def is_own(run_dir: Path) -> bool:
    """Return whether this user's bench wrote the run.json. Nobody else can have changed its settings then."""
    try:
        return is_sealed(run_dir / RUN_FILE)
    except (StoreError, OSError):
        return False


def read_claim(run_dir: Path) -> contracts.ToldClaim | None:
    path = run_dir / CLAIM_FILE
    is_kept = path.exists() and not path.is_dir()  # `bench claim` has reported a folder in its place
    return read_json(path, contracts.ToldClaim) if is_kept else None


def is_going_on(run_dir: Path, status: str) -> bool:
    """Return whether a bench is measuring this run now: its status is `running` and its lock is held."""
    if status == "running":
        try:
            with opened(run_dir / LOCK_FILE) as lock:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except (OSError, StoreError) as error:
            return isinstance(error, BlockingIOError)
    return False


def resuming(run_dir: Path, record: RunRecord) -> str:
    """Return the command that goes on with a run or a search."""
    return shlex.join(["bench", "search" if record.search else "run", "--resume", str(run_dir)])


def read_starts(run_dir: Path) -> list[StartRecord]:
    """Read all start records, ordered by index. A planned start that was never begun has none."""
    records = {path: read_json(path, StartRecord) for path in run_dir.glob("starts/*/start.json")}
    for path, record in records.items():
        if record.name != path.parent.name:
            raise StoreError(f"{path}: damaged: its name is {record.name!r}")
    return sorted(records.values(), key=lambda record: record.index)


def read_references(run_dir: Path) -> dict[Path, StartRecord]:
    """Return the earlier run's starts that quality is compared with, by their folders.

    Empty if quality is compared within this run. Earlier versions kept only one, in reference/ itself.
    """
    folder = run_dir / REFERENCE
    # A bench that was killed may leave an empty folder.
    copied = ("start.json", QUALITY_FILE, TASKS_FILE)
    folders = [
        each for each in (folder, *sorted(folder.glob("*"))) if any((each / name).exists() for name in copied)
    ]
    return {each: read_json(each / "start.json", StartRecord) for each in folders}


def read_cells(run_dir: Path) -> list[CellRecord]:
    """Read the record of each cell that was begun, ordered by number. Skips the other attempts at a cell."""
    names = {path.name.partition(".")[0] for path in run_dir.glob("cells/*")}
    numbers = (int(name) for name in names if name.isdecimal() and name == f"{int(name):03d}")
    folders = (cell_dir(run_dir, number) for number in numbers)
    records = (read_cell(folder) for folder in folders if (folder / "cell.json").exists())
    return sorted(records, key=lambda record: record.number)


def read_cell(folder: Path) -> CellRecord:
    return read_json(folder / "cell.json", CellRecord)


def cell_dir(run_dir: Path, number: int) -> Path:
    """Return a cell's directory, or its attempt's if `settle` was interrupted before it moved that there."""
    path = run_dir / "cells" / f"{number:03d}"
    if path.exists():
        return path
    # Anyone may have put thousands of folders there, so they are not listed for each cell.
    attempts = ((each, each.with_name(f"{each.name}.aside")) for each in _attempts(path))
    there = takewhile(lambda pair: any(each.exists() for each in pair), attempts)
    return next((attempt for attempt, aside in there if aside.exists()), path)


def _attempts(path: Path) -> Iterator[Path]:
    return (path.with_name(f"{path.name}.attempt{number}") for number in count(1))


@contextmanager
def written_or_empty(directory: Path, then: str) -> Iterator[None]:
    """Remove everything but the lock from a run's directory if the block raises.

    An OSError becomes a CellError with the reason, followed by `then`, which says what that leaves.
    """
    try:
        yield
    except BaseException as error:
        for path in directory.glob("*"):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            elif path.name != LOCK_FILE:
                path.unlink()
        if not isinstance(error, OSError):
            raise
        why = os.strerror(error.errno) if error.errno else error  # pyarrow's messages are long
        raise CellError(f"{directory}: cannot be written: {why}; {then}") from error


_Kept = TypeVar("_Kept", RunRecord, StartRecord)


class Kept(Generic[_Kept]):
    """A record and its file, which is written whole after every change."""

    def __init__(self, path: Path, record: _Kept) -> None:
        self.path = path
        self.record: _Kept = record
        self.update()

    def update(self, **facts: Any) -> None:
        self.record = replace(self.record, **facts)
        write_record(self.path, self.record, is_own=True)


# --- attempts at a cell: each has a directory, and the best one is <nnn> itself ---


def begin_cell(run_dir: Path, number: int) -> Path:
    """Make a new directory for a cell, and take the cell's files off the list of checksums.

    It is <nnn>. If an attempt with a record is there, it is <nnn>.attempt<k> until `settle`.
    """
    path = run_dir / "cells" / f"{number:03d}"
    checksums.unlist(run_dir, *_names(path))
    for aside in path.parent.glob(f"{path.name}.*.aside"):
        _end_swap(aside)
    attempt = next(attempt for attempt in _attempts(path) if not attempt.exists())
    if (path / "cell.json").exists():
        path = attempt
    elif path.exists():
        path.rename(attempt)
    path.mkdir(parents=True)
    return path


def was_disturbed(attempt: Path, number: int) -> bool:
    """Return whether an earlier attempt at the cell was disturbed from outside."""
    path = attempt.with_name(f"{number:03d}")
    earlier = read_cell(path) if attempt != path else None
    return earlier is not None and (earlier.is_disturbed or earlier.was_disturbed)


def was_repeated(run_dir: Path, number: int) -> bool:
    """Return whether a cell was measured again after it had been disturbed from outside."""
    path = cell_dir(run_dir, number)
    attempts = (path, *takewhile(Path.exists, _attempts(path)))
    return any(read_cell(each).was_disturbed for each in attempts if (each / "cell.json").exists())


def settle(attempt: Path, record: CellRecord) -> bool:
    """Move a stored attempt to its cell's directory unless a better one is there. Return whether it is.

    Meanwhile the attempt that it replaces is <nnn>.attempt<k>.aside. If the swap is interrupted, the next
    `begin_cell` finishes it. Puts the files of all attempts on the list of checksums.
    """
    path = attempt.with_name(f"{record.number:03d}")
    is_there = attempt == path or record.replaces(read_cell(path))
    if is_there and attempt != path:
        _end_swap(path.rename(f"{attempt}.aside"))
    checksums.relist(attempt.parent.parent, *_names(path))
    return is_there


def _names(path: Path) -> list[str]:
    """Return the names of a cell's directories in its run."""
    return [f"cells/{each.name}" for each in (path, *path.parent.glob(f"{path.name}.*"))]


def _end_swap(aside: Path) -> None:
    """Finish a swap: move the attempt to the cell's directory if that is free, `aside` to the attempt's."""
    attempt = aside.with_suffix("")
    if not attempt.with_suffix("").exists():
        attempt.rename(attempt.with_suffix(""))
    aside.rename(attempt)
