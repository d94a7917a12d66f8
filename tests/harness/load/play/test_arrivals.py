"""Schedules against numbers worked out by hand, and their statistics."""

from itertools import islice, pairwise
from math import inf
from random import Random
from statistics import mean, stdev
from typing import Any

import pytest

from serving_bench.harness.contracts import Load
from serving_bench.harness.load.play.arrivals import (
    Stretch,
    instant_s,
    longest_s,
    phases,
    points,
    share,
    user_begins_s,
    user_ramps_down_s,
)


def open_loop(rate_per_s: float, **changes: Any) -> Load:
    fields: dict[str, Any] = {"warmup_s": 0.0, "duration_s": None, "arrival": "constant", **changes}
    return Load(concurrency=None, rate_per_s=rate_per_s, **fields)


def instants(load: Load, count: int, seed: int = 1) -> list[float]:
    """The first arrivals that there are, if the window needs no more than load.duration."""
    end_s = phases(load).window_end_s
    found = (instant_s(load, point, end_s) for point in islice(points(load, Random(seed)), count))
    return [at_s for at_s in found if at_s < inf]


def gaps(load: Load, count: int = 20_000) -> list[float]:
    return [after - before for before, after in pairwise(instants(load, count))]


def test_the_phases_follow_each_other() -> None:
    assert phases(Load(1, ramp_up_s=3, warmup_s=2, duration_s=10, ramp_down_s=4)) == (3, 5, 15, 19)
    assert phases(Load(1, warmup_s=2, duration_s=None, conversations=9)) == (0, 2, inf, inf)


def test_a_cell_may_take_all_steps_and_its_grace() -> None:
    assert longest_s(Load(1, warmup_s=2, duration_s=10, timeout_s=30)) == 2 + 40 + 40
    assert longest_s(Load(1, warmup_s=2, duration_s=10, timeout_s=90)) == 2 + 40 + 90
    assert longest_s(Load(1, warmup_s=2, duration_s=10, steps=1, ramp_down_s=5, grace_s=1)) == 2 + 10 + 5
    assert longest_s(Load(1, warmup_s=2, duration_s=None, conversations=9)) == inf


def test_an_end_that_is_not_known_yet_moves_only_what_comes_behind_it() -> None:
    load = open_loop(10, ramp_down_s=2)
    assert [instant_s(load, point) for point in (9.5, 10, 12)] == pytest.approx([0.95, 1, 1.2])
    known = [instant_s(load, point, 1.0) for point in (9.5, 10, 12)]
    assert known == pytest.approx([0.95, 1, 1 + 2 - (4 - 2 * 2 / 5) ** 0.5])
    assert instant_s(load, 20, 1.0) == inf


def test_a_constant_rate_begins_at_once_and_has_equal_gaps() -> None:
    assert instants(open_loop(50), 4) == pytest.approx([0, 0.02, 0.04, 0.06])


def test_poisson_gaps_have_their_mean_as_their_deviation() -> None:
    found = gaps(open_loop(10, arrival="poisson"))
    assert mean(found) == pytest.approx(0.1, rel=0.03)
    assert stdev(found) == pytest.approx(0.1, rel=0.03)


@pytest.mark.parametrize("burstiness", [0.25, 4.0])
def test_burstiness_is_the_shape_of_gamma_gaps(burstiness: float) -> None:
    found = gaps(open_loop(10, arrival="gamma", burstiness=burstiness))
    assert mean(found) == pytest.approx(0.1, rel=0.05)
    assert stdev(found) / mean(found) == pytest.approx(burstiness**-0.5, rel=0.05)


def test_gamma_of_shape_1_is_poisson() -> None:
    gamma, poisson = open_loop(10, arrival="gamma"), open_loop(10, arrival="poisson")
    assert instants(gamma, 50) == instants(poisson, 50)


