"""Arrow tables of a results directory, and what needs the lists of chunks: the only pyarrow in reports.

Lists of chunks end here, as numpy arrays; pandas never sees them. Knows no metric's name and no page.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
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

_TEXTS = ("reasoning_text", "output_text")
_LEFT_OUT = ("chunk_ns", *_TEXTS, "raw_response")
REQUEST_COLUMNS = tuple(name for name in REQUEST_SCHEMA.names if name not in _LEFT_OUT)
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


def _read_requests(run_dir: Path, number: int, columns: Sequence[str]) -> Any:
    path = store.cell_dir(run_dir, number)
    with _reading(path / "requests.parquet"):
        return store.read_requests(path, columns)


def requests_frame(run_dir: Path, origins: Mapping[int, str]) -> pd.DataFrame:
    """Return the cells' requests with latencies in seconds, NaN where one is not defined; see Run.requests.

    `origins`: by the cell's number, the column of the instant that ttft_s and e2e_s count from.
    """
    tables = [
        _latencies(_read_requests(run_dir, number, REQUEST_COLUMNS), number, origin)
        for number, origin in origins.items()
    ]
    if not tables:
        empty = REQUEST_SCHEMA.empty_table().select(list(REQUEST_COLUMNS))
        tables = [_latencies(empty, 0, "sent_ns")]
    joined = [pa.concat_tables(tables)]
    tables.clear()
    return _frame(joined.pop())


def _frame(table: Any) -> pd.DataFrame:
    """Take the table apart as it goes, so that a column is in memory once."""
    frame: pd.DataFrame = table.to_pandas(types_mapper=_NULLABLE.get, split_blocks=True, self_destruct=True)
    return frame


def _latencies(table: Any, number: int, origin: str) -> Any:
    content_s = _seconds(table["first_content_ns"], table["last_content_ns"])
    gaps = pc.cast(pc.subtract(table["output_tokens"], 1), pa.float64())
    per_token_s = pc.divide(content_s, pc.if_else(pc.greater_equal(gaps, 1.0), gaps, None))
    columns = {
        "ttft_s": _seconds(table[origin], table["first_content_ns"]),
        "tpot_s": per_token_s,
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
    begins[k + 1]; and by request its turn (from 0), its output tokens (NaN where not known), whether it is
    ok, and whether it was sent in the window."""

    at_ns: np.ndarray
    begins: np.ndarray
    turn: np.ndarray
    tokens: np.ndarray
    is_ok: np.ndarray
    in_window: np.ndarray


def chunk_batches(run_dir: Path, number: int) -> Iterator[Chunks]:
    """Yield the chunks of a cell's requests, some thousand requests at a time, in the stored order."""
    path = store.cell_dir(run_dir, number)
    names = ["chunk_ns", "outcome", "in_window", "turn", "output_tokens"]
    with _reading(path / "requests.parquet"):
        for table in store.request_batches(path, names):
            yield _chunks(table)


def _chunks(table: Any) -> Chunks:
    lists = table["chunk_ns"].combine_chunks()
    lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False)
    return Chunks(
        at_ns=lists.flatten().to_numpy(zero_copy_only=False),
        begins=np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]),
        turn=table["turn"].to_numpy(),
        tokens=pc.cast(table["output_tokens"], pa.float64()).to_numpy(zero_copy_only=False),
        is_ok=_flags(pc.equal(table["outcome"], "ok")),
        in_window=_flags(pc.fill_null(table["in_window"], False)),
    )


def _flags(column: Any) -> np.ndarray:
    return np.asarray(column.to_numpy(zero_copy_only=False), dtype=bool)


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
    if not tables:
        return None
    joined = [pa.concat_tables(tables, promote_options="permissive")]
    tables.clear()
    return _frame(joined.pop())


# --- rows without a copy --------------------------------------------------------------------------- A run's
# frames have millions of rows in the order of starts or cells, and each is asked for its part hundreds of
# times.


def runs_of(values: np.ndarray) -> Iterator[tuple[int, int]]:
    """Yield where each stretch of equal values begins and ends."""
    ends = np.flatnonzero(values[1:] != values[:-1]) + 1
    if len(values):
        yield from zip([0, *ends.tolist()], [*ends.tolist(), len(values)], strict=True)


def taken(frame: pd.DataFrame, mask: np.ndarray) -> pd.DataFrame:
    """Return the rows that a mask takes: a view where they are next to each other, else a copy."""
    count = int(np.count_nonzero(mask))
    if not count:
        return frame.iloc[:0]
    first = int(mask.argmax())
    if mask[first : first + count].all():
        return frame.iloc[first : first + count]
    return frame[mask]


def of_start(samples: pd.DataFrame, name: str) -> pd.DataFrame:
    """Return the samples of one start, from a frame of `samples_frame`, whose starts follow each other."""
    column = samples["start"].array
    if not isinstance(column, pd.Categorical):
        return samples[samples["start"] == name]
    if name not in column.categories:
        return samples.iloc[:0]
    # Of the codes' own type, else all of them would be converted.
    code = np.asarray(column.categories.get_loc(name), dtype=column.codes.dtype)
    first, last = (int(np.searchsorted(column.codes, code, side)) for side in ("left", "right"))
    return samples.iloc[first:last]


def between(samples: pd.DataFrame, begin_ns: float, end_ns: float) -> pd.DataFrame:
    """Return the samples with begin_ns <= t_ns < end_ns."""
    t_ns = samples["t_ns"].to_numpy(dtype=np.int64)
    return taken(samples, (t_ns >= begin_ns) & (t_ns < end_ns))


def floats(series: "pd.Series[Any]") -> np.ndarray:
    """Return a column as floats, NaN where it has no value."""
    return np.asarray(series.to_numpy(dtype=float, na_value=np.nan))
