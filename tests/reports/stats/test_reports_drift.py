"""A latency that drifts over a window is seen, one that does not hardly ever: simulated, fixed seed."""

from __future__ import annotations

import numpy as np
import pytest

from reports.stats.drift import REQUESTS_NEEDED, drift

DRAWS = 1000


def test_a_steady_latency_hardly_ever_drifts():
    rng = np.random.default_rng(1)
    for n in (REQUESTS_NEEDED, 300):
        at, turn = np.arange(n), np.arange(n) % 2
        false = sum(drift(at, np.exp(0.5 * rng.standard_normal(n)), turn) is not None for _ in range(DRAWS))
        assert false <= 0.005 * DRAWS


def test_neighbours_that_share_their_wait_hardly_ever_drift():
    rng = np.random.default_rng(2)
    n, false = 240, 0
    for _ in range(DRAWS // 2):
        noise = np.convolve(rng.standard_normal(n + 9), np.ones(10) / np.sqrt(10), mode="valid")
        false += drift(np.arange(n), np.exp(0.3 * noise), np.zeros(n, dtype=int)) is not None
    assert false <= 0.01 * DRAWS / 2


@pytest.mark.parametrize("way", [1, -1])
def test_a_rise_and_a_fall_are_seen_with_their_size(way):
    rng = np.random.default_rng(3)
    n = 200
    at = rng.permutation(n)  # rows come in no order of time
    logs = way * 0.3 * at / n + 0.05 * rng.standard_normal(n)
    found = drift(at, np.exp(logs), np.zeros(n, dtype=int))
    # The thirds' middles lie two thirds of the window apart.
    assert found.share == pytest.approx(np.expm1(way * 0.2), abs=0.03)
    assert found.n == n


def test_a_rise_that_nobody_acts_on_is_none():
    at = np.arange(200)
    assert drift(at, np.exp(0.12 * at / 200), np.zeros(200, dtype=int)) is None
    assert drift(at, np.exp(0.18 * at / 200), np.zeros(200, dtype=int)) is not None


def test_longer_prompts_of_later_turns_are_no_drift():
    """Users that began together are in the same turn together."""
    rng = np.random.default_rng(4)
    turn = np.repeat(np.arange(4), 50)
    seconds = (1 + turn) * np.exp(0.05 * rng.standard_normal(200))
    assert drift(np.arange(200), seconds, turn) is None


def test_too_few_requests_have_no_drift():
    n = REQUESTS_NEEDED - 1
    assert drift(np.arange(n), np.exp(np.arange(n) / n), np.zeros(n, dtype=int)) is None
