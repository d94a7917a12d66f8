"""JSON lines of requests become one table, in bounded memory, whatever their number and order."""

import subprocess
import sys
from pathlib import Path
from random import Random

import make_run
import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from make_run import MS, S

from serving_bench.harness.contracts import RequestRow
from serving_bench.harness.store import request_table, store
from serving_bench.harness.store.request_table import LATER_COLUMNS, REQUEST_SCHEMA


def test_requests_of_many_batches_are_in_the_order_of_sending(tmp_path):
    count = 2 * request_table._BATCH_ROWS + 10
    rows = [make_run.row(k, 10**15 + k * MS, chunk_ns=(10**15 + k * MS + 7,)) for k in range(count)]
    Random(1).shuffle(rows)
    lines, table = make_run.write_rows(tmp_path / "rows.jsonl", rows), tmp_path / "t.parquet"
    tally = request_table.write_table(lines, table, None)
    file = pq.ParquetFile(table)
    assert (tally.requests, file.metadata.num_rows, file.metadata.num_row_groups) == (count, count, 3)
    read = file.read(["request_id", "chunk_ns"])
    assert read["request_id"].to_pylist() == [f"r{k}" for k in range(count)]
    assert read["chunk_ns"].to_pylist()[-1] == [10**15 + (count - 1) * MS + 7]


def test_long_requests_end_a_batch_early(tmp_path):
    rows = [make_run.row(k, k * S, output_text="x" * (3 << 20)) for k in range(5)]
    lines, table = make_run.write_rows(tmp_path / "rows.jsonl", rows), tmp_path / "t.parquet"
    request_table.write_table(lines, table, None)
    file = pq.ParquetFile(table)
    assert (file.metadata.num_row_groups, file.metadata.num_rows) == (2, 5)


def test_a_damaged_line_is_left_out_and_told(tmp_path, caplog):
    lines = make_run.write_rows(tmp_path / "rows.jsonl", [make_run.row(k, k * S) for k in range(3)])
    first, second, third = lines.read_bytes().splitlines(keepends=True)
    lines.write_bytes(first + second[:40] + b"\0\0\n" + third)
    tally = request_table.write_table(lines, tmp_path / "t.parquet", None)
    assert pq.read_table(tmp_path / "t.parquet")["request_id"].to_pylist() == ["r0", "r2"]
    assert tally.requests == 2
    assert caplog.messages == [f"{lines}: rows that are damaged and were left out: 1"]


_CONVERT = """
import sys
from pathlib import Path
from serving_bench.harness.store import request_table, store
from serving_bench.harness.store.request_table import LATER_COLUMNS, REQUEST_SCHEMA
def peak_kib():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
before = peak_kib()
tally = request_table.write_table(Path(sys.argv[1]), Path(sys.argv[2]), None)
print(tally.requests, (peak_kib() - before) // 1024)
"""


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="no /proc to read a peak from")
def test_memory_does_not_grow_with_the_number_of_requests(tmp_path):
    sent_ns = 10**15
    row = make_run.row(
        0, sent_ns, chunk_ns=tuple(sent_ns + k * MS for k in range(200)), output_text="x" * 900
    )
    line = msgspec.json.encode(row) + b"\n"
    lines = tmp_path / "rows.jsonl"
    lines.write_bytes(line * 15_000)
    assert lines.stat().st_size > 60e6
    command = [sys.executable, "-c", _CONVERT, str(lines), str(tmp_path / "t.parquet")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    requests, grown_mib = map(int, done.stdout.split())
    assert requests == 15_000
    assert grown_mib < 220, "one batch in its several forms, and not the 370 MiB that all of it takes"


def tally_of(path, rows, load_summary=None) -> request_table.Tally:
    lines = make_run.write_rows(path / "rows.jsonl", rows)
    return request_table.write_table(lines, path / "t.parquet", load_summary)


def test_requests_are_counted_by_window_and_by_what_went_wrong(tmp_path):
    rows: list[RequestRow] = [make_run.row(0, S), make_run.row(1, 3 * S), make_run.row(2, 4 * S)]
    rows += [make_run.failed_row(k, 5 * S) for k in (3, 4)]
    rows += [make_run.failed_row(5, S, "timeout", "after 1 s"), make_run.lost_row(6, 6 * S)]
    tally = tally_of(tmp_path, rows, make_run.summary(0))  # window: 2 s to 10 s
    assert (tally.requests, tally.sent, tally.failed) == (7, 5, 3)
    http, lost = "http_error: status 500", "lost: load worker 1 was lost"
    assert tally.window_messages == {http: 2, lost: 1}
    assert tally.messages == {http: 2, lost: 1, "timeout: after 1 s": 1}


def test_messages_of_every_kind_are_not_kept_without_end(tmp_path):
    rows = [make_run.failed_row(k, S, error=f"port {k}") for k in range(1200)]
    tally = tally_of(tmp_path, rows)
    assert (len(tally.messages), tally.failed) == (1000, 0)


def test_a_table_from_before_a_column_was_added_has_nulls_there(tmp_path: Path) -> None:
    older = REQUEST_SCHEMA.empty_table().drop_columns(list(LATER_COLUMNS))
    rows = pa.Table.from_pylist([{"request_id": "r", "outcome": "ok"}], older.schema)
    pq.write_table(rows, tmp_path / "requests.parquet")
    read = store.read_requests(tmp_path, ["request_id", "group", "calls"])
    assert read.to_pylist() == [{"request_id": "r", "group": None, "calls": None}]
