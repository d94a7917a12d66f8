"""Results directories that somebody damaged, by accident or not: one fault each, the same every time."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

# Values that no field of a record is meant to have, or few.
STRANGE: tuple[Any, ...] = (
    None, "x", "", -1, 0, 1e308, 2**53 + 1, 2**63 - 1, True, [], {}, [[]], {"a": {"b": 1}}, "../../../etc",
)  # fmt: skip
DEEP = b'{"a":' * 100_000 + b"1" + b"}" * 100_000
ROWS_OF_BOMB = 400_000_000
LARGE_BYTES = 300 << 20


@dataclass(frozen=True)
class Fault:
    """A fault of one file of a run's directory, by its place there."""

    name: str
    file: str
    do: Callable[[Path], object]

    def copy_with(self, good: Path, to: Path) -> Path:
        """Return a copy of a good run with this fault in it."""
        shutil.copytree(good, to)
        self.do(to / self.file)
        return to


def faults(good: Path, seed: int = 7, changes: int = 90) -> Iterator[Fault]:
    """Yield all faults of files, and so many changes of single values of records, drawn by a seed."""
    records, tables = ([*sorted(good.rglob(f"*.{kind}"))] for kind in ("json", "parquet"))
    for path in _one_of_each(records):
        file = str(path.relative_to(good))
        for name, do in (_OF_FILES | _OF_RECORDS).items():
            yield Fault(f"{name} {file}", file, do)
    for path in _one_of_each(tables):
        file = str(path.relative_to(good))
        for name, do in (_OF_FILES | _OF_TABLES).items():
            yield Fault(f"{name} {file}", file, do)
    rng = random.Random(seed)
    read = {path: json.loads(path.read_bytes()) for path in _one_of_each(records)}
    places = [(path, place) for path, value in read.items() for place in _places(value)]
    for path, place in rng.sample(places, changes):
        file, value = str(path.relative_to(good)), rng.choice(STRANGE)
        yield Fault(f"{'.'.join(map(str, place))}={value!r:.30} {file}", file, partial(_put, place, value))


def _one_of_each(paths: list[Path]) -> list[Path]:
    return list({path.name: path for path in reversed(paths)}.values())


def _places(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if place:
        yield place
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in items:
        yield from _places(each, (*place, key))


def _put(place: tuple[Any, ...], value: Any, path: Path) -> None:
    whole = json.loads(path.read_bytes())
    at = whole
    for key in place[:-1]:
        at = at[key]
    at[place[-1]] = value
    path.write_text(json.dumps(whole))


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


def _bomb(path: Path) -> None:
    """Some hundred million equal rows, which are a few kilobytes on disk."""
    column = pa.array(np.zeros(ROWS_OF_BOMB // 100, dtype=np.int64))
    names = pq.read_schema(path).names
    schema = pa.schema([pa.field(name, pa.int64()) for name in names])
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        table = pa.table([column] * len(names), names=names)
        for _ in range(2):
            writer.write_table(table)


_OF_TABLES: dict[str, Callable[[Path], object]] = {
    "structs": partial(_changed, partial(_each, lambda c: pa.array([{"a": 1}] * len(c)))),
    "texts": partial(_changed, partial(_each, lambda c: pa.array(["x"] * len(c)))),
    "infinite": partial(_changed, partial(_each, lambda c: pa.array([float("inf")] * len(c)))),
    "nulls": partial(_changed, partial(_each, lambda c: pa.nulls(len(c), c.type))),
    "no type": partial(_changed, partial(_each, lambda c: pa.nulls(len(c)))),
    "no rows": partial(_changed, lambda table: table.slice(0, 0)),
    "one column": partial(_changed, lambda table: table.select(table.column_names[:1])),
    "twice": partial(_changed, lambda table: pa.concat_tables([table, table])),
    "bomb": _bomb,
}
