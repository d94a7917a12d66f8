"""Read and write the files of a results directory.

Anyone may have written a file that is read here, so it must be regular, of bounded size, and of the shape
that bench writes. A record is written only if it can be read again.
"""

import hmac
import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from math import inf
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from serving_bench.harness import foreign_files
from serving_bench.harness.cache import portable, seal_of
from serving_bench.harness.contracts import counts, inert, scalars
from serving_bench.harness.contracts.sentences import read, stored
from serving_bench.harness.errors import StoreError
from serving_bench.harness.whole_files import write_whole, written_whole

# Far beyond what bench writes: a plan of 10,000 cells takes 20 MB, samples of four days 3.5 million rows, a
# row group of requests 8 MB of text. Equal values compress to almost nothing, so values are counted too.
MOST_RECORD_BYTES = 64 << 20
MOST_TABLE_BYTES = 16 << 30
MOST_ROWS, MOST_SAMPLES = 20_000_000, 4_000_000
# Values of one row group or of a table of samples; values of a table that becomes Python objects.
MOST_VALUES, MOST_OBJECTS = 100_000_000, 2_500_000
# The most of what bench writes, a table of an idle device, has 3.4 values for each byte of its file, each in
# less than 9 bytes. A table of equal rows has a thousand.
_MOST_VALUES_PER_BYTE = 6
_MOST_GROWTH, _MORE_BYTES = 100, 64 << 20
# Nothing measured in bytes, seconds, joules or tokens is larger; sums of smaller floats do not overflow.
_MOST_MEASURED = 2.0**63
# The last field of a record that has a seal.
_SEAL = re.compile(rb'"seal": "([0-9a-f]{64}|)"\n}\n\Z')
# Clocks are below it for 73 years from their zero, and differences of two instants fit into 64 bits.
_MOST_NS = 2**61
_Read = TypeVar("_Read")


def _guard(findings: object) -> object:
    """Return a cell's findings of the guard. Before schema 10 a fact was a text, and named so."""
    if not isinstance(findings, list):
        return findings
    return [{"fact": each.get("text"), **each} if isinstance(each, dict) else each for each in findings]


# Fields of a start that hold what servers and tools reported, and the function that reduces each to its type.
_SAID: Mapping[str, Callable[[object], object]] = {
    "resolved": scalars,
    "sampler": scalars,
    "weights": scalars,
    "memory_said": counts,
    "prompt_tokens": counts,
    "guard": _guard,
}


def opened(path: Path, most_bytes: int = MOST_RECORD_BYTES, flags: int = 0) -> BinaryIO:
    """Open a regular file of at most `most_bytes`; with O_NOFOLLOW in `flags` a link is refused.

    Raises StoreError for any other kind of file, and OSError if there is none.
    """
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
def opened_table(
    path: Path, schema: pa.Schema | None = None, most_in_all: float = inf
) -> Iterator[pq.ParquetFile]:
    """Open a Parquet file whose row groups are small enough to read one by one.

    With `most_in_all`, the whole table has at most that many values. The columns must have the schema's types
    (integers of any width); without a schema they must be numbers. Raises StoreError with the file and the
    column, also for damage that the block finds.
    """
    with opened(path, MOST_TABLE_BYTES) as file, reading(path):
        table = pq.ParquetFile(file)
        for field in table.schema_arrow:
            if not (_is_number(field.type) if schema is None else _is_of(schema, field)):
                raise StoreError(f"{path}: damaged: column {inert(field.name)} is of type {field.type}")
        _check_size(path, file, table, most_in_all)
        yield table


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Raise StoreError, in one line, if the block finds that a file is cut short or not one of bench's."""
    try:
        yield
    # A column name that is not valid text raises ValueError.
    except (pa.ArrowException, OSError, KeyError, ValueError, OverflowError) as error:
        first_line = inert((str(error).splitlines() or [type(error).__name__])[0])
        raise StoreError(f"{path}: damaged ({first_line})") from error


