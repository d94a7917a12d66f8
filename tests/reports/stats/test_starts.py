"""How starts of deployments that are the same differ: noise, correlation, what a run does, and levels."""

import math

import numpy as np
import pytest

from serving_bench.reports.stats.intervals import (
    Dependence,
    best_of,
    of_pairs,
    of_two_samples,
    repeats_to_tell,
)
from serving_bench.reports.stats.starts import levels_of_starts, share_of, start_noise

RNG_SEED = 20261205
NOISE, REPEATS, RUNS = 0.04, 5, 400


def drawn(rng, *, labels=2, repeats=REPEATS, lag=0.0, of_run=0.0, between=0.0) -> np.ndarray:
    """Logarithms of a run of labels that are the same, labels x repeats; repeats have 5 % in common."""
    steps = rng.normal(0, NOISE, (labels, repeats))
    for place in range(1, repeats):
        steps[:, place] = lag * steps[:, place - 1] + math.sqrt(1 - lag**2) * steps[:, place]
    common = rng.normal(0, 0.05, repeats) + rng.normal(0, between)
    return steps + common + rng.normal(0, of_run, (labels, 1))


def many(**truth):
    rng = np.random.default_rng(RNG_SEED)
    return [drawn(rng, **truth) for _ in range(RUNS)]


def test_a_share_has_the_interval_of_clopper_and_pearson():
    none, some = share_of(0, 20), share_of(3, 60)
    assert (none.value, none.low, none.high) == (0, 0, pytest.approx(1 - 0.025 ** (1 / 20)))
    assert (some.value, some.low, some.high) == (0.05, *map(pytest.approx, (0.010432, 0.139231), (1e-3,) * 2))
    assert share_of(4, 4).high == 1


def test_independent_starts_have_their_noise_and_nothing_that_is_known_to_last():
    found = start_noise(many())
    assert found.noise.low < NOISE < found.noise.high
    assert found.lag.low < 0 < found.lag.high
    assert (found.lag.known, found.of_run.known) == (0, 0)


@pytest.mark.parametrize(
    ("truth", "name"), [({"lag": 0.5}, "lag"), ({"of_run": 0.03}, "of_run"), ({"between": 0.06}, "between")]
)
def test_what_lasts_is_known(truth, name):
    found = getattr(start_noise(many(**truth)), name)
    assert found.known > 0.5 * truth[name]
    assert found.low < found.value < found.high


def test_one_wild_start_among_few_runs_is_no_correlation():
    runs = many()[:14]
    runs[3][1, 0] -= 0.6
    assert start_noise(runs).lag.known == 0


@pytest.mark.parametrize("truth", [{"lag": 0.5}, {"of_run": 0.03}, {"lag": 0.3, "of_run": 0.03}])
@pytest.mark.parametrize("repeats", [3, 5, 9])
def test_with_what_is_known_two_alike_differ_no_more_often_than_claimed(truth, repeats):
    known = start_noise(many(**truth))
    starts = Dependence(known.lag.known, known.of_run.known, known.between.known)
    rng, wrong = np.random.default_rng(1), np.zeros(2)
    for _ in range(1000):
        pair = np.exp(drawn(rng, repeats=repeats, **truth))
        wrong += [
            of_pairs(*pair, is_log=True).p <= 0.05,
            of_pairs(*pair, is_log=True, starts=starts).p <= 0.05,
        ]
    without, with_it = wrong / 1000
    assert with_it <= 0.07
    assert without > 0.09


def test_two_runs_that_differ_by_what_runs_do_are_told_apart_no_more_often_than_claimed():
    truth = {"between": 0.03}
    starts = Dependence(between=start_noise(many(**truth)).between.known)
    rng = np.random.default_rng(2)
    sides = ([np.exp(drawn(rng, labels=1, **truth)[0]) for _ in range(2)] for _ in range(1000))
    tests = [of_two_samples(*pair, is_log=True, starts=starts).p <= 0.05 for pair in sides]
    assert np.mean(tests) <= 0.06


def test_no_number_of_repeats_beats_what_a_run_does():
    values = {"a": {0: 104.0, 1: 105.0, 2: 103.0, 3: 104.5}, "b": dict.fromkeys(range(4), 100.0)}

    def advised(of_run: float) -> int | None:
        best = best_of(
            values, is_higher_better=True, is_log=True, alpha=0.05, starts=Dependence(of_run=of_run)
        )
        return repeats_to_tell(best, 0.05)

    assert advised(0.0) == 3
    assert advised(0.008) > 3
    assert advised(0.03) is None


# --- levels ----------------------------------------------------------------------------------------


def by_repeat(*rows):
    return [dict(enumerate(row)) for row in rows]


def test_slow_starts_beside_fast_ones_are_a_level():
    found = levels_of_starts(by_repeat([100, 75, 101, 99, 100], [99, 100, 100, 76, 101]))
    assert found == pytest.approx(math.log(100 / 75.5), abs=0.02)


@pytest.mark.parametrize(
    "rows",
    [
        ([100, 75, 101, 99, 100], [99, 74, 100, 98, 101]),  # all are slow in that repeat
        ([100, 96, 101, 99, 100], [99, 100, 100, 97, 101]),
        ([100, 75, 101, 99, 100], [99, 98, 100, 100, 101]),  # one start is no level
        ([100, 0, 101, 99, 100], [99, 100, 100, 0, 101]),
        ([100], [75]),
    ],
)
def test_other_starts_have_one_level(rows):
    assert levels_of_starts(by_repeat(*rows)) == 0


@pytest.mark.parametrize(("labels", "repeats"), [(2, 3), (2, 5), (2, 12), (6, 5)])
def test_normal_noise_seldom_looks_like_levels(labels, repeats):
    rng = np.random.default_rng(3)
    runs = (np.exp(drawn(rng, labels=labels, repeats=repeats)) for _ in range(1000))
    assert np.mean([levels_of_starts(by_repeat(*run)) > 0 for run in runs]) <= 0.045
