"""Intervals against numbers worked out by hand, with t's quantiles from printed tables."""

import math
from dataclasses import replace

import pytest

from serving_bench.reports.stats.intervals import Estimate, may_be_logged, of_pairs, of_two_samples, of_values

# Two-sided 95 %, by degrees of freedom: Abramowitz and Stegun (1964), table 26.10.
T_95 = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 9: 2.262, 29: 2.045}


@pytest.mark.parametrize(("df", "quantile"), T_95.items())
def test_half_an_interval_is_students_quantile_times_the_error(df: int, quantile: float) -> None:
    low, high = Estimate(10.0, 2.0, df, df + 1, is_log=False).interval()
    assert (high - 10.0) / 2.0 == pytest.approx(quantile, abs=5e-4)
    assert 10.0 - low == pytest.approx(high - 10.0)


def test_another_confidence_has_its_own_quantile() -> None:
    low, high = Estimate(0.0, 1.0, 4, 5, is_log=False).interval(0.99)
    assert high == pytest.approx(4.604, abs=5e-4)
    assert low == -high


def test_a_mean_of_values_by_hand() -> None:
    # 8, 10, 12: mean 10, s = 2, error 2 / sqrt(3) = 1.1547; 4.303 x 1.1547 = 4.968.
    found = of_values([8, 10, 12], is_log=False)
    assert (found.mean, found.df, found.k) == (10.0, 2.0, 3)
    assert found.error == pytest.approx(1.1547, abs=1e-4)
    assert found.interval() == pytest.approx((5.032, 14.968), abs=2e-3)


def test_a_mean_of_logarithms_is_geometric_and_its_interval_too() -> None:
    # ln 50, ln 100, ln 200: mean ln 100, s = ln 2, error 0.6931 / 1.7321 = 0.4002; 4.3027 x 0.4002 = 1.7219.
    found = of_values([50, 100, 200], is_log=True)
    assert found.shown == pytest.approx(100.0)
    assert found.interval() == pytest.approx((100 * math.exp(-1.7219), 100 * math.exp(1.7219)), rel=1e-3)


def test_a_ratio_of_pairs_leaves_out_what_a_block_has_in_common() -> None:
    # Blocks differ by a factor of 10 each, their ratios are 1.1, 1.2, 1.1, 1.2.
    found = of_pairs([11, 120, 1100, 12000], [10, 100, 1000, 10000], is_log=True)
    assert found.shown == pytest.approx(math.sqrt(1.1 * 1.2))
    # ln(1.2 / 1.1) = 0.08701; s = 0.08701 / 2 x sqrt(4 / 3) = 0.05024; 3.182 x s / 2 = 0.0799.
    low, high = found.interval()
    assert math.log(high / low) / 2 == pytest.approx(0.0799, abs=2e-4)
    assert (found.df, found.k) == (3.0, 4)


def test_a_difference_of_pairs_is_not_of_logarithms() -> None:
    assert of_pairs([0.9, 1.0, 0.8], [0.8, 0.8, 0.8], is_log=False).shown == pytest.approx(0.1)


def test_two_samples_have_welchs_error_and_degrees_of_freedom() -> None:
    # 10, 12, 14 (s2 = 4, n = 3: 1.3333) and 9, 10, 10, 11 (s2 = 0.6667, n = 4: 0.1667): error sqrt(1.5);
    # df = 1.5^2 / (1.3333^2 / 2 + 0.1667^2 / 3) = 2.25 / (0.88889 + 0.00926) = 2.5052.
    found = of_two_samples([10, 12, 14], [9, 10, 10, 11], is_log=False)
    assert found.mean == pytest.approx(2.0)
    assert found.error == pytest.approx(math.sqrt(1.5))
    assert found.df == pytest.approx(2.5052, abs=1e-4)
    assert found.k == 3


def test_welch_with_one_side_that_does_not_vary_has_the_others_degrees() -> None:
    found = of_two_samples([10, 12, 14], [5, 5, 5, 5, 5, 5], is_log=False)
    assert (found.mean, found.df) == (7.0, pytest.approx(2.0))
    assert found.error == pytest.approx(math.sqrt(4 / 3))


def test_welch_with_very_different_counts() -> None:
    found = of_two_samples([10, 12], [9, 11] * 500, is_log=False)
    assert found.df == pytest.approx(1.0, abs=0.01)
    assert found.k == 2


@pytest.mark.parametrize("is_log", [True, False])
def test_one_start_says_nothing_of_the_next(is_log: bool) -> None:
    one = of_values([7.0], is_log=is_log)
    assert one.shown == pytest.approx(7.0)
    assert one.interval() == ((0.0, math.inf) if is_log else (-math.inf, math.inf))
    assert one.p == 1.0
    two_runs = of_two_samples([7.0], [1.0, 1.1, 1.2], is_log=is_log)
    assert two_runs.interval()[1] == math.inf
    assert two_runs.p == 1.0


def test_two_starts_have_an_interval_that_says_nearly_nothing() -> None:
    # 100 and 102: 12.706 x 1 = 12.7 on either side.
    assert of_values([100, 102], is_log=False).interval() == pytest.approx((88.294, 113.706), abs=1e-3)


@pytest.mark.parametrize("count", range(2, 12))
def test_starts_that_do_not_vary_have_no_width_and_no_rounding(count: int) -> None:
    found = of_values([0.1] * count, is_log=False)
    assert (found.error, found.interval()) == (0.0, (0.1, 0.1))
    # Of two runs with other numbers of starts, too: not different by a rounded mean.
    same = of_two_samples([0.1] * count, [0.1] * 3, is_log=False)
    assert (same.mean, same.error) == (0.0, 0.0)
    assert same.p == 1.0
    assert replace(found, mean=1.0).p == 0.0


def test_the_probability_of_a_mean_is_students() -> None:
    for mean in (2.776, -2.776):
        assert Estimate(mean, 1.0, 4, 5, is_log=False).p == pytest.approx(0.05, abs=1e-4)


def test_an_end_beyond_all_numbers_is_still_a_number() -> None:
    low, high = of_pairs([1e300, 1e-300], [1, 1], is_log=True).interval()
    assert low == 0.0
    assert math.isfinite(high)


@pytest.mark.parametrize(
    ("values", "is_log"), [([], False), ([], True), ([1, 0], True), ([1, -1], True), ([1, math.inf], False)]
)
def test_what_has_no_interval_is_refused(values: list[float], is_log: bool) -> None:
    with pytest.raises(ValueError, match="needs"):
        of_values(values, is_log=is_log)
    assert not (is_log and values and may_be_logged(values))


def test_pairs_of_unequal_number_are_refused() -> None:
    with pytest.raises(ValueError, match="3 and 1"):
        of_pairs([1, 2, 3], [1], is_log=True)
