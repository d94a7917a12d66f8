"""What a search may say, by simulation: of equal deployments, and what its intervals hold."""

from __future__ import annotations

import math

import numpy as np
import pytest

from harness.contracts import SearchTerms
from harness.run.search import Trial, bracket, next_load
from reports.stats.family import Question, decide, log_margin
from reports.stats.intervals import of_bracket_pairs, of_brackets

RATES = SearchTerms("rate", 1.0, 64.0)
USERS = SearchTerms("concurrency", 1.0, 64.0)
NOISES = (0.005, 0.02, 0.05)
STARTS, COMPARISONS = 3, 5


def searched(terms, capacity):
    """The bracket that a search ends with on a start of this capacity."""
    trials = []
    while (load := next_load(terms, trials)) is not None:
        keeps = load <= capacity
        trials.append(Trial(load, "kept" if keeps else "broken", keeps, 1))
    return bracket(trials)


def drawn(rng, terms, mean, noise, count):
    return [searched(terms, mean * math.exp(noise * each)) for each in rng.standard_normal(count)]


@pytest.mark.parametrize("terms", [RATES, USERS], ids=["rate", "users"])
def test_the_interval_holds_the_mean_capacity(terms):
    """Over 1,000 searches each at noises of 0.5, 2 and 5 % between starts."""
    rng = np.random.default_rng(1)
    for noise in NOISES:
        held = []
        for mean in np.exp(rng.uniform(math.log(4), math.log(30), 1000)):
            low, high = of_brackets(drawn(rng, terms, mean, noise, STARTS)).interval()
            held.append(low <= mean <= high)
        assert np.mean(held) >= 0.99, noise


@pytest.mark.parametrize("terms", [RATES, USERS], ids=["rate", "users"])
def test_deployments_that_do_not_differ_are_seldom_told_apart(terms):
    """Of families of five comparisons with one baseline at most 1 % say anything false, whether the capacity
    lies in the middle of a bracket (12.5 users) or at its end."""
    rng = np.random.default_rng(2)
    margin = log_margin(0.05)
    for noise in NOISES:
        wrong = []
        for mean in (12.0, 12.5) * 200:
            sides = [drawn(rng, terms, mean, noise, STARTS) for _ in range(COMPARISONS + 1)]
            asked = [Question(of_bracket_pairs(side, sides[0]), "higher", margin) for side in sides[1:]]
            wrong.append(any(each.kind in ("better", "worse") for each in decide(asked)))
        assert np.mean(wrong) <= 0.01, noise


def test_twice_the_capacity_is_found_with_three_starts():
    rng = np.random.default_rng(3)
    found = []
    for _ in range(100):
        a, b = (drawn(rng, RATES, mean, 0.02, STARTS) for mean in (20.0, 10.0))
        found.append(decide([Question(of_bracket_pairs(a, b), "higher", log_margin(0.05))])[0].kind)
    assert found.count("better") == 100
