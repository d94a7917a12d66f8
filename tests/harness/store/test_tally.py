"""The two figures that a cell's line tells: worked out by hand, and the same as on the report's page."""

from dataclasses import replace

import make_run
import pytest
from make_run import MS, S

from serving_bench.harness.contracts import Load, RequestRow
from serving_bench.harness.contracts.timing import LEAST_FOR_MEDIAN, needed, origin_of
from serving_bench.harness.store import store
from serving_bench.harness.store.request_table import Result, Tally, write_table
from serving_bench.reports import open_run
from serving_bench.reports.measures.values import values_of

BEGIN = 100 * S
SUMMARY = make_run.summary(BEGIN, warmup_s=0.0, duration_s=10.0)


def result(rows, origin: str = "sent_ns") -> Result:
    tally = Tally(SUMMARY, origin)
    for row in rows:
        tally.add(row, is_inside=SUMMARY.window_start_ns <= row.sent_ns < SUMMARY.window_end_ns)
    return tally.result


def test_a_requests_tokens_are_spread_over_its_chunks_and_those_in_the_window_count():
    before = make_run.row(0, BEGIN - 100 * MS - 50 * MS)  # chunks at -50, -30, -10, 10, 30 ms
    after = make_run.row(1, BEGIN + 10 * S - 110 * MS)  # the first at -10 ms of the end
    assert result([before, after]).tokens_per_s == pytest.approx((10 * 2 / 5 + 10 * 1 / 5) / 10)


def test_requests_that_outlast_the_window_have_ended_in_none():
    outlasting = make_run.row(0, BEGIN - S, chunk_ns=(BEGIN + S, BEGIN + 11 * S), end_ns=BEGIN + 11 * S)
    tally = Tally(SUMMARY)
    tally.add(outlasting, is_inside=False)
    assert (tally.ended, tally.result.tokens_per_s) == (0, 0.5)
    tally.add(make_run.row(1, BEGIN), is_inside=True)
    assert tally.ended == 1


def test_a_failed_requests_tokens_count_where_they_are_known():
    failed = make_run.row(0, BEGIN, outcome="reset")
    unknown = make_run.row(1, BEGIN, outcome="reset", output_tokens=None)
    assert result([failed, unknown]).tokens_per_s == 1.0


def test_an_ok_request_without_a_count_leaves_the_rate_unknown():
    assert result([make_run.row(0, BEGIN, output_tokens=None)]).tokens_per_s is None


@pytest.mark.parametrize("outcome", ["left", "ok", "timeout"])
def test_a_request_that_its_user_would_leave_is_neither_sent_nor_failed_nor_timed(outcome):
    tally = Tally(SUMMARY)
    left = make_run.row(0, BEGIN, outcome=outcome, leave_after_s=0.3)
    for row in [left] * LEAST_FOR_MEDIAN:
        tally.add(row, is_inside=True)
    assert (tally.requests, tally.sent, tally.failed) == (LEAST_FOR_MEDIAN, 0, 0)
    assert tally.result == Result(0.0, None, 0)


def test_without_a_window_there_is_nothing_to_tell():
    tally = Tally()
    tally.add(make_run.row(0, BEGIN), is_inside=False)
    assert tally.result == Result(None, None, 0)


@pytest.mark.parametrize("origin", ["sent_ns", "scheduled_ns"])
def test_a_closed_loop_counts_from_the_sending_and_an_open_one_from_the_schedule(origin):
    rows = [make_run.row(k, BEGIN + k * MS) for k in range(11)]
    found = result(rows, origin)
    assert (found.ttft_p50_s, found.ttft_n) == (0.100 if origin == "sent_ns" else 0.101, 11)


def test_fewer_requests_than_a_median_needs_have_none():
    assert needed(50) == LEAST_FOR_MEDIAN
    rows = [make_run.row(k, BEGIN + k * MS) for k in range(LEAST_FOR_MEDIAN - 1)]
    assert result(rows) == Result(tokens_per_s=10.0, ttft_p50_s=None, ttft_n=10)


@pytest.mark.parametrize("load", [Load(concurrency=2), Load(concurrency=None, rate_per_s=5.0)])
def test_the_figures_are_the_reports(tmp_path, load):
    """Requests over both ends of the window, each slower than the last, one failed, one without a count."""
    summary = make_run.summary(BEGIN)
    rows = [slower(k) for k in range(32)]
    rows[0] = replace(rows[0], output_tokens=None)
    rows[12] = make_run.failed_row(12, BEGIN + 12 * 370 * MS)
    rows[13] = replace(rows[13], leave_after_s=60.0)
    rows[14] = replace(rows[14], leave_after_s=0.01, outcome="left", output_tokens=None)
    plan = make_run.plan_of([make_run.deployment("llama_cpp", "fp16")], [load])
    [start] = plan.starts
    store.write_record(tmp_path / "run.json", make_run.run_record(plan))
    make_run.write_start(tmp_path, make_run.start_record(start, BEGIN - 10 * S))
    make_run.write_cell(tmp_path, start.cells[0], start, rows, summary)
    lines = make_run.write_rows(tmp_path / "rows.jsonl", rows)
    found = write_table(lines, tmp_path / "t.parquet", summary, origin=origin_of(load)).result
    [values] = values_of(open_run(tmp_path)).values()
    assert values["output_tokens_per_s"].value == pytest.approx(found.tokens_per_s, rel=1e-12)
    assert values["ttft_s.p50"].value == pytest.approx(found.ttft_p50_s, rel=1e-12)
    assert (values["ttft_s.p50"].n, found.ttft_p50_s is not None) == (found.ttft_n, True)


def slower(number: int) -> RequestRow:
    """The later it is sent, the later its chunks come."""
    row = make_run.row(number, BEGIN + number * 370 * MS, output_tokens=number % 7 + 3)
    chunks = tuple(at + number * number * 50_000 for at in row.chunk_ns)
    ends = {"first_content_ns": chunks[0], "last_content_ns": chunks[-1], "end_ns": chunks[-1] + MS}
    return replace(row, chunk_ns=chunks, **ends)
