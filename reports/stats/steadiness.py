"""Tests whether a window is steady, whether values drift, and whether latencies have two humps. Pure.

Windows are fixed before the run and checked here, never chosen.

A drift is the mean change of a logarithm over starts: within a window (with the effect of turns taken out),
or from start to start. Each test is Student's t at ALPHA divided by the number of tests made together
(Bonferroni), so at most 1 % of runs without a drift are said to have one.

Two humps are found by a valley in a kernel density of the logarithms, compared with the lower of the humps
beside it (Gaussian kernel of Silverman's width, 1986: 0.9 min(s, IQR / 1.34) n^(-1/5)). The limits are chosen
by simulation (tests/reports/stats/test_reports_humps.py). A page looks at many cells and turns, so at most
one in 200 samples with one hump (lognormal, exponential or heavier in the tail) is called two-humped. The
width smooths humps that are close: some are missed rather than too many seen.
"""

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import pandas as pd

from serving_bench.harness.contracts import Load, LoadSummary
from serving_bench.reports.stats.intervals import STARTS_NEEDED, Estimate, of_values

PARTS = 12
# A third of the window then has ten; with fewer, one request more or less is already 10 %.
REQUESTS_NEEDED = 30
# A queue only grew if it rose by half or more, nearly always upwards, and by more than the requests in flight
# vary when the server keeps up (they are a Poisson number in an M/G/infinity queue).
GROWTH = 1.5
GROWTH_ERRORS = 3.0
GROWTH_RANK = 0.8
# An open loop fills up until requests begin to leave. The longest answers take this many times the shortest
# one (lengths are from half to one and a half of their mean).
LONGEST_TO_SHORTEST = 3.0


def thirds(parts: np.ndarray) -> tuple[float, float, float]:
    """Return the means over the window's thirds of a quantity given for each of its PARTS parts."""
    first, middle, last = parts.reshape(3, -1).mean(axis=1).tolist()
    return first, middle, last


def only_rises(parts: np.ndarray) -> bool:
    """Return whether a quantity in a window's parts rises nearly always, by a factor of GROWTH or more and
    beyond its noise."""
    first, _, last = thirds(parts)
    # Spearman's rank correlation with time (importing scipy.stats takes half a second).
    ranks = np.argsort(np.argsort(parts, kind="stable"), kind="stable")
    is_upwards = float(np.corrcoef(np.arange(PARTS), ranks)[0, 1]) >= GROWTH_RANK
    return is_upwards and last > GROWTH * first and last - first > GROWTH_ERRORS * (first + last) ** 0.5


@dataclass(frozen=True)
class Steadiness:
    """A cell's window as means over each of PARTS equal parts."""

    in_flight: np.ndarray  # requests
    tokens: np.ndarray | None  # output tokens/s; None if not known
    ended: np.ndarray  # ok requests/s
    requests: int  # how many ok requests ended in the window
    is_growing: bool = False  # see only_grew


def only_grew(requests: pd.DataFrame, load: Load, summary: LoadSummary) -> bool:
    """Return whether the requests in flight only grew over a window, as they do beyond a server's capacity.

    An open loop also fills up at first, until the longest of the first requests at the full rate leave. The
    answer is False if that may be later than the window's first third. `requests`: all of the cell.
    """
    begin_ns, end_ns = summary.window_start_ns, summary.window_end_ns
    if load.kind == "closed" or end_ns <= begin_ns:
        return False
    sent = requests[requests["sent_ns"].notna() & requests["end_ns"].notna()]
    ok = (sent["outcome"] == "ok").to_numpy(dtype=bool)
    sent_ns, left_ns = (sent[name].to_numpy(dtype=float) for name in ("sent_ns", "end_ns"))
    shortest_s = float((left_ns - sent_ns)[ok].min(initial=math.inf)) / 1e9
    settled_s = (begin_ns - summary.started_ns + (end_ns - begin_ns) / 3) / 1e9 - load.ramp_up_s
    if shortest_s * LONGEST_TO_SHORTEST > settled_s:
        return False
    return only_rises(occupancy(sent_ns, left_ns, edges_of(begin_ns, end_ns)))


def edges_of(begin_ns: int, end_ns: int) -> np.ndarray:
    """Return the PARTS + 1 instants that bound a window's parts."""
    return np.linspace(begin_ns, end_ns, PARTS + 1)


