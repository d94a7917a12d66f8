"""Throughput against latency and memory, and what stands behind a chart's points."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from make_run import HOSTILE, one_cell_run, row
from make_sweep import SIX, sweep_run
from repeated_run import repeated_run, three
from reports.words.lineups import lineups_of

from harness.contracts import Load, Objective
from reports import open_run
from reports.data.run import Run
from reports.measures.over_starts import aggregate
from reports.measures.values import values_of
from reports.page.charts import Chart, Section
from reports.page.markup import Row
from reports.page.sections import frontier, pareto, throughput
from reports.page.sections.by_load import by_load_charts
from reports.page.sections.points import turn_values
from reports.verdicts.load_cases import load_cases_of, load_points, opened

SPEED = "output_tokens_per_s"


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """vllm fp16, vllm awq, sglang awq and llama_cpp gguf-q4_k_m at 4, 32 and 64 users, three starts each."""
    given = [SIX[0], SIX[1], SIX[3], SIX[5]]
    return open_run(sweep_run(tmp_path_factory.mktemp("sweep"), given, (4, 32, 64), 3, 30.0, noise=0.001))


def made(found: Section | None) -> Section:
    assert found is not None
    return found


def lines(chart: Chart) -> list[dict[str, Any]]:
    return [trace for trace in chart.traces if trace.get("fill") is None and trace["name"]]


def bands(chart: Chart) -> list[dict[str, Any]]:
    return [trace for trace in chart.traces if trace.get("fill")]


# --- the frontier ----------------------------------------------------------------------------------


def test_a_line_per_deployment_goes_through_its_loads_at_its_means(sweep: Run) -> None:
    ttft, tpot = made(frontier.section(sweep)).charts
    assert [trace["name"] for trace in lines(ttft)] == list(sweep.deployments)
    drawn = lines(ttft)[0]
    groups = [group for group in sweep.groups if group.deployment == "vllm fp16"]
    assert drawn["customdata"] == ["4 users", "32 users", "64 users"]
    assert drawn["x"] == pytest.approx(
        [1e3 * aggregate(sweep, g, "ttft_s.p95").mean for g in groups], rel=1e-5
    )
    assert drawn["y"] == pytest.approx([aggregate(sweep, g, SPEED).mean for g in groups], rel=1e-5)
    assert [point["load"] for point in drawn["meta"]["points"]] == drawn["customdata"]
    assert tpot.layout["xaxis"]["title"]["text"] == "p95 TPOT, ms, lower is better"


def test_bands_reach_over_both_intervals_of_every_point(sweep: Run) -> None:
    ttft = made(frontier.section(sweep)).charts[0]
    band = bands(ttft)[0]
    corners = set(zip(band["x"], band["y"], strict=True))
    [first, *_] = [group for group in sweep.groups if group.deployment == band["name"]]
    latency, speed = (aggregate(sweep, first, name).interval for name in ("ttft_s.p95", SPEED))
    assert latency is not None
    assert speed is not None
    # Of the first stretch's rising hull the lower left corner is a corner.
    low = (float(f"{1e3 * latency[0]:.6g}"), float(f"{speed[0]:.6g}"))
    assert low in corners
    assert max(y for y in band["y"] if y is not None) >= max(lines(ttft)[0]["y"])
    assert len(band["meta"]["points"]) == len(band["x"])


def test_latencies_that_span_much_stand_on_a_log_axis_and_say_so(sweep: Run) -> None:
    ttft, tpot = made(frontier.section(sweep)).charts
    assert ttft.layout["xaxis"]["type"] == "log"
    assert "(log scale)" in ttft.layout["xaxis"]["title"]["text"]
    assert "type" not in tpot.layout["xaxis"]


def test_the_region_beyond_the_slo_begins_at_its_limit(sweep: Run) -> None:
    ttft, tpot = made(frontier.section(sweep)).charts
    [region] = ttft.layout["shapes"]
    assert region["x0"] == pytest.approx(300.0)
    [said] = ttft.layout["annotations"]
    assert said["text"] == "beyond the SLO: p95 TTFT 300 ms"
    # On a log axis a text's place is a logarithm, a shape's is not.
    assert (said["x"], said["xanchor"]) == (ttft.layout["xaxis"]["range"][1], "right")
    assert tpot.layout["shapes"][0]["x0"] == pytest.approx(40.0)


def test_without_an_slo_no_region_is_shaded(tmp_path: Path) -> None:
    run = open_run(repeated_run(tmp_path, three()))
    for chart in made(frontier.section(run)).charts:
        assert "shapes" not in chart.layout


def test_the_percentile_is_the_highest_that_every_point_has(tmp_path: Path) -> None:
    """8 s at 300 ms are 27 requests or fewer: a median and no more."""
    run = open_run(repeated_run(tmp_path, three(), repeats=3))
    chart = made(frontier.section(run)).charts[0]
    assert chart.columns[2] == "TTFT p50 ms"
    assert "p50, as not every point has requests enough for p95." in chart.note


def test_the_percentile_that_the_slo_asks_for_is_drawn_and_why_is_said(tmp_path: Path) -> None:
    slo = (Objective("ttft_s", 0.9, 0.3), Objective("tpot_s", 0.99, 0.04))
    run = open_run(sweep_run(tmp_path, [SIX[0], SIX[3]], (4, 16), 2, 20.0, slo=slo))
    ttft, tpot = made(frontier.section(run)).charts
    assert ttft.columns[2] == "TTFT p90 ms"
    assert "p90, as the SLO asks." in ttft.note
    assert tpot.columns[2] == "TPOT p95 ms"
    assert "p95, as too few points have requests enough for p99, which the SLO asks for." in tpot.note


def test_a_point_of_one_start_has_no_band(tmp_path: Path) -> None:
    """Of the first deployment at 4 users, whose other starts failed there."""

    def failed(cell: Any, start: Any) -> dict[str, Any]:
        is_lost = start.deployment.label == "llama_cpp fp16" and cell.load.concurrency == 4 and start.repeat
        return {"status": "failed", "error": "died"} if is_lost else {}

    run = open_run(repeated_run(tmp_path, three(), repeats=3, cell_changes=failed))
    chart = made(frontier.section(run)).charts[0]
    band, drawn = bands(chart)[0], lines(chart)[0]
    assert (band["name"], len(drawn["x"])) == ("llama_cpp fp16", 2)
    assert {point.get("load") for point in band["meta"]["points"]} == {"1 user", None}


def test_it_is_said_that_bands_between_points_were_not_measured(sweep: Run) -> None:
    said = made(frontier.section(sweep)).body.text
    assert "between two points they only join the intervals of both" in said


def test_a_point_without_a_value_is_named_and_not_drawn(tmp_path: Path) -> None:
    def lost(cell: Any, start: Any) -> dict[str, Any]:
        is_lost = start.deployment.label == "vllm fp16" and cell.load.concurrency == 4
        return {"status": "failed", "error": HOSTILE} if is_lost else {}

    run = open_run(repeated_run(tmp_path, three(), repeats=3, cell_changes=lost))
    chart = made(frontier.section(run)).charts[0]
    assert "Not drawn, with no value of both: vllm fp16 at 4 users." in chart.note
    assert len(lines(chart)[2]["x"]) == 1
    assert len(lines(chart)[0]["x"]) == 2


def test_one_start_at_one_load_is_a_point_without_a_band(tmp_path: Path) -> None:
    rows = [row(k, (102 + k // 4) * 10**9 + k) for k in range(30)]
    run = open_run(one_cell_run(tmp_path, rows).path)
    chart = made(frontier.section(run)).charts[0]
    assert not bands(chart)
    assert len(lines(chart)[0]["x"]) == 1
    assert "One start: no intervals." in made(frontier.section(run)).body.text


def test_a_run_without_values_has_no_frontier_and_no_trade_offs(tmp_path: Path) -> None:
    run = open_run(one_cell_run(tmp_path, []).path)
    assert frontier.section(run) is None
    assert pareto.section(run) is None


# --- charts against load ---------------------------------------------------------------------------


def test_a_chart_with_a_finding_says_below_it_what_is_drawn(sweep: Run) -> None:
    [chart] = by_load_charts(sweep, SPEED)
    assert chart.title == "sglang awq gives the most output tokens/s at every load"
    assert chart.quantity == "Output tokens per second"
    [other] = by_load_charts(sweep, "requests_per_s")
    assert (other.title, other.quantity) == ("Requests per second", "")


def test_points_have_the_values_of_each_start_and_each_turn(sweep: Run) -> None:
    [chart] = by_load_charts(sweep, "ttft_s.p50")
    meta = lines(chart)[0]["meta"]
    group = next(group for group in sweep.groups if group.key[::2] == ("vllm fp16", "32 users"))
    cells = group.counted
    starts = [1e3 * (values_of(sweep)[cell.number]["ttft_s.p50"].value or 0) for cell in cells]
    assert [meta["by_start"][str(start)][1] for start in (1, 2, 3)] == pytest.approx(starts, rel=1e-4)
    own = [sweep.window_requests(cell.number) for cell in cells]
    third = [seconds for sent in own for seconds in sent.loc[sent["turn"] == 2, "ttft_s"]]
    assert meta["by_turn"]["3"][1] == pytest.approx(1e3 * sorted(third)[len(third) // 2], rel=0.02)
    assert sorted(meta["by_turn"]) == ["1", "2", "3", "4"]
    ns = [f"{values_of(sweep)[cell.number]['ttft_s.p50'].n:,}" for cell in cells]
    assert [meta["n_by_start"][str(start)][1] for start in (1, 2, 3)] == ns
    assert meta["n_by_turn"]["3"][1] == f"{len(third):,}"


def test_gaps_by_turn_come_from_their_counts(sweep: Run) -> None:
    group = sweep.groups[0]
    by_turn = turn_values(sweep, group, "itl_s", 50)
    whole = aggregate(sweep, group, "itl_s.p50").mean
    assert sorted(by_turn) == [1, 2, 3, 4]
    assert by_turn[1].value == pytest.approx(whole, rel=0.03)


def test_values_of_no_request_have_no_turns(sweep: Run) -> None:
    [chart] = by_load_charts(sweep, SPEED)
    assert "by_turn" not in lines(chart)[0]["meta"]


def test_a_hover_says_interval_starts_and_n(sweep: Run) -> None:
    [chart] = by_load_charts(sweep, "ttft_s.p95")
    group = sweep.groups[0]
    n = aggregate(sweep, group, "ttft_s.p95").n
    assert lines(chart)[0]["text"][0].startswith("95 % interval [")
    assert f"3 starts, n = {n:,}" in lines(chart)[0]["text"][0]


def test_latencies_far_apart_stand_on_a_log_scale_and_throughput_from_zero(sweep: Run) -> None:
    [latency] = by_load_charts(sweep, "ttft_s.p95")
    assert latency.layout["yaxis"]["type"] == "log"
    assert latency.layout["yaxis"]["title"]["text"] == "ms (log scale)"
    [speed] = by_load_charts(sweep, SPEED)
    assert speed.layout["yaxis"]["rangemode"] == "tozero"


def test_the_slos_limit_is_a_line_on_its_own_percentile_only(sweep: Run) -> None:
    [asked] = by_load_charts(sweep, "ttft_s.p95")
    assert asked.layout["shapes"][0]["y0"] == pytest.approx(300.0)
    assert asked.layout["annotations"][0]["text"] == "SLO: 300 ms"
    [other] = by_load_charts(sweep, "ttft_s.p50")
    assert "shapes" not in other.layout


def test_marks_are_counted_in_one_line(sweep: Run) -> None:
    [chart] = by_load_charts(sweep, "ttft_s.p95")
    # llama_cpp serves 20 at once: 64 users wait.
    assert chart.note == "▲ 1 of 12 points bears a mark: Requests waited longer than they were served."


def test_rows_are_about_their_deployment_and_load(sweep: Run) -> None:
    [chart] = by_load_charts(sweep, SPEED)
    first = chart.rows[0]
    assert isinstance(first, Row)
    assert first.of.to_builtins() == {"deployment": "vllm fp16", "load": "4 users"}


def test_goodput_follows_throughput_where_there_is_an_slo(sweep: Run, tmp_path: Path) -> None:
    ids = [chart.id for chart in made(throughput.section(sweep)).charts]
    assert ids == ["output_tokens_per_s-0", "requests_per_s-0", "goodput_per_s-0"]
    plain = open_run(repeated_run(tmp_path, three()))
    assert [chart.id for chart in made(throughput.section(plain)).charts] == ids[:2]


# --- speed against memory --------------------------------------------------------------------------


def test_the_load_that_decides_is_open_and_the_others_are_folded(sweep: Run) -> None:
    found = made(pareto.section(sweep))
    assert [chart.of.load for chart in found.charts] == ["32 users", "64 users", "4 users"]
    shown, _, folded = found.body.text.partition("At the other loads")
    assert 'id="chart-pareto-0"' in shown
    assert 'id="chart-pareto-1"' in folded


def test_every_section_opens_with_the_load_of_the_first_screen(sweep: Run) -> None:
    assert {lineup.load for lineup in lineups_of(sweep)} == {"32 users"}
    assert [case.load for case in load_cases_of(sweep)] == ["32 users", "64 users", "4 users"]
    (points,) = load_points(sweep).values()
    assert [point.load for point in points] == ["32 users", "64 users", "4 users"]
    assert [case.load for case in opened(sweep, load_cases_of(sweep))] == ["32 users"]
    # Where the load told first has nothing to show, the first that has.
    assert [case.load for case in opened(sweep, load_cases_of(sweep)[1:])] == ["64 users"]


def test_the_front_is_drawn_and_named_where_verdicts_support_it(sweep: Run) -> None:
    chart = made(pareto.section(sweep)).charts[0]
    assert chart.title == "On the front at 32 users: llama_cpp gguf-q4_k_m and sglang awq"
    [steps] = [trace for trace in chart.traces if not trace["name"]]
    assert len(steps["x"]) == 2
    assert steps["x"][0] < steps["x"][1]
    standing = {str(row.cells[0]): row.cells[-1] for row in chart.rows if isinstance(row, Row)}
    assert standing == {
        "vllm fp16": "beaten by sglang awq",
        "vllm awq": "beaten by sglang awq",
        "sglang awq": "on the front",
        "llama_cpp gguf-q4_k_m": "on the front",
    }
    assert "Quality was not measured: a smaller quantization may answer worse." in chart.note
    assert "Speed and memory are two families of verdicts, each with its own 5 % of error." in chart.note


def test_without_verdicts_there_are_points_and_no_front(tmp_path: Path) -> None:
    run = open_run(repeated_run(tmp_path, three(), repeats=2))
    chart = made(pareto.section(run)).charts[0]
    assert chart.title == "Output tokens/s against peak memory at 4 users"
    assert all(trace["name"] for trace in chart.traces)
    assert "No front is drawn: a verdict needs 3 starts of each deployment or more, here 2." in chart.note


def test_a_search_has_no_frontier(sweep: Run) -> None:
    from harness.contracts import SearchTerms

    terms = SearchTerms("concurrency", 1, 64)
    searched = replace(
        sweep, record=replace(sweep.record, search=terms, slo=(Objective("ttft_s", 0.95, 0.3),))
    )
    assert frontier.section(searched) is None
    assert pareto.section(searched) is None


def test_a_load_of_a_rate_is_named_as_it_is(tmp_path: Path) -> None:
    loads = [Load(concurrency=None, rate_per_s=rate) for rate in (1.0, 2.0)]
    run = open_run(repeated_run(tmp_path, three(), loads, repeats=3))
    chart = made(frontier.section(run)).charts[0]
    assert chart.note.startswith("Points: 1, 2 conversations begun per second.")
