"""Throughput against latency and by load, and what stands behind a chart's points."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from make_run import HOSTILE, one_cell_run, row
from make_sweep import SIX, sweep_run
from repeated_run import repeated_run, three

from serving_bench.harness.contracts import Load, Objective, SearchTerms
from serving_bench.reports import open_run
from serving_bench.reports.data.run import Run
from serving_bench.reports.measures.over_starts import aggregate
from serving_bench.reports.measures.values import values_of
from serving_bench.reports.page.by_load import frontier_charts, load_charts
from serving_bench.reports.page.parts import Chart, Part, rendered
from serving_bench.reports.page.sections import throughput
from serving_bench.reports.page.sections.throughput import search
from serving_bench.reports.verdicts.load_cases import load_cases_of

SPEED = "output_tokens_per_s"


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """vllm fp16, vllm awq, sglang awq and llama_cpp gguf-q4_k_m at 4, 32 and 64 users, three starts each."""
    given = [SIX[0], SIX[1], SIX[3], SIX[5]]
    return open_run(sweep_run(tmp_path_factory.mktemp("sweep"), given, (4, 32, 64), 3, 30.0, noise=0.001))


def lines(chart: Part) -> list[dict[str, Any]]:
    assert isinstance(chart, Chart)
    return [trace for trace in chart.traces if trace["name"]]


# --- the frontier ----------------------------------------------------------------------------------


def test_a_line_per_deployment_goes_through_its_loads_at_its_means(sweep: Run) -> None:
    ttft, tpot = frontier_charts(sweep)
    assert [trace["name"] for trace in lines(ttft)] == list(sweep.deployments)
    drawn = lines(ttft)[0]
    groups = [group for group in sweep.groups if group.deployment == "vllm fp16"]
    assert drawn["customdata"] == ["4 users", "32 users", "64 users"]
    assert drawn["x"] == pytest.approx(
        [1e3 * aggregate(sweep, g, "ttft_s.p95").mean for g in groups], rel=1e-5
    )
    assert drawn["y"] == pytest.approx([aggregate(sweep, g, SPEED).mean for g in groups], rel=1e-5)
    assert [point["load"] for point in drawn["meta"]["points"]] == drawn["customdata"]
    assert tpot.layout["xaxis"]["title"]["text"] == "p95 TPOT, ms, lower is better (log scale)"


def test_a_point_has_both_of_its_intervals(sweep: Run) -> None:
    ttft, _ = frontier_charts(sweep)
    drawn = lines(ttft)[0]
    group = next(group for group in sweep.groups if group.deployment == drawn["name"])
    for axis, name, scale in (("x", "ttft_s.p95", 1e3), ("y", SPEED, 1.0)):
        found, bars = aggregate(sweep, group, name), drawn[f"error_{axis}"]
        assert found.interval is not None
        low, high = (scale * end for end in found.interval)
        ends = drawn[axis][0] - bars["arrayminus"][0], drawn[axis][0] + bars["array"][0]
        assert ends == pytest.approx((low, high), rel=1e-4)


def test_the_front_goes_through_the_points_that_no_other_beats(sweep: Run) -> None:
    ttft, _ = frontier_charts(sweep)
    [front] = [trace for trace in ttft.traces if not trace["name"]]
    best = next(trace for trace in lines(ttft) if trace["name"] == "sglang awq")
    assert (front["x"], front["y"]) == (best["x"], best["y"])


def test_latencies_that_span_much_stand_on_a_log_axis_and_say_so(sweep: Run) -> None:
    ttft, _ = frontier_charts(sweep)
    assert ttft.layout["xaxis"]["type"] == "log"
    assert "(log scale)" in ttft.layout["xaxis"]["title"]["text"]
    assert load_charts(sweep, SPEED)[0].layout["yaxis"].get("type") is None


def test_the_region_beyond_the_slo_begins_at_its_limit(sweep: Run) -> None:
    ttft, tpot = frontier_charts(sweep)
    [region] = ttft.layout["shapes"]
    assert region["x0"] == pytest.approx(300.0)
    [said] = ttft.layout["annotations"]
    assert said["text"] == "beyond the SLO: p95 TTFT 300 ms"
    assert tpot.layout["shapes"][0]["x0"] == pytest.approx(40.0)


def test_without_an_slo_no_region_is_shaded(tmp_path: Path) -> None:
    run = open_run(repeated_run(tmp_path, three()))
    for chart in frontier_charts(run):
        assert "shapes" not in chart.layout


def test_the_percentile_is_the_highest_that_every_point_has(tmp_path: Path) -> None:
    """8 s at 300 ms are 27 requests or fewer: a median and no more."""
    run = open_run(repeated_run(tmp_path, three(), repeats=3))
    chart = frontier_charts(run)[0]
    assert "TTFT p50 ms" in chart.rows[0].cells
    assert "This is p50: too few points have enough requests for p95." in chart.note


def test_the_percentile_that_the_slo_asks_for_is_drawn_and_why_is_said(tmp_path: Path) -> None:
    slo = (Objective("ttft_s", 0.9, 0.3), Objective("tpot_s", 0.99, 0.04))
    run = open_run(sweep_run(tmp_path, [SIX[0], SIX[3]], (4, 16), 2, 20.0, slo=slo))
    ttft, tpot = frontier_charts(run)
    assert "TTFT p90 ms" in ttft.rows[0].cells
    assert "TPOT p95 ms" in tpot.rows[0].cells
    assert "This is p95: too few points have enough requests for p99." in tpot.note


def test_a_point_without_a_value_is_named_and_not_drawn(tmp_path: Path) -> None:
    def lost(cell: Any, start: Any) -> dict[str, Any]:
        is_lost = start.deployment.label == "vllm fp16" and cell.load.concurrency == 4
        return {"status": "failed", "error": HOSTILE} if is_lost else {}

    run = open_run(repeated_run(tmp_path, three(), repeats=3, cell_changes=lost))
    chart = frontier_charts(run)[0]
    assert "Not drawn, because a value is missing: vllm fp16 at 4 users." in chart.note
    assert len(lines(chart)[2]["x"]) == 1
    assert len(lines(chart)[0]["x"]) == 2


def test_one_start_of_each_is_a_point_without_intervals(tmp_path: Path) -> None:
    run = open_run(repeated_run(tmp_path, three()[:2], [Load(concurrency=1)], repeats=1))
    for drawn in lines(frontier_charts(run)[0]):
        assert len(drawn["x"]) == 1
        assert drawn["error_x"]["array"] == drawn["error_y"]["array"] == ["none"]


def test_one_point_alone_is_no_chart_and_its_table_stays(tmp_path: Path) -> None:
    rows = [row(k, (102 + k // 4) * 10**9 + k) for k in range(30)]
    run = open_run(one_cell_run(tmp_path, rows).path)
    found = frontier_charts(run)
    assert not [each for each in found if each.is_drawn]
    whole, titles = rendered(found), [f"Output tokens/s against p50 {name}" for name in ("TTFT", "TPOT")]
    assert re.findall("<h3>(.*?)</h3>", whole) == titles
    assert re.findall('aria-label="(.*?)"', whole) == titles


def test_a_run_without_values_has_no_frontier(tmp_path: Path) -> None:
    assert frontier_charts(open_run(one_cell_run(tmp_path, []).path)) == []


# --- charts against load ---------------------------------------------------------------------------


def test_a_chart_with_a_finding_says_below_it_what_is_drawn(sweep: Run) -> None:
    [chart] = load_charts(sweep, SPEED)
    assert chart.title == "sglang awq gives the most output tokens/s within the SLO at 32 users"
    assert chart.what == "Output tokens per second"
    [other] = load_charts(sweep, "requests_per_s")
    assert (other.title, other.finding) == ("Requests per second", None)


def test_points_have_the_values_of_each_start(sweep: Run) -> None:
    [chart] = load_charts(sweep, "ttft_s.p50")
    meta = lines(chart)[0]["meta"]
    group = next(group for group in sweep.groups if group.key[::2] == ("vllm fp16", "32 users"))
    found = [values_of(sweep)[cell.number]["ttft_s.p50"] for cell in group.counted]
    drawn = [meta["by_start"][str(start)][1] for start in (1, 2, 3)]
    assert drawn == pytest.approx([1e3 * (each.value or 0) for each in found], rel=1e-4)
    assert [meta["n_by_start"][str(start)][1] for start in (1, 2, 3)] == [f"{each.n:,}" for each in found]


def test_a_hover_says_interval_starts_and_n(sweep: Run) -> None:
    [chart] = load_charts(sweep, "ttft_s.p95")
    group = sweep.groups[0]
    n = aggregate(sweep, group, "ttft_s.p95").n
    assert lines(chart)[0]["text"][0].startswith("95 % interval [")
    assert f"3 starts, n = {n:,}" in lines(chart)[0]["text"][0]


def test_latencies_far_apart_stand_on_a_log_scale_and_throughput_from_zero(sweep: Run) -> None:
    [latency] = load_charts(sweep, "ttft_s.p95")
    assert latency.layout["yaxis"]["type"] == "log"
    assert latency.layout["yaxis"]["title"]["text"] == "ms (log scale)"
    [speed] = load_charts(sweep, SPEED)
    assert speed.layout["yaxis"]["rangemode"] == "tozero"


def test_the_slos_limit_is_a_line_on_its_own_percentile_only(sweep: Run) -> None:
    [asked] = load_charts(sweep, "ttft_s.p95")
    assert asked.layout["shapes"][0]["y0"] == pytest.approx(300.0)
    assert asked.layout["annotations"][0]["text"] == "SLO: p95 TTFT 300 ms"
    [other] = load_charts(sweep, "ttft_s.p50")
    assert not other.layout["shapes"]


def test_rows_are_about_their_deployment_and_load(sweep: Run) -> None:
    [chart] = load_charts(sweep, SPEED)
    assert chart.rows[0].of.to_builtins() == {"deployment": "vllm fp16", "load": "4 users"}


def test_goodput_follows_throughput_where_there_is_an_slo(sweep: Run, tmp_path: Path) -> None:
    by_load = [f"{name}_per_s-0" for name in ("output_tokens", "input_tokens", "requests", "goodput")]
    ids = [chart.id for chart in throughput.against(sweep).charts]
    assert ids == ["frontier-ttft-s-0", "frontier-tpot-s-0", *by_load]
    plain = open_run(repeated_run(tmp_path, three()))
    # Its prompts are five times as long as its answers.
    later = [chart.id for chart in throughput.against(plain).charts]
    assert later == [each for each in ids if each not in (by_load[1], by_load[3])]


# --- the load told first ---------------------------------------------------------------------------


def test_every_section_opens_with_the_load_of_the_first_screen(sweep: Run) -> None:
    assert [case.load for case in load_cases_of(sweep)] == ["32 users", "64 users", "4 users"]
    assert [case.load for case in load_cases_of(sweep) if case.is_open] == ["32 users"]


def test_a_search_has_no_frontier(sweep: Run) -> None:
    slo = (Objective("ttft_s", 0.95, 0.3),)
    record = replace(sweep.record, search=SearchTerms("concurrency", 1, 64), slo=slo)
    assert [chart.id for chart in search(replace(sweep, record=record)).charts] == ["goodput_per_s-0"]


def test_a_load_of_a_rate_is_named_as_it_is(tmp_path: Path) -> None:
    loads = [Load(concurrency=None, rate_per_s=rate) for rate in (1.0, 2.0)]
    run = open_run(repeated_run(tmp_path, three(), loads, repeats=3))
    [chart] = load_charts(run, SPEED)
    axis = chart.layout["xaxis"]
    assert axis["title"]["text"] == "conversations begun per second"
    assert axis["ticktext"] == ["1", "2"]
