"""Write and read the results directory: everything that a run leaves on disk.

    results/<run>/run.json                     RunRecord (beside .lock, held by the bench that measures
                                               it, and SHA256SUMS, see checksums.py)
                  claim.json                   ToldClaim, of a run that `bench claim` judged
                  starts/<nn>-<deployment>/    start.json (StartRecord), server.log,
                                               {host,device,server,quality,tasks}.parquet
                  cells/<nnn>/                 cell.json (CellRecord), requests.parquet, load.log
                  reference/<nn>-<deployment>/ start.json, {quality,tasks}.parquet: of the earlier run that
                                               quality is held against, one of each model

Every file is written whole (harness/whole_files.py). `rows.jsonl` is there only while a cell runs, until
request_table makes the table. Knows no statistics: instants and counts are the record.
"""

import fcntl
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from harness import contracts
from harness.errors import StoreError
from harness.store.foreign import opened, opened_table, read_whole_samples
from harness.store.json_files import read_json, write_record
from harness.store.named_files import CLAIM_FILE, LOCK_FILE
from harness.store.request_table import LATER_COLUMNS, REQUEST_SCHEMA
from harness.whole_files import written_whole

REFERENCE = "reference"
SCHEMA_VERSION = 7
# The formats that are read. A bench of 6 would decide by speed alone, whatever the answers are.
SCHEMA_HISTORY = {
    6: "workers of one machine only, plans without `learnt`; formats before it are not read",
    7: "quality: in run.json and start.json, {quality,tasks}.parquet, reference/, starts for it alone",
}


@dataclass(frozen=True)
class Node:
    """A folder that was merged into a run: which repeats, from 0, it measured, and on which machine.

    `lost_on`: the nodes on which they were begun before, and that were lost.
    """

    repeats: tuple[int, ...]
    environment: Mapping[str, Any]
    lost_on: tuple[str, ...] = ()


@dataclass(frozen=True)
class RunRecord:
    """The content of run.json: what a run is.

    `settings` maps each dotted key that was given to its values, as text that parses again. `looks`: how many
    starts it had, failed ones too, each time that it ended and an answer was given. `standings` were shown
    meanwhile. `nodes`: of a run that was merged, the machines that measured it; `environment` is the first's.
    `only_repeat`: the one, from 1, that was asked for alone. `foreign`: who measured it, if
    bench did not.
    """

    schema_version: int
    run_id: str
    created_at: str  # ISO 8601 with offset
    argv: tuple[str, ...]
    settings: Mapping[str, Sequence[str]]
    plan: contracts.Plan
    environment: Mapping[str, Any]
    status: contracts.RunStatus = "running"
    ended_at: str | None = None
    price: contracts.Price | None = None
    slo: tuple[contracts.Objective, ...] = ()
    until: contracts.Until | None = None
    compare: contracts.CompareTerms = field(default_factory=contracts.CompareTerms)
    search: contracts.SearchTerms | None = None
    quality: contracts.QualityTerms = field(default_factory=contracts.QualityTerms)
    stopped_because: str | None = None
    looks: tuple[int, ...] = ()
    standings: tuple[contracts.Standing, ...] = ()
    nodes: tuple[Node, ...] = ()
    only_repeat: int | None = None
    foreign: contracts.ForeignSource | None = None


@dataclass(frozen=True)
class Phase:
    """A named instant in a start's life: spawned, ready, cell 003 warm-up, cell 003 window, stopping ..."""

    name: str
    t_ns: int


