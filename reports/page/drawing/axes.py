"""Axes of charts, and their numbers without what nobody sees: fewer points of a line, fewer digits."""

import math
from typing import Any

import numpy as np

from reports.page.drawing.charts import axis

POINTS_AT_MOST = 1000
# Fewer do not show how far apart values are.
_FEWEST_TICKS = 3
# Steps within a decade, from few to many.
_STEPS = ((1.0,), (1.0, 3.0), (1.0, 2.0, 5.0), (1.0, 1.5, 2.0, 3.0, 5.0, 7.0))


def log_axis(title: str, low: float, high: float) -> dict[str, Any]:
    """Return an axis from a little below `low` to a little above `high`, both above 0, so that no line
    lies on the frame."""
    edge = max(math.pow(high / low, 0.03), 1.02)
    ends = low / edge, high * edge
    return axis(
        f"{title} (log scale)", type="log", range=[math.log10(end) for end in ends], **log_ticks(*ends)
    )


def log_ticks(low: float, high: float) -> dict[str, Any]:
    """Return round ticks within two different ends, three or more, so few that labels do not touch."""
    decades = 10.0 ** np.arange(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for steps in _STEPS:
        ticks = [value for value in np.outer(decades, steps).flatten().tolist() if low <= value <= high]
        if len(ticks) >= _FEWEST_TICKS:
            break
    else:
        widest = (high - low) / _FEWEST_TICKS
        decade = 10.0 ** math.floor(math.log10(widest))
        step = max(factor * decade for factor in (1, 2, 5) if factor * decade <= widest)
        ticks = [step * k for k in range(math.ceil(low / step), math.floor(high / step) + 1)]
    return {"tickvals": ticks, "ticktext": [f"{tick:,.8g}" for tick in ticks]}


def downsample(x: np.ndarray, y: np.ndarray, at_most: int = POINTS_AT_MOST) -> tuple[np.ndarray, np.ndarray]:
    """Return at most `at_most` points in which each stretch keeps its lowest and highest y."""
    if len(x) <= at_most:
        return x, y
    kept = {0, len(x) - 1}
    for part in np.array_split(np.arange(len(x)), at_most // 2 - 1):
        kept |= {int(part[y[part].argmin()]), int(part[y[part].argmax()])}
    order = sorted(kept)
    return x[order], y[order]


def significant(value: float, digits: int = 5) -> float:
    """Return a number rounded to `digits` significant digits."""
    return float(f"{value:.{digits}g}")