def read_samples(path: Path) -> pa.Table | None:
    """Read a table of samples, each with its instant `t_ns`. Numbers that are infinite or absurd become null.

    Returns None if there is no such file.
    """
    if not path.exists():  # not is_file(): a device or a pipe must be refused below
        return None
    with opened_table(path, most_in_all=MOST_VALUES) as file:
        if file.metadata.num_rows > MOST_SAMPLES:
            raise StoreError(f"{path}: damaged: {file.metadata.num_rows:,} rows, more than bench writes")
        table = file.read()
        t_ns = table["t_ns"] if "t_ns" in table.column_names else pa.chunked_array([pa.nulls(1)])
        if t_ns.null_count or not pa.types.is_integer(t_ns.type):
            raise StoreError(f"{path}: damaged: t_ns is not an instant in every row")
    return _sane(table)


def _sane(table: pa.Table) -> pa.Table:
    """Return the table with null for each float that is not finite or beyond _MOST_MEASURED."""
    for at, column in enumerate(table.schema):
        if pa.types.is_floating(column.type):
            is_sane = pc.less_equal(pc.abs(table[column.name]), _MOST_MEASURED)
            sane = pc.if_else(is_sane, table[column.name], None)
            table = table.set_column(at, column.name, sane)
    return table


def _check_size(path: Path, file: BinaryIO, table: pq.ParquetFile, most_in_all: float) -> None:
    metadata, size_bytes = table.metadata, os.fstat(file.fileno()).st_size
    most_in_all = min(most_in_all, _MOST_VALUES_PER_BYTE * size_bytes)
    most_bytes = _MORE_BYTES + _MOST_GROWTH * size_bytes
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    in_all, unpacked_bytes = 0, sum(group.total_byte_size for group in groups)
    is_long = metadata.num_rows > MOST_ROWS or metadata.num_rows * metadata.num_columns > most_in_all
    for number, group in enumerate(groups):
        if is_long or unpacked_bytes > most_bytes:
            break
        # If levels contradict their statistics, this read raises; a look at a column first would end Python.
        next(table.iter_batches(1, row_groups=[number], use_threads=False), None)
        columns = [group.column(at) for at in range(group.num_columns)]
        of_group = sum(column.num_values for column in columns)
        in_all += of_group
        is_long = of_group > MOST_VALUES or in_all > most_in_all
        unpacked_bytes += 0 if is_long else sum(_text_bytes(file, number, column) for column in columns)
    if is_long or unpacked_bytes > most_bytes:
        size = f"{metadata.num_rows:,} rows and {unpacked_bytes:,} bytes in a file of {size_bytes:,}"
        raise StoreError(f"{path}: damaged: {size}, more than any that bench writes")


def _text_bytes(file: BinaryIO, group: int, column: pq.ColumnChunkMetaData) -> int:
    """Return the bytes of the texts of a column that has each text only once; 0 if they cannot be many."""
    if not column.has_dictionary_page or column.num_values * column.total_uncompressed_size < _MORE_BYTES:
        return 0
    name = column.path_in_schema
    texts = pq.ParquetFile(file, read_dictionary=[name]).read_row_group(group, [name])[0].combine_chunks()
    while pa.types.is_nested(texts.type):
        texts = texts.field(0) if pa.types.is_struct(texts.type) else texts.flatten()
    if not pa.types.is_dictionary(texts.type):
        return int(texts.nbytes)
    return pc.sum(pc.take(pc.binary_length(texts.dictionary), texts.indices)).as_py() or 0


def _is_of(schema: pa.Schema, field: pa.Field) -> bool:
    # Columns that bench does not know are never read, so they may have any type.
    return field.name not in schema.names or _is_alike(field.type, schema.field(field.name).type)


def _is_alike(actual: pa.DataType, expected: pa.DataType) -> bool:
    if pa.types.is_list(actual) and pa.types.is_list(expected):
        return _is_alike(actual.value_type, expected.value_type)
    return bool(actual == expected or (pa.types.is_integer(actual) and pa.types.is_integer(expected)))


def _is_number(actual: pa.DataType) -> bool:
    kinds = (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean, pa.types.is_null)
    return any(is_kind(actual) for is_kind in kinds)


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]], schema: pa.Schema | None = None) -> None:
    """Write rows as a table with a column per key, whole or not at all. Write nothing if there are none.

    A schema fixes the columns and their types.
    """
    if rows:
        with written_whole(path) as part:
            pq.write_table(pa.Table.from_pylist(list(rows), schema), part, compression="zstd")


