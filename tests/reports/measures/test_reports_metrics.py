"""Each metric against numbers worked out by hand."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from make_run import (
    GIB,
    MS,
    S,
    begin_run,
    deployment,
    failed_row,
    one_cell_run,
    row,
    starts_run,
    summary,
    write_cell,
    write_start,
)

from serving_bench.harness.contracts import Load, because
from serving_bench.harness.contracts.timing import needed
from serving_bench.harness.sampling.host import HostSample
from serving_bench.reports import METRICS, open_run, tables_of
from serving_bench.reports.data.tables import bins_of
from serving_bench.reports.measures.metrics import Value, why_missing
from serving_bench.reports.measures.over_starts import aggregate
from serving_bench.reports.measures.values import measured_of, percentile_values, values_of
from serving_bench.reports.measures.written import number
from serving_bench.reports.page.cells import mean_cell
from serving_bench.reports.page.document import page
from serving_bench.reports.page.drawing.charts import log_ticks

# The window of one_cell_run is [102 s, 110 s).
T0 = 102 * S


def values_in(path, rows, **changes):
    return values_of(open_run(one_cell_run(path, rows, **changes).path))[0]


def test_latencies_count_from_sent_to_each_instant(tmp_path):
    made = one_cell_run(tmp_path, [row(0, T0)])
    request = open_run(made.path).requests.iloc[0]
    assert request["ttft_s"] == pytest.approx(0.100)  # first of five chunks, 20 ms apart
    assert request["tpot_s"] == pytest.approx(0.080 / 9)  # 80 ms between the ends, ten tokens
    assert request["e2e_s"] == pytest.approx(0.190)
    assert request["send_lag_s"] == pytest.approx(0.001)


@pytest.mark.parametrize(
    ("load", "late_s"),
    [
        (Load(1), 0.0),
        (Load(concurrency=None, rate_per_s=2.0), 1.0),
        (Load(concurrency=None, arrival="trace"), 1.0),
    ],
    ids=lambda each: each.kind if isinstance(each, Load) else "",
)
def test_a_load_with_a_schedule_counts_from_when_a_request_was_due(tmp_path, load, late_s):
    late = replace(row(0, T0), scheduled_ns=T0 - S)
    request = open_run(starts_run(tmp_path, [late], load=load)).requests.iloc[0]
    assert request["ttft_s"] == pytest.approx(late_s + 0.100)
    assert request["e2e_s"] == pytest.approx(late_s + 0.190)
    assert request["tpot_s"] == pytest.approx(0.080 / 9)
    assert request["send_lag_s"] == pytest.approx(1.0)


def test_tokens_per_chunk_are_of_ok_requests_whose_tokens_are_known(tmp_path):
    rows = [
        row(0, T0),  # 10 tokens in 5 chunks
        row(1, T0 + S, output_tokens=5),  # 5 in 5
        row(2, T0 + S, output_tokens=None),
        row(3, T0 + S, output_tokens=7, chunk_ns=()),
        row(4, T0 + S, output_tokens=90, outcome="reset"),
        row(5, T0 - S, output_tokens=90),  # sent in the warm-up
    ]
    found = values_in(tmp_path, rows)["tokens_per_chunk"]
    assert (found.value, found.n, found.requests) == (pytest.approx(1.5), 10, 2)


@pytest.mark.parametrize(("tokens", "is_defined"), [(None, False), (0, False), (1, False), (2, True)])
def test_tpot_is_undefined_below_two_tokens(tmp_path, tokens, is_defined):
    made = one_cell_run(tmp_path, [row(0, T0, output_tokens=tokens)])
    assert open_run(made.path).requests["tpot_s"].notna().tolist() == [is_defined]


def test_itl_has_no_gap_across_requests_and_leaves_failures_out(tmp_path):
    rows = [
        row(0, T0, chunk_ns=(T0 + 10 * MS, T0 + 15 * MS, T0 + 35 * MS)),
        row(1, T0 + S, chunk_ns=(T0 + S + 5 * MS,)),
        row(2, T0 + 2 * S, chunk_ns=()),
        row(3, T0 + 3 * S, outcome="reset", chunk_ns=(T0 + 3 * S, T0 + 4 * S)),
        row(4, T0 + 5 * S, chunk_ns=(T0 + 6 * S, T0 + 6 * S + 7 * MS)),
        row(5, T0 - S, chunk_ns=(T0 + S, T0 + 2 * S)),  # sent in the warm-up
    ]
    made = one_cell_run(tmp_path, rows)
    found = measured_of(open_run(made.path))[0].gaps
    assert found.requests == 2
    assert np.flatnonzero(found.counts).tolist() == sorted(bins_of(np.array([5, 7, 20]) * MS).tolist())


def test_tokens_count_by_the_chunks_that_arrived_in_the_window(tmp_path):
    end_ns = T0 + 8 * S
    rows = [
        # 6 tokens on 3 chunks, 2 of them in the window: 4 tokens
        row(0, T0 - S, chunk_ns=(T0 - 1, T0, T0 + 1), output_tokens=6),
        # 10 tokens on 4 chunks, 1 in the window: 2.5 tokens
        row(1, end_ns - S, chunk_ns=(end_ns - 1, end_ns, end_ns + 1, end_ns + 2), output_tokens=10),
        # all of 12 tokens in it
        row(2, T0 + S, chunk_ns=(T0 + 2 * S, T0 + 3 * S), output_tokens=12),
        # a failed request without a count is left out
        row(3, T0 + S, outcome="reset", chunk_ns=(T0 + 2 * S,), output_tokens=None),
    ]
    assert values_in(tmp_path, rows)["output_tokens_per_s"].value == pytest.approx((4 + 2.5 + 12) / 8)


def test_a_window_in_which_nothing_came_was_zero_and_is_told_from_one_that_is_not_known(tmp_path):
    late = [row(0, T0, chunk_ns=(T0 + 9 * S,), end_ns=T0 + 9 * S)]
    found = values_in(tmp_path / "late", late)
    assert found["output_tokens_per_s"] == Value(
        None, 0, why=because("nothing_in_window", what="token arrived", window_s=8.0)
    )
    assert found["requests_per_s"] == Value(
        None, 0, why=because("nothing_in_window", what="request ended", window_s=8.0)
    )
    [group] = open_run(tmp_path / "late").groups
    shown = aggregate(open_run(tmp_path / "late"), group, "output_tokens_per_s")
    assert str(shown.why) == "no token arrived in the window of 8 s"
    uncounted = values_in(tmp_path / "uncounted", [row(0, T0, output_tokens=None)])["output_tokens_per_s"]
    assert (uncounted.value, uncounted.why) == (None, None)


@pytest.mark.parametrize(("sent_ns", "rate"), [(T0 + S, None), (T0 - 2 * S, pytest.approx(10 / 8))])
def test_tokens_are_unknown_where_an_ok_request_in_the_window_has_no_count(tmp_path, sent_ns, rate):
    rows = [row(0, T0), row(1, sent_ns, output_tokens=None)]
    assert values_in(tmp_path, rows)["output_tokens_per_s"].value == rate


def test_requests_per_s_counts_ok_requests_that_ended_in_the_window(tmp_path):
    end_ns = T0 + 8 * S
    rows = [
        row(0, T0 - S, end_ns=T0 - 1),
        row(1, T0 - S, end_ns=T0),
        row(2, T0 + S),
        row(3, end_ns - S, end_ns=end_ns),
        failed_row(4, T0 + S),
    ]
    assert values_in(tmp_path, rows)["requests_per_s"].value == pytest.approx(2 / 8)


@pytest.mark.parametrize(("count", "rate"), [(400, pytest.approx((200 + 400) / 8)), (None, None)])
def test_input_tokens_per_s_counts_prompts_whose_first_content_came_in_the_window(tmp_path, count, rate):
    end_ns = T0 + 8 * S
    rows = [
        row(0, T0 - S, input_tokens=100, chunk_ns=(T0 - 1, T0 + S)),
        row(1, T0 - S, input_tokens=200, chunk_ns=(T0, T0 + S)),
        row(2, end_ns - S, input_tokens=count, chunk_ns=(end_ns - 1, end_ns)),
        row(3, end_ns - S, input_tokens=800, chunk_ns=(end_ns, end_ns + 1)),
        row(4, T0 + S, input_tokens=1600, outcome="reset"),
    ]
    found = values_in(tmp_path, rows)["input_tokens_per_s"]
    assert (found.value, found.n) == (rate, 2)


@pytest.mark.parametrize(("tokens", "is_shown"), [(100, True), (99, False)])
def test_the_rate_of_reading_is_shown_where_prompts_are_ten_times_as_long_as_answers(
    tmp_path, tokens, is_shown
):
    made = one_cell_run(tmp_path, [row(0, T0 + S, input_tokens=tokens)])
    assert ("input tokens/s" in page(open_run(made.path)).partition('id="frontier"')[0]) == is_shown


def test_success_and_tokens_are_of_requests_sent_in_the_window(tmp_path):
    rows = [
        row(0, T0 - S, input_tokens=1000),
        row(1, T0, input_tokens=10, cached_tokens=None),
        row(2, T0 + S, input_tokens=20, cached_tokens=None),
        failed_row(3, T0 + S),
        row(4, T0 + 2 * S, input_tokens=30, output_tokens=40, cached_tokens=None),
    ]
    values = values_in(tmp_path, rows)
    assert values["success_share"].value == pytest.approx(3 / 4)
    assert values["input_tokens"].value == pytest.approx(20)
    assert values["output_tokens"].value == pytest.approx(20)
    assert (values["cached_tokens"].value, values["cached_tokens"].n) == (None, 0)


def test_a_request_that_was_never_sent_counts_as_failed_where_it_was_due(tmp_path):
    rows = [row(0, T0), failed_row(1, T0 + S, outcome="connect_error")]
    rows[1] = replace(rows[1], sent_ns=None)
    assert values_in(tmp_path, rows)["success_share"].value == pytest.approx(1 / 2)


def test_memory_peak_is_the_highest_sample_of_the_cell_and_not_of_the_start(tmp_path):
    # Samples rise to 1 GiB at 110 s (spawn 90 s + 20 s); this cell ends at 105 s, at 15/20 of it.
    short = summary(100 * S, duration_s=2.5)
    values = values_in(tmp_path, [row(0, T0)], load_summary=short)
    assert short.ended_ns == 105 * S
    assert values["memory_peak_bytes"].value == pytest.approx(2**30 * 0.75, abs=1)
    assert tables_of(open_run(tmp_path))["starts"]["memory_peak_bytes"].tolist() == [2**30]


def test_cores_are_those_of_the_servers_processes_in_the_window(tmp_path):
    """0.5 s of processor time per second, and 2 requests of 10 tokens in 8 s."""
    samples = [HostSample(90 * S + k * S // 10, GIB, k / 20, 4, 1, 0, None, GIB, 50.0) for k in range(300)]
    plan = begin_run(tmp_path, [deployment("vllm", "awq")], [Load(1)])
    write_start(tmp_path, plan.starts[0], samples, memory_kind="host")
    rows = [row(k, T0 + k * S) for k in range(2)]
    write_cell(tmp_path, plan.starts[0].cells[0], plan.starts[0], rows)
    values = values_of(open_run(tmp_path))[0]
    assert values["cores_used"].value == pytest.approx(0.5)
    assert values["cores_used"].n == 80
    assert values["output_tokens_per_s_per_core"].value == pytest.approx(20 / 8 / 0.5)
    assert values["output_tokens_per_s_per_core"].n == 2


def of_starts(path, counts):
    """One start per count, of so many requests: the k-th of them has its first chunk after k ms."""
    sent = [T0 + k * 100 * MS for k in range(max(counts))]
    rows = [row(k, at, chunk_ns=(at + (k + 1) * MS, at + (k + 2) * MS)) for k, at in enumerate(sent)]
    run = open_run(starts_run(path, *(rows[:count] for count in counts)))
    return aggregate(run, run.groups[0], "ttft_s.p50")


def test_a_percentile_that_a_start_lacks_is_pooled_over_all_and_has_no_interval(tmp_path):
    found = of_starts(tmp_path, [20, 20, 5])
    assert found.mean is found.interval is None
    # 1 to 20 ms twice and 1 to 5 ms: the 23rd of 45 is the third 9.
    assert found.pooled.value == pytest.approx(0.009)
    assert (found.pooled.n, found.pooled_over) == (45, "pooled over 3 starts")


def test_a_pooled_percentile_is_told_as_such_in_tables_and_on_the_page(tmp_path):
    of_starts(tmp_path, [20, 20, 5])
    run = open_run(tmp_path)
    values = tables_of(run)["values"].set_index("metric")
    assert values.loc["ttft_s.p50", "pooled"] == pytest.approx(0.009)
    assert math.isnan(values.loc["ttft_s.p50", "value"])
    cell = mean_cell(run, run.groups[0], "ttft_s.p50")
    assert ">9.00<" in cell
    assert "pooled over 3 starts" in cell


def test_nothing_is_pooled_where_each_start_has_its_own_or_all_are_too_few(tmp_path):
    assert of_starts(tmp_path / "own", [20, 20]).pooled is None
    assert of_starts(tmp_path / "few", [5, 5]).pooled is None
    assert of_starts(tmp_path / "one", [5]).pooled is None


def test_launch_time_is_the_starts(tmp_path):
    assert values_in(tmp_path, [row(0, T0)])["launch_s"].value == pytest.approx(3.0)


@pytest.mark.parametrize(("level", "count"), [(50, 11), (90, 64), (95, 130), (99, 662)])
def test_percentiles_need_the_count_of_mlperfs_early_stopping(level, count):
    """LoadGen prints 64 for p90 and 662 for p99 (results.cc: "would need to process at least 662")."""
    assert needed(level) == count
    name = f"x.p{level}"
    assert percentile_values("x", np.arange(count - 1.0))[name].value is None
    assert percentile_values("x", np.arange(float(count)))[name].value == pytest.approx(
        (count - 1) * level / 100
    )
    assert percentile_values("x", np.arange(count - 1.0))[name].n == count - 1


def gap_rows(requests: int, gaps: int):
    return [
        row(k, T0 + k * S, chunk_ns=tuple(T0 + k * S + (100 + j) * MS for j in range(gaps + 1)))
        for k in range(requests)
    ]


@pytest.mark.parametrize(
    ("requests", "gaps", "shown"),
    [(4, 200, []), (5, 3, ["p50"]), (5, 13, ["p50", "p90"]), (5, 133, ["p50", "p90", "p95", "p99"])],
)
def test_percentiles_of_gaps_need_five_requests_as_well(tmp_path, requests, gaps, shown):
    values = values_in(tmp_path, gap_rows(requests, gaps))
    found = {level: values[f"itl_s.{level}"] for level in ("p50", "p90", "p95", "p99")}
    assert [level for level, value in found.items() if value.value is not None] == shown
    assert {(value.n, value.requests) for value in found.values()} == {(requests * gaps, requests)}


@pytest.mark.parametrize(
    ("name", "n", "said"),
    [
        ("itl_s.p95", (600, 4), "p95 needs n of 130 or more of 5 requests, here n = 600 of 4 requests"),
        ("ttft_s.p95", (48,), "p95 needs n of 130 or more, here n = 48"),
        ("requests_per_s", (0,), "no observation"),
    ],
)
def test_a_missing_value_says_what_it_needs(name, n, said):
    assert str(why_missing(name, Value(None, *n))) == said


def test_every_metric_says_what_it_is():
    for each in METRICS:
        assert all((each.name, each.title, each.unit, each.formula, each.source))
        assert each.better in ("higher", "lower", "-")


@pytest.mark.parametrize(
    ("value", "digits", "said"),
    [(None, 2, "–"), (0.0, 2, "0.00"), (0.004, 2, "<0.01"), (0.006, 2, "0.01"), (3.21, 1, "3.21")],
)
def test_a_number_that_is_not_zero_is_not_shown_as_zero(value: float | None, digits: int, said: str) -> None:
    assert number(value, digits) == said


@pytest.mark.parametrize(
    ("low", "high", "values"),
    [
        (38.0, 110.0, [50, 70, 100]),
        (180.0, 1200.0, [200, 500, 1000]),
        (63.0, 3400.0, [100, 300, 1000, 3000]),
        (0.8, 900.0, [1, 10, 100]),
    ],
)
def test_labels_of_a_log_axis_do_not_touch(low: float, high: float, values: list[float]) -> None:
    found = log_ticks(low, high)["tickvals"]
    assert found == values
    apart = [math.log(b / a) / math.log(high / low) for a, b in itertools.pairwise(found)]
    assert min(apart) > 0.13
