"""Two distributions, of which one cannot be computed, and a metric that is neither a value nor one."""

import numpy as np

from serving_bench import Cell, Metric, Run


def _streaming_s(run: Run, cell: Cell) -> np.ndarray:
    first_ns, last_ns = (run.ok_values(cell.number, f"{name}_content_ns") for name in ("first", "last"))
    return (last_ns - first_ns) / 1e9


def _nothing(run: Run, cell: Cell) -> np.ndarray:
    raise LookupError("no such column")


STREAMING = Metric(
    "streaming_s",
    "streaming time",
    "last content - first content",
    "requests.parquet",
    unit="s",
    shown_unit="ms",
    better="lower",
    shown_scale=1e3,
    is_distribution=True,
    observations=_streaming_s,
)
RAISES = Metric(
    "lost_s", "lost time", "-", "-", "s", "s", "lower", is_distribution=True, observations=_nothing
)
NEITHER = Metric("neither_s", "no time", "-", "-", "s", "s", "lower", observations=_nothing)
