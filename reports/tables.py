"""Arrow tables of a results directory, and what needs the lists of chunks: the only pyarrow in reports.

Lists of chunks end here, as numpy arrays; pandas never sees them. Knows no metric's name and no page.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from harness import store
from harness.errors import StoreError

_TEXTS = ("reasoning_text", "output_text")
_LEFT_OUT = ("chunk_ns", *_TEXTS, "raw_response")
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


def requests_frame(run_dir: Path, origins: Mapping[int, str]) -> pd.DataFrame:
    """The cells' requests with latencies in seconds, NaN where one is not defined; see Run.requests.

    `origins`: by the cell's number, the column of the instant that ttft_s and e2e_s count from.
    """
    tables = [
        _latencies(_read_requests(run_dir, number, REQUEST_COLUMNS), number, origin)
        for number, origin in origins.items()
    ]
    if not tables:
        empty = store.REQUEST_SCHEMA.empty_table().select(list(REQUEST_COLUMNS))
        tables = [_latencies(empty, 0, "sent_ns")]
    frame: pd.DataFrame = pa.concat_tables(tables).to_pandas(types_mapper=_NULLABLE.get)
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
class Gaps:
    """Gaps between successive content chunks, and for each its request (a row's number) and its turn."""

    seconds: np.ndarray
    request: np.ndarray
    turn: np.ndarray

    @property
    def requests(self) -> int:
        """How many requests have a gap."""
        return len(np.unique(self.request))


@dataclass(frozen=True)
class Chunks:
    """All content chunks of a cell (`at_ns`, and the `row` of its request for each), and by request its turn,
    its output tokens (NaN where not known), whether it is ok, and whether it was sent in the window."""

    at_ns: np.ndarray
    row: np.ndarray
    turn: np.ndarray
    tokens: np.ndarray
    is_ok: np.ndarray
    in_window: np.ndarray

    @cached_property
    def per_request(self) -> np.ndarray:
        """How many content chunks each request has."""
        return np.bincount(self.row, minlength=len(self.turn))


def read_chunks(run_dir: Path, number: int) -> Chunks:
    """The chunks of a cell's requests, from one reading of its lists."""
    table = _read_requests(run_dir, number, ["chunk_ns", "outcome", "in_window", "turn", "output_tokens"])
    lists = table["chunk_ns"].combine_chunks()
    lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False)
    return Chunks(
        at_ns=lists.flatten().to_numpy(zero_copy_only=False),
        row=np.repeat(np.arange(len(lengths)), lengths),
        turn=table["turn"].to_numpy(),
        tokens=pc.cast(table["output_tokens"], pa.float64()).to_numpy(zero_copy_only=False),
        is_ok=_flags(pc.equal(table["outcome"], "ok")),
        in_window=_flags(pc.fill_null(table["in_window"], False)),
    )


def _flags(column: Any) -> np.ndarray:
    return np.asarray(column.to_numpy(zero_copy_only=False), dtype=bool)


def chunk_gaps(chunks: Chunks) -> Gaps:
    """The gaps of the ok requests in the window."""
    kept = (chunks.is_ok & chunks.in_window)[chunks.row]
    at_ns, row = chunks.at_ns[kept], chunks.row[kept]
    is_gap = np.diff(row) == 0
    request = row[1:][is_gap]
    return Gaps(np.diff(at_ns)[is_gap] / 1e9, request, chunks.turn[request])


def tokens_arrived(chunks: Chunks, edges_ns: np.ndarray) -> np.ndarray | None:
    """Output tokens that arrived between successive instants, of all requests whose token count is known.

    A request's tokens are spread evenly over its content chunks, so a request that was sent before the
    window counts with its chunks in it. None where an ok request with chunks in there has no count.
    """
    is_inside = (chunks.at_ns >= edges_ns[0]) & (chunks.at_ns < edges_ns[-1])
    at_ns, row = chunks.at_ns[is_inside], chunks.row[is_inside]
    if np.isnan(chunks.tokens[row][chunks.is_ok[row]]).any():
        return None
    per_chunk = np.nan_to_num(chunks.tokens) / np.maximum(chunks.per_request, 1)
    return np.histogram(at_ns, edges_ns, weights=per_chunk[row])[0]


def read_answers(run_dir: Path, number: int) -> Any:
    """Reasoning and answer of each of a cell's ok requests in the window as one text, in the stored order,
    which is that of `requests_frame`: an Arrow array of strings."""
    table = _read_requests(run_dir, number, ["outcome", "in_window", "reasoning_text", "output_text"])
    kept = pc.and_(pc.equal(table["outcome"], "ok"), pc.fill_null(table["in_window"], False))
    table = table.filter(kept)
    # Offsets of plain strings end at 2 GiB.
    reasoning, answer = (pc.cast(pc.fill_null(table[name], ""), pa.large_string()) for name in _TEXTS)
    end = pc.if_else(pc.equal(reasoning, ""), "", "\0").cast(pa.large_string())
    joined = pc.binary_join_element_wise(reasoning, end, answer, pa.scalar("", pa.large_string()))
    return joined.combine_chunks() if isinstance(joined, pa.ChunkedArray) else joined


def common_shares(a: Any, at_a: np.ndarray, b: Any, at_b: np.ndarray) -> np.ndarray:
    """Of pairs of texts, places of two arrays of `read_answers`: the share of the longer one's characters
    before the first that differs; 1.0 where they are alike."""
    first, second = a.take(pa.array(at_a)), b.take(pa.array(at_b))
    shares = np.ones(len(at_a))
    differ = np.flatnonzero(~_flags(pc.equal(first, second)))
    pairs = zip(
        first.take(pa.array(differ)).to_pylist(), second.take(pa.array(differ)).to_pylist(), strict=True
    )
    shares[differ] = [_common_characters(x, y) / max(len(x), len(y)) for x, y in pairs]
    return shares


def _common_characters(a: str, b: str) -> int:
    """How many characters two texts begin with alike, by bisection."""
    low, high = 0, min(len(a), len(b))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if a[low:middle] == b[low:middle] else (low, middle - 1)
    return low


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