@dataclass(frozen=True)
class StartRecord:
    """The content of start.json: one start of a deployment, as far as it has come.

    `argv` and `environment` (what was set, and bench's variables that matter to the server) hold no secrets.
    `version` is what the server reports, else that of its environment. `unmatched`: common terms that the
    engine could not be told, and why. `resolved` is what the server says of itself. `stages` are instants of
    process_up, weights_loaded, engine_ready, listening, first_token, steady_token. `prompt_tokens`: see
    servers/probe.py.

    Memory is the machine's or that of the `devices`, as `memory_kind` says: `baseline_bytes` before the
    start, `after_bytes` after it. `memory_notes` say why a value was not sampled. `memory_said` are bytes of
    its parts as the server reports them, `memory_expected` as `bench fit` computes them. `idle_power_w` was
    measured before the server started. `is_for_quality`: nothing was measured on it, it was only asked.
    """

    name: str
    index: int
    deployment: contracts.Deployment
    repeat: int
    status: contracts.StartStatus
    attached: bool = False
    spawned_ns: int | None = None
    ready_ns: int | None = None
    stopped_ns: int | None = None
    pid: int | None = None
    exit_code: int | None = None
    error: str | None = None
    log_tail: str | None = None
    memory_kind: str = "host"
    memory_notes: Mapping[str, str] = field(default_factory=dict)
    devices: tuple[int, ...] = ()
    baseline_bytes: int | None = None
    after_bytes: int | None = None
    returned_to_baseline: bool | None = None
    phases: tuple[Phase, ...] = ()
    resolved: Mapping[str, contracts.Scalar] = field(default_factory=dict)
    sampler: Mapping[str, contracts.Scalar] = field(default_factory=dict)
    weights: Mapping[str, contracts.Scalar] = field(default_factory=dict)
    argv: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    version: str | None = None
    image: Mapping[str, str | None] = field(default_factory=dict)
    stages: Mapping[str, int] = field(default_factory=dict)
    prompt_tokens: Mapping[str, int] = field(default_factory=dict)
    unmatched: Mapping[str, str] = field(default_factory=dict)
    forces_length: bool = True
    model_facts: contracts.ModelFacts | None = None
    memory_said: Mapping[str, int] = field(default_factory=dict)
    memory_expected: Mapping[str, int] = field(default_factory=dict)
    idle_power_w: float | None = None
    idle_power_note: str | None = None
    api_prices: tuple[contracts.ApiPrice, ...] = ()
    quality: contracts.QualityRecord | None = None
    is_for_quality: bool = False

    @property
    def launch_s(self) -> float | None:
        if self.spawned_ns is None or self.ready_ns is None:
            return None
        return (self.ready_ns - self.spawned_ns) / 1e9


@dataclass(frozen=True)
class CellRecord:
    """The content of cell.json: one cell, measured or not. `start` names the directory of its start.

    `guard` lists what made the machine unfit; `guard_mode` is None if the guard did not look. `forms`: what
    the answers had to be; a request's `form` names its. `ideal_by`: how many requests got their
    ideal_cached_tokens each way (harness/describe/ideal.py). `adapters`: a request's `group` is a place in
    them.
    """

    number: int
    start: str
    deployment: str  # label
    repeat: int
    scenario: contracts.ScenarioChoice
    load: contracts.Load
    seed: int
    status: contracts.CellStatus
    validity: contracts.Validity = "valid"
    reasons: tuple[str, ...] = ()
    error: str | None = None
    summary: contracts.LoadSummary | None = None
    guard: tuple[contracts.GuardFinding, ...] = ()
    guard_mode: contracts.GuardMode | None = None
    cache_reset: contracts.CacheReset | None = None
    forms: tuple[contracts.Form, ...] = ()
    ideal_by: Mapping[str, int] = field(default_factory=dict)
    adapters: tuple[contracts.Adapter, ...] = ()

    @property
    def counts(self) -> bool:
        return self.status == "completed" and self.validity != "invalid"

    @property
    def worth(self) -> int:
        """Return the order of attempts at one cell: completed ones by validity, above all others."""
        return ("invalid", "suspect", "valid").index(self.validity) + 1 if self.status == "completed" else 0


