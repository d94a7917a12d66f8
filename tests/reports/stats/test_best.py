"""Who is named the best, by values worked out by hand; what a look may spend; repeats that would tell."""

import math

import pytest
from scipy.stats import ttest_1samp

from serving_bench.reports.stats.intervals import best_of, level_of_look, repeats_to_tell


def best(values, *, alpha=0.05, is_higher_better=True, is_log=True):
    values = {label: dict(enumerate(own)) for label, own in values.items()}
    return best_of(values, is_higher_better=is_higher_better, is_log=is_log, alpha=alpha)


A, B = [110.0, 121.0, 104.5, 115.5, 99.0], [100.0, 112.0, 94.0, 105.0, 91.0]


def test_the_leader_is_tested_against_each_other_one_as_scipy_does():
    found = best({"b": B, "a": A})
    assert (found.leader, found.next, found.nearest) == ("a", "b", "b")
    logs = [math.log(x / y) for x, y in zip(A, B, strict=True)]
    test = ttest_1samp(logs, 0.0)
    assert found.p == pytest.approx(test.pvalue)
    low, high = test.confidence_interval(0.95)
    assert found.lead_over("b") == pytest.approx((math.exp(low), math.exp(high)))
    assert found.lead_over("b")[0] == pytest.approx(math.exp(low))
    assert found.is_named


def test_a_common_drift_does_not_hide_the_leader():
    drift = [1.0, 1.3, 0.8, 1.1, 0.9]
    values = {
        "a": [11.0 * d for d in drift],
        "b": [10.0 * d * e for d, e in zip(drift, (1.01, 0.99, 1, 1.01, 1), strict=True)],
    }
    assert best(values).is_named


def test_one_that_is_not_beaten_is_enough_for_no_name():
    values = {"a": A, "b": B, "noisy": [150.0, 60.0, 130.0, 80.0, 120.0]}
    found = best(values)
    assert found.leader == "a"
    assert not found.is_named
    assert found.nearest == "noisy"
    assert found.lead_over("b")[0] > 1 > found.lead_over("noisy")[0]


def test_less_is_better_where_the_metric_says_so():
    found = best({"a": A, "b": B}, is_higher_better=False)
    assert found.leader == "b"
    assert found.over["a"].shown > 1


def test_differences_are_tested_where_values_have_no_logarithm():
    found = best({"a": [2.0, 3.0, 2.5], "b": [0.0, 1.1, 0.4]}, is_log=False)
    assert found.over["b"].mean == pytest.approx(2.0, abs=0.01)
    assert found.is_named


def test_exact_ties_name_nobody():
    found = best({"a": [5.0, 5.0, 5.0], "b": [5.0, 5.0, 5.0]})
    assert found.p == 1
    assert not found.is_named


def test_each_look_spends_half_of_what_is_left_and_all_of_them_at_most_5_percent():
    assert [level_of_look(k) for k in range(4)] == pytest.approx([0.04, 0.005, 0.0025, 0.00125])
    assert sum(level_of_look(k) for k in range(30)) < 0.05


def test_the_advised_repeats_find_what_was_seen_in_four_of_five_runs():
    close = best({"a": [102.0, 99.0, 106.0], "b": [100.0, 100.0, 100.0]})
    advised = repeats_to_tell(close, 0.05)
    assert advised is not None
    assert 18 <= advised <= 22
    assert repeats_to_tell(close, 0.005) > advised
    assert repeats_to_tell(best({"a": [100.01, 90.0, 111.0], "b": [100.0, 100.0, 100.0]}), 0.05) is None
