"""Makes damaged results directories, each with one fault. The faults are the same every time."""

import json
import os
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from fuzzing import STRANGE, put
from fuzzing import places as places_in

from serving_bench.harness.store.named_files import LOCK_FILE, RUN_FILE

DEEP = b'{"a":' * 100_000 + b"1" + b"}" * 100_000
LARGE_BYTES = 300 << 20


@dataclass(frozen=True)
class Fault:
    """A fault of one file of a run's directory. `file` is the path of the file in it.

    `beside`: another file that it changes. `is_merged`: it also makes the run a merged one. `is_bomb`: the
    file is valid but huge in memory, so only a bound on its size refuses it.
    """

    name: str
    file: str
    do: Callable[[Path], object]
    is_bomb: bool = False
    beside: str | None = None
    is_merged: bool = False

    @property
    def files(self) -> tuple[str, ...]:
        return (self.file, self.beside) if self.beside else (self.file,)

    def copy_with(self, good: Path, to: Path) -> Path:
        """Return a copy of a good run with this fault in it."""
        shutil.copytree(good, to)
        self.do(to / self.file)
        return to


def faults(good: Path, seed: int = 7, changes: int = 90) -> Iterator[Fault]:
    """Yield all faults of files, then random ones: `changes` of single values of records, `changes` of single
    columns of tables, and others of what only a merged run has, and of numbers of records."""
    rng, places, columns = random.Random(seed), [], []
    for path in _one_of_each(good):
        file = str(path.relative_to(good))
        for name, do in (_OF_FILES | _OF_KIND.get(path.suffix, {})).items():
            yield Fault(f"{name} {file}", file, do)
        yield from bombs(file)
        if path.suffix == ".json":
            places += [(file, place) for place in places_in(json.loads(path.read_bytes()))]
        elif path.suffix == ".parquet":
            columns += [(file, name, change) for name in pq.read_schema(path).names for change in _OF_COLUMNS]
    yield Fault(f"pipe {LOCK_FILE}", LOCK_FILE, _running_with_a_pipe_for_its_lock, beside=RUN_FILE)
    for file, place in rng.sample(places, changes):
        value = rng.choice(STRANGE)
        yield Fault(f"{'.'.join(map(str, place))}={value!r:.30} {file}", file, partial(_put, place, value))
    for file, column, change in rng.sample(columns, changes):
        do = partial(_changed, partial(_OF_COLUMNS[change], column))
        yield Fault(f"{column} {change} {file}", file, do)
    for place, value in rng.sample(
        [(place, value) for place in _OF_NODES for value in STRANGE], changes // 3
    ):
        name, do = f"merged, node's {'.'.join(place)}={value!r:.30}", partial(_merged, place, value)
        yield Fault(name, RUN_FILE, do, is_merged=True)
    numbers = [(file, place) for file, place in places if _is_number(good / file, place)]
    for (file, place), value in zip(rng.sample(numbers, changes // 3), cycle(_ODD_NUMBERS), strict=False):
        yield Fault(f"{'.'.join(map(str, place))}={value!r:.30} {file}", file, partial(_put, place, value))


def bombs(file: str) -> Iterator[Fault]:
    """Yield the bombs for a file of this name: one for each bound on what is read from it."""
    for name, do in _BOMBS.get(Path(file).name, {}).items():
        yield Fault(f"{name} {file}", file, do, is_bomb=True)


def _one_of_each(good: Path) -> list[Path]:
    """Return one file of each kind: of a start, of a cell, of the run, of a reference."""
    paths = sorted(path for path in good.rglob("*") if path.is_file())
    return list({(path.relative_to(good).parts[0], path.name): path for path in reversed(paths)}.values())


# Code may divide by a record's number, take its root, or put it into a column of 64 bits.
_ODD_NUMBERS = (-1, 0, 10**300, 2**61 - 1, -(2**61), 2**63 - 1, -(2**63), 1e308, 5e-324)


def _is_number(path: Path, place: tuple[Any, ...]) -> bool:
    value = json.loads(path.read_bytes())
    for key in place:
        value = value[key]
    return isinstance(value, int | float) and not isinstance(value, bool)


def _put(place: tuple[Any, ...], value: Any, path: Path) -> None:
    path.write_text(json.dumps(put(json.loads(path.read_bytes()), place, value)))


# --- of any file -----------------------------------------------------------------------------------


def _cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def _flip(share: float, path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[int(share * (len(data) - 1))] ^= 0x41
    path.write_bytes(data)


def _replaced(make: Callable[[Path], object], path: Path) -> None:
    path.unlink()
    make(path)


def _running_with_a_pipe_for_its_lock(path: Path) -> None:
    os.mkfifo(path)
    _put(("status",), "running", path.with_name(RUN_FILE))


_OF_FILES: dict[str, Callable[[Path], object]] = {
    "cut": _cut,
    "empty": partial(Path.write_bytes, data=b""),
    "gone": Path.unlink,
    "noise": partial(Path.write_bytes, data=random.Random(1).randbytes(5000)),
    "folder": partial(_replaced, Path.mkdir),
    "pipe": partial(_replaced, os.mkfifo),
    "endless": partial(_replaced, lambda path: path.symlink_to("/dev/zero")),
    "large": lambda path: os.truncate(path, LARGE_BYTES),
    **{f"flipped at {share:g}": partial(_flip, share) for share in (0.01, 0.3, 0.6, 0.99)},
}

# --- of records ------------------------------------------------------------------------------------

# The fields that only a merged run has, by their place in a node.
_OF_NODES = (
    ("repeats",),
    ("lost_on",),
    ("environment",),
    ("environment", "clock"),
    ("environment", "clock", "realtime_ns"),
    ("environment", "machine", "cpu_model"),
)


def _merged(place: tuple[Any, ...], value: Any, path: Path) -> None:
    record = json.loads(path.read_bytes())
    nodes = [{"repeats": [repeat], "environment": record["environment"]} for repeat in (0, 1)]
    path.write_text(json.dumps(put({**record, "nodes": nodes}, ("nodes", 0, *place), value)))


_OF_RECORDS: dict[str, Callable[[Path], object]] = {
    "null": partial(Path.write_bytes, data=b"null"),
    "list": partial(Path.write_bytes, data=b"[]"),
    "deep": partial(Path.write_bytes, data=DEEP),
    "no Unicode": partial(Path.write_bytes, data=b'{"a": "\xff\xfe"}'),
}


# --- of tables -------------------------------------------------------------------------------------


def _changed(change: Callable[[pa.Table], pa.Table], path: Path) -> None:
    pq.write_table(change(pq.read_table(path)), path)


def _each(make: Callable[[pa.ChunkedArray], Any], table: pa.Table) -> pa.Table:
    for at, name in enumerate(table.column_names):
        table = table.set_column(at, name, make(table[name]))
    return table


_OF_TABLES: dict[str, Callable[[Path], object]] = {
    "structs": partial(_changed, partial(_each, lambda c: pa.array([{"a": 1}] * len(c)))),
    "texts": partial(_changed, partial(_each, lambda c: pa.array(["x"] * len(c)))),
    "infinite": partial(_changed, partial(_each, lambda c: pa.array([float("inf")] * len(c)))),
    "nulls": partial(_changed, partial(_each, lambda c: pa.nulls(len(c), c.type))),
    "no type": partial(_changed, partial(_each, lambda c: pa.nulls(len(c)))),
    "no rows": partial(_changed, lambda table: table.slice(0, 0)),
    "one column": partial(_changed, lambda table: table.select(table.column_names[:1])),
    "twice": partial(_changed, lambda table: pa.concat_tables([table, table])),
}

_OF_KIND = {".json": _OF_RECORDS, ".parquet": _OF_TABLES}

# --- of single columns, whose types stay -------------------------------------------------------------


def _made(make: Callable[[pa.DataType], Any], name: str, table: pa.Table) -> pa.Table:
    at, kind = table.column_names.index(name), table.schema.field(name).type
    column = pa.array([None if pa.types.is_null(kind) else make(kind)] * len(table), kind)
    return table.set_column(at, name, column)


def _greatest(kind: pa.DataType) -> Any:
    if pa.types.is_list(kind):
        return [_greatest(kind.value_type)] * 3
    if pa.types.is_map(kind):
        return [("x", 1e308)]
    if pa.types.is_integer(kind):
        return 2 ** (kind.bit_width - 1) - 1
    if pa.types.is_floating(kind):
        return 1e308
    return pa.types.is_boolean(kind) or "\u202e<b>" * 999


def _least(kind: pa.DataType) -> Any:
    if pa.types.is_list(kind) or pa.types.is_map(kind):
        return []
    if pa.types.is_integer(kind):
        return -(2 ** (kind.bit_width - 1))
    if pa.types.is_floating(kind):
        return float("-inf")
    return False if pa.types.is_boolean(kind) else ""


_OF_COLUMNS: dict[str, Callable[[str, pa.Table], pa.Table]] = {
    "gone": lambda name, table: table.drop_columns(name),
    "null": partial(_made, lambda kind: None),
    "greatest": partial(_made, _greatest),
    "least": partial(_made, _least),
}


# --- bombs -----------------------------------------------------------------------------------------


def _again_and_again(rows: int, path: Path, columns: int = 0, chunks: int = 0) -> None:
    """Repeat the first row `rows` times: one row group on disk, which the file's footer lists many times.

    Adds `columns` columns of equal numbers. `chunks`: the number of chunks of each request, if not 0.
    """
    table, times = pq.read_table(path), max(1, rows // GROUP_ROWS)
    each = min(rows, GROUP_ROWS)
    group = pa.table([pa.repeat(table[name][0], each) for name in table.column_names], schema=table.schema)
    for at in range(columns):
        group = group.append_column(f"more_{at}", pa.repeat(1, each))
    if chunks:
        lists = pa.ListArray.from_arrays(
            range(0, each * chunks + 1, chunks), pa.repeat(pa.scalar(1, pa.int8()), each * chunks)
        )
        group = group.set_column(group.column_names.index("chunk_ns"), "chunk_ns", lists)
    pq.write_table(group, path, compression="zstd", row_group_size=each)
    whole, foot = pq.read_metadata(path), path.with_suffix(".foot")
    for _ in range(times - 1):
        whole.append_row_groups(pq.read_metadata(path))
    whole.write_metadata_file(foot)
    data = path.read_bytes()
    path.write_bytes(data[: -8 - int.from_bytes(data[-8:-4], "little")] + foot.read_bytes()[4:])
    foot.unlink()


def _long(column: str, path: Path) -> None:
    """Repeat the first row 2,000 times, with one text of a megabyte in a column, which the file has once."""
    row = pq.read_table(path).slice(0, 1)
    table = pa.concat_tables([row] * 2000)
    at, text = table.column_names.index(column), pa.repeat(pa.scalar("x" * 1_000_000), 1)
    texts = pa.DictionaryArray.from_arrays(pa.repeat(pa.scalar(0, pa.int32()), 2000), text)
    ids = pa.array([random.Random(each).randbytes(300).hex() for each in range(2000)])
    pq.write_table(table.append_column("ids", ids).set_column(at, column, texts), path, store_schema=False)


GROUP_ROWS = 100_000
_OF_SAMPLES: dict[str, Callable[[Path], object]] = {
    "bomb of rows": partial(_again_and_again, 500_000),
    "bomb of columns": partial(_again_and_again, 1_000_000, columns=100),
}
_OF_OBJECTS: dict[str, Callable[[Path], object]] = {
    "bomb": partial(_again_and_again, 300_000),
    "bomb of texts": partial(_long, "error"),
}
_BOMBS: dict[str, dict[str, Callable[[Path], object]]] = {
    **dict.fromkeys(("host.parquet", "device.parquet", "server.parquet"), _OF_SAMPLES),
    **dict.fromkeys(("quality.parquet", "tasks.parquet"), _OF_OBJECTS),
    "requests.parquet": {
        "bomb of chunks": partial(_again_and_again, 100, chunks=1_010_000),
        "bomb of rows": partial(_again_and_again, 200_000),
        "bomb of texts": partial(_long, "error"),
    },
}