def occupancy(sent_ns: np.ndarray, end_ns: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Return the exact mean of the requests in flight over each part."""
    left_ns = np.maximum(sent_ns, end_ns)  # a damaged table may have an end before its beginning
    lived = [(np.clip(edge - sent_ns, 0, None) - np.clip(edge - left_ns, 0, None)).sum() for edge in edges]
    return np.asarray(np.diff(lived) / np.diff(edges))


def rate(at_ns: np.ndarray, edges: np.ndarray) -> np.ndarray:
    counts, _ = np.histogram(at_ns, edges)
    return np.asarray(counts / (np.diff(edges) / 1e9))


# --- drift -----------------------------------------------------------------------------------------

ALPHA = 0.01
# Five requests for each of PARTS parts, in order of sending. A part's median is one observation, since
# requests in flight together share what happened to them.
DRIFT_NEEDS = 60
TURN_NEEDED = 5
Name = TypeVar("Name", bound=Hashable)


def window_change(at: np.ndarray, seconds: np.ndarray, turn: np.ndarray) -> float | None:
    """Return the change of a latency's logarithm from a window's first third to its last.

    Later turns have longer prompts, and users who began together reach the same turn together, so each
    request is compared with the median of its own turn. None with fewer than DRIFT_NEEDS requests.
    """
    order = np.argsort(at, kind="stable")
    order = order[(seconds[order] > 0) & ~np.isnan(at[order])]
    logs, rest = np.log(seconds[order]), np.full(len(order), np.nan)
    for of_turn in (turn[order] == each for each in np.unique(turn)):
        if of_turn.sum() >= TURN_NEEDED:
            rest[of_turn] = logs[of_turn] - np.median(logs[of_turn])
    rest = rest[~np.isnan(rest)]
    if len(rest) < DRIFT_NEEDS:
        return None
    parts = np.array([np.median(part) for part in np.array_split(rest, PARTS)])
    return float(parts[-PARTS // 3 :].mean() - parts[: PARTS // 3].mean())


def window_drifts(changes: Mapping[Name, Sequence[float]], least_share: float) -> dict[Name, Estimate]:
    """Return the names that drift within their windows by least_share or more. `changes`: a change of
    logarithms for each start."""
    tested = {name: change for name, change in changes.items() if len(change) >= STARTS_NEEDED}
    means = {name: of_values(change, is_log=False) for name, change in tested.items()}
    return _clear(means, len(means), math.log1p(least_share))


def start_drifts(
    logs: Mapping[Name, Mapping[int, float]], least_share: float, tests: int = 1
) -> dict[tuple[Name, ...], Estimate]:
    """Return the deployments that drift from start to start in another way than the others.

    `logs`: the logarithm of a value by deployment and repeat. What a repeat has in common is taken out, as
    pairing does; a single deployment is tested by itself. The deployment that is farthest from the others is
    reported and removed, then the rest are tested again. Of the last two it is not known which one drifts, so
    the pair is reported, with the slope of the first relative to the second. `least_share`: the least change
    from the first start to the last that counts. `tests`: how many values a run asks about.
    """
    values = pd.DataFrame(dict(enumerate(map(dict, logs.values())))).dropna().sort_index()
    names, k, estimates = list(logs), len(values), dict[tuple[Name, ...], Estimate]()
    if k < STARTS_NEEDED:
        return {}
    repeats = values.index.to_numpy(dtype=float)
    x, y = repeats - repeats.mean(), values.to_numpy()
    least = math.log1p(least_share) / float(np.ptp(repeats))
    while names:
        # Two are compared with each other, more with their mean.
        contrasts = (
            y[:, :1] - y[:, 1:] if len(names) == 2 else y - y.mean(axis=1, keepdims=True) * (len(names) > 1)
        )
        slopes = x @ contrasts / (x @ x)
        rest = contrasts - contrasts.mean(axis=0) - np.outer(x, slopes)
        errors = np.sqrt((rest**2).sum(axis=0) / (k - 2) / (x @ x))
        named_sets = [tuple(names)] if len(names) == 2 else [(name,) for name in names]
        lines = zip(named_sets, slopes.tolist(), errors.tolist(), strict=True)
        drifts = {name: Estimate(slope, error, k - 2, k, False) for name, slope, error in lines}
        worst = max(drifts, key=lambda each: abs(drifts[each].mean))
        if not _clear({worst: drifts[worst]}, tests * len(logs), least):
            break
        estimates[worst] = drifts[worst]
        kept = [at for at, name in enumerate(names) if name not in worst]
        names, y = [names[at] for at in kept], y[:, kept]
    return estimates


def _clear(estimates: Mapping[Name, Estimate], tests: int, least: float) -> dict[Name, Estimate]:
    return {
        name: each for name, each in estimates.items() if each.p <= ALPHA / tests and abs(each.mean) >= least
    }


# --- two humps -------------------------------------------------------------------------------------

# Fewer requests have valleys by chance: 3 % of samples of 50 from a heavy tail.
HUMPS_NEED = 100
# The valley's density is at most this share of the lower hump's.
VALLEY_SHARE = 0.5
# Each hump has at least this share of the requests, and the humps' medians are at least this factor apart.
HUMP_SHARE = 0.1
HUMPS_APART = 1.25
_GRID = 256  # points of the density


def humps(seconds: np.ndarray) -> tuple[float, float, float] | None:
    """Return the medians of the two humps beside the deepest valley, and the share of the upper one.

    None if there are no two humps. Values of 0 or less are left out.
    """
    values = np.sort(seconds[seconds > 0])
    if len(values) < HUMPS_NEED:
        return None
    logs = np.log(values)
    quartiles = np.percentile(logs, [25, 75])
    width = 0.9 * min(logs.std(ddof=1), float(np.diff(quartiles)[0]) / 1.34) * len(logs) ** -0.2
    if width <= 0:
        return None
    counts, edges = np.histogram(logs, bins=_GRID)
    grid = (edges[:-1] + edges[1:]) / 2
    reach = np.arange(1 - _GRID, _GRID) * (edges[1] - edges[0])
    density = np.convolve(counts, np.exp(-0.5 * (reach / width) ** 2), mode="valid")
    # At each point the lower of the highest densities on its left and right: the lower hump beside it.
    beside = np.minimum(np.maximum.accumulate(density), np.maximum.accumulate(density[::-1])[::-1])
    upper = 1 - np.searchsorted(logs, grid) / len(logs)
    depth = np.where((upper >= HUMP_SHARE) & (upper <= 1 - HUMP_SHARE), density / beside, 1.0)
    valley = int(np.argmin(depth))
    low_s, high_s = (
        float(np.median(side)) for side in np.split(values, [np.searchsorted(logs, grid[valley])])
    )
    if depth[valley] > VALLEY_SHARE or high_s < HUMPS_APART * low_s:
        return None
    return low_s, high_s, float(upper[valley])
