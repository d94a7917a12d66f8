"""Arrow tables of a results directory, and totals over the lists of chunks. The only pyarrow in reports.

Chunk lists are read a batch at a time and never enter pandas. Gaps between chunks are counted in fixed bins
for the distributions; their percentiles are exact. Memory holds one batch, 8 bytes per gap of the cell, and
the counts. Knows no metric and no page.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from serving_bench.harness.store import store
from serving_bench.harness.store.files import reading
from serving_bench.harness.store.request_table import LATER_COLUMNS, REQUEST_SCHEMA
from serving_bench.reports.stats.steadiness import PARTS

# A column of a million requests takes 9 MB or more. Columns that few scenarios fill are read one cell at a
# time by `with_columns`; columns that no figure needs are not read.
_OF_ALL = ("part", "leave_after_s", "sent_words")
_UNREAD = {"chunk_ns", "reasoning_text", "output_text", "raw_response", *LATER_COLUMNS} - {*_OF_ALL}
_COLUMNS = tuple(name for name in REQUEST_SCHEMA.names if name not in _UNREAD)
_NULLABLE = {
    pa.int16(): pd.Int64Dtype(),
    pa.int32(): pd.Int64Dtype(),
    pa.int64(): pd.Int64Dtype(),
    pa.bool_(): pd.BooleanDtype(),
}
# Bins as in HdrHistogram: each doubling from 8.2 us to 1,100 s has 64 equal parts. A bin is 0.8 to 1.6 %
# wide, and the leading bits of a float give its bin.
_PARTS = 64
_LEAST, _GREATEST = 13, 40  # powers of two, in ns
_SHIFT = 52 - 6  # the first 6 of a float64's 52 fraction bits are the part of 64
BINS = 1 + (_GREATEST - _LEAST) * _PARTS
_edges_ns = (2.0**power * (1 + part / _PARTS) for power in range(_LEAST, _GREATEST) for part in range(_PARTS))
# Bin k is from EDGES_S[k] to EDGES_S[k + 1], in seconds. The first begins at 0, the last has all longer gaps.
EDGES_S: np.ndarray = np.array([0.0, *_edges_ns, 2.0**_GREATEST]) / 1e9
_BEFORE_FIRST = int(np.float64(2.0**_LEAST).view(np.int64) >> _SHIFT) - 1


def _frame(tables: list[Any]) -> pd.DataFrame:
    """Return the tables concatenated. Empties the list, so that each column is in memory only once."""
    joined = pa.concat_tables(tables, promote_options="permissive")
    tables.clear()
    frame: pd.DataFrame = joined.to_pandas(types_mapper=_NULLABLE.get, split_blocks=True, self_destruct=True)
    return frame


def requests_frame(run_dir: Path, origins: Mapping[int, str]) -> pd.DataFrame:
    """Return the requests of these cells with the columns of Run.requests.

    `origins`: by cell number, the column with the instant that ttft_s and e2e_s count from.
    """
    tables = []
    for number, origin in origins.items():
        folder = store.cell_dir(run_dir, number)
        with reading(folder / "requests.parquet"):
            tables.append(_latencies(store.read_requests(folder, _COLUMNS), number, origin))
    return _frame(tables or [_latencies(REQUEST_SCHEMA.empty_table().select(list(_COLUMNS)), 0, "sent_ns")])


def with_columns(run_dir: Path, number: int, frame: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """Return all requests of a cell with further columns of requests.parquet (null in older runs), or with
    `chunks`, the number of content chunks."""
    folder, stored = store.cell_dir(run_dir, number), [name for name in names if name != "chunks"]
    with reading(folder / "requests.parquet"):
        more = _frame([store.read_requests(folder, stored)])
        if "chunks" in names:
            lists = (table["chunk_ns"] for table in store.request_batches(folder, ["chunk_ns"]))
            counts = [pc.list_value_length(each).to_numpy() for each in lists]
            more = more.assign(chunks=np.concatenate([np.empty(0, dtype=np.int64), *counts]))
    return frame.assign(**{name: more[name].array for name in names})


def row_batches(run_dir: Path, number: int, names: Sequence[str]) -> Iterator[list[dict[str, Any]]]:
    """Yield the rows of a cell's requests in batches of some thousand, with these columns, texts included."""
    path = store.cell_dir(run_dir, number)
    with reading(path / "requests.parquet"):
        for table in store.request_batches(path, names):
            yield table.to_pylist()


def _latencies(table: Any, number: int, origin: str) -> Any:
    content_s = _seconds(table["first_content_ns"], table["last_content_ns"])
    gaps = pc.cast(pc.subtract(table["output_tokens"], 1), pa.float64())
    columns = {
        "ttft_s": _seconds(table[origin], table["first_content_ns"]),
        "tpot_s": pc.divide(content_s, pc.if_else(pc.greater_equal(gaps, 1.0), gaps, None)),
        "e2e_s": _seconds(table[origin], table["end_ns"]),
        "send_lag_s": _seconds(table["scheduled_ns"], table["sent_ns"]),
    }
    stays = pc.and_(pc.is_null(table["leave_after_s"]), pc.not_equal(table["outcome"], "left"))
    table = table.append_column("stays", stays).drop_columns("leave_after_s")
    part = table.column_names.index("part")
    # Older tables have none. As uint16 a million requests take 2 MB.
    table = table.set_column(part, "part", pc.cast(pc.fill_null(table["part"], 0), pa.uint16()))
    for name, values in columns.items():
        table = table.append_column(name, values)
    return table.add_column(0, "cell", pa.array(np.full(table.num_rows, number), pa.int64()))


