"""Turns that several deployments answered, and rows of a frame without a copy."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from make_run import S, failed_row, one_cell_run, row

from reports import open_run
from reports.data.run import once
from reports.data.tables import of_start, taken
from reports.measures.equal_work import mean_lengths, turn_table


def test_turns_are_of_ok_requests_with_a_count_by_conversation_and_turn(tmp_path):
    rows = [
        row(0, 103 * S, conversation=3, turn=1, output_tokens=7),
        row(1, 104 * S, conversation=2, turn=0, output_tokens=5),
        row(2, 105 * S, conversation=2, turn=1, output_tokens=None),
        failed_row(3, 106 * S),
    ]
    run = open_run(one_cell_run(tmp_path, rows).path)
    found = turn_table({"a": (run, run.groups[0])}, "output_tokens")
    assert (found["a"].tolist(), found.index.tolist()) == ([5, 7], [0, 1])


def test_a_turn_that_was_answered_again_has_its_last_count(tmp_path):
    rows = [
        row(k, (103 + k) * S, conversation=1, turn=0, output_tokens=tokens) for k, tokens in enumerate((4, 9))
    ]
    run = open_run(one_cell_run(tmp_path, rows).path)
    assert turn_table({"a": (run, run.groups[0])}, "output_tokens")["a"].tolist() == [9]


def test_shared_turns_are_those_of_the_same_seed_conversation_and_turn(tmp_path):
    answered = {"a": {1: 10, 2: 20, 5: 50}, "b": {2: 21, 5: 51, 6: 61}}
    sides = {}
    for name, counts in answered.items():
        rows = [row(k, (103 + k) * S, conversation=k, turn=0, output_tokens=n) for k, n in counts.items()]
        run = open_run(one_cell_run(tmp_path / name, rows).path)
        sides[name] = (run, run.groups[0])
    assert turn_table(sides, "output_tokens").dropna().to_numpy().tolist() == [[20, 21], [50, 51]]


def test_nothing_shared_has_no_mean(tmp_path):
    run = open_run(one_cell_run(tmp_path, [row(0, 103 * S, cached_tokens=None)]).path)
    assert mean_lengths(run, run.groups, "cached_tokens") == {}
    assert len(turn_table({}, "output_tokens")) == 0


# --- rows without a copy ---------------------------------------------------------------------------


def test_rows_that_lie_together_are_taken_without_a_copy():
    frame = pd.DataFrame({"x": np.arange(6)})
    mask = np.array([False, True, True, True, False, False])
    assert taken(frame, mask)["x"].tolist() == [1, 2, 3]
    assert np.shares_memory(taken(frame, mask)["x"].to_numpy(), frame["x"].to_numpy())


@pytest.mark.parametrize("mask", [[True, False, True], [False, False, False], [True, True, True]])
def test_rows_are_those_of_the_mask(mask):
    frame = pd.DataFrame({"x": [1, 2, 3]})
    assert taken(frame, np.array(mask))["x"].tolist() == frame["x"][mask].tolist()


def test_samples_of_a_start():
    frame = pd.DataFrame({"start": pd.Categorical(["01-b", "01-b", "00-a"], ["01-b", "none", "00-a"])})
    assert [len(of_start(frame, name)) for name in ("01-b", "00-a", "none", "other")] == [2, 1, 0, 0]


# --- reckoned once ---------------------------------------------------------------------------------


def test_a_function_of_a_run_is_reckoned_once_for_each_thing_it_is_given(tmp_path):
    run, asked = open_run(one_cell_run(tmp_path, [row(0, 103 * S)]).path), []

    @once
    def of_run(run):
        asked.append("run")
        return len(asked)

    @once
    def of_name(run, name):
        asked.append(name)
        return len(asked)

    assert [of_run(run), of_name(run, "a"), of_name(run, "b"), of_run(run), of_name(run, "a")] == [
        1,
        2,
        3,
        1,
        2,
    ]
    assert asked == ["run", "a", "b"]
    assert of_run(open_run(run.path)) == 4
