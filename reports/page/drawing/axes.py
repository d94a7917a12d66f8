"""Axes of charts, and their numbers without what nobody sees: fewer points of a line, fewer digits."""

import math
from collections.abc import Sequence
from typing import Any, overload

import numpy as np

from reports.page.drawing.charts import axis

POINTS_AT_MOST = 1000
# Fewer do not show how far apart values are.
_FEWEST_TICKS = 3
# Of the axis: nearer to each other, the labels of a narrow chart touch.
_APART = 0.13
# Steps within a decade, those first that are read most easily.
_IN_TURN = (1, 2, 5, 3, 1.5, 7, 4, 6, 8, 9)


def log_axis(title: str, low: float, high: float, **more: Any) -> dict[str, Any]:
    """Return an axis from a little below `low` to a little above `high`, both above 0."""
    left, right = log_frame(low, high)
    ends = [math.log10(left), math.log10(right)]
    return axis(f"{title} (log scale)", type="log", range=ends, **log_ticks(left, right), **more)


def log_frame(low: float, high: float) -> tuple[float, float]:
    """Return the ends of such an axis, beyond its values, so that no line lies on the frame."""
    edge = max(math.pow(high / low, 0.03), 1.02)
    return low / edge, high * edge


def log_ticks(low: float, high: float) -> dict[str, Any]:
    """Return ticks at 1, 2, 5 of each decade, or closer where the values span less. plotly's own lack the
    decade."""
    steps = _IN_TURN[: 1 if high > 1000 * low else 3 if high > 8 * low else None]
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    values = _apart([step * 10.0**decade for step in steps for decade in decades], low, high)
    places = None
    if low < high and len(values) < _FEWEST_TICKS:
        step = 10.0 ** math.floor(math.log10((high - low) / _FEWEST_TICKS))
        step *= next(factor for factor in (10, 5, 2, 1) if (high - low) / (factor * step) >= _FEWEST_TICKS)
        values = [step * number for number in range(math.ceil(low / step), math.floor(high / step) + 1)]
        places = max(0, -math.floor(math.log10(step)))
    return {"tickvals": values, "ticktext": [_tick(value, places) for value in values]}


def _apart(values: Sequence[float], low: float, high: float) -> list[float]:
    """Return those within the ends that are far enough from all that come before them, in order."""
    nearest = _APART * math.log(high / low)
    kept: list[float] = []
    for value in values:
        if low <= value <= high and all(abs(math.log(value / other)) >= nearest for other in kept):
            kept.append(value)
    return sorted(kept)


def _tick(value: float, places: int | None) -> str:
    if places is not None:
        return f"{value:,.{places}f}"
    return f"{value:,.0f}" if value >= 10 else f"{value:.4g}"


def downsample(x: np.ndarray, y: np.ndarray, at_most: int = POINTS_AT_MOST) -> tuple[np.ndarray, np.ndarray]:
    """Return at most `at_most` points in which each stretch keeps its lowest and highest y."""
    if len(x) <= at_most:
        return x, y
    kept = {0, len(x) - 1}
    for part in np.array_split(np.arange(len(x)), at_most // 2 - 1):
        kept |= {int(part[y[part].argmin()]), int(part[y[part].argmax()])}
    order = sorted(kept)
    return x[order], y[order]


@overload
def significant(value: float, digits: int = 5) -> float: ...
@overload
def significant(value: None, digits: int = 5) -> None: ...
@overload
def significant(value: float | None, digits: int = 5) -> float | None: ...


def significant(value: float | None, digits: int = 5) -> float | None:
    """Return a number rounded to `digits` significant digits; a None stays one."""
    return None if value is None else float(f"{value:.{digits}g}")
