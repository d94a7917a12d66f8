"""Rows of a frame without a copy, samples of a start, and what is computed once for a run."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from make_run import S, failed_row, one_cell_run, row, starts_run

from serving_bench.harness.contracts import Load, Objective
from serving_bench.reports import open_run
from serving_bench.reports.data.run import once, sent_in_window
from serving_bench.reports.data.tables import of_start, taken
from serving_bench.reports.measures.slo import judged_cells
from serving_bench.reports.measures.values import values_of


@pytest.mark.parametrize(
    ("mask", "is_copy"),
    [([False, True, True], False), ([True, False, True], True), ([False] * 3, True), ([True] * 3, False)],
)
def test_rows_are_those_of_the_mask_and_no_copy_where_they_lie_together(mask, is_copy):
    frame = pd.DataFrame({"x": np.arange(3)})
    found = taken(frame, np.array(mask))["x"]
    assert found.tolist() == frame["x"][mask].tolist()
    assert is_copy or np.shares_memory(found.to_numpy(), frame["x"].to_numpy())


def test_samples_of_a_start():
    frame = pd.DataFrame({"start": pd.Categorical(["01-b", "01-b", "00-a"], ["01-b", "none", "00-a"])})
    assert [len(of_start(frame, name)) for name in ("01-b", "00-a", "none", "other")] == [2, 1, 0, 0]


def test_a_function_of_a_run_is_computed_once_for_each_thing_it_is_given(tmp_path):
    run, asked = open_run(one_cell_run(tmp_path, [row(0, 103 * S)]).path), []

    @once
    def known(run, *names):
        asked.append(names)
        return len(asked)

    found = [known(run), known(run, "a"), known(run, "b"), known(run), known(run, "a")]
    assert found == [1, 2, 3, 1, 2]
    assert asked == [(), ("a",), ("b",)]
    assert known(open_run(run.path)) == 4


def test_a_request_that_its_user_would_leave_neither_failed_nor_counts_as_sent(tmp_path):
    rows = [
        row(0, 103 * S),
        failed_row(1, 104 * S),
        replace(failed_row(2, 105 * S, outcome="left", error="went away"), leave_after_s=0.1),
        row(3, 106 * S, leave_after_s=9.0),
    ]
    run = open_run(one_cell_run(tmp_path, rows).path)
    [number] = {cell.number for cell in run.planned_cells}
    assert sent_in_window(run.cell_requests(number))["request_id"].tolist() == ["r0", "r1"]
    assert run.failed_requests["request_id"].tolist() == ["r1"]
    assert run.requests["stays"].tolist() == [True, True, False, False]


@pytest.mark.parametrize("load", [Load(1), Load(concurrency=None, rate_per_s=2.0)])
def test_no_figure_depends_on_whether_an_engine_answers_before_its_user_leaves(tmp_path, load):
    figures = []
    for place, answered in enumerate((None, False, True)):
        rows = [row(k, 102 * S + k * S // 5) for k in range(30)]
        if answered is not None:
            early = row(30, 103 * S, leave_after_s=0.15)
            left = {"outcome": "left", "chunk_ns": early.chunk_ns[:2], "output_tokens": None}
            rows.append(early if answered else row(30, 103 * S, leave_after_s=0.15, **left))
        run = open_run(starts_run(tmp_path / str(place), rows, load=load))
        run = replace(run, record=replace(run.record, slo=(Objective("ttft_s", 0.95, 0.5),)))
        judged = judged_cells(run, run.planned_cells)
        figures.append((values_of(run), judged and judged.attained))
    assert figures[0] == figures[1] == figures[2]
