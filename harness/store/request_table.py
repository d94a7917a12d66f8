"""Store requests: as JSON lines while a cell runs, then as one Parquet table.

A million requests of 200 chunks are gigabytes, so only one batch at a time is in memory.
"""

from __future__ import annotations

import logging
import os
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import dropwhile
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from serving_bench.harness.contracts import LoadSummary, RequestRow, timing
from serving_bench.harness.errors import StoreError
from serving_bench.harness.store.files import opened_table
from serving_bench.harness.store.tokenizer import Tokenizer
from serving_bench.harness.whole_files import written_whole

_NARROW = ("http_status", "worker", "part")


def _column(name: str, hint: Any) -> pa.DataType:
    """Return the type of the column that has a field's values."""
    if get_origin(hint) is tuple:
        return pa.list_(pa.int64())
    kinds = {bool: pa.bool_(), int: pa.int16() if name in _NARROW else pa.int64(), float: pa.float64()}
    return next((column for kind, column in kinds.items() if kind in (hint, *get_args(hint))), pa.string())


_TYPES = {name: _column(name, hint) for name, hint in get_type_hints(RequestRow).items()} | {
    "in_window": pa.bool_()
}
# Columns that tables of earlier versions may lack: the fields from `group` on.
LATER_COLUMNS = tuple(dropwhile(lambda name: name != "group", list(_TYPES)[:-1]))
REQUEST_SCHEMA = pa.schema([pa.field(name, kind) for name, kind in _TYPES.items()])
_INSTANTS = ("scheduled_ns", "sent_ns", "first_content_ns", "last_content_ns", "end_ns")
# Text and enumerations keep the dictionary; pyarrow refuses a dictionary and an explicit encoding together.
_DICTIONARY = ["outcome", "error", "token_source", "finish_reason", "form"]
# A batch becomes a row group: up to 2,048 requests, or fewer if they are long.
_BATCH_ROWS = 2048
_BATCH_BYTES = 8 << 20

# How many distinct messages are counted. If there are more (each with its own port, say), only the first are.
_MESSAGES = 1000

_log = logging.getLogger(__name__)


class _Sent(msgspec.Struct):
    scheduled_ns: int
    sent_ns: int | None


def in_window(row: RequestRow, summary: LoadSummary | None) -> bool | None:
    """Return whether a request was sent in the window; None without a summary."""
    if summary is None:
        return None
    return summary.window_start_ns <= _at_ns(row) < summary.window_end_ns


def _at_ns(row: RequestRow | _Sent) -> int:
    # A request that was never sent counts at its scheduled time: a dead server must not look idle.
    return row.sent_ns if row.sent_ns is not None else row.scheduled_ns


def read_rows(path: Path) -> list[RequestRow]:
    """Read all rows that a load process has written. Skips a last line that a kill cut off."""
    if not path.is_file():
        return []
    lines = path.read_bytes().split(b"\n")[:-1]
    return [msgspec.json.decode(line, type=RequestRow) for line in lines if line]


def rows_as_sent(path: Path) -> Iterator[RequestRow]:
    """Yield the rows in the order of sending, with one batch of lines in memory."""
    for lines in _batches(path):
        for line in lines:
            yield msgspec.json.decode(line, type=RequestRow)


def write_table(
    rows_path: Path,
    path: Path,
    summary: LoadSummary | None,
    tokenizer: Tokenizer | None = None,
    ideals: Mapping[str, int] | None = None,
    *,
    origin: timing.Origin = "sent_ns",
) -> Tally:
    """Turn JSON lines of RequestRow into a Parquet table in the order of sending, and count them.

    Makes two passes, with one batch of lines in memory. Skips damaged lines, which the log counts, and a last
    line that a kill cut off. The table is written whole or not at all. `in_window` is null without a summary.
    `tokenizer` fills tokenizer_tokens, and output_tokens if the server gave none for an ok request.
    `ideals` are the ideal_cached_tokens by request_id. Latencies count from `origin`.
    """
    with written_whole(path) as part:
        for compression in ("zstd", "none"):  # answers of equal characters would unpack like a bomb
            tally = Tally(summary, origin)
            with table_writer(part, compression) as writer:
                _write(rows_path, writer, tally, tokenizer, ideals)
            if _is_readable(part):
                break
    return tally


def _is_readable(path: Path) -> bool:
    try:
        with opened_table(path, REQUEST_SCHEMA):
            return True
    except StoreError:
        return False


def _write(
    rows_path: Path,
    writer: pq.ParquetWriter,
    tally: Tally,
    tokenizer: Tokenizer | None,
    ideals: Mapping[str, int] | None,
) -> None:
    for lines in _batches(rows_path):
        rows = [msgspec.json.decode(line, type=RequestRow) for line in lines]
        if tokenizer:
            rows = list(_counted(rows, tokenizer))
        inside = [in_window(row, tally.summary) for row in rows]
        columns = {name: [getattr(row, name, None) for row in rows] for name in _TYPES}
        if ideals:
            columns["ideal_cached_tokens"] = [ideals.get(row.request_id) for row in rows]
        writer.write_batch(pa.RecordBatch.from_pydict(columns | {"in_window": inside}, REQUEST_SCHEMA))
        for row, is_inside in zip(rows, inside, strict=True):
            tally.add(row, is_inside=bool(is_inside))


def write_columns(rows: Sequence[Mapping[str, object]], path: Path) -> None:
    """Write rows, keyed by column name, as such a table, whole or not at all. A missing key is null."""
    with written_whole(path) as part, table_writer(part) as writer:
        for at in range(0, len(rows), _BATCH_ROWS):
            writer.write_table(pa.Table.from_pylist(list(rows[at : at + _BATCH_ROWS]), REQUEST_SCHEMA))


