"""What rows and charts of the sections are about, for the page's filters; the overview of memory; resets."""

import re
from pathlib import Path

import numpy as np
import pytest
from make_run import (
    GIB,
    S,
    begin_run,
    deployment,
    every_load_run,
    host_samples,
    row,
    write_cell,
    write_start,
)
from make_sweep import SIX, sweep_run

from serving_bench.harness.contracts import CacheReset, Load
from serving_bench.reports import open_run
from serving_bench.reports.data.run import Run
from serving_bench.reports.measures.anatomy import anatomies
from serving_bench.reports.page import grounds
from serving_bench.reports.page.looks import Of
from serving_bench.reports.page.parts import Table
from serving_bench.reports.page.sections import memory, side_by_side, trust


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """vLLM at two quantizations and llama.cpp, three starts of each."""
    path = tmp_path_factory.mktemp("sweep")
    chosen = [each for each in SIX if each.engine in ("vllm", "llama_cpp")]
    sweep_run(path, chosen, users=(1, 4), repeats=3, window_s=8.0)
    return open_run(path)


def about(table: Table) -> list[Of]:
    return [row.of for row in table.rows]


# --- rows ------------------------------------------------------------------------------------------


def test_rows_of_deployments_and_loads_can_be_filtered(full: Run) -> None:
    assert Of("vllm fp16", "4 users") in about(grounds.client(full))


def test_rows_of_cells_say_their_start(full: Run) -> None:
    assert Of("vllm fp16", "1 user", 2) in about(grounds.cells(full))
    cell = full.planned_cells[5]
    assert about(grounds.cells(full))[5] == Of(cell.label, cell.load_label, cell.planned.repeat + 1)


def test_workers_are_about_their_start(tmp_path: Path) -> None:
    cells = about(grounds.cells(open_run(every_load_run(tmp_path))))
    assert any(str(each.load).startswith("trace") and each.start == 2 for each in cells)


# --- charts ----------------------------------------------------------------------------------------


def test_memory_over_time_tells_starts_apart_and_is_of_one_deployment(full: Run) -> None:
    made = memory.course(full)
    chart = next(chart for chart in made.charts if chart.id == "memory-3")
    assert chart.of.to_builtins() == {"deployment": "vllm gguf-q4_k_m"}
    assert [trace["meta"]["of"]["start"] for trace in chart.traces] == ["1", "2"]
    # The windows are those of the first start.
    loads = [note["of"] for note in chart.layout["annotations"] if "load" in note["of"]]
    assert [of["load"] for of in loads] == ["1 user", "4 users"]
    assert {of["start"] for of in loads} == {"1"}


def test_steps_of_start_up_are_about_their_deployments(engines: Path) -> None:
    chart = side_by_side.start_up(open_run(engines.parent))
    *steps, ticks = chart.traces
    for trace in steps:
        assert len(trace["meta"]["points"]) == len(trace["y"])
    assert {point["start"] for point in ticks["meta"]["points"]} == {"1", "2"}
    assert len(ticks["meta"]["points"]) == len(ticks["x"])


# --- memory that was needed ------------------------------------------------------------------------


def test_the_overview_splits_what_was_held_into_needed_and_not(sweep: Run) -> None:
    made = memory.held(sweep)
    chart = made.charts[0]
    bars = {trace["name"]: trace["x"] for trace in chart.traces if trace["type"] == "bar"}
    assert bars["weights"] == [15.0, 5.4, 4.7]
    ends = dict.fromkeys(sweep.deployments, 0.0)
    for trace in chart.traces:
        for name, length in zip(trace["y"], trace["x"], strict=True) if trace["type"] == "bar" else ():
            ends[list(ends)[int(name)]] += length
    highest = {
        label: np.mean([a.total_bytes / GIB for a in each]) for label, each in anatomies(sweep).items()
    }
    assert ends == pytest.approx(highest, abs=0.01)
    assert bars["KV cache reserved, not needed"][0] > 40
    assert [point["deployment"] for point in chart.traces[0]["meta"]["points"]] == list(sweep.deployments)


def test_who_holds_the_least_is_said_where_it_is_decided(tmp_path: Path) -> None:
    chosen = [each for each in SIX if each.engine in ("vllm", "llama_cpp")]
    sweep_run(tmp_path, chosen, users=(1,), repeats=3, window_s=5.0, slo=())
    made = memory.held(open_run(tmp_path))
    assert made.charts[0].title == "llama_cpp gguf-q4_k_m has the lowest peak memory at 1 user"


def test_with_too_few_starts_for_verdicts_nobody_is_named(tmp_path: Path) -> None:
    chosen = [each for each in SIX if each.engine in ("vllm", "llama_cpp")]
    sweep_run(tmp_path, chosen, users=(1,), repeats=1, window_s=5.0)
    assert memory.held(open_run(tmp_path)).charts[0].title == "Peak memory by use, GiB"


def test_without_parts_there_is_no_overview(full: Run) -> None:
    assert not memory.held(full)


# --- resets ----------------------------------------------------------------------------------------


def run_with(path: Path, *given: CacheReset | None) -> Run:
    """One deployment, a cell for each reset."""
    plan = begin_run(path, [deployment("vllm", "fp16")], [Load(concurrency=k + 1) for k in range(len(given))])
    start = plan.starts[0]
    write_start(path, start, host_samples(90 * S, GIB))
    for cell, reset in zip(start.cells, given, strict=True):
        write_cell(path, cell, start, [row(0, 103 * S)], cache_reset=reset)
    return open_run(path)


def test_cells_whose_cache_may_not_have_been_empty_are_told_with_the_reason(tmp_path: Path) -> None:
    failed = CacheReset("failed", 400, 384, "the prompt was still cached after the reset")
    unchecked = CacheReset("unchecked", note="its counts do not show it")
    run = run_with(tmp_path, CacheReset("reset", 400, 0), failed, unchecked)
    made = trust.foundations(run).body.partition('id="cells"')[2].partition("</details>")[0]
    text = " ".join(re.sub("<[^>]+>", " ", made).split())
    _, first, second, third = re.split(r"00(?=[012] vllm)", text)
    assert "emptied" not in first
    assert "not emptied: the prompt was still cached after the reset" in second
    assert "emptied, not checked: its counts do not show it" in third