def _seconds(begin_ns: Any, end_ns: Any) -> Any:
    return pc.divide(pc.cast(pc.subtract(end_ns, begin_ns), pa.float64(), safe=False), 1e9)


def samples_frame(run_dir: Path, names: Iterable[str], file_name: str) -> pd.DataFrame | None:
    """Return a samples file of all starts in order, with a categorical column `start`; None if no start has
    the file."""
    tables, starts = [], list(names)
    for at, name in enumerate(starts):
        path = run_dir / "starts" / name / file_name
        with reading(path):
            table = store.read_samples(path)
        if table is not None and table.num_rows:
            codes = np.full(table.num_rows, at, dtype=np.int32)
            column = pa.DictionaryArray.from_arrays(codes, pa.array(starts))
            tables.append(table.add_column(0, "start", column))
    return _frame(tables) if tables else None


# --- rows without a copy ---------------------------------------------------------------------------

# A run's frames have millions of rows, ordered by start or cell, and are sliced hundreds of times.


def taken(frame: pd.DataFrame, mask: np.ndarray) -> pd.DataFrame:
    """Return the rows of a mask: a view if they are adjacent, otherwise a copy."""
    at = np.flatnonzero(mask)
    if len(at) and at[-1] - at[0] + 1 > len(at):
        return frame[mask]
    return frame.iloc[at[0] : at[-1] + 1] if len(at) else frame.iloc[:0]


def of_start(samples: pd.DataFrame, name: str) -> pd.DataFrame:
    """Return the samples of one start from a frame of `samples_frame`, which is ordered by start."""
    starts = samples["start"].cat
    if name not in starts.categories:
        return samples.iloc[:0]
    # In the codes' own type, or searchsorted would convert them all.
    code = starts.codes.dtype.type(starts.categories.get_loc(name))
    first, last = (int(np.searchsorted(starts.codes, code, side)) for side in ("left", "right"))
    return samples.iloc[first:last]


def floats(column: Any) -> np.ndarray:
    """Return a numeric column (a Series or its array) as floats, NaN where missing."""
    return np.asarray(column.to_numpy(dtype=float, na_value=np.nan))


# --- chunks ----------------------------------------------------------------------------------------

_SPAN = ("first_content_ns", "last_content_ns")


@dataclass(frozen=True)
class Chunks:
    """The content chunks of a batch of a cell's requests.

    A request that its user would leave counts as not ok, with unknown tokens.
    """

    at_ns: np.ndarray  # by chunk
    of: np.ndarray  # by chunk: its request's place in the batch
    tokens: np.ndarray  # by request: output tokens, NaN where unknown
    is_ok: np.ndarray
    in_window: np.ndarray
    spans_ns: np.ndarray  # first and last content by request, NaN where its chunks are known


def chunk_batches(run_dir: Path, number: int) -> Iterator[Chunks]:
    """Yield the chunks of a cell's requests in batches of some thousand requests, in stored order."""
    path = store.cell_dir(run_dir, number)
    with reading(path / "requests.parquet"):
        names = ["chunk_ns", "outcome", "in_window", "output_tokens", "leave_after_s", *_SPAN]
        for table in store.request_batches(path, names):
            lists, stays = table["chunk_ns"].combine_chunks(), pc.is_null(table["leave_after_s"])
            tokens = pc.cast(pc.if_else(stays, table["output_tokens"], None), pa.float64())
            is_ok = pc.and_(stays, pc.equal(table["outcome"], "ok"))
            yield Chunks(
                at_ns=lists.flatten().to_numpy(zero_copy_only=False),
                of=pc.list_parent_indices(lists).to_numpy(zero_copy_only=False),
                tokens=tokens.to_numpy(zero_copy_only=False),
                is_ok=is_ok.to_numpy(zero_copy_only=False).astype(bool),
                in_window=pc.fill_null(table["in_window"], False).to_numpy(zero_copy_only=False).astype(bool),
                spans_ns=np.array([_where(pc.is_null(lists), table[name]) for name in _SPAN]),
            )


def _where(is_so: Any, instants: Any) -> np.ndarray:
    when_so = pc.if_else(is_so, instants, None)
    return np.asarray(pc.cast(when_so, pa.float64(), safe=False).to_numpy(zero_copy_only=False))


@dataclass(frozen=True)
class GapCounts:
    """The gaps of ok requests sent in the window, of one cell or several: the count in each bin, and how many
    requests they come from."""

    counts: np.ndarray
    requests: int

    @property
    def n(self) -> int:
        return int(self.counts.sum())


