"""Find secrets in a run's files before it is shared, and say where they are, but never show one.

Secrets of this environment are found however they are encoded, others by their form.
"""

import base64
import re
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import IO

import pyarrow as pa

from serving_bench.harness.contracts import OURS, secrets_in
from serving_bench.harness.errors import StoreError
from serving_bench.harness.store.files import MOST_OBJECTS, MOST_TABLE_BYTES, opened, opened_table
from serving_bench.harness.store.named_files import QUALITY_FILE, TASKS_FILE

# Bytes that are read at once, and that are kept of the previous read: a secret may span both.
_WINDOW_BYTES, _OVERLAP_BYTES = 1 << 20, 1 << 13
# Equal texts compress to almost nothing, so a table is read in batches.
_BATCH_ROWS = 2048
# Compressed data in a page: gzip in base64.
_PACKED = re.compile(rb">(H4sI[A-Za-z0-9+/]+=*)<")
_MOST_UNPACKED_BYTES = 256 << 20


@dataclass(frozen=True)
class Secret:
    """A secret in a file of a run: its kind and its place."""

    file: str
    place: str
    kind: str

    @property
    def is_ours(self) -> bool:
        return self.kind.startswith(OURS)

    def __str__(self) -> str:
        return f"{self.file}, {self.place}: {self.kind}"


def secrets_of(run_dir: Path, name: str, secret_values: Mapping[str, str]) -> Iterator[Secret]:
    """Yield the secrets in a file: in its bytes, in a table's texts, in a page's compressed data.

    `secret_values` are those of this environment. A place may come twice. Raises StoreError.
    """
    path = run_dir / name
    with opened(path, MOST_TABLE_BYTES) as file:
        hits = _in_stream(file, secret_values, is_text=path.suffix in (".json", ".log", ".html"))
        yield from (Secret(name, place, kind) for place, kind in hits)
    if path.suffix == ".parquet":
        yield from (Secret(name, place, kind) for place, kind in _in_table(path, secret_values))
    elif path.suffix == ".html":
        yield from (Secret(name, "in its compressed data", kind) for kind in _in_packed(path, secret_values))


def _in_stream(
    file: IO[bytes], secret_values: Mapping[str, str], *, is_text: bool
) -> Iterator[tuple[str, str]]:
    data, begin, line = b"", 0, 1
    while chunk := file.read(_WINDOW_BYTES):
        data += chunk
        for at, kind in secrets_in(data, secret_values):
            lines = line + data.count(b"\n", 0, at)
            yield f"line {lines}" if is_text else f"byte {begin + at}", kind
        past = max(0, len(data) - _OVERLAP_BYTES)
        begin, line, data = begin + past, line + data.count(b"\n", 0, past), data[past:]


def _in_table(path: Path, secret_values: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    # A report reads the tables of quality at once, as Python objects.
    most = MOST_OBJECTS if path.name in (QUALITY_FILE, TASKS_FILE) else inf
    with opened_table(path, pa.schema([]), most) as file:
        kinds = {field.name: str(field.type) for field in file.schema_arrow}
        columns = [name for name, kind in kinds.items() if "string" in kind or "binary" in kind]
        row = 1
        for batch in file.iter_batches(_BATCH_ROWS, columns=columns) if columns else ():
            for name in columns:
                texts = "\0".join(map(str, batch[name].to_pylist())).encode()
                for at, kind in secrets_in(texts, secret_values):
                    yield f"column {name}, row {row + texts.count(0, 0, at)}", kind
            row += len(batch)


def _in_packed(path: Path, secret_values: Mapping[str, str]) -> Iterator[str]:
    with opened(path) as file:
        page = file.read()
    for packed in _PACKED.finditer(page):
        try:
            unpacking = zlib.decompressobj(zlib.MAX_WBITS | 16)
            data = unpacking.decompress(base64.b64decode(packed[1]), _MOST_UNPACKED_BYTES)
            if not unpacking.eof or unpacking.unused_data:
                raise ValueError("its compressed data is cut short, followed by more, or too large")
        except (ValueError, zlib.error) as error:
            raise StoreError(f"{path}: damaged ({error}); `bench report` writes it again") from error
        yield from (kind for _, kind in secrets_in(data, secret_values))
