"""Traces and axes as plain data for plotly.js.

A colour is the name of a style variable (`--c-blue`), which theme.js resolves. Text from outside is escaped,
because plotly reads labels as HTML. Knows no run.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from serving_bench.reports.page.looks import ALL, Look, Of, escaped

# With fewer ticks, a reader cannot tell how far apart values are.
_FEWEST_TICKS = 3
# The lowest value that a log axis shows, as a share of the highest.
_LEAST = 1e-6
# By start, from 1: the y values, and the n of each in words.
ByStart = Mapping[int, tuple[Sequence[float | None], Sequence[str]]]
# Ticks within a decade, sparsest first.
_STEPS = ((1.0,), (1.0, 3.0), (1.0, 2.0, 5.0), (1.0, 1.5, 2.0, 3.0, 5.0, 7.0))


# --- traces ----------------------------------------------------------------------------------------


def line(
    look: Look,
    x: Sequence[float],
    y: Sequence[float | None],
    of: Of | None = None,
    *,
    points: Sequence[Of] = (),
    by_start: ByStart | None = None,
    **more: Any,
) -> dict[str, Any]:
    """Return a deployment's line; the rest as in `about`. `of`: by default, all of the deployment."""
    drawn = {
        "type": "scatter",
        "mode": "lines+markers",
        "name": escaped(look.label),
        "x": list(x),
        "y": list(y),
        "line": {"color": look.colour, "dash": look.dash, "width": 2},
        "marker": {"color": look.colour, "symbol": look.symbol, "size": 8},
        "hovertemplate": "%{fullData.name}<br>%{x}: %{y:.4~g}<extra></extra>",
    }
    return about(drawn | more, of or Of(look.label), points=points, by_start=by_start)


def about(
    trace: dict[str, Any], of: Of = ALL, *, points: Sequence[Of] = (), by_start: ByStart | None = None
) -> dict[str, Any]:
    """Return a trace that the page's filters understand.

    `of` is what the whole trace is about, `points` what each of its points is about. `by_start` has what to
    draw when one start is chosen; without it the trace keeps its y, and the page says that it is over all
    starts.
    """
    meta: dict[str, Any] = {"of": of.to_builtins()}
    if points:
        meta["points"] = [point.to_builtins() for point in points]
    if by_start:
        meta |= {
            "by_start": {str(start): list(y) for start, (y, _) in by_start.items()},
            "n_by_start": {str(start): list(n) for start, (_, n) in by_start.items()},
        }
    return {**trace, "meta": meta}


def downsample(x: np.ndarray, y: np.ndarray, at_most: int) -> tuple[np.ndarray, np.ndarray]:
    """Return at most `at_most` points; each stretch of the line keeps its lowest and highest y."""
    if len(x) <= at_most:
        return x, y
    stretches = np.array_split(np.arange(len(x)), at_most // 2 - 1)
    lows_and_highs = [each[[y[each].argmin(), y[each].argmax()]] for each in stretches]
    kept = np.unique(np.concatenate([[0, len(x) - 1], *lows_and_highs]))
    return x[kept], y[kept]


def significant(value: float, digits: int = 5) -> float:
    """Return a number rounded to `digits` significant digits, which keeps the page small."""
    return float(f"{value:.{digits}g}")


# --- axes ------------------------------------------------------------------------------------------


def axis(title: str, **more: Any) -> dict[str, Any]:
    return {"title": {"text": title}, **more}


def log_axis(title: str, low: float, high: float) -> dict[str, Any]:
    """Return a log axis a little wider than `low` to `high`, so that no line lies on the frame."""
    high = max(high, _LEAST)
    low = max(low, _LEAST * high)
    edge = max(math.pow(high / low, 0.03), 1.02)
    ends = low / edge, high * edge
    return axis(
        f"{title} (log scale)", type="log", range=[math.log10(end) for end in ends], **log_ticks(*ends)
    )


def log_ticks(low: float, high: float) -> dict[str, Any]:
    """Return at least three round ticks between two different ends, few enough that labels do not touch."""
    decades = 10.0 ** np.arange(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    candidates = (
        [v for v in np.outer(decades, steps).flatten().tolist() if low <= v <= high] for steps in _STEPS
    )
    ticks = next((each for each in candidates if len(each) >= _FEWEST_TICKS), [])
    if not ticks:
        widest = (high - low) / _FEWEST_TICKS
        decade = 10.0 ** math.floor(math.log10(widest))
        step = max(factor * decade for factor in (1, 2, 5) if factor * decade <= widest)
        ticks = [step * k for k in range(math.ceil(low / step), math.floor(high / step) + 1)]
    return {"tickvals": ticks, "ticktext": [f"{tick:,.8g}" for tick in ticks]}