def test_the_same_seed_gives_the_same_instants() -> None:
    load = open_loop(10, arrival="poisson")
    assert instants(load, 50, seed=3) == instants(load, 50, seed=3)
    assert instants(load, 50, seed=3) != instants(load, 50, seed=4)


def test_a_linear_ramp_up_has_as_many_arrivals_as_the_area_below_it() -> None:
    # Rate 5 t in the first 2 s: k arrivals by the time sqrt(2 k / 5), 10 in all; then 10 per second.
    found = instants(open_loop(10, ramp_up_s=2), 13)
    assert found[:10] == pytest.approx([(2 * k / 5) ** 0.5 for k in range(10)])
    assert found[10:] == pytest.approx([2.0, 2.1, 2.2])


def test_a_linear_ramp_down_mirrors_it_and_ends() -> None:
    # Rate 10 - 5 x in the last 2 s: 10 x - 5 x^2 / 2 = k at x = 2 - sqrt(4 - 2 k / 5).
    found = instants(open_loop(10, duration_s=1.0, ramp_down_s=2), 1000)
    assert found[:10] == pytest.approx([k / 10 for k in range(10)])
    assert found[10:] == pytest.approx([1 + 2 - (4 - 2 * k / 5) ** 0.5 for k in range(10)])


def test_steps_up_end_at_the_full_rate_and_steps_down_begin_with_less() -> None:
    load = open_loop(8, duration_s=1.0, ramp_up_s=2, ramp_down_s=2, ramp="steps", ramp_steps=2)
    found = instants(load, 1000)
    counts = [sum(second <= at < second + 1 for at in found) for second in range(5)]
    assert counts == [4, 8, 8, 4, 0]


def test_a_ramp_keeps_the_mean_of_random_arrivals() -> None:
    load = open_loop(1000, arrival="poisson", ramp_up_s=4, duration_s=1.0, ramp_down_s=4)
    assert len(instants(load, 100_000)) == pytest.approx(2000 + 1000 + 2000, rel=0.05)


def test_a_stretch_of_an_even_rate_and_one_that_begins_at_nothing() -> None:
    assert Stretch(2.0, 5.0, 5.0).after_s(5) == 1.0
    assert Stretch(2.0, 0.0, 5.0).after_s(0) == 0.0
    assert Stretch(2.0, 0.0, 0.0).arrivals == 0.0


def test_users_are_staggered_over_the_warm_ups_first_second() -> None:
    assert [user_begins_s(Load(concurrency=4, warmup_s=5), user) for user in range(4)] == [0, 0.25, 0.5, 0.75]
    assert user_begins_s(Load(concurrency=2, warmup_s=0.4), 1) == 0.2
    assert user_begins_s(Load(concurrency=2, warmup_s=0), 1) == 0


def test_users_of_a_linear_ramp_come_and_go_one_by_one() -> None:
    load = Load(concurrency=4, ramp_up_s=8, warmup_s=1, duration_s=10, ramp_down_s=4)
    assert [user_begins_s(load, user) for user in range(4)] == [0, 2, 4, 6]
    assert [user_ramps_down_s(load, user) for user in range(4)] == [1, 2, 3, 4]


def test_users_of_steps_come_together_but_not_in_step_and_go_together() -> None:
    load = Load(
        concurrency=4, ramp="steps", ramp_steps=2, ramp_up_s=8, warmup_s=1, duration_s=10, ramp_down_s=4
    )
    assert [user_begins_s(load, user) for user in range(4)] == [0, 0.5, 4, 4.5]
    assert [user_ramps_down_s(load, user) for user in range(4)] == [0, 0, 2, 2]


def test_without_a_ramp_down_users_go_when_the_window_ends() -> None:
    assert user_ramps_down_s(Load(concurrency=2, warmup_s=1, duration_s=4), 0) == 0


def test_workers_take_every_other_item() -> None:
    assert [share(7, 3, worker) for worker in range(3)] == [3, 2, 2]
    assert share(1, 2, 1) == 0