NO_GAPS = GapCounts(np.zeros(BINS, dtype=np.int64), 0)


def together(counts: Iterable[GapCounts]) -> GapCounts:
    """Return the sum of several cells' gaps."""
    each = [NO_GAPS, *counts]
    return GapCounts(np.sum([gaps.counts for gaps in each], axis=0), sum(gaps.requests for gaps in each))


def bins_of(gaps_ns: np.ndarray) -> np.ndarray:
    """Return the bin of each gap; see EDGES_S."""
    places = gaps_ns.astype(np.float64).view(np.int64) >> _SHIFT
    return np.asarray(np.clip(places - _BEFORE_FIRST, 0, BINS - 1))


def quantile(counts: np.ndarray, share: float) -> float | None:
    """Return a quantile in seconds by numpy's linear rule; None without a gap.

    Gaps are taken as evenly spread in their bins, so a value of 8.2 us or more is exact to 1.6 %.
    """
    until = np.cumsum(counts)
    if not until[-1]:
        return None
    rank = (until[-1] - 1) * share
    ranks = np.floor(rank), np.ceil(rank)
    at = np.searchsorted(until, ranks, side="right")
    inside = (ranks - until[at] + counts[at] + 0.5) / counts[at]
    return float(np.interp(rank, ranks, EDGES_S[at] + np.diff(EDGES_S)[at] * inside))


@dataclass(frozen=True)
class ChunkTotals:
    """Totals over the chunks of one cell."""

    gaps: GapCounts
    gap_percentiles_s: Mapping[int, float]  # exact, by level
    streamed_s: float  # the sum of all gaps
    arrived: np.ndarray | None  # output tokens in each of PARTS parts of the window; None if not known
    # Over the window's ok requests that have a token count and chunks:
    tokens: float
    chunks: int
    counted_requests: int


def chunk_totals(
    batches: Iterable[Chunks], window_ns: tuple[int, int] | None, levels: Sequence[int] = ()
) -> ChunkTotals:
    """Return the totals over all batches of a cell. `window_ns`: its begin and end, if it has one. `levels`:
    of the gaps' percentiles."""
    counts, requests, gaps = NO_GAPS.counts.copy(), 0, [np.empty(0, dtype=np.int64)]
    of_counted = np.zeros(3)  # tokens, chunks, requests
    arrived = np.zeros(PARTS + 2)  # before the window, in its parts, after it
    for batch in batches:
        lengths = np.bincount(batch.of, minlength=len(batch.tokens))
        good = batch.is_ok & batch.in_window
        countable = good & ~np.isnan(batch.tokens) & (lengths > 0)
        of_counted += batch.tokens[countable].sum(), lengths[countable].sum(), countable.sum()
        is_gap = (np.diff(batch.of) == 0) & good[batch.of[1:]]
        gaps.append(np.maximum(np.diff(batch.at_ns)[is_gap], 0))
        counts += np.bincount(bins_of(gaps[-1]), minlength=BINS)
        requests += int((good & (lengths > 1)).sum())
        if window_ns is not None:
            arrived += _arrived(batch, lengths, *window_ns)
    all_ns = np.concatenate(gaps)
    is_known = window_ns is not None and not np.isnan(arrived[1:-1]).any()
    return ChunkTotals(
        GapCounts(counts, requests),
        dict(zip(levels, (np.percentile(all_ns, levels) / 1e9).tolist(), strict=True)) if len(all_ns) else {},
        streamed_s=int(all_ns.sum()) / 1e9,
        arrived=arrived[1:-1] if is_known else None,
        tokens=float(of_counted[0]),
        chunks=int(of_counted[1]),
        counted_requests=int(of_counted[2]),
    )


def _arrived(batch: Chunks, lengths: np.ndarray, begin_ns: int, end_ns: int) -> np.ndarray:
    """Return the output tokens that arrived before the window, in each of its parts, and after it.

    A request's tokens are spread evenly over its chunks, or from its first to its last content if the chunks
    are not known. A part is NaN if the tokens of an ok request in it are unknown. Those of a failed request
    then count as 0.
    """
    part = np.clip((batch.at_ns - begin_ns) * PARTS // (end_ns - begin_ns) + 1, 0, PARTS + 1)
    tokens = np.where(batch.is_ok, batch.tokens, np.nan_to_num(batch.tokens))
    arrived = np.bincount(part, (tokens / np.maximum(lengths, 1))[batch.of], minlength=PARTS + 2)
    is_span = ~np.isnan(batch.spans_ns).any(axis=0)
    first_ns, last_ns = batch.spans_ns[:, is_span, None]
    edges_ns = np.concatenate([[-np.inf], np.linspace(begin_ns, end_ns, PARTS + 1), [np.inf]])
    until = np.clip((edges_ns - first_ns) / np.maximum(last_ns - first_ns, 1), 0, 1)
    spread: np.ndarray = arrived + tokens[is_span] @ np.diff(until)
    return spread
