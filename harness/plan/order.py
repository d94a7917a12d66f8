"""Draw the order in which a block starts its deployments. Pure.

Williams designs: Latin squares in which each deployment stands at each place and follows each other one
equally often. Source: E. J. Williams, "Experimental designs balanced for the estimation of residual effects
of treatments", Australian Journal of Scientific Research A 2 (1949), 149-168.
"""

import itertools
from collections.abc import Sequence
from random import Random
from typing import TypeVar

Item = TypeVar("Item")


def deployment_order(run_seed: int, count: int, block: int) -> tuple[int, ...]:
    """Return the order in which a block (from 0) starts its deployments, as places in the order asked for.

    A plan that grows keeps its beginning. Blocks come in pairs, and the second reverses the order of the
    first, so that over a pair a linear drift falls on all alike. The order is balanced after `count` blocks
    if that is even, else after twice `count`.
    """
    # No two neighbours are equally far apart, so the rows that are made by shifting it are balanced.
    steps = ((step, count - step) for step in range(1, count // 2 + 1))
    first = (0, *itertools.chain.from_iterable(steps))[:count]
    rows = [tuple((item + shift) % count for item in first) for shift in range(count)]
    # For an even count the mirror of each row is a row of the square; an odd one needs the mirrors too.
    pairs = [(row, row[::-1]) for row in (rows[: count // 2] if count % 2 == 0 else rows)]
    cycle, place = divmod(block, 2 * len(pairs))
    rng = Random(f"{run_seed}|order|{cycle}")
    names = shuffled(range(count), rng)
    drawn = [row for pair in shuffled(pairs, rng) for row in shuffled(pair, rng)]
    return tuple(names[item] for item in drawn[place])


def shuffled(items: Sequence[Item], rng: Random) -> list[Item]:
    # Uses only random(), since every version of Python gives the same numbers for a seed.
    return sorted(items, key=lambda _: rng.random())
