"""What load processes leave, put together: rows, summaries worked out by hand, what nobody saw end."""

from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from load_process import row, rows_of

from serving_bench.harness.contracts import BegunRow, Load, LoadJob, LoadSummary, RequestRow, WorkerSummary
from serving_bench.harness.load.records import append_lost, gather, merged, of_worker, read_summary


def begun(number: int, scheduled_ns: int = 100) -> BegunRow:
    return BegunRow(f"1-c{number}-t0", worker=2, user=3, conversation=number, turn=0,
                    scheduled_ns=scheduled_ns, max_tokens=9)  # fmt: skip


def job(folder: Path) -> LoadJob:
    return LoadJob(
        cell="1", base_url="", model="", engine="", scenario="", scenario_options={}, load=Load(1), seed=1,
        directory=str(folder),
    )  # fmt: skip


def write(path: Path, rows: list[BegunRow] | list[RequestRow], cut: bytes = b"") -> None:
    path.write_bytes(b"".join(msgspec.json.encode(each) + b"\n" for each in rows) + cut)


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
    gather(made, tmp_path / "load.log")
    assert append_lost(made) == 1
    assert [(each.request_id, each.outcome) for each in rows_of(made)] == [
        ("1-c0-t0", "ok"),
        ("1-c1-t0", "lost"),
    ]


def test_a_first_line_that_was_cut_short_leaves_an_empty_file(tmp_path: Path) -> None:
    made = job(tmp_path)
    write(made.begun_path, [], cut=b'{"request')
    gather(made, tmp_path / "load.log")
    assert append_lost(made) == 0
    assert made.begun_path.read_bytes() == b""


def test_a_damaged_line_is_passed_over_and_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    made = job(tmp_path)
    good = msgspec.json.encode(begun(1))
    made.begun_path.write_bytes(b'{"request_id":"1-c0\0\0\n' + good + b"\n[]\n")
    write(made.rows_path, [])
    assert append_lost(made) == 1
    assert [each.request_id for each in rows_of(made)] == ["1-c1-t0"]
    assert caplog.messages == [f"{made.begun_path}: damaged lines that were skipped: 2"]


def test_a_process_that_never_began_has_lost_nothing(tmp_path: Path) -> None:
    assert append_lost(job(tmp_path)) == 0
    assert not job(tmp_path).rows_path.exists()


def test_what_several_workers_wrote_becomes_the_first_ones(tmp_path: Path) -> None:
    made = replace(job(tmp_path), load=Load(concurrency=2, workers=2))
    log_path = tmp_path / "load.log"
    for number in (0, 1):
        cut = b'{"request_id":"1-c9' if number == 0 else b""
        write(of_worker(made.rows_path, number), [row(request_id=f"1-c{number}-t0")], cut)
        write(of_worker(made.begun_path, number), [begun(number), begun(number + 2)])
        of_worker(log_path, number).write_text(f"log of {number}\n")
    gather(made, log_path)
    assert [each.request_id for each in rows_of(made)] == ["1-c0-t0", "1-c1-t0"]
    assert log_path.read_text() == "log of 0\nlog of 1\n"
    assert append_lost(made) == 2
    assert [each.request_id for each in rows_of(made)[2:]] == ["1-c2-t0", "1-c3-t0"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["begun.jsonl", "load.log", "rows.jsonl"]


def test_a_summary_needs_that_of_every_worker(tmp_path: Path) -> None:
    made = replace(job(tmp_path), load=Load(concurrency=2, workers=2))
    of_worker(made.summary_path, 0).write_bytes(msgspec.json.encode(summary(A)))
    assert read_summary(made) is None
    of_worker(made.summary_path, 1).write_bytes(msgspec.json.encode(summary(B)))
    assert read_summary(made) == merged([summary(A), summary(B)])


A = WorkerSummary(
    number=0, pid=1, requests=10, stamp_source="kernel", clock_uncertainty_ns=40,
    stamp_lag_s=(0.001, 0.002, 0.9), loop_lag_s=(0.001, 0.003, 0.004), cpu_s=1.5, gc_pause_s=0.25,
)  # fmt: skip
B = replace(
    A, number=1, pid=2, requests=20, clock_uncertainty_ns=70, stamp_lag_s=(0.0, 0.005, 0.006),
    loop_lag_s=(0.002, 0.002, 0.1), cpu_s=2.0, gc_pause_s=0.5,
)  # fmt: skip


def summary(worker: WorkerSummary, **changes: object) -> LoadSummary:
    fields: dict[str, object] = {
        "started_ns": 100, "window_start_ns": 200, "window_end_ns": 900, "ended_ns": 950,
        "ended_by": "duration", "users": 4, "conversations_begun": 7, "requests": worker.requests,
        "stamp_source": worker.stamp_source, "clock_uncertainty_ns": worker.clock_uncertainty_ns,
        "stamp_lag_s": worker.stamp_lag_s, "loop_lag_s": worker.loop_lag_s, "cpu_s": worker.cpu_s,
        "gc_pause_s": worker.gc_pause_s, "workers": (worker,),
    }  # fmt: skip
    return LoadSummary(**(fields | changes))  # type: ignore[arg-type]


def test_counts_are_sums_and_lags_the_worst_workers() -> None:
    whole = merged([summary(A), summary(B, ended_ns=970, users=3)])
    assert (whole.started_ns, whole.window_start_ns, whole.window_end_ns, whole.ended_ns) == (
        100,
        200,
        900,
        970,
    )
    assert (whole.users, whole.conversations_begun, whole.requests) == (7, 14, 30)
    assert (whole.stamp_source, whole.clock_uncertainty_ns) == ("kernel", 70)
    assert whole.stamp_lag_s == B.stamp_lag_s  # by p99
    assert whole.loop_lag_s == A.loop_lag_s
    assert (whole.cpu_s, whole.gc_pause_s) == (3.5, 0.75)
    assert merged([summary(A, stalled_s=3.0), summary(B, stalled_s=0.5)]).stalled_s == 3.0
    assert whole.workers == (A, B)


def test_what_each_worker_left_out_is_left_out_of_the_whole() -> None:
    assert merged([summary(A, left_out=3), summary(B, left_out=4)]).left_out == 7


def test_one_worker_without_kernel_stamps_makes_the_cell_so() -> None:
    plain = replace(B, stamp_source="read", clock_uncertainty_ns=None, stamp_lag_s=None)
    whole = merged([summary(A), summary(plain)])
    assert (whole.stamp_source, whole.clock_uncertainty_ns, whole.stamp_lag_s) == ("read", None, None)


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        (("duration", 900), ("conversations", 700), ("conversations", 700)),
        (("conversations", 600), ("conversations", 700), ("conversations", 600)),
        (("duration", 900), ("duration", 901), ("duration", 900)),
        (("failures", 410), ("failures", 405), ("failures", 405)),
        (("interrupted", 300), ("duration", 900), ("interrupted", 300)),
        # A stop is the reason even where another was done before it.
        (("conversations", 300), ("failures", 405), ("failures", 300)),
        (("interrupted", 300), ("failures", 405), ("failures", 300)),
    ],
)
def test_the_window_is_that_in_which_all_of_the_load_was_there(
    a: tuple[str, int], b: tuple[str, int], expected: tuple[str, int]
) -> None:
    parts = [summary(w, ended_by=said, window_end_ns=end) for w, (said, end) in ((A, a), (B, b))]
    whole = merged(parts)
    assert (whole.ended_by, whole.window_end_ns) == expected
