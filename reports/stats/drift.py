"""Whether values drift: over a window beside what turns make of it, or from start to start. Pure.

Each test is Student's t at ALPHA divided by the number of tests made together (Bonferroni), so that of runs
without a drift at most 1 % are said to have one.
"""

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import pandas as pd

from reports.stats.family import STARTS_NEEDED
from reports.stats.intervals import Estimate, of_values

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
    known = pd.DataFrame({"at": at, "turn": turn, "log": logs}).dropna()
    of_turn = known.groupby("turn")["log"]
    rest = (known["log"] - of_turn.transform("median"))[of_turn.transform("size") >= TURN_NEEDED]
    if len(rest) < REQUESTS_NEEDED:
        return None
    ordered = rest.to_numpy()[np.argsort(known.loc[rest.index, "at"], kind="stable")]
    parts = np.array([np.median(part) for part in np.array_split(ordered, PARTS)])
    return float(parts[-PARTS // 3 :].mean() - parts[: PARTS // 3].mean())


def window_drifts(changes: Mapping[Name, Sequence[float]], least_share: float) -> dict[Name, Drift]:
    """Return what drifts over its windows, given a change of logarithms per start, by least_share or more."""
    tested = {name: found for name, found in changes.items() if len(found) >= STARTS_NEEDED}
    means = {name: of_values(found, is_log=False) for name, found in tested.items()}
    return _clear(means, len(means), math.log1p(least_share))


def start_drifts(
    logs: Mapping[Name, Mapping[int, float]], least_share: float, tests: int = 1
) -> dict[Name, Drift]:
    """Return which deployments drift otherwise than all of them together, from start to start.

    `logs`: by deployment and repeat the logarithm of a value. What a repeat has in common is taken out, as
    the pairing of repeats does; a single deployment is tested by itself. `least_share`: the least change from
    the first start to the last that is told. `tests`: how often a run asks, as for two metrics.
    """
    values = pd.DataFrame(dict(enumerate(map(dict, logs.values())))).dropna().sort_index()
    if len(values) < STARTS_NEEDED:
        return {}
    if len(logs) > 1:
        values = values.sub(values.mean(axis="columns"), axis="index")
    repeats, k = values.index.to_numpy(dtype=float), len(values)
    x, slopes = repeats - repeats.mean(), {}
    for name, (_, y) in zip(logs, values.items(), strict=True):
        slope = float(x @ y / (x @ x))
        rest = y - y.mean() - slope * x
        slopes[name] = Estimate(
            slope, math.sqrt(float(rest @ rest) / (k - 2) / float(x @ x)), k - 2, k, False
        )
    return _clear(slopes, tests * len(logs), math.log1p(least_share) / float(np.ptp(repeats)))


def _clear(found: Mapping[Name, Estimate], tests: int, least: float) -> dict[Name, Drift]:
    """Return those whose change of logarithms is `least` or more, and no chance."""
    return {
        name: Drift(math.expm1(each.mean), each.p, each.k)
        for name, each in found.items()
        if each.p <= ALPHA / tests and abs(each.mean) >= least
    }
