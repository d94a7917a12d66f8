"""Requests whose end nobody saw: found from what began."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from load_process import row

from harness.contracts import BegunRow, Load, LoadJob, RequestRow
from harness.load.lost import Ledger, append_lost


def begun(number: int, scheduled_ns: int = 100) -> BegunRow:
    return BegunRow(f"1-c{number}-t0", worker=2, user=3, conversation=number, turn=0,
                    scheduled_ns=scheduled_ns, max_tokens=9)  # fmt: skip


def job(folder: Path) -> LoadJob:
    return LoadJob(
        cell="1", base_url="", model="", api_key_env="", engine="", engine_options={}, fairness="matched",
        scenario="", scenario_options={}, load=Load(), seed=1, rows_path=str(folder / "rows"),
        summary_path=str(folder / "summary"), begun_path=str(folder / "begun"),
    )  # fmt: skip


def write(path: str, rows: list[BegunRow] | list[RequestRow], cut: bytes = b"") -> None:
    Path(path).write_bytes(b"".join(msgspec.json.encode(each) + b"\n" for each in rows) + cut)


def rows_of(job: LoadJob) -> list[RequestRow]:
    lines = Path(job.rows_path).read_bytes().splitlines()
    return [msgspec.json.decode(line, type=RequestRow) for line in lines]


def test_what_began_and_did_not_end_is_lost(tmp_path: Path) -> None:
    made = job(tmp_path)
    write(made.begun_path, [begun(0), begun(1, 130), begun(2, 140)])
    write(made.rows_path, [row(request_id="1-c1-t0", end_ns=900)])
    assert append_lost(made) == 2
    kept, first, second = rows_of(made)
    assert kept.outcome == "ok"
    assert (first.request_id, second.request_id) == ("1-c0-t0", "1-c2-t0")
    assert (first.outcome, first.error) == ("lost", "load worker 2 was lost")
    assert (first.scheduled_ns, first.sent_ns, first.end_ns, first.chunk_ns) == (100, None, 900, ())
    assert (first.worker, first.user, first.conversation, first.max_tokens) == (2, 3, 0, 9)


def test_doing_it_again_adds_nothing(tmp_path: Path) -> None:
    made = job(tmp_path)
    write(made.begun_path, [begun(0), begun(1)])
    write(made.rows_path, [])
    assert (append_lost(made), append_lost(made)) == (2, 0)
    assert len(rows_of(made)) == 2


def test_a_line_that_was_cut_short_counts_as_never_written(tmp_path: Path) -> None:
    made = job(tmp_path)
    write(made.begun_path, [begun(0), begun(1)], cut=b'{"request_id":"1-c2')
    write(
        made.rows_path,
        [row(request_id="1-c0-t0")],
        cut=b'{"request_id":"1-c1-t0","output_text":"' + b"x" * 99999,
    )
    assert append_lost(made) == 1
    assert [(each.request_id, each.outcome) for each in rows_of(made)] == [
        ("1-c0-t0", "ok"),
        ("1-c1-t0", "lost"),
    ]


def test_a_first_line_that_was_cut_short_leaves_an_empty_file(tmp_path: Path) -> None:
    made = job(tmp_path)
    write(made.begun_path, [], cut=b'{"request')
    assert append_lost(made) == 0
    assert Path(made.begun_path).read_bytes() == b""


def test_a_damaged_line_is_passed_over_and_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    made = job(tmp_path)
    good = msgspec.json.encode(begun(1))
    Path(made.begun_path).write_bytes(b'{"request_id":"1-c0\0\0\n' + good + b"\n[]\n")
    write(made.rows_path, [])
    assert append_lost(made) == 1
    assert [each.request_id for each in rows_of(made)] == ["1-c1-t0"]
    assert caplog.messages == [f"{made.begun_path}: lines that are damaged and were passed over: 2"]


def test_a_process_that_never_began_has_lost_nothing(tmp_path: Path) -> None:
    assert append_lost(job(tmp_path)) == 0
    assert not Path(job(tmp_path).rows_path).exists()


def test_the_ledger_takes_ends_before_beginnings() -> None:
    ledger = Ledger()
    ledger.end("1-c0-t0")
    ledger.begin(begun(0))
    ledger.begin(begun(1))
    assert [each.conversation for each in ledger.open] == [1]
    assert (ledger.begun, ledger.ended) == (2, 1)
