"""The order of starts is balanced, and that of a block never depends on how many follow."""

from collections import Counter
from itertools import pairwise

import pytest

from serving_bench.harness.plan.order import deployment_order


def blocks_in_cycle(count: int) -> int:
    return count if count % 2 == 0 else 2 * count


COUNTS = (1, 2, 3, 4, 5, 6, 7, 9, 10)


def cycle(count: int, number: int = 0, seed: int = 1) -> list[tuple[int, ...]]:
    first = number * blocks_in_cycle(count)
    return [deployment_order(seed, count, first + block) for block in range(blocks_in_cycle(count))]


@pytest.mark.parametrize("count", COUNTS)
def test_each_block_starts_every_deployment_once(count: int) -> None:
    assert all(sorted(row) == list(range(count)) for row in cycle(count))


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("number", [0, 3])
def test_every_deployment_is_at_each_place_equally_often(count: int, number: int) -> None:
    rows = cycle(count, number)
    at = Counter((place, item) for row in rows for place, item in enumerate(row))
    assert set(at.values()) == {blocks_in_cycle(count) // count}
    assert len(at) == count * count


@pytest.mark.parametrize("count", [count for count in COUNTS if count > 1])
@pytest.mark.parametrize("number", [0, 3])
def test_every_deployment_follows_each_other_equally_often(count: int, number: int) -> None:
    follows = Counter(two for row in cycle(count, number) for two in pairwise(row))
    assert len(follows) == count * (count - 1)
    assert set(follows.values()) == {blocks_in_cycle(count) // count}


@pytest.mark.parametrize("count", COUNTS)
def test_each_second_block_is_the_first_turned_round_so_that_a_drift_cancels(count: int) -> None:
    rows = cycle(count) + cycle(count, 1)
    for first, second in zip(rows[::2], rows[1::2], strict=False):
        assert second == first[::-1]
        # Seconds since the pair began, for starts of one second each: their sum is the same for all.
        at = [first.index(item) + count + second.index(item) for item in range(count)]
        assert set(at) == {2 * count - 1}


def test_two_deployments_go_to_and_fro() -> None:
    blocks = [deployment_order(1, 2, block) for block in range(6)]
    assert all(
        {first, second} == {(0, 1), (1, 0)} for first, second in zip(blocks[::2], blocks[1::2], strict=True)
    )


def test_the_order_of_a_block_is_what_it_was_in_earlier_runs() -> None:
    """A recorded order: another one would refuse to resume every run that was begun before."""
    orders = [deployment_order(1, 3, block) for block in range(6)]
    assert orders == [(2, 1, 0), (0, 1, 2), (2, 0, 1), (1, 0, 2), (1, 2, 0), (0, 2, 1)]


def test_cycles_and_seeds_have_orders_of_their_own() -> None:
    assert len({tuple(cycle(5, number)) for number in range(6)}) == 6
    assert len({tuple(cycle(5, seed=seed)) for seed in range(6)}) == 6


def test_no_deployment_is_first_by_being_named_first() -> None:
    first = Counter(deployment_order(seed, 4, 0)[0] for seed in range(400))
    assert all(60 < first[item] < 140 for item in range(4)), first
