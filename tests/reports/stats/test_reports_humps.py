"""Two humps are seen where they are, and hardly ever in one: simulated, with a fixed seed."""

import numpy as np
import pytest

from serving_bench.reports.stats.steadiness import HUMPS_NEED, humps

DRAWS = 400
# Latencies of one kind: of whatever skew, and a wait beside a fixed time.
ONE_HUMP = {
    "narrow lognormal": lambda rng, n: np.exp(0.05 * rng.standard_normal(n)),
    "wide lognormal": lambda rng, n: np.exp(rng.standard_normal(n)),
    "exponential": lambda rng, n: rng.exponential(1.0, n),
    "exponential wait beside a service": lambda rng, n: 1 + rng.exponential(0.3, n),
    "steep Weibull": lambda rng, n: rng.weibull(0.7, n),
    "heavy tail": lambda rng, n: 1 + rng.pareto(2.0, n),
    "uniform": lambda rng, n: rng.uniform(0.5, 1.5, n),
}


@pytest.mark.parametrize("kind", ONE_HUMP)
@pytest.mark.parametrize("n", [HUMPS_NEED, 300])
def test_one_hump_is_hardly_ever_called_two(kind, n):
    rng = np.random.default_rng(1)
    false = sum(humps(ONE_HUMP[kind](rng, n)) is not None for _ in range(DRAWS))
    assert false <= 0.02 * DRAWS
    assert false <= 0.005 * DRAWS + 2 * np.sqrt(0.005 * DRAWS)


@pytest.mark.parametrize("share", [0.15, 0.3, 0.5])
def test_two_humps_half_as_far_again_apart_are_seen(share):
    rng = np.random.default_rng(2)
    is_upper = rng.random((50, 200)) < share
    found = [humps(np.where(each, 1.5, 1.0) * np.exp(0.05 * rng.standard_normal(200))) for each in is_upper]
    assert sum(each is not None for each in found) >= 48
    assert next(each for each in found if each)[:2] == pytest.approx((1.0, 1.5), rel=0.03)


def test_a_hump_of_few_requests_is_none():
    rng = np.random.default_rng(3)
    few = np.concatenate([np.full(9, 3.0), np.ones(91)]) * np.exp(0.05 * rng.standard_normal(100))
    assert humps(few) is None
    enough = np.concatenate([np.full(12, 3.0), np.ones(88)]) * np.exp(0.05 * rng.standard_normal(100))
    assert humps(enough)[2] == pytest.approx(0.12)


def test_humps_that_lie_close_are_no_difference_that_matters():
    rng = np.random.default_rng(4)
    noise = np.exp(0.01 * rng.standard_normal(400))
    is_upper = np.arange(400) % 2 == 1
    assert humps(np.where(is_upper, 1.2, 1.0) * noise) is None
    assert humps(np.where(is_upper, 1.3, 1.0) * noise) is not None


def test_too_few_requests_or_equal_ones_have_no_humps():
    assert humps(np.tile([1.0, 2.0], HUMPS_NEED // 2 - 1)) is None
    assert humps(np.ones(500)) is None
    assert humps(np.zeros(500)) is None
