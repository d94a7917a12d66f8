"""Open files of a results directory, which anyone may have written: regular ones alone, of bounded size, with
columns of the types that bench writes."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from harness import foreign_files
from harness.contracts import inert
from harness.errors import StoreError

# Far beyond what bench writes: a plan of 10,000 cells takes 20 MB, samples of four days 3.5 million rows, a
# row group of requests 8 MB of text. Equal values take next to nothing on disk, so they are counted.
MOST_RECORD_BYTES = 64 << 20
MOST_TABLE_BYTES = 16 << 30
MOST_ROWS, MOST_SAMPLES = 20_000_000, 4_000_000
MOST_VALUES = 100_000_000


def opened(path: Path, most_bytes: int = MOST_RECORD_BYTES, flags: int = 0) -> BinaryIO:
    """Open a file, but no pipe, device or directory, and with O_NOFOLLOW no link. Raises StoreError, and
    OSError where there is none."""
    try:
        return foreign_files.opened(path, most_bytes, flags)
    except OSError as error:
        if error.errno not in foreign_files.UNFIT:
            raise
        raise StoreError(f"{path}: damaged: {error.strerror}") from error


def check_regular(path: Path, descriptor: int) -> None:
    """Raise StoreError if an open file is a pipe, a device or a directory."""
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        raise StoreError(f"{path}: damaged: not a regular file")


@contextmanager
def opened_table(path: Path, schema: pa.Schema | None = None) -> Iterator[pq.ParquetFile]:
    """Open a Parquet file whose row groups are small enough to be read one by one.

    Its columns are of a schema's types, integers of any width; without one they are numbers. Raises
    StoreError, which names the file and the column, also for what the block finds damaged.
    """
    with opened(path, MOST_TABLE_BYTES) as file, reading(path):
        table = pq.ParquetFile(file)
        for field in table.schema_arrow:
            if not (_is_number(field.type) if schema is None else _is_of(schema, field)):
                raise StoreError(f"{path}: damaged: column {inert(field.name)} is of type {field.type}")
        _check_size(path, table)
        yield table


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Raise StoreError, in one line, for what the block finds damaged: cut short, or not ours."""
    try:
        yield
    # A name of a column that is no text is a ValueError.
    except (pa.ArrowException, OSError, KeyError, ValueError, OverflowError) as error:
        first_line = inert((str(error).splitlines() or [type(error).__name__])[0])
        raise StoreError(f"{path}: damaged ({first_line})") from error


def read_whole_samples(path: Path) -> pa.Table:
    """Read a table of samples, each with its instant; a number that is not finite is null."""
    with opened_table(path) as file:
        if file.metadata.num_rows > MOST_SAMPLES:
            raise StoreError(f"{path}: damaged: {file.metadata.num_rows:,} rows, more than bench writes")
        table = file.read()
        t_ns = table["t_ns"] if "t_ns" in table.column_names else pa.chunked_array([pa.nulls(1)])
        if t_ns.null_count or not pa.types.is_integer(t_ns.type):
            raise StoreError(f"{path}: damaged: t_ns is not an instant in every row")
    return finite(table)


def finite(table: pa.Table) -> pa.Table:
    """Return the table with null for each number that is not finite."""
    for at, column in enumerate(table.schema):
        if pa.types.is_floating(column.type):
            known = pc.if_else(pc.is_finite(table[column.name]), table[column.name], None)
            table = table.set_column(at, column.name, known)
    return table


def _check_size(path: Path, table: pq.ParquetFile) -> None:
    found, values = table.metadata, 0
    for number in range(found.num_row_groups):
        # Where levels and their statistics do not fit, a reader raises, but asking for a column ends Python.
        next(table.iter_batches(1, row_groups=[number], use_threads=False), None)
        group = found.row_group(number)
        values = max(values, sum(group.column(at).num_values for at in range(group.num_columns)))
    if found.num_rows > MOST_ROWS or values > MOST_VALUES:
        size = f"{found.num_rows:,} rows, {values:,} values in one group of them"
        raise StoreError(f"{path}: damaged: {size}, more than any that bench writes")


def _is_of(schema: pa.Schema, found: pa.Field) -> bool:
    # A column that bench does not know is not read.
    return found.name not in schema.names or _is_alike(found.type, schema.field(found.name).type)


def _is_alike(found: pa.DataType, expected: pa.DataType) -> bool:
    if pa.types.is_list(found) and pa.types.is_list(expected):
        return _is_alike(found.value_type, expected.value_type)
    return bool(found == expected or (pa.types.is_integer(found) and pa.types.is_integer(expected)))


def _is_number(found: pa.DataType) -> bool:
    kinds = (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean, pa.types.is_null)
    return any(is_kind(found) for is_kind in kinds)
