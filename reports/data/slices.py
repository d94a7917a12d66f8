"""Rows of a frame without a copy: those of one start, and those that a mask takes where they lie together.

A run's frames have millions of rows, in the order of starts or cells, and each is asked for its part hundreds
of times. Pure.
"""

from collections.abc import Iterator

import numpy as np
import pandas as pd


def runs_of(values: np.ndarray) -> Iterator[tuple[int, int]]:
    """Where each stretch of equal values begins and ends."""
    ends = np.flatnonzero(values[1:] != values[:-1]) + 1
    if len(values):
        yield from zip([0, *ends.tolist()], [*ends.tolist(), len(values)], strict=True)


def taken(frame: pd.DataFrame, mask: np.ndarray) -> pd.DataFrame:
    """The rows that a mask takes: a view where they are next to each other, else a copy."""
    count = int(np.count_nonzero(mask))
    if not count:
        return frame.iloc[:0]
    first = int(mask.argmax())
    if mask[first : first + count].all():
        return frame.iloc[first : first + count]
    return frame[mask]


def of_start(samples: pd.DataFrame, name: str) -> pd.DataFrame:
    """The samples of one start, from a frame of `tables.samples_frame`, whose starts follow each other."""
    column = samples["start"].array
    if not isinstance(column, pd.Categorical):
        return samples[samples["start"] == name]
    if name not in column.categories:
        return samples.iloc[:0]
    # Of the codes' own type, else all of them would be converted.
    code = np.asarray(column.categories.get_loc(name), dtype=column.codes.dtype)
    first, last = (int(np.searchsorted(column.codes, code, side)) for side in ("left", "right"))
    return samples.iloc[first:last]


def between(samples: pd.DataFrame, begin_ns: float, end_ns: float) -> pd.DataFrame:
    """The samples with begin_ns <= t_ns < end_ns."""
    t_ns = samples["t_ns"].to_numpy(dtype=np.int64)
    return taken(samples, (t_ns >= begin_ns) & (t_ns < end_ns))
