"""Logarithmic axes: ticks that say their decade, in a frame a little wider than what is drawn."""

import math
from collections.abc import Sequence
from typing import Any

from reports.page.charts import axis

# Fewer do not show how far apart values are.
FEWEST_TICKS = 3
# Of the axis: nearer to each other, the labels of a narrow chart touch.
APART = 0.13
# Steps within a decade, those first that are read most easily.
_IN_TURN = (1, 2, 5, 3, 1.5, 7, 4, 6, 8, 9)


def log_axis(title: str, low: float, high: float, **more: Any) -> dict[str, Any]:
    """An axis from a little below `low` to a little above `high`, both above 0; its title says it is one."""
    left, right = log_frame(low, high)
    ends = [math.log10(left), math.log10(right)]
    return axis(f"{title} (log scale)", type="log", range=ends, **log_ticks(left, right), **more)


def log_frame(low: float, high: float) -> tuple[float, float]:
    """The ends of such an axis, beyond its values, so that no line lies on the frame."""
    edge = max(math.pow(high / low, 0.03), 1.02)
    return low / edge, high * edge


def log_ticks(low: float, high: float) -> dict[str, Any]:
    """Ticks at 1, 2, 5 of each decade, or closer where the values span less, none nearer to another than
    APART; plotly's own lack the decade."""
    steps = _IN_TURN[: 1 if high > 1000 * low else 3 if high > 8 * low else None]
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    values = _apart([step * 10.0**decade for step in steps for decade in decades], low, high)
    places = None
    if low < high and len(values) < FEWEST_TICKS:
        step = 10.0 ** math.floor(math.log10((high - low) / FEWEST_TICKS))
        step *= next(factor for factor in (10, 5, 2, 1) if (high - low) / (factor * step) >= FEWEST_TICKS)
        values = [step * number for number in range(math.ceil(low / step), math.floor(high / step) + 1)]
        places = max(0, -math.floor(math.log10(step)))
    return {"tickvals": values, "ticktext": [_tick(value, places) for value in values]}


def _apart(values: Sequence[float], low: float, high: float) -> list[float]:
    """Of those within the ends, each that is far enough from all that come before it; in order."""
    nearest = APART * math.log(high / low)
    kept: list[float] = []
    for value in values:
        if low <= value <= high and all(abs(math.log(value / other)) >= nearest for other in kept):
            kept.append(value)
    return sorted(kept)


def _tick(value: float, places: int | None) -> str:
    if places is not None:
        return f"{value:,.{places}f}"
    return f"{value:,.0f}" if value >= 10 else f"{value:.4g}"
