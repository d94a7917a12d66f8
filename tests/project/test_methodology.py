"""The numbers of METHODOLOGY.md's section on statistics that have a formula, worked out anew.

Of those that come of simulations tests/reports/verdicts/test_verdicts_simulated.py draws anew: false words
of a family, the table of power, what `until` covers.
"""

from __future__ import annotations

import math

import pytest
from methodology import rows_below
from scipy.special import nctdtr, stdtrit

from harness.contracts.timing import needed
from reports.measures.metrics import PERCENTILES

REPEATS = rows_below("| noise | repeats | half-width | found, 1 | found, 5 | found, 15 |")
FAMILIES = (1, 5, 15)


def share(text: str) -> float:
    return float(text.removesuffix(" %")) / 100


def test_the_minimum_counts_of_percentiles_are_those_that_are_used() -> None:
    (counts,) = rows_below("| percentile | p50 | p90 | p95 | p99 |")
    assert [int(count) for count in counts[1:]] == [needed(level) for level in PERCENTILES]


def test_the_table_has_every_noise_and_number_of_repeats() -> None:
    assert [row[:2] for row in REPEATS] == [
        [noise, repeats] for noise in ("1 %", "3 %", "10 %") for repeats in ("2", "3", "5", "10")
    ]


@pytest.mark.parametrize("row", REPEATS)
def test_the_half_width_is_t_times_the_error_of_a_ratio(row: list[str]) -> None:
    noise, k = share(row[0]), int(row[1])
    half = math.expm1(float(stdtrit(k - 1, 0.975)) * noise * math.sqrt(2 / k))
    assert share(row[2]) == pytest.approx(half, abs=0.0006 if half < 1 else 0.006)


@pytest.mark.parametrize("row", [row for row in REPEATS if row[1] != "2"])
def test_the_difference_that_is_found_has_a_power_of_80_percent(row: list[str]) -> None:
    """By the noncentral t distribution, at the level of the family's first step."""
    noise, k = share(row[0]), int(row[1])
    for family, text in zip(FAMILIES, row[3:], strict=True):
        quantile = float(stdtrit(k - 1, 1 - 0.05 / family / 2))
        rounding = 0.0005 if share(text) < 1 else 0.005
        powers = [
            1 - float(nctdtr(k - 1, math.log1p(found) / (noise * math.sqrt(2 / k)), quantile))
            for found in (share(text) - rounding, share(text) + rounding)
        ]
        assert powers[0] - 1e-6 <= 0.80 <= powers[1] + 1e-6


def test_two_repeats_find_nothing() -> None:
    assert {tuple(row[3:]) for row in REPEATS if row[1] == "2"} == {("–",) * 3}
