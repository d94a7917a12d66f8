"""The search for a load against servers whose capacity is known, with and without noise."""

import random
from collections import Counter

import pytest

from serving_bench.harness.contracts import Objective, SearchTerms, bracket
from serving_bench.harness.run.search import Trial, next_load
from serving_bench.reports.measures.slo import Attainment, Judged
from serving_bench.reports.verdicts.searches import Tried

USERS = SearchTerms("concurrency", 1.0, 1024.0)
RATE = SearchTerms("rate", 0.1, 1000.0)


def trial(load, verdict, *, meets=None, windows=1):
    return Trial(float(load), verdict, verdict == "kept" if meets is None else meets, windows)


def searched(terms, judge):
    """Search to its end; `judge` says what a load came to by its windows so far. Returns the bracket, the
    loads in the order of their windows, and the last trials."""
    windows: Counter[float] = Counter()
    tried: dict[float, Trial] = {}
    loads: list[float] = []
    while (load := next_load(terms, list(tried.values()))) is not None:
        windows[load] += 1
        loads.append(load)
        assert len(loads) < 200, "it does not end"
        tried[load] = judge(load, windows[load])
    return bracket({load: each.keeps for load, each in tried.items()}), loads, tried


def exact(capacity):
    return lambda load, windows: trial(load, "kept" if load <= capacity else "broken", windows=windows)


@pytest.mark.parametrize("capacity", [*range(1, 41), 100, 511, 512, 777, 1023])
def test_users_are_found_exactly_up_to_twenty_and_within_the_precision_above(capacity):
    (kept, broken), loads, _ = searched(USERS, exact(capacity))
    assert kept <= capacity < broken
    assert broken - kept <= max(1, 0.05 * kept)
    if capacity <= 20:
        assert kept == capacity
    assert len(loads) == len(set(loads)), "no clear load is tried twice"
    assert len(loads) <= 2 * (capacity.bit_length() + 1)
    assert all(load == int(load) for load in loads)


@pytest.mark.parametrize("capacity", [0.13, 1.0, 3.7, 40.8, 999.0])
def test_rates_are_found_within_the_precision(capacity):
    (kept, broken), loads, _ = searched(RATE, exact(capacity))
    assert kept <= capacity < broken
    assert broken / kept <= 1.05
    assert len(loads) <= 20


def test_it_begins_at_the_lowest_and_doubles_until_one_breaks():
    _, loads, _ = searched(USERS, exact(5))
    assert loads == [1, 2, 4, 8, 6, 5]


def test_the_highest_is_tried_and_nothing_above_it():
    (kept, broken), loads, _ = searched(SearchTerms("concurrency", 3.0, 10.0), exact(50))
    assert loads == [3, 6, 10]
    assert (kept, broken) == (10, None)


def test_where_the_lowest_rate_breaks_lower_ones_are_tried():
    (kept, broken), loads, _ = searched(SearchTerms("rate", 8.0, 64.0), exact(3.0))
    assert loads[:3] == [8, 4, 2]
    assert kept <= 3.0 < broken <= 1.05 * kept


def test_where_nothing_is_kept_it_ends_without_an_answer():
    (kept, broken), loads, _ = searched(SearchTerms("rate", 8.0, 64.0), exact(0.01))
    assert (kept, broken) == (None, 0.5)
    assert loads == [8, 4, 2, 1, 0.5]
    (kept, _), loads, _ = searched(USERS, exact(0))
    assert (kept, loads) == (None, [1])
    (kept, _), loads, _ = searched(SearchTerms("concurrency", 8.0, 64.0), exact(2))
    assert (kept, loads) == (2, [8, 1, 4, 2, 3])


def test_an_unclear_load_is_tried_again_only_where_the_answer_hangs_on_it():
    """Below the bracket a higher load that is kept speaks for it, above it a lower one that is broken."""
    (kept, broken), loads, tried = searched(
        USERS, lambda load, windows: trial(load, "unclear", meets=load <= 5, windows=windows)
    )
    assert (kept, broken) == (5, 6)
    assert Counter(loads) == {1: 1, 2: 1, 4: 1, 8: 1, 6: 3, 5: 3}
    assert tried[5].keeps
    assert not tried[6].keeps


def test_an_end_that_turns_out_otherwise_opens_the_bracket_again():
    """6 users look broken in their first window; both windows together say that they are kept."""

    def judge(load, windows):
        if load == 6 and windows == 1:
            return trial(load, "unclear", meets=False)
        return trial(load, "kept" if load <= 6 else "broken", windows=windows)

    (kept, broken), loads, _ = searched(USERS, judge)
    assert (kept, broken) == (6, 7)
    assert loads == [1, 2, 4, 8, 6, 5, 6, 7]


def test_a_kept_load_above_a_broken_one_does_not_count():
    assert bracket({4.0: True, 8.0: False, 16.0: True, 2.0: None}) == (4.0, 8.0)
    assert bracket({}) == (None, None)


def test_noise_moves_the_answer_by_little_and_costs_few_windows():
    """Each window has 60 requests, of which the share that meets the objective falls through 95 % at the
    capacity, by 2 points for each percent of load; the verdicts are those of the pooled counts."""
    rng = random.Random(1)
    off, windows_used = [], []
    for _ in range(200):
        capacity = rng.uniform(10, 40)
        met: Counter[float] = Counter()

        def judge(load, windows, capacity=capacity, met=met):
            share = min(1.0, max(0.0, 0.95 + 2.0 * (1 - load / capacity)))
            met[load] += sum(rng.random() < share for _ in range(60))
            found = Attainment(Objective("ttft_s", 0.95, 0.5), met[load], 60 * windows)
            return trial(load, found.verdict, meets=found.meets, windows=windows)

        (kept, _), loads, _ = searched(SearchTerms("rate", 4.0, 64.0), judge)
        off.append(kept / capacity - 1)
        windows_used.append(len(loads))
    assert sum(abs(each) <= 0.08 for each in off) >= 190
    assert sum(off) / len(off) == pytest.approx(-0.02, abs=0.02), "the highest kept is just below"
    assert sum(windows_used) / 200 <= 12
    assert max(windows_used) <= 20


@pytest.mark.parametrize("met", [100, 91, 89, 20])
def test_search_and_report_go_by_one_rule(met):
    """Some of each: clear or not, as many as are asked or not."""
    found = Judged((Attainment(Objective("success", 0.9), met, 100),))
    assert Tried(1.0, "1 user", (), found).keeps == trial(1, found.verdict, meets=found.meets).keeps
