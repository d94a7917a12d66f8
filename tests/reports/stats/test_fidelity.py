"""Divergence of named tokens, intervals over texts, and how long answers stay the same: by hand."""

from math import exp, log

import numpy as np
import pytest

from serving_bench.reports.stats.fidelity import kl_nats, mean_interval, survival


def logs(**shares):
    return {name: log(share) for name, share in shares.items()}


def test_divergence_is_over_the_names_of_both_and_the_rest():
    p, q = logs(a=0.5, b=0.3, c=0.1), logs(a=0.25, b=0.3, d=0.2)
    # a: 0.5 ln 2; b: nothing; all others: 0.2 against 0.45.
    assert kl_nats(p, q, 20) == pytest.approx(0.5 * log(2) + 0.2 * log(0.2 / 0.45))
    # The two likeliest of each are the same; of the likeliest alone nothing is shared, and q has 0.3 of b.
    assert kl_nats(p, q, 2) == pytest.approx(kl_nats(p, q, 20))
    assert kl_nats(p, q, 1) == pytest.approx(0.5 * log(0.5 / 0.3) + 0.5 * log(0.5 / 0.7))


def test_divergence_of_fewer_names_is_never_more():
    rng = np.random.default_rng(3)
    for _ in range(20):
        p, q = (dict(zip("abcdefgh", np.log(rng.dirichlet(np.ones(8))), strict=True)) for _ in range(2))
        of_all = sum(np.exp(p[name]) * (p[name] - q[name]) for name in p)
        found = [kl_nats(p, q, k) for k in (2, 4, 8)]
        assert kl_nats(p, q, 8) == pytest.approx(of_all)
        assert max(found) <= of_all + 1e-12
        assert min(found) >= 0


@pytest.mark.parametrize("spread_p", [0.02, 0.3, 3.0])
@pytest.mark.parametrize("spread_q", [0.02, 0.3, 3.0, 1e9])
def test_divergence_of_those_named_is_never_more_than_that_of_all_tokens(spread_p, spread_q):
    rng = np.random.default_rng(7)
    for _ in range(50):
        p, q = (np.maximum(rng.dirichlet(np.full(300, each)), 1e-12) for each in (spread_p, spread_q))
        p, q = p / p.sum(), q / q.sum()
        named = [{str(at): log(each[at]) for at in np.argsort(-each)[:20]} for each in (p, q)]
        assert 0 <= kl_nats(*named, 20) <= float((p * np.log(p / q)).sum()) + 1e-6


def test_one_that_finds_all_tokens_as_likely_is_far_apart():
    p = {str(at): log(0.95 / 20) for at in range(20)}
    q = {str(at): log(0.01 / 20) for at in range(100, 120)}
    # q has of each that p names at most what it has of its twentieth.
    assert kl_nats(p, q, 20) == pytest.approx(0.95 * log(0.95 / 0.01) + 0.05 * log(0.05 / 0.99))
    # One that names 19 of 20 does not say what the next has.
    del q["119"]
    assert kl_nats(p, q, 20) == 0.0


@pytest.mark.parametrize("name", ["", " \ufffd"])
def test_a_name_that_says_not_which_token_it_is_counts_among_all_others(name):
    """As vLLM and SGLang name a part of a character, of which llama.cpp tells the bytes."""
    told, untold = ({"a": log(0.6), part: log(0.3), "b": log(0.09)} for part in ("\\xe2", name))
    for p, q in ((told, untold), (untold, told), (untold, untold)):
        assert kl_nats(p, q, 20) == pytest.approx(0.0)
    # Tokens that have a name are told apart still.
    other = {**untold, "a": log(0.3), "b": log(0.39)}
    assert kl_nats(told, other, 20) == pytest.approx(0.6 * log(2) + 0.09 * log(0.09 / 0.39))


def test_probabilities_of_nothing_and_of_everything_have_a_divergence():
    sure = {"a": 0.0, "b": -9999.0}
    assert kl_nats(sure, logs(a=0.5, b=0.5), 20) == pytest.approx(log(2))
    assert kl_nats(sure, sure, 20) == 0.0
    # A rounded 1 is no reason for an infinite divergence.
    assert kl_nats(logs(a=0.5), {"a": 1e-4}, 20) == pytest.approx(
        0.5 * log(0.5) + 0.5 * log(0.5 / 1e-9), rel=1e-3
    )


def test_interval_of_a_mean_is_over_texts_not_places():
    texts = [(0.1, 10), (0.3, 10), (0.2, 10), (0.15, 10), (0.25, 10)] * 8
    low, high = mean_interval(*zip(*texts, strict=True))
    # The mean is 0.02; texts' means have a standard deviation of 0.00716, and 40 of them an error of 0.00113.
    assert (low, high) == pytest.approx((0.02 / exp(2.0227 * 0.0566), 0.02 * exp(2.0227 * 0.0566)), rel=1e-3)


def test_interval_weighs_long_texts_more():
    # The mean is 9/95. The residuals are 9/19 of the long text, and -9/95 of each of the others.
    error = (6 / 5 * ((9 / 19) ** 2 + 5 * (9 / 95) ** 2)) ** 0.5 / 9
    low, high = mean_interval([0.0, 9.0, 0.0, 0.0, 0.0, 0.0], [1, 90, 1, 1, 1, 1])
    assert (low, high) == pytest.approx(
        (9 / 95 / exp(2.5706 * error), 9 / 95 * exp(2.5706 * error)), rel=1e-4
    )


def test_texts_that_are_all_the_same_have_an_interval_of_nothing():
    assert mean_interval([0.0] * 6, [10] * 6) == (0.0, 0.0)


def test_fewer_than_five_texts_have_no_interval():
    assert mean_interval([1.0] * 5, [10] * 5) == pytest.approx((0.1, 0.1))


def test_answers_that_are_cut_count_as_the_same_for_as_long_as_they_last():
    # One parts at once, one after a token; one is the same for its one token; one is the same to its end.
    assert survival([0, 1, 1, 3], [True, True, False, False]) == pytest.approx([1, 3 / 4, 1 / 2, 1 / 2])
    assert survival([0, 0], [True, True]) == [1.0, 0.0]
    assert survival([], []) == [1.0]


def test_two_that_name_nothing_alike_are_far_apart():
    p, q = logs(a=0.9, b=0.05), logs(c=0.9, d=0.05)
    # q has 0.05 left for what p gives 0.95.
    assert kl_nats(p, q, 20) == pytest.approx(0.95 * log(0.95 / 0.05) + 0.05 * log(0.05 / 0.95))
