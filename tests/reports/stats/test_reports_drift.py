"""Drifts are seen where they are, and in at most 1 % of runs where there are none: simulated, fixed seed."""

import numpy as np
import pytest

from serving_bench.reports.stats.steadiness import (
    ALPHA,
    DRIFT_NEEDS,
    start_drifts,
    window_change,
    window_drifts,
)

DRAWS = 1000
# Of DRAWS at ALPHA, the most by chance (three standard errors).
MOST = DRAWS * ALPHA + 3 * (DRAWS * ALPHA) ** 0.5


@pytest.mark.parametrize("way", [1, -1])
def test_a_rise_and_a_fall_over_a_window_have_their_size(way):
    rng = np.random.default_rng(3)
    n = 200
    at = rng.permutation(n)  # rows come in no order of time
    logs = way * 0.3 * at / n + 0.05 * rng.standard_normal(n)
    # The thirds' middles lie two thirds of the window apart.
    assert window_change(at, np.exp(logs), np.zeros(n, dtype=int)) == pytest.approx(way * 0.2, abs=0.03)


def test_longer_prompts_of_later_turns_are_no_drift():
    """Users that began together are in the same turn together."""
    rng = np.random.default_rng(4)
    turn = np.repeat(np.arange(4), 50)
    seconds = (1 + turn) * np.exp(0.05 * rng.standard_normal(200))
    assert window_change(np.arange(200), seconds, turn) == pytest.approx(0, abs=0.05)


def test_too_few_requests_have_no_drift():
    n = DRIFT_NEEDS - 1
    assert window_change(np.arange(n), np.exp(np.arange(n) / n), np.zeros(n, dtype=int)) is None


def test_windows_that_all_rise_are_told_and_small_or_mixed_ones_are_not():
    changes = {
        "rises": [0.2, 0.21, 0.2],
        "small": [0.05, 0.05, 0.05],
        "mixed": [0.5, -0.4, 0.3],
        "two": [1, 1],
    }
    found = window_drifts(changes, 0.1)
    assert list(found) == ["rises"]
    assert found["rises"].mean == pytest.approx(0.61 / 3)


def test_runs_of_steady_windows_hardly_ever_have_a_drift():
    rng = np.random.default_rng(1)
    false = sum(
        bool(window_drifts({k: 0.2 * rng.standard_normal(5) for k in range(20)}, 0.0)) for _ in range(DRAWS)
    )
    assert false <= MOST


def of_starts(logs):
    return {name: dict(enumerate(each)) for name, each in logs.items()}


@pytest.mark.parametrize("deployments", [1, 2, 6])
def test_runs_hardly_ever_have_a_drift_of_their_own_whatever_they_have_in_common(deployments):
    rng = np.random.default_rng(2)
    false = 0
    for _ in range(DRAWS):
        common = np.zeros(5) if deployments == 1 else 0.3 * np.arange(5)
        logs = {k: common + 0.05 * rng.standard_normal(5) for k in range(deployments)}
        false += bool(start_drifts(of_starts(logs), 0.0))
    assert false <= MOST


def test_the_one_that_slows_from_start_to_start_is_told_with_its_slope():
    rng = np.random.default_rng(5)
    logs = {name: 0.2 * np.arange(8) + 0.01 * rng.standard_normal(8) for name in "abcdef"}
    logs["f"] = logs["f"] - 0.06 * np.arange(8)
    found = start_drifts(of_starts(logs), 0.05)
    # The mean of six falls by a sixth of that, so the others seem to rise by 0.01.
    assert list(found) == [("f",)]
    assert found["f",].mean == pytest.approx(-0.05, abs=0.005)
    assert found["f",].k == 8


def test_of_two_that_part_both_are_told_once_since_which_one_drifts_is_not_known():
    rng = np.random.default_rng(6)
    logs = {name: 0.005 * rng.standard_normal(8) for name in "ab"}
    logs["b"] = logs["b"] - 0.05 * np.arange(8)
    found = start_drifts(of_starts(logs), 0.05)
    assert list(found) == [("a", "b")]
    assert found["a", "b"].mean == pytest.approx(0.05, abs=0.005)


def test_the_one_that_drifts_is_told_and_none_of_the_steady_ones():
    """Beside the mean of all, the steady ones of three seem to go the other way."""
    rng, told = np.random.default_rng(7), []
    for _ in range(DRAWS):
        logs = {name: 0.02 * rng.standard_normal(5) for name in "abc"}
        logs["b"] = logs["b"] + 0.1 * np.arange(5)
        told.append(tuple(start_drifts(of_starts(logs), 0.0)))
    assert sum(found == (("b",),) for found in told) > 0.5 * DRAWS
    assert sum(any(name != ("b",) for name in found) for found in told) <= MOST


def test_two_starts_and_small_slopes_have_no_drift():
    assert start_drifts(of_starts({"a": [0.0, 1.0]}), 0.0) == {}
    line = {"a": 0.01 * np.arange(5)}
    assert start_drifts(of_starts(line), 0.05) == {}
    assert list(start_drifts(of_starts(line), 0.03)) == [("a",)]
