"""Keep what a start answered to the items of tasks in its tasks.parquet, a row per item."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from harness.contracts import Item
from harness.errors import StoreError
from harness.store.foreign import finite, opened_table
from harness.whole_files import written_whole

FILE_NAME = "tasks.parquet"
TASK_SCHEMA = pa.schema(
    {
        "task": pa.string(),
        "item": pa.string(),
        "score": pa.float64(),
        "answer": pa.string(),
        "prompt_sha256": pa.string(),
        "error": pa.string(),
    }
)


def write_items(path: Path, items: Sequence[Item]) -> None:
    """Write the rows whole or not at all; nothing if there are none."""
    if items:
        with written_whole(path) as part:
            table = pa.Table.from_pylist(list(map(asdict, items)), TASK_SCHEMA)
            pq.write_table(table, part, compression="zstd")


def read_items(path: Path) -> list[Item]:
    """Read the rows of a start, none where there is no file; a score that is not finite is None. Raises
    StoreError for one of another shape."""
    if not path.is_file():
        return []
    with opened_table(path, TASK_SCHEMA):
        rows = finite(pq.read_table(path, schema=TASK_SCHEMA)).to_pylist()
    try:
        return msgspec.convert(rows, list[Item])
    except msgspec.ValidationError as error:
        raise StoreError(f"{path}: damaged: {error}") from error