def read_requests(cell_dir: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """Read requests.parquet of a cell; return an empty table if there is none. See request_batches."""
    names = REQUEST_SCHEMA.names if columns is None else list(columns)
    tables = list(request_batches(cell_dir, names))
    return pa.concat_tables(tables) if tables else REQUEST_SCHEMA.empty_table().select(names)


def request_batches(cell_dir: Path, columns: Sequence[str]) -> Iterator[pa.Table]:
    """Read requests.parquet by row groups. Raises StoreError if a column but LATER_COLUMNS is missing."""
    path, names = cell_dir / "requests.parquet", list(columns)
    if not path.is_file():
        return
    with opened_table(path, REQUEST_SCHEMA) as file:
        there = file.schema_arrow.names
        if missing := [name for name in names if name not in there and name not in LATER_COLUMNS]:
            raise StoreError(f"{path}: damaged: no column {missing[0]}")
        for number in range(file.num_row_groups):
            table = file.read_row_group(number, columns=[name for name in names if name in there])
            for name in (name for name in names if name not in there):
                table = table.append_column(name, pa.nulls(len(table), REQUEST_SCHEMA.field(name).type))
            yield table.select(names)


def write_samples(path: Path, samples: Sequence[Any]) -> None:
    """Write samples, instances of one dataclass, as a table with a column per field, if there are any."""
    if not samples:
        return
    with written_whole(path) as part:
        pq.write_table(pa.Table.from_pylist(list(map(vars, samples))), part, compression="zstd")


def read_samples(path: Path) -> pa.Table | None:
    """Read host.parquet, device.parquet or server.parquet as read_whole_samples does; None without one."""
    return read_whole_samples(path) if path.is_file() else None


class _Version(msgspec.Struct):
    schema_version: int


def read_run(run_dir: Path) -> RunRecord:
    """Read run.json. Raises StoreError if it is missing, damaged, or of another schema."""
    path = run_dir / "run.json"
    if run_dir.is_file() and run_dir.with_name("run.json").is_file():
        raise StoreError(f"{run_dir}: is a file of a run; give the run's directory, {run_dir.parent}")
    if not path.is_file():
        runs = sorted(run_dir.glob("*/run.json"))
        asked = f"one of its runs, such as {runs[-1].parent}" if runs else "a directory that `bench run` made"
        said = "is a file" if run_dir.is_file() else "no run here (run.json is missing)"
        raise StoreError(f"{run_dir}: {said}; give {asked}")
    version = read_json(path, _Version).schema_version
    if version not in SCHEMA_HISTORY:
        newer, older = ("a newer", "update bench"), ("an older", "measure it again")
        age, remedy = newer if version > SCHEMA_VERSION else older
        read = " and ".join(map(str, SCHEMA_HISTORY))
        said = f"was written by {age} bench (schema {version}); this one reads {read}"
        raise StoreError(f"{path}: {said}; {remedy}")
    return read_json(path, RunRecord)


def read_claim(run_dir: Path) -> contracts.ToldClaim | None:
    path = run_dir / CLAIM_FILE
    return read_json(path, contracts.ToldClaim) if path.is_file() else None


def is_going_on(run_dir: Path, status: str) -> bool:
    """Return whether a bench measures this run now: the record has no end, and the lock is held."""
    if status == "running":
        try:
            with opened(run_dir / LOCK_FILE) as lock:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except (OSError, StoreError) as error:
            return isinstance(error, BlockingIOError)
    return False


def read_starts(run_dir: Path) -> list[StartRecord]:
    """Read all start records, in order. A start that was only planned has none."""
    records = {path: read_json(path, StartRecord) for path in run_dir.glob("starts/*/start.json")}
    for path, record in records.items():
        if record.name != path.parent.name:
            raise StoreError(f"{path}: damaged: its name is {record.name!r}")
    return sorted(records.values(), key=lambda record: record.index)


def read_references(run_dir: Path) -> dict[Path, StartRecord]:
    """Read the starts of an earlier run that quality is held against, by their folders; empty if they are of
    this run. Earlier versions kept one, without a folder of its own."""
    folder = run_dir / REFERENCE
    paths = [*folder.glob("start.json"), *sorted(folder.glob("*/start.json"))]
    return {path.parent: read_json(path, StartRecord) for path in paths}


def read_cells(run_dir: Path) -> list[CellRecord]:
    """Read the record of each cell that was begun, by number. <nnn>.attempt<k> has its other attempts."""
    numbers = {path.name.partition(".")[0] for path in run_dir.glob("cells/*")}
    folders = (cell_dir(run_dir, int(number)) for number in numbers if number.isdecimal())
    records = (read_cell(folder) for folder in folders if (folder / "cell.json").is_file())
    return sorted(records, key=lambda record: record.number)


def read_cell(folder: Path) -> CellRecord:
    return read_json(folder / "cell.json", CellRecord)


def cell_dir(run_dir: Path, number: int) -> Path:
    """Return a cell's directory: that of an attempt, if `settle` was cut short before it moved it there."""
    path = run_dir / "cells" / f"{number:03d}"
    cut_short = () if path.exists() else path.parent.glob(f"{path.name}.*.aside")
    return next((aside.with_suffix("") for aside in cut_short), path)


_Kept = TypeVar("_Kept", RunRecord, StartRecord)


class Kept(Generic[_Kept]):
    """A record and its file, which is written whole after every change."""

    def __init__(self, path: Path, record: _Kept) -> None:
        self.path = path
        self.record: _Kept = record
        self.update()

    def update(self, **facts: Any) -> None:
        self.record = replace(self.record, **facts)
        write_record(self.path, self.record)
