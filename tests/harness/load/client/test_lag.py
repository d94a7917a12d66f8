from __future__ import annotations

import gc
import threading

import gevent
import pytest

from harness.load.client.lag import LagHistogram, gc_pauses, loop_lag


def test_an_empty_histogram_has_no_summary() -> None:
    assert LagHistogram().summary_s() is None


def test_percentiles_are_at_most_nine_percent_high_and_the_maximum_is_exact() -> None:
    histogram = LagHistogram()
    for number in range(1, 1001):
        histogram.add(number * 1000)
    median_s, p99_s, max_s = histogram.summary_s() or (0, 0, 0)
    assert 500e-6 <= median_s <= 500e-6 * 1.095
    assert 990e-6 <= p99_s <= 1000e-6
    assert max_s == 1000e-6


def test_equal_values_are_reported_as_they_are() -> None:
    histogram = LagHistogram()
    for _ in range(5):
        histogram.add(0)
    assert histogram.summary_s() == (0.0, 0.0, 0.0)


def test_values_of_any_size_fit() -> None:
    histogram = LagHistogram()
    histogram.add(-5)
    histogram.add(10**15)
    assert (histogram.summary_s() or (0, 0, 0))[2] == pytest.approx(1e6)


def test_a_sample_of_many_has_their_percentiles_and_exact_maximum() -> None:
    histogram = LagHistogram()
    lags = [1000] * 990 + [50_000] * 9 + [777_777]
    for start in range(0, len(lags), 10):
        histogram.sample(lags[start : start + 10])
    median_s, _, max_s = histogram.summary_s() or (0, 0, 0)
    assert 1e-6 <= median_s <= 1.1e-6
    assert max_s == 777_777e-9


def test_even_a_few_values_are_sampled() -> None:
    histogram = LagHistogram()
    histogram.sample([])
    histogram.sample([3000])
    assert histogram.summary_s() == (3e-6, 3e-6, 3e-6)


def test_a_blocked_loop_shows_as_lag() -> None:
    with loop_lag() as lag:
        gevent.sleep(0.03)
        threading.Event().wait(0.15)  # blocks the hub: nothing yields to it
        gevent.sleep(0.03)
    median_s, _, max_s = lag.summary_s() or (0, 0, 0)
    assert 0.1 < max_s < 1.0
    assert median_s < 0.1


def test_collections_are_timed() -> None:
    with gc_pauses() as pauses:
        gc.collect()
    first_s = pauses.total_s
    gc.collect()
    assert 0 < first_s < 5
    assert pauses.total_s == first_s
