"""Convex hulls, worked out by hand, and fronts of two values."""

from __future__ import annotations

from reports.stats.family import Verdict
from reports.stats.fronts import front_of
from reports.stats.hulls import Box, hull


def test_a_hull_has_the_outer_corners_counterclockwise_from_the_leftmost() -> None:
    square = [(0.0, 0.0), (2.0, 0.0), (2.0, 2.0), (0.0, 2.0)]
    assert hull([(1.0, 1.0), *square[::-1], (1.0, 0.0)]) == square


def test_the_hull_of_two_boxes_spans_what_is_between_them() -> None:
    boxes = [Box((0.0, 1.0), (0.0, 1.0)), Box((3.0, 4.0), (3.0, 4.0))]
    assert hull([corner for box in boxes for corner in box.corners]) == [
        (0.0, 0.0), (1.0, 0.0), (4.0, 3.0), (4.0, 4.0), (3.0, 4.0), (0.0, 1.0)
    ]  # fmt: skip


def test_points_on_a_line_have_its_ends_and_one_has_itself() -> None:
    assert hull([(1.0, 1.0), (0.0, 0.0), (2.0, 2.0)]) == [(0.0, 0.0), (2.0, 2.0)]
    assert hull([(1.0, 1.0), (1.0, 1.0)]) == [(1.0, 1.0)]
    assert Box((1.0, 1.0), (2.0, 2.0)).is_point
    assert not Box((1.0, 1.0), (2.0, 2.5)).is_point


# --- fronts ----------------------------------------------------------------------------------------


def by_value(values: dict[str, float], *, more_is_better: bool, unknown: tuple[str, ...] = ()):
    """Verdicts that go by the values, those of `unknown` with anyone being unknown."""

    def told(a: str, b: str) -> Verdict:
        if a in unknown or b in unknown:
            return Verdict("unknown")
        if values[a] == values[b]:
            return Verdict("same")
        return Verdict("better" if (values[a] > values[b]) == more_is_better else "worse")

    return told


GAINS = {"small": 1.0, "fast": 3.0, "slow": 1.0, "twin": 2.0}
COSTS = {"small": 1.0, "fast": 2.0, "slow": 3.0, "twin": 2.0}


def test_a_front_has_who_is_not_beaten_in_both_from_the_cheapest_on() -> None:
    gain, cost = by_value(GAINS, more_is_better=True), by_value(COSTS, more_is_better=False)
    front = front_of(GAINS, COSTS, gain, cost)
    assert front.steps == ("small", "fast")
    # twin costs the same as fast and gives less; slow is beaten by all, by small at the same gain.
    assert front.beaten == {"slow": ("small", "fast", "twin"), "twin": ("fast",)}
    assert front.is_whole


def test_who_is_not_told_apart_is_neither_beaten_nor_a_step() -> None:
    gain = by_value(GAINS, more_is_better=True, unknown=("slow",))
    cost = by_value(COSTS, more_is_better=False, unknown=("slow",))
    front = front_of(GAINS, COSTS, gain, cost)
    assert front.untold == ("slow",)
    assert "slow" not in front.beaten
    assert not front.is_whole


def test_pairs_that_were_not_asked_beat_nobody() -> None:
    front = front_of(GAINS, COSTS, lambda a, b: None, lambda a, b: None)
    assert front.beaten == {}
    assert front.untold == ("slow", "twin")