def table_writer(path: Path, compression: str = "zstd") -> pq.ParquetWriter:
    """Open a writer of REQUEST_SCHEMA with the encoding and compression of requests.parquet."""
    return pq.ParquetWriter(
        path,
        REQUEST_SCHEMA,
        compression=compression,
        use_dictionary=_DICTIONARY,
        column_encoding=dict.fromkeys([*_INSTANTS, "chunk_ns.list.element"], "DELTA_BINARY_PACKED"),
    )


def _counted(rows: Sequence[RequestRow], tokenizer: Tokenizer) -> Iterator[RequestRow]:
    # Reasoning and answer are counted apart: the model puts a special token between them, so no token spans
    # both. A tool call has neither.
    counts = tokenizer.count([text for row in rows for text in (row.reasoning_text, row.output_text)])
    for row, reasoning, output in zip(rows, counts[::2], counts[1::2], strict=True):
        if row.reasoning_text or row.output_text:
            tokens = reasoning + output
            row = replace(row, tokenizer_tokens=tokens)
            if row.output_tokens is None and row.outcome == "ok":
                row = replace(row, output_tokens=tokens, token_source="tokenizer")
        yield row


def _batches(path: Path) -> Iterator[list[bytes]]:
    if not path.is_file():
        return
    # Not mapped: pages of a mapped file that were read would count as this process's memory.
    with path.open("rb") as file:
        batch, size_bytes = list[bytes](), 0
        for _, begin, end in _places(path):
            batch.append(os.pread(file.fileno(), end - begin, begin))
            size_bytes += len(batch[-1])
            if len(batch) >= _BATCH_ROWS or size_bytes >= _BATCH_BYTES:
                yield batch
                batch, size_bytes = [], 0
        if batch:
            yield batch


def _places(path: Path) -> list[tuple[int, int, int]]:
    """Return (sent or scheduled ns, begin, end) of each complete line, sorted. Logs how many are damaged."""
    places, decoder = [], msgspec.json.Decoder(_Sent)
    end = damaged = 0
    with path.open("rb", buffering=1 << 20) as lines:
        for line in lines:
            begin, end = end, end + len(line)
            if line.endswith(b"\n") and len(line) > 1:
                try:
                    places.append((_at_ns(decoder.decode(line)), begin, end))
                except (ValueError, RecursionError):
                    damaged += 1
    if damaged:
        _log.warning("%s: rows that are damaged and were left out: %d", path, damaged)
    return sorted(places)


# The report computes the same figures, and a test keeps both equal. Its libraries must not be loaded between
# two cells.


@dataclass(frozen=True)
class Result:
    """The result of a completed cell, as shown while a run goes on.

    `tokens_per_s`: output tokens per second of the window; None if an ok request has no count.
    `ttft_p50_s`: the median of `ttft_n` ok requests; None if they are too few.
    """

    tokens_per_s: float | None = None
    ttft_p50_s: float | None = None
    ttft_n: int = 0


@dataclass
class Tally:
    """Counts of one cell's requests.

    `requests`: all. `sent`: those sent in the window. `failed`: those of `sent` that failed. `ok`: all that
    are ok. `ended`: ok ones that ended in the window. `gone`: those that were left, cancelled or timed out.
    A request whose user would leave does not count in the window. `messages` and `window_messages` count
    failed requests by `outcome: error`.
    """

    summary: LoadSummary | None = None
    origin: timing.Origin = "sent_ns"
    requests: int = 0
    sent: int = 0
    failed: int = 0
    ok: int = 0
    ended: int = 0
    gone: int = 0
    messages: Counter[str] = field(default_factory=Counter)
    window_messages: Counter[str] = field(default_factory=Counter)
    _tokens: float | None = 0.0  # tokens that arrived in the window; None once an ok request lacks its count
    _ttft_ns: array[int] = field(default_factory=lambda: array("q"))

    def add(self, row: RequestRow, *, is_inside: bool) -> None:
        begin_ns, end_ns = self._window_ns()
        is_ok, stays = row.outcome == "ok", row.leave_after_s is None
        counts = is_inside and stays
        self.requests += 1
        self.sent += counts
        self.ok += is_ok
        self.gone += row.outcome in ("left", "timeout", "cancelled")
        self.ended += is_ok and stays and row.end_ns is not None and begin_ns <= row.end_ns < end_ns
        self.failed += counts and row.is_failed
        if row.is_failed:
            message = f"{row.outcome}: {row.error}"
            for tally in [self.messages, self.window_messages][: 1 + counts]:
                if message in tally or len(tally) < _MESSAGES:
                    tally[message] += 1
        elif is_ok and counts and (ttft := timing.ttft_ns(row, self.origin)) is not None:
            self._ttft_ns.append(ttft)
        inside = timing.chunks_within(row.chunk_ns, begin_ns, end_ns) if stays else 0
        if inside and row.output_tokens is None and is_ok:
            self._tokens = None
        elif inside and row.output_tokens is not None and self._tokens is not None:
            self._tokens += timing.tokens_within(row.output_tokens, inside, len(row.chunk_ns))

    @property
    def result(self) -> Result:
        begin_ns, end_ns = self._window_ns()
        window_s, n = (end_ns - begin_ns) / 1e9, len(self._ttft_ns)
        return Result(
            tokens_per_s=self._tokens / window_s if self._tokens is not None and window_s > 0 else None,
            ttft_p50_s=timing.percentile(sorted(self._ttft_ns), 0.5) / 1e9
            if n >= timing.LEAST_FOR_MEDIAN
            else None,
            ttft_n=n,
        )

    def _window_ns(self) -> tuple[int, int]:
        return (self.summary.window_start_ns, self.summary.window_end_ns) if self.summary else (0, 0)
