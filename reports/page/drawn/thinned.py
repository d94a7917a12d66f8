"""Numbers of a drawing without what nobody sees: fewer points of a line, fewer digits. Draws nothing."""

from typing import overload

import numpy as np

POINTS_AT_MOST = 1000


def downsample(x: np.ndarray, y: np.ndarray, at_most: int = POINTS_AT_MOST) -> tuple[np.ndarray, np.ndarray]:
    """At most so many points in which each stretch keeps its lowest and highest y."""
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
    """Rounded to so many significant digits; a None stays one."""
    return None if value is None else float(f"{value:.{digits}g}")
