"""Rows of a frame without a copy, samples of a start, and what is computed once for a run."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from make_run import S, failed_row, one_cell_run, row

from reports import open_run
from reports.data.run import once
from reports.data.tables import of_start, taken


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


def test_a_request_that_its_user_left_neither_failed_nor_counts_as_sent(tmp_path):
    rows = [
        row(0, 103 * S),
        failed_row(1, 104 * S),
        failed_row(2, 105 * S, outcome="left", error="went away"),
    ]
    run = open_run(one_cell_run(tmp_path, rows).path)
    [number] = {cell.number for cell in run.planned_cells}
    assert run.window_requests(number)["request_id"].tolist() == ["r0", "r1"]
    assert run.failed_requests["request_id"].tolist() == ["r1"]
    assert len(run.requests) == 3
