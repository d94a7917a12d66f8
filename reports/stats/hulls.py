"""The convex hull of points in a plane, and boxes of two intervals. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

Point = tuple[float, float]


@dataclass(frozen=True)
class Box:
    """From the low to the high end of both intervals."""

    x: tuple[float, float]
    y: tuple[float, float]

    @property
    def corners(self) -> list[Point]:
        return [(x, y) for x in self.x for y in self.y]

    @property
    def is_point(self) -> bool:
        return self.x[0] == self.x[1] and self.y[0] == self.y[1]


def hull(points: Sequence[Point]) -> list[Point]:
    """Its corners, counterclockwise from the leftmost; of points on a line its two ends.

    Andrew's monotone chain: Another efficient algorithm for convex hulls in two dimensions, Inf. Process.
    Lett. 9 (1979).
    """
    ordered = sorted(set(points))
    if len(ordered) < 3:
        return ordered
    lower, upper = _chain(ordered), _chain(ordered[::-1])
    return [*lower[:-1], *upper[:-1]]


def _chain(ordered: Sequence[Point]) -> list[Point]:
    """The part of the hull to the right of the way from the first to the last."""
    kept: list[Point] = []
    for point in ordered:
        while len(kept) > 1 and _turn(kept[-2], kept[-1], point) <= 0:
            kept.pop()
        kept.append(point)
    return kept


def _turn(a: Point, b: Point, c: Point) -> float:
    """Above 0 where the way over a, b and c turns left."""
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])
