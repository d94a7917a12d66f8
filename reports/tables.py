"""Arrow tables of a results directory, and what needs the lists of chunks: the only pyarrow in reports.

Lists of chunks end here, as numpy arrays; pandas never sees them. Knows no metric's name and no page.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from harness import store
from harness.errors import StoreError

_LEFT_OUT = ("chunk_ns", "output_text", "raw_response")
REQUEST_COLUMNS = tuple(name for name in store.REQUEST_SCHEMA.names if name not in _LEFT_OUT)
_NULLABLE = {
    pa.int16(): pd.Int64Dtype(),
    pa.int32(): pd.Int64Dtype(),
    pa.int64(): pd.Int64Dtype(),
    pa.bool_(): pd.BooleanDtype(),
}


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Says in one line which file cannot be read: cut short, or not ours."""
    try:
        yield
    except (pa.ArrowException, OSError, KeyError) as error:
        first_line = (str(error).splitlines() or [type(error).__name__])[0]
        raise StoreError(f"{path}: damaged ({first_line})") from error


def _read_requests(run_dir: Path, number: int, columns: Sequence[str]) -> Any:
    path = store.cell_dir(run_dir, number)
    with _reading(path / "requests.parquet"):
        return store.read_requests(path, columns)


def requests_frame(run_dir: Path, numbers: Iterable[int]) -> pd.DataFrame:
    """The cells' requests with latencies in seconds, NaN where one is not defined; see Run.requests."""
    tables = [_with_latencies(run_dir, number) for number in numbers]
    if not tables:
        tables = [_latencies(store.REQUEST_SCHEMA.empty_table().select(list(REQUEST_COLUMNS)), 0)]
    frame: pd.DataFrame = pa.concat_tables(tables).to_pandas(types_mapper=_NULLABLE.get)
    return frame


def _with_latencies(run_dir: Path, number: int) -> Any:
    return _latencies(_read_requests(run_dir, number, REQUEST_COLUMNS), number)


def _latencies(table: Any, number: int) -> Any:
    content_s = _seconds(table["first_content_ns"], table["last_content_ns"])
    gaps = pc.cast(pc.subtract(table["output_tokens"], 1), pa.float64())
    per_token_s = pc.divide(content_s, pc.if_else(pc.greater_equal(gaps, 1.0), gaps, None))
    columns = {
        "ttft_s": _seconds(table["sent_ns"], table["first_content_ns"]),
        "tpot_s": per_token_s,
        "e2e_s": _seconds(table["sent_ns"], table["end_ns"]),
        "send_lag_s": _seconds(table["scheduled_ns"], table["sent_ns"]),
    }
    for name, values in columns.items():
        table = table.append_column(name, values)
    return table.add_column(0, "cell", pa.array(np.full(table.num_rows, number), pa.int64()))


def _seconds(begin_ns: Any, end_ns: Any) -> Any:
    return pc.divide(pc.cast(pc.subtract(end_ns, begin_ns), pa.float64(), safe=False), 1e9)


def _chunks(table: Any) -> tuple[np.ndarray, np.ndarray]:
    """All chunk instants (ns) and, for each, the row that it belongs to."""
    lists = table["chunk_ns"].combine_chunks()
    lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False)
    values = lists.flatten().to_numpy(zero_copy_only=False)
    return values, np.repeat(np.arange(len(lengths)), lengths)


@dataclass(frozen=True)
class Gaps:
    """Gaps between successive content chunks, and for each its request (a row's number) and its turn."""

    seconds: np.ndarray
    request: np.ndarray
    turn: np.ndarray

    @property
    def requests(self) -> int:
        """How many requests have a gap."""
        return len(np.unique(self.request))


def chunk_gaps(run_dir: Path, number: int) -> Gaps:
    """The gaps of a cell's ok requests in the window."""
    table = _read_requests(run_dir, number, ["chunk_ns", "outcome", "in_window", "turn"])
    kept = table.filter(pc.and_(pc.equal(table["outcome"], "ok"), pc.fill_null(table["in_window"], False)))
    if kept.num_rows == 0:
        return Gaps(np.empty(0), np.empty(0, int), np.empty(0, int))
    values, rows = _chunks(kept)
    is_gap = np.diff(rows) == 0
    request = rows[1:][is_gap]
    return Gaps(np.diff(values)[is_gap] / 1e9, request, kept["turn"].to_numpy()[request])


def tokens_arrived(run_dir: Path, number: int, start_ns: int, end_ns: int) -> float | None:
    """Output tokens that arrived in [start_ns, end_ns), of all requests whose token count is known.

    A request's tokens are spread evenly over its content chunks, so a request that was sent before the
    window counts with its chunks in it. None where an ok request with chunks in the window has no count.
    """
    table = _read_requests(run_dir, number, ["chunk_ns", "outcome", "output_tokens"])
    if table.num_rows == 0:
        return 0.0
    values, rows = _chunks(table)
    tokens = pc.cast(table["output_tokens"], pa.float64()).to_numpy(zero_copy_only=False)
    is_ok = pc.equal(table["outcome"], "ok").to_numpy(zero_copy_only=False).astype(bool)
    per_chunk = tokens / np.maximum(np.bincount(rows, minlength=len(tokens)), 1)
    inside = rows[(values >= start_ns) & (values < end_ns)]
    if np.isnan(tokens[inside][is_ok[inside]]).any():
        return None
    return float(np.nansum(per_chunk[inside]))


def samples_frame(run_dir: Path, names: Iterable[str], file_name: str) -> pd.DataFrame | None:
    """host.parquet or device.parquet of all starts, with the column `start`; None where no start has one."""
    tables = []
    for name in names:
        path = run_dir / "starts" / name / file_name
        with _reading(path):
            table = store.read_samples(path)
        if table is not None and table.num_rows:
            tables.append(table.add_column(0, "start", pa.array([name] * table.num_rows)))
    if not tables:
        return None
    joined = pa.concat_tables(tables, promote_options="permissive")
    frame: pd.DataFrame = joined.to_pandas(types_mapper=_NULLABLE.get)
    return frame
