"""Whether values drift: over a window beside what turns make of it, or from start to start. Pure.

Each test is Student's t at ALPHA divided by the number of tests made together (Bonferroni), so that of runs
without a drift at most 1 % are said to have one.
"""

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from scipy.special import stdtr

from reports.stats.family import STARTS_NEEDED

ALPHA = 0.01
# Twelve parts of five requests in the order of their sending; a part's median is one observation, since
# requests that were in flight together share what happened to them.
PARTS = 12
REQUESTS_NEEDED = 60
TURN_NEEDED = 5
Name = TypeVar("Name", bound=Hashable)


@dataclass(frozen=True)
class Drift:
    """A change that k starts show clearly: `share` is 0.2 for 20 % more, from a window's first third to its
    last, or from one start to the next. `p`: its probability by chance, before Bonferroni."""

    share: float
    p: float
    k: int


def window_change(at: np.ndarray, seconds: np.ndarray, turn: np.ndarray) -> float | None:
    """Return by how much the logarithm of a latency changes from a window's first third to its last.

    Later turns have longer prompts, and users that began together are in the same turn together, so each
    request is compared with the median of its own turn. None with fewer than REQUESTS_NEEDED requests.
    """
    logs = np.log(np.where(seconds > 0, seconds, np.nan))
    rest = np.full(len(logs), np.nan)
    for each in np.unique(turn):
        is_own = (turn == each) & ~np.isnan(logs)
        if is_own.sum() >= TURN_NEEDED:
            rest[is_own] = logs[is_own] - np.median(logs[is_own])
    is_known = ~np.isnan(rest)
    if is_known.sum() < REQUESTS_NEEDED:
        return None
    ordered = rest[is_known][np.argsort(at[is_known], kind="stable")]
    parts = np.array([np.median(part) for part in np.array_split(ordered, PARTS)])
    return float(parts[-PARTS // 3 :].mean() - parts[: PARTS // 3].mean())


def window_drifts(changes: Mapping[Name, Sequence[float]], least_share: float) -> dict[Name, Drift]:
    """Return what drifts over its windows, given a change of logarithms per start, by least_share or more."""
    tested = {name: found for name, found in changes.items() if len(found) >= STARTS_NEEDED}
    drifts = {}
    for name, found in tested.items():
        mean, k = float(np.mean(found)), len(found)
        p = _p(mean, float(np.std(found, ddof=1)) / math.sqrt(k), k - 1)
        if p <= ALPHA / len(tested) and abs(mean) >= math.log1p(least_share):
            drifts[name] = Drift(math.expm1(mean), p, k)
    return drifts


def start_drifts(
    logs: Mapping[Name, Mapping[int, float]], least_share: float, tests: int = 1
) -> dict[Name, Drift]:
    """Return which deployments drift otherwise than all of them together, from start to start.

    `logs`: by deployment and repeat the logarithm of a value. What a repeat has in common is taken out, as
    the pairing of repeats does; a single deployment is tested by itself. `least_share`: the least change from
    the first start to the last that is told. `tests`: how often a run asks, as for two metrics.
    """
    repeats = sorted(set.intersection(*(set(each) for each in logs.values()))) if logs else []
    if len(repeats) < STARTS_NEEDED:
        return {}
    values = np.array([[each[repeat] for repeat in repeats] for each in logs.values()])
    if len(logs) > 1:
        values = values - values.mean(axis=0)
    x = np.array(repeats) - np.mean(repeats)
    drifts = {}
    for name, y in zip(logs, values, strict=True):
        slope = float(x @ y / (x @ x))
        rest = y - y.mean() - slope * x
        df = len(x) - 2
        p = _p(slope, math.sqrt(float(rest @ rest) / df / float(x @ x)), df)
        if p <= ALPHA / (tests * len(logs)) and abs(slope) * (repeats[-1] - repeats[0]) >= math.log1p(
            least_share
        ):
            drifts[name] = Drift(math.expm1(slope), p, len(x))
    return drifts


def _p(mean: float, error: float, df: int) -> float:
    """Return the two-sided probability of a mean this far from 0."""
    if mean == 0:
        return 1.0
    return 2 * float(stdtr(df, -abs(mean / error))) if error > 0 else 0.0
