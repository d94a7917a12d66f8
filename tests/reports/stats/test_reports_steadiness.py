"""Requests in flight and throughput over a window, against series worked out by hand."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from make_run import S, summary

from serving_bench.harness.contracts import Load
from serving_bench.reports.stats.steadiness import (
    PARTS,
    edges_of,
    occupancy,
    only_grew,
    only_rises,
    rate,
    thirds,
)


def test_occupancy_is_the_exact_mean_of_each_part():
    edges = edges_of(0, 12 * S)
    # One from before the window to its middle, one for half of the last part, one that never meets it.
    sent, ended = np.array([-5.0, 11.5, 20.0]) * S, np.array([6.0, 30.0, 21.0]) * S
    assert occupancy(sent, ended, edges) == pytest.approx([1] * 6 + [0] * 5 + [0.5])
    assert occupancy(np.empty(0), np.empty(0), edges).tolist() == [0] * 12


def test_an_end_before_its_beginning_makes_no_request_negative():
    edges = edges_of(0, 12 * S)
    assert occupancy(np.array([6.0 * S]), np.array([1.0 * S]), edges).tolist() == [0] * 12


def test_occupancy_is_right_after_months_of_uptime():
    zero = 10**16
    edges = edges_of(zero, zero + 12 * S)
    sent, ended = np.array([zero + S // 2], dtype=float), np.array([zero + S], dtype=float)
    assert occupancy(sent, ended, edges) == pytest.approx([0.5] + [0] * 11, abs=1e-6)


def test_rate_counts_events():
    edges = edges_of(0, 24 * S)
    at_ns = np.array([0.0, 1.0, 2.0, 23.9]) * S
    assert rate(at_ns, edges) == pytest.approx([1, 0.5] + [0] * 9 + [0.5])


def test_a_windows_thirds_have_their_means():
    assert thirds(np.repeat([8.0, 10.0, 12.0], PARTS // 3)) == pytest.approx((8, 10, 12))


@pytest.mark.parametrize(
    ("parts", "is_rising"),
    [
        (np.linspace(1, 60, PARTS), True),
        (np.linspace(60, 1, PARTS), False),
        (np.linspace(50, 60, PARTS), False),  # by a fifth
        (np.linspace(0.1, 1, PARTS), False),  # fewer than an occupancy varies by itself
        (np.array([1, 60, 1, 60, 1, 60, 60, 60, 60, 1, 90, 90.0]), False),  # up and down
    ],
)
def test_a_queue_only_rises_where_it_is_clear(parts, is_rising):
    assert only_rises(parts) is is_rising


def test_noise_of_servers_that_keep_up_is_hardly_ever_a_finding():
    """Poisson numbers in flight and in output, a thousand windows of each size."""
    rng = np.random.default_rng(7)
    for mean in (3.0, 30.0, 300.0):
        windows = [rng.poisson(mean, PARTS).astype(float) for _ in range(1000)]
        assert sum(map(only_rises, windows)) <= 2


def queue(rng, rate_per_s: float, service_s: float, window_s: float) -> np.ndarray:
    """Poisson arrivals, each served at once for so long; the window begins in the steady state."""
    count = rng.poisson(rate_per_s * (window_s + service_s))
    sent = np.sort(rng.uniform(-service_s, window_s, count)) * S
    return occupancy(sent, sent + service_s * S, edges_of(0, int(window_s * S)))


@pytest.mark.parametrize("service_s", [0.1, 3.0, 20.0])
def test_chance_in_random_arrivals_is_hardly_ever_a_finding(service_s):
    """Even where requests are nearly as long as the window, so that its parts are much alike."""
    rng = np.random.default_rng(11)
    windows = [queue(rng, 5.0, service_s, 30.0) for _ in range(500)]
    assert sum(map(only_rises, windows)) <= 1


# --- a queue that only grows -----------------------------------------------------------------------


def in_flight(service_s, slots, per_s, warmup_s=2.0, duration_s=8.0):
    """Requests that come evenly and are served in turn by so many slots."""
    free = [0.0] * slots
    sent, end = [], []
    for number in range(int(per_s * (warmup_s + duration_s))):
        at = number / per_s
        free.sort()
        free[0] = max(at, free[0]) + service_s
        sent.append(int(at * S))
        end.append(int(free[0] * S))
    return pd.DataFrame({"outcome": ["ok"] * len(sent), "sent_ns": sent, "end_ns": end})


OPEN = Load(concurrency=None, rate_per_s=20.0, arrival="constant")


def test_a_queue_beyond_capacity_grows_and_one_below_does_not():
    window = summary(0)
    assert only_grew(in_flight(0.2, 4, 40), OPEN, window)
    assert not only_grew(in_flight(0.2, 4, 19.9), OPEN, window)


def test_filling_up_with_long_requests_is_no_growing_queue():
    """Requests of 8 s each at 10/s: 80 will be in flight, and there are only more of them all the window."""
    window = summary(0)
    assert not only_grew(in_flight(8.0, 1000, 10), OPEN, window)
    assert only_grew(in_flight(8.0, 1000, 10), OPEN, replace(window, started_ns=-60 * S)), "the rule decides"


def test_after_a_ramp_it_fills_up_for_as_long_again():
    """The window's first third ends 6 s after the beginning; requests take 1 s, the longest up to 3 s."""
    window = replace(summary(0), window_start_ns=4 * S, window_end_ns=10 * S)
    queue = in_flight(1.0, 4, 20, warmup_s=4.0, duration_s=6.0)
    assert only_grew(queue, replace(OPEN, ramp_up_s=2.5), window)
    assert not only_grew(queue, replace(OPEN, ramp_up_s=3.5), window)


def test_users_are_no_queue():
    assert not only_grew(in_flight(0.2, 4, 40), Load(concurrency=8), summary(0))
