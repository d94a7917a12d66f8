"""What stands beside a mean over starts: in words, in tables and in charts by load."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from make_run import MS, S, begin_run, deployment, row, write_cell, write_start
from page_data import rows_of

from serving_bench.harness.contracts import Load
from serving_bench.reports import open_run
from serving_bench.reports.data.run import Run
from serving_bench.reports.measures.over_starts import Aggregate, has_interval, shorter_half, span
from serving_bench.reports.measures.written import span_text, supported
from serving_bench.reports.page.by_load import load_charts
from serving_bench.reports.page.cells import aggregate_cell
from serving_bench.reports.page.sections import side_by_side
from serving_bench.reports.stats.intervals import of_values

T0 = 102 * S


def mean_of(*values: float | None) -> Aggregate:
    known = [value for value in values if value is not None]
    found = of_values(known, is_log=True)
    ends = found.interval() if len(known) > 1 else None
    return Aggregate(found.shown, min(known), max(known), len(known), 50, values, interval=ends)


def test_three_starts_have_an_interval_two_a_range_and_one_nothing() -> None:
    three, two, one = mean_of(0.09, 0.1, 0.11), mean_of(0.09, 0.11), mean_of(0.1)
    assert (has_interval(three), span(three)) == (True, three.interval)
    assert (has_interval(two), span(two)) == (False, (0.09, 0.11))
    assert (has_interval(one), span(one)) == (False, None)
    assert span(Aggregate(None, None, None, 0, 0, ())) is None


def test_blocks_on_a_server_that_was_not_restarted_have_their_range() -> None:
    blocks = replace(mean_of(0.09, 0.1, 0.11), is_of_starts=False)
    assert (has_interval(blocks), span(blocks)) == (False, (0.09, 0.11))
    assert plain(aggregate_cell("ttft_s.p50", blocks)) == "99.7 (90.0–110.0)"
    assert "by block: 90.0, 100.0, 110.0" in aggregate_cell("ttft_s.p50", blocks)


def test_the_digits_go_by_the_nearer_end() -> None:
    low, high = (50.0, 800.0)
    found = Aggregate(200.0, 100.0, 400.0, 3, 9, (100.0, 200.0, 400.0), interval=(low, high))
    assert shorter_half(found) == 150.0
    assert shorter_half(mean_of(0.09, 0.11)) == 0.0


@pytest.mark.parametrize(
    ("value", "half", "said"),
    [
        (123.4567, 0.0, "123.5"),
        (123.4567, 0.5, "123.5"),
        (123.4567, 4.0, "123.5"),
        (123.4567, 5.0, "123"),
        (123.4567, 49.0, "123"),
        (123.4567, 50.0, "120"),
        (1234.0, 434.0, "1,230"),
        (9.87, 0.01, "9.87"),
        (9.87, 0.5, "9.9"),
    ],
)
def test_a_mean_has_the_digits_that_its_interval_supports(value: float, half: float, said: str) -> None:
    assert supported("output_tokens_per_s", value, half) == said


def test_digits_are_those_of_the_unit_that_is_shown() -> None:
    # 123.4567 ms with 20 ms, stored in seconds.
    assert supported("ttft_s.p50", 0.1234567, 0.020) == "123"
    assert supported("ttft_s.p50", None, 0.020) == "–"


def test_both_ends_have_the_decimals_of_the_mean() -> None:
    found = Aggregate(0.009999, 0.0095, 0.0105, 3, 9, (0.0099,) * 3, interval=(0.009998, 0.01000001))
    assert plain(aggregate_cell("ttft_s.p50", found)) == "10.00 [10.00, 10.00]"
    about_ten = replace(found, mean=0.01000001, interval=(0.009998, 0.0100002))
    assert plain(aggregate_cell("ttft_s.p50", about_ten)) == "10.0 [10.0, 10.0]"


def plain(cell_html: str) -> str:
    return " ".join(re.sub(r"<[^>]*>", " ", cell_html).split())


@pytest.mark.parametrize(
    ("values", "said"),
    [
        # ln 0.09, 0.1, 0.11: mean 99.66 ms, s = 0.1004, 4.303 x s / sqrt(3) = 0.2495.
        ((0.09, 0.1, 0.11), "100 [78, 128]"),
        ((0.09, 0.11), "99.5 (90.0–110.0)"),
        ((0.1, 0.1), "100.0 (100.0–100.0)"),
        ((0.1, 0.1, 0.1), "100.0 [100.0, 100.0]"),
        ((0.1,), "100.0"),
        ((0.09, None, 0.11), "99.5 (90.0–110.0) 2 of 3 starts"),
        ((0.1, None), "100.0 1 of 2 starts"),
    ],
)
def test_a_tables_cell_is_the_mean_and_what_stands_beside_it(values: tuple[float | None, ...], said: str):
    found = mean_of(*values)
    assert plain(aggregate_cell("ttft_s.p50", found)) == said
    assert span_text("ttft_s.p50", found) in said


def run_with(path: Path, *first_ms: float, attached: bool = False) -> Run:
    """A run of one deployment at two loads, a start for each TTFT."""
    loads = [Load(concurrency=1), Load(concurrency=2)]
    plan = begin_run(path, [deployment("vllm", "awq")], loads, repeats=len(first_ms))
    for start, ms in zip(plan.starts, first_ms, strict=True):
        write_start(path, start, attached=attached)
        begun = [T0 + k * S // 2 for k in range(11)]
        rows = [row(k, at, chunk_ns=(at + round(ms * MS),)) for k, at in enumerate(begun)]
        for cell in start.cells:
            write_cell(path, cell, start, rows)
    return open_run(path)


def bars_of(path: Path, *first_ms: float) -> tuple[Any, Any]:
    chart = load_charts(run_with(path, *first_ms), "ttft_s.p50")[0]
    bars = chart.traces[0]["error_y"]
    return bars["arrayminus"][0], bars["array"][0]


def test_a_charts_bars_are_the_interval_from_three_starts_on(tmp_path: Path) -> None:
    assert bars_of(tmp_path / "3", 90, 100, 110) == pytest.approx((99.66 - 77.66, 127.9 - 99.66), abs=0.1)
    assert bars_of(tmp_path / "2", 90, 110) == pytest.approx((99.50 - 90, 110 - 99.50), abs=0.01)
    assert bars_of(tmp_path / "1", 90) == ("none", "none")


def test_of_a_server_that_was_running_bars_and_values_are_of_blocks(tmp_path: Path) -> None:
    run = run_with(tmp_path, 90, 100, 110, attached=True)
    chart = load_charts(run, "ttft_s.p50")[0]
    bars = chart.traces[0]["error_y"]
    assert (bars["arrayminus"][0], bars["array"][0]) == pytest.approx((99.66 - 90, 110 - 99.66), abs=0.01)
    assert list(chart.rows[0].cells)[-1] == "blocks"
    found = side_by_side.values(run)
    assert found is not None
    assert "Means over blocks" in found.body
    assert "[78, 128]" not in found.body


def test_an_interval_that_would_squash_the_chart_is_cut_at_twice_the_greatest_mean(tmp_path: Path) -> None:
    wide = load_charts(run_with(tmp_path / "wide", 10, 20, 40), "ttft_s.p50")[0]
    assert wide.layout["yaxis"]["range"] == [0.0, pytest.approx(40.0)]
    # 4.303 x ln 2 / sqrt(3): a factor of 5.6 from 20 ms.
    assert "[4, 112]" in rows_of(wide)[0]["ms"]
    # Whoever points at it reads them.
    assert wide.traces[0]["text"] == ["95 % interval [4, 112], 3 starts, n = 33"] * 2
    near = load_charts(run_with(tmp_path / "near", 90, 100, 110), "ttft_s.p50")[0]
    assert "range" not in near.layout["yaxis"]
