"""Steps of distributions, from values and from counted gaps, against numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from make_run import MS

from reports.data.chunks import BINS, EDGES_S, bins_of
from reports.page.drawing.steps import steps_of_counts, steps_of_values


def counted(*gaps_ms: float) -> np.ndarray:
    return np.bincount(bins_of(np.array([gap * MS for gap in gaps_ms])), minlength=BINS)


def test_the_share_is_of_observations_at_or_below() -> None:
    found = steps_of_values(np.array([3.0, 1.0, 2.0, 2.0]))
    assert found.n == 4
    assert found.share_at(np.array([0.5, 1.0, 1.9, 2.0, 3.0, 9.0])).tolist() == [0, 0.25, 0.25, 0.75, 1, 1]


def test_few_steps_are_all_drawn_and_equal_values_once() -> None:
    assert steps_of_values(np.array([3.0, 1.0, 2.0, 2.0])).drawn(500).tolist() == [1.0, 2.0, 3.0]


def test_many_steps_are_drawn_evenly_by_rank_with_both_ends() -> None:
    values = np.arange(1.0, 1002.0) ** 3
    drawn = steps_of_values(values).drawn(11)
    assert len(drawn) == 11
    assert (drawn[0], drawn[-1]) == (1.0, 1001.0**3)
    assert steps_of_values(values).share_at(drawn)[1:-1] == pytest.approx(np.arange(0.1, 1.0, 0.1), abs=0.002)


def test_a_median_needs_eleven_values() -> None:
    assert steps_of_values(np.arange(10.0)).percentile(50) is None
    assert steps_of_values(np.arange(11.0)).percentile(50) == 5.0


def test_gaps_are_steps_at_their_bins_upper_edges() -> None:
    found = steps_of_counts(counted(10, 10, 20, 40), requests=5)
    assert found.at_s == pytest.approx([0.010, 0.020, 0.040], rel=0.016)
    assert (found.at_s >= [0.010, 0.020, 0.040]).all()
    assert found.share_at(found.at_s).tolist() == [0.5, 0.75, 1.0]


def test_a_percentile_of_gaps_needs_requests_too() -> None:
    counts = counted(*range(1, 100))
    assert steps_of_counts(counts, requests=4).percentile(50) is None
    assert steps_of_counts(counts, requests=5).percentile(50) == pytest.approx(0.050, rel=0.016)


def test_no_counts_are_no_steps() -> None:
    assert steps_of_counts(np.zeros(len(EDGES_S) - 1, dtype=np.int64), 0).n == 0
