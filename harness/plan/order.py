"""In which order deployments are started within each block, and loads played within each start. Pure.

A block is one repeat: every deployment started once. Orders are those of Williams designs, Latin squares in
which every deployment stands at each place equally often and follows each other one equally often, so that
neither drift nor what a server leaves to the next favours one. Source: E. J. Williams, "Experimental designs
balanced for the estimation of residual effects of treatments", Australian Journal of Scientific Research A 2
(1949), 149-168.
"""

import itertools
from collections.abc import Sequence
from random import Random
from typing import TypeVar

Item = TypeVar("Item")
Row = tuple[int, ...]


def blocks_in_cycle(count: int) -> int:
    """Return the number of blocks after which an order of `count` deployments is balanced.

    Then another cycle is drawn.
    """
    return count if count % 2 == 0 else 2 * count


def deployment_order(run_seed: int, count: int, block: int) -> Row:
    """Return the order in which a block (from 0) starts its deployments, as places in the order asked for.

    It depends on nothing else, so a plan that grows keeps its beginning. Blocks come in pairs, the second
    with the first's order turned round (A B, B A): over a pair a linear drift falls on all alike.
    """
    cycle, place = divmod(block, blocks_in_cycle(count))
    rng = Random(f"{run_seed}|order|{cycle}")
    names = _shuffled(range(count), rng)
    rows = [row for pair in _shuffled(pairs(count), rng) for row in _shuffled(pair, rng)]
    return tuple(names[item] for item in rows[place])


def cell_order(run_seed: int, repeat: int, count: int) -> Row:
    """Return a random order of the cells of a start, as places in the order asked for.

    It is the same for every deployment of a block, so that those which are compared were measured alike.
    """
    return tuple(_shuffled(range(count), Random(f"{run_seed}|cells|{repeat}")))


def pairs(count: int) -> list[tuple[Row, Row]]:
    """Return the rows of a Williams design, each with its mirror image.

    These are count / 2 pairs for an even count, in which the mirror of each row is a row of the square, and
    count pairs for an odd one, which needs the mirrors too.
    """
    # 0, 1, count - 1, 2, count - 2, ...: no two neighbours are equally far apart, which balances the rows
    # that come of it by adding.
    steps = ((step, count - step) for step in range(1, count // 2 + 1))
    first = (0, *itertools.chain.from_iterable(steps))[:count]
    rows = [tuple((item + shift) % count for item in first) for shift in range(count)]
    return [(row, row[::-1]) for row in (rows[: count // 2] if count % 2 == 0 else rows)]


def _shuffled(items: Sequence[Item], rng: Random) -> list[Item]:
    """Return the items in random order, by random() alone: its numbers for a seed are those of every
    Python."""
    return sorted(items, key=lambda _: rng.random())
