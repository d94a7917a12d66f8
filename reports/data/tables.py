"""Arrow tables of a results directory, and what needs the lists of chunks: the only pyarrow in reports.

Lists of chunks end here, as numpy arrays; pandas never sees them. Knows no metric's name and no page.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from harness.errors import StoreError
from harness.store import store
from harness.store.request_table import REQUEST_SCHEMA

_LEFT_OUT = ("chunk_ns", "reasoning_text", "output_text", "raw_response")
_COLUMNS = tuple(name for name in REQUEST_SCHEMA.names if name not in _LEFT_OUT)
_NULLABLE = {
    pa.int16(): pd.Int64Dtype(),
    pa.int32(): pd.Int64Dtype(),
    pa.int64(): pd.Int64Dtype(),
    pa.bool_(): pd.BooleanDtype(),
}


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Raise StoreError, in one line, where a file cannot be read: cut short, or not ours."""
    try:
        yield
    except (pa.ArrowException, OSError, KeyError) as error:
        first_line = (str(error).splitlines() or [type(error).__name__])[0]
        raise StoreError(f"{path}: damaged ({first_line})") from error


def _frame(tables: list[Any]) -> pd.DataFrame:
    """Return the tables one below the other; empties the list, so that a column is in memory once."""
    joined = pa.concat_tables(tables, promote_options="permissive")
    tables.clear()
    frame: pd.DataFrame = joined.to_pandas(types_mapper=_NULLABLE.get, split_blocks=True, self_destruct=True)
    return frame


def requests_frame(run_dir: Path, origins: Mapping[int, str]) -> pd.DataFrame:
    """Return the cells' requests with latencies in seconds, NaN where one is not defined; see Run.requests.

    `origins`: by the cell's number, the column of the instant that ttft_s and e2e_s count from.
    """
    tables = []
    for number, origin in origins.items():
        folder = store.cell_dir(run_dir, number)
        with _reading(folder / "requests.parquet"):
            tables.append(_latencies(store.read_requests(folder, _COLUMNS), number, origin))
    none = REQUEST_SCHEMA.empty_table().select(list(_COLUMNS))
    return _frame(tables or [_latencies(none, 0, "sent_ns")])


def _latencies(table: Any, number: int, origin: str) -> Any:
    content_s = _seconds(table["first_content_ns"], table["last_content_ns"])
    gaps = pc.cast(pc.subtract(table["output_tokens"], 1), pa.float64())
    columns = {
        "ttft_s": _seconds(table[origin], table["first_content_ns"]),
        "tpot_s": pc.divide(content_s, pc.if_else(pc.greater_equal(gaps, 1.0), gaps, None)),
        "e2e_s": _seconds(table[origin], table["end_ns"]),
        "send_lag_s": _seconds(table["scheduled_ns"], table["sent_ns"]),
    }
    for name, values in columns.items():
        table = table.append_column(name, values)
    return table.add_column(0, "cell", pa.array(np.full(table.num_rows, number), pa.int64()))


def _seconds(begin_ns: Any, end_ns: Any) -> Any:
    return pc.divide(pc.cast(pc.subtract(end_ns, begin_ns), pa.float64(), safe=False), 1e9)


@dataclass(frozen=True)
class Chunks:
    """The content chunks of some of a cell's requests: `at_ns` of all, those of request k from begins[k] to
    begins[k + 1]; and by request its output tokens (NaN where not known), whether it is ok, and whether it
    was sent in the window."""

    at_ns: np.ndarray
    begins: np.ndarray
    tokens: np.ndarray
    is_ok: np.ndarray
    in_window: np.ndarray


def chunk_batches(run_dir: Path, number: int) -> Iterator[Chunks]:
    """Yield the chunks of a cell's requests, some thousand requests at a time, in the stored order."""
    path = store.cell_dir(run_dir, number)
    names = ["chunk_ns", "outcome", "in_window", "output_tokens"]
    with _reading(path / "requests.parquet"):
        for table in store.request_batches(path, names):
            lists = table["chunk_ns"].combine_chunks()
            lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False)
            yield Chunks(
                at_ns=lists.flatten().to_numpy(zero_copy_only=False),
                begins=np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]),
                tokens=pc.cast(table["output_tokens"], pa.float64()).to_numpy(zero_copy_only=False),
                is_ok=pc.equal(table["outcome"], "ok").to_numpy(zero_copy_only=False).astype(bool),
                in_window=pc.fill_null(table["in_window"], False).to_numpy(zero_copy_only=False).astype(bool),
            )


def samples_frame(run_dir: Path, names: Iterable[str], file_name: str) -> pd.DataFrame | None:
    """Return host.parquet or device.parquet of all starts in their order, with the column `start` (a
    category); None where no start has one."""
    tables, starts = [], list(names)
    for at, name in enumerate(starts):
        path = run_dir / "starts" / name / file_name
        with _reading(path):
            table = store.read_samples(path)
        if table is not None and table.num_rows:
            codes = np.full(table.num_rows, at, dtype=np.int32)
            column = pa.DictionaryArray.from_arrays(codes, pa.array(starts))
            tables.append(table.add_column(0, "start", column))
    return _frame(tables) if tables else None


# --- rows without a copy ---------------------------------------------------------------------------

# A run's frames have millions of rows, by start or cell, and each is asked for its part hundreds of times.


def taken(frame: pd.DataFrame, mask: np.ndarray) -> pd.DataFrame:
    """Return the rows that a mask takes: a view where they are next to each other, else a copy."""
    at = np.flatnonzero(mask)
    if len(at) and at[-1] - at[0] + 1 > len(at):
        return frame[mask]
    return frame.iloc[at[0] : at[-1] + 1] if len(at) else frame.iloc[:0]


def of_start(samples: pd.DataFrame, name: str) -> pd.DataFrame:
    """Return the samples of one start, from a frame of `samples_frame`, whose starts follow each other."""
    starts = samples["start"].cat
    if name not in starts.categories:
        return samples.iloc[:0]
    # Of the codes' own type, else all of them would be converted.
    code = starts.codes.dtype.type(starts.categories.get_loc(name))
    first, last = (int(np.searchsorted(starts.codes, code, side)) for side in ("left", "right"))
    return samples.iloc[first:last]


def floats(series: "pd.Series[Any]") -> np.ndarray:
    """Return a column as floats, NaN where it has no value."""
    return np.asarray(series.to_numpy(dtype=float, na_value=np.nan))
