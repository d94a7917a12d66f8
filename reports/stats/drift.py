"""Whether values drift: over a window beside what turns make of it, or from start to start. Pure.

Each test is Student's t at ALPHA divided by the number of tests made together (Bonferroni), so that of runs
without a drift at most 1 % are said to have one. A drift is the mean change of a logarithm, over its starts.
"""

import math
from collections.abc import Hashable, Mapping, Sequence
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


def window_change(at: np.ndarray, seconds: np.ndarray, turn: np.ndarray) -> float | None:
    """Return by how much the logarithm of a latency changes from a window's first third to its last.

    Later turns have longer prompts, and users that began together are in the same turn together, so each
    request is compared with the median of its own turn. None with fewer than REQUESTS_NEEDED requests.
    """
    logs = np.log(np.where(seconds > 0, seconds, np.nan))
    known = pd.DataFrame({"at": at, "turn": turn, "log": logs}).dropna().sort_values("at", kind="stable")
    of_turn = known.groupby("turn")["log"]
    rest = (known["log"] - of_turn.transform("median"))[of_turn.transform("size") >= TURN_NEEDED]
    if len(rest) < REQUESTS_NEEDED:
        return None
    parts = np.array([np.median(part) for part in np.array_split(rest.to_numpy(), PARTS)])
    return float(parts[-PARTS // 3 :].mean() - parts[: PARTS // 3].mean())


def window_drifts(changes: Mapping[Name, Sequence[float]], least_share: float) -> dict[Name, Estimate]:
    """Return what drifts over its windows, given a change of logarithms per start, by least_share or more."""
    tested = {name: found for name, found in changes.items() if len(found) >= STARTS_NEEDED}
    means = {name: of_values(found, is_log=False) for name, found in tested.items()}
    return _clear(means, len(means), math.log1p(least_share))


def start_drifts(
    logs: Mapping[Name, Mapping[int, float]], least_share: float, tests: int = 1
) -> dict[Name, Estimate]:
    """Return which deployments drift otherwise than all of them together, from one start to the next.

    `logs`: by deployment and repeat the logarithm of a value. What a repeat has in common is taken out, as
    the pairing of repeats does; a single deployment is tested by itself. `least_share`: the least change from
    the first start to the last that is told. `tests`: how often a run asks, as for two metrics.
    """
    values = pd.DataFrame(dict(enumerate(map(dict, logs.values())))).dropna().sort_index()
    k = len(values)
    if k < STARTS_NEEDED:
        return {}
    if len(logs) > 1:
        values = values.sub(values.mean(axis="columns"), axis="index")
    repeats = values.index.to_numpy(dtype=float)
    x, y = repeats - repeats.mean(), values.to_numpy() - values.to_numpy().mean(axis=0)
    slopes = x @ y / (x @ x)
    errors = np.sqrt(((y - np.outer(x, slopes)) ** 2).sum(axis=0) / (k - 2) / (x @ x))
    lines = zip(logs, slopes.tolist(), errors.tolist(), strict=True)
    found = {name: Estimate(slope, error, k - 2, k, False) for name, slope, error in lines}
    return _clear(found, tests * len(logs), math.log1p(least_share) / float(np.ptp(repeats)))


def _clear(found: Mapping[Name, Estimate], tests: int, least: float) -> dict[Name, Estimate]:
    return {name: each for name, each in found.items() if each.p <= ALPHA / tests and abs(each.mean) >= least}