def read_rows(path: Path, schema: pa.Schema, later: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Read the rows of a table that `write_rows` wrote; none if there is no file.

    Numbers that are infinite or absurd become None. Columns in `later` may be missing and are then None.
    """
    if not path.exists():
        return []
    with opened_table(path, schema, MOST_OBJECTS) as file:
        there = file.schema_arrow.names
        if missing := [name for name in schema.names if name not in (*there, *later)]:
            raise StoreError(f"{path}: damaged: no column {missing[0]}")
        # With the schema, pyarrow adds the columns that an old file lacks.
        return list(_sane(pq.read_table(path, schema=schema)).to_pylist())


# --- records in JSON ---


def read_json(path: Path, kind: type[_Read]) -> _Read:
    """Read a JSON file as `kind`. Raises StoreError, in one line, if it does not have that shape."""
    try:
        with opened(path) as file:
            return _decoded(file.read(), kind)
    except OSError as error:
        raise StoreError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise StoreError(f"{path}: damaged ({error})") from error


def write_record(path: Path, record: Any, *, is_own: bool = False) -> None:
    """Write a record as indented JSON, whole or not at all, with ~ and $CACHE for the user's directories.

    A record that has a seal gets one if all that it holds is this user's own. Raises StoreError, and
    leaves an existing file as it is, if the record could not be read again.
    """
    if hasattr(record, "seal"):
        record = replace(record, seal="")
    try:
        data = msgspec.json.encode(record, enc_hook=stored)
    except UnicodeEncodeError:  # names of paths, processes and variables may be any bytes
        data = msgspec.json.encode(_in_unicode(builtins_of(record)))
    data = msgspec.json.format(portable(data), indent=1) + b"\n"
    if is_own and (unsealed := _SEAL.search(data)):
        data = data[: unsealed.start(1)] + seal_of(data).encode() + data[unsealed.end(1) :]
    try:
        _decoded(data, type(record))
    except ValueError as error:
        raise StoreError(f"{path}: not written, since it could not be read again ({error})") from error
    if len(data) > MOST_RECORD_BYTES:
        raise StoreError(f"{path}: not written: {len(data):,} bytes, more than bench reads; plan fewer cells")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, data)


def is_sealed(path: Path) -> bool:
    """Return whether this user's bench wrote a record as it is. Raises StoreError, and OSError."""
    with opened(path) as file:
        data = file.read()
    seal = _SEAL.search(data)
    expected = seal_of(data[: seal.start(1)] + data[seal.end(1) :]) if seal and seal[1] else ""
    return bool(expected and seal and hmac.compare_digest(expected.encode(), seal[1]))


def as_stored(value: object) -> Any:
    """Return a value in the form that it has when it is read back from a record."""
    return msgspec.json.decode(portable(msgspec.json.encode(value, enc_hook=stored)))


def builtins_of(record: object) -> Any:
    """Return a record as `write_record` encodes it."""
    return msgspec.to_builtins(record, enc_hook=stored)


def record_of(builtins: Any, kind: type[_Read]) -> _Read:
    """Return the record that `builtins_of` made builtins of. Raises ValueError."""
    return msgspec.convert(builtins, kind, dec_hook=read)


def _decoded(data: bytes, kind: type[_Read]) -> _Read:
    renamed = _SAID.keys() & getattr(kind, "__annotations__", {}).keys()
    if renamed:
        fields = msgspec.json.decode(data, type=dict[str, Any])
        converted = {name: _SAID[name](fields[name]) for name in renamed & fields.keys()}
        record = record_of({**fields, **converted}, kind)
    else:
        record = msgspec.json.decode(data, type=kind, dec_hook=read)
    _check_numbers(builtins_of(record))
    return record


def _check_numbers(value: object, name: str = "", most: float = _MOST_MEASURED) -> None:
    """Raise ValueError if a number within nested data does not fit into 64 bits, or an instant into 62."""
    if isinstance(value, dict):
        for key, each in value.items():
            _check_numbers(each, key, _MOST_NS if key.endswith("_ns") or key == "stages" else most)
    elif isinstance(value, list | tuple):
        for each in value:
            _check_numbers(each, name, most)
    elif isinstance(value, int | float) and not -most <= value < most:
        raise ValueError(f"{name}: a number beyond {62 if most == _MOST_NS else 64} bits")


def _in_unicode(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode(errors="replace").decode()
    if isinstance(value, Mapping):
        return {_in_unicode(key): _in_unicode(each) for key, each in value.items()}
    return [*map(_in_unicode, value)] if isinstance(value, list | tuple) else value
