"""Turns that several deployments answered, and rows of a frame without a copy."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from make_run import S, failed_row, one_cell_run, row

from reports import open_run
from reports.data.run import once
from reports.data.tables import of_start, taken
from reports.measures.equal_work import Turns, shared, turns_of


def turns(**by_seed) -> Turns:
    """From pairs of key and tokens."""
    return Turns(
        {int(seed[1:]): tuple(map(np.array, zip(*pairs, strict=True))) for seed, pairs in by_seed.items()}
    )


def test_turns_are_of_ok_requests_with_a_count_by_conversation_and_turn(tmp_path):
    rows = [
        row(0, 103 * S, conversation=3, turn=1, output_tokens=7),
        row(1, 104 * S, conversation=2, turn=0, output_tokens=5),
        row(2, 105 * S, conversation=2, turn=1, output_tokens=None),
        failed_row(3, 106 * S),
    ]
    run = open_run(one_cell_run(tmp_path, rows).path)
    found = turns_of(run, run.groups[0], "output_tokens")
    assert (found.tokens.tolist(), found.turn.tolist(), found.mean) == ([5, 7], [0, 1], 6)


def test_a_turn_that_was_answered_again_has_its_last_count(tmp_path):
    rows = [
        row(k, (103 + k) * S, conversation=1, turn=0, output_tokens=tokens) for k, tokens in enumerate((4, 9))
    ]
    run = open_run(one_cell_run(tmp_path, rows).path)
    assert turns_of(run, run.groups[0], "output_tokens").tokens.tolist() == [9]


def test_shared_turns_are_those_of_the_same_seed_and_key_in_one_order():
    a = turns(s1=[(1, 10.0), (2, 20.0), (5, 50.0)], s2=[(1, 11.0)])
    b = turns(s1=[(2, 21.0), (5, 51.0), (6, 61.0)], s3=[(1, 12.0)])
    first, second = shared([a, b])
    assert (first.tokens.tolist(), second.tokens.tolist()) == ([20, 50], [21, 51])


def test_nothing_shared_has_no_mean():
    first, second = shared([turns(s1=[(1, 1.0)]), turns(s2=[(1, 1.0)])])
    assert (len(first), first.mean, second.mean) == (0, None, None)
    assert shared([]) == []


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
