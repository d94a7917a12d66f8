"""Requests in flight and throughput over a window, against series worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from reports.steadiness import PARTS, Series, Steadiness, edges_of, occupancy, rate

S = 1_000_000_000


def series(*thirds: float, ripple: float = 0.0) -> Series:
    """Each third at its value, its parts a ripple above and below."""
    return Series(np.array([value + ripple * (-1) ** k for value in thirds for k in range(PARTS // 3)]))


def steadiness(in_flight: Series) -> Steadiness:
    return Steadiness(in_flight, series(1, 1, 1), series(1, 1, 1), 100)


def test_occupancy_is_the_exact_mean_of_each_part():
    edges = edges_of(0, 12 * S)
    # One from before the window to its middle, one for half of the last part, one that never meets it.
    sent, ended = np.array([-5.0, 11.5, 20.0]) * S, np.array([6.0, 30.0, 21.0]) * S
    assert occupancy(sent, ended, edges).parts == pytest.approx([1] * 6 + [0] * 5 + [0.5])


def test_occupancy_is_right_after_months_of_uptime():
    zero = 10**16
    edges = edges_of(zero, zero + 12 * S)
    sent, ended = np.array([zero + S // 2], dtype=float), np.array([zero + S], dtype=float)
    assert occupancy(sent, ended, edges).parts == pytest.approx([0.5] + [0] * 11, abs=1e-6)


def test_occupancy_of_nothing_is_zero():
    assert occupancy(np.empty(0), np.empty(0), edges_of(0, 12 * S)).parts.tolist() == [0] * 12


def test_rate_counts_events_or_their_weights():
    edges = edges_of(0, 24 * S)
    at_ns = np.array([0.0, 1.0, 2.0, 23.9]) * S
    assert rate(at_ns, edges).parts == pytest.approx([1, 0.5] + [0] * 9 + [0.5])
    assert rate(at_ns, edges, np.array([4.0, 0, 0, 2])).parts == pytest.approx([2] + [0] * 10 + [1])


def test_drift_is_the_last_third_against_the_first_as_a_share_of_the_mean():
    found = series(8, 10, 12)
    assert (found.mean, found.thirds) == (pytest.approx(10), pytest.approx((8, 10, 12)))
    assert found.drift == pytest.approx(0.4)


@pytest.mark.parametrize(
    ("thirds", "ripple", "is_drifting"),
    [
        ((100, 100, 100), 30, False),
        ((100, 103, 109), 0, False),  # 9 %: too little to act on
        ((100, 105, 112), 0, True),
        # Parts 7 above and below: variance 65.3, error sqrt(2 * 65.3 / 4) / 106 = 5.4 %, three are 16 %.
        ((100, 105, 112), 7, False),
        ((100, 80, 60), 7, True),
    ],
)
def test_drift_is_told_where_it_is_large_and_beyond_the_noise(thirds, ripple, is_drifting):
    assert series(*thirds, ripple=ripple).is_drifting() is is_drifting


def test_a_window_of_nothing_does_not_drift():
    found = Series(np.zeros(PARTS))
    assert (found.drift, found.drift_error, found.is_drifting()) == (0.0, 0.0, False)


@pytest.mark.parametrize(
    ("parts", "is_growing"),
    [
        (np.linspace(1, 60, PARTS), True),
        (np.linspace(60, 1, PARTS), False),
        (np.linspace(50, 60, PARTS), False),  # by a fifth
        (np.linspace(0.1, 1, PARTS), False),  # fewer than an occupancy varies by itself
        (np.array([1, 60, 1, 60, 1, 60, 60, 60, 60, 1, 90, 90.0]), False),  # up and down
    ],
)
def test_a_queue_only_grows_where_it_is_clear(parts, is_growing):
    assert steadiness(Series(parts)).is_growing is is_growing


def test_noise_of_servers_that_keep_up_is_hardly_ever_a_finding():
    """Poisson numbers in flight and in output, a thousand windows of each size."""
    rng = np.random.default_rng(7)
    for mean in (3.0, 30.0, 300.0):
        windows = [Series(rng.poisson(mean, PARTS).astype(float)) for _ in range(1000)]
        assert sum(window.is_drifting() for window in windows) <= 20
        assert sum(steadiness(window).is_growing for window in windows) <= 2


def queue(rng, rate_per_s: float, service_s: float, window_s: float) -> Steadiness:
    """Poisson arrivals, each served at once for so long; the window begins in the steady state."""
    count = rng.poisson(rate_per_s * (window_s + service_s))
    sent = np.sort(rng.uniform(-service_s, window_s, count)) * S
    ended = sent + service_s * S
    edges = edges_of(0, int(window_s * S))
    done = rate(ended[(ended >= 0) & (ended < edges[-1])], edges)
    requests = round(done.mean * window_s)
    return Steadiness(occupancy(sent, ended, edges), None, done, requests, arrival_cv=1.0)


@pytest.mark.parametrize("service_s", [0.1, 3.0, 20.0])
def test_chance_in_random_arrivals_is_hardly_ever_a_finding(service_s):
    """Even where requests are nearly as long as the window, so that its parts are much alike."""
    rng = np.random.default_rng(11)
    windows = [queue(rng, 5.0, service_s, 30.0) for _ in range(500)]
    assert sum(bool(window.drifts) for window in windows) <= 10
    assert sum(window.is_growing for window in windows) <= 1


def test_few_requests_are_not_judged():
    assert not Steadiness(series(1, 1, 1), None, series(1, 1, 1), 29).is_judged
    assert Steadiness(series(1, 1, 1), None, series(1, 1, 1), 30).is_judged
