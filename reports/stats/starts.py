"""How the starts of deployments that are the same differ: their noise, what lasts, and levels. Pure.

Speeds of one run are an array of logarithms, labels x repeats.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from scipy.special import betaincinv

from serving_bench.harness.contracts import Figure, StartNoise
from serving_bench.reports.stats.intervals import may_be_logged, mean_varies, scatter_less

_RESAMPLES = 2_000
_LAGS = np.linspace(-0.95, 0.95, 191)
# Two levels are so many standard deviations of a level apart. Of runs whose starts have normal noise 4 %, and
# a drift of 5 %, at most 3 in 100 seem to have levels (tests/reports/stats/test_starts.py).
_APART, _OF_A_LEVEL = 5.0, 2


def share_of(count: int, of: int) -> Figure:
    """Return a share with its 95 % interval (Clopper and Pearson 1934)."""
    low = float(betaincinv(count, of - count + 1, 0.025)) if count else 0.0
    return Figure(count / of, low, float(betaincinv(count + 1, of - count, 0.975)) if count < of else 1.0)


def start_noise(runs: Sequence[np.ndarray]) -> StartNoise:
    """Return how starts differ, from runs of labels that are the same, with intervals by resampling runs.

    What lasts in a run (`of_run`) is beyond what noise and its correlation from start to start explain.
    Needs two runs or more, each of two labels and three repeats or more.
    """
    rows = np.array([_row(run) for run in runs])
    draws = np.random.default_rng(1).integers(len(rows), size=(_RESAMPLES, len(rows)))
    samples = np.vstack([rows.mean(axis=0), rows[draws].mean(axis=1)])
    repeats = round(float(np.mean([run.shape[1] for run in runs])))
    lag = _lag(samples, repeats)
    lags = lag if np.quantile(lag[1:], 0.025) > 0 else np.zeros(len(lag))
    noise = samples[:, 1] / samples[:, 0] / [scatter_less(repeats, each) for each in lags]
    longer = np.array([mean_varies(repeats, each) for each in lags])
    lasts = samples[:, 3] - noise * longer / repeats
    starts = samples[:, 6] / [scatter_less(repeats, each) for each in lags]
    moved = samples[:, 5] - samples[:, 4] ** 2 - starts * longer / repeats
    figures = (np.sqrt(noise), lag, *(np.sqrt(np.maximum(each, 0)) for each in (lasts, moved)))
    ends = [np.quantile(each[1:], (0.025, 0.975)).tolist() for each in figures]
    return StartNoise(*(Figure(float(each[0]), *end) for each, end in zip(figures, ends, strict=True)))


def _row(speeds: np.ndarray) -> list[float]:
    """Return a run's degrees of freedom, its squares, its products of neighbours per square, the variance of
    its labels' means, their mean and mean square, and the mean variance of a label's starts."""
    own, (labels, repeats) = speeds.mean(axis=1), speeds.shape
    rest = speeds - speeds.mean(axis=0) - own[:, None] + speeds.mean()
    squares = float((rest**2).sum())
    neighbours = float((rest[:, 1:] * rest[:, :-1]).sum()) / squares if squares else -1 / repeats
    free, scatter = (labels - 1) * (repeats - 1), float(speeds.var(axis=1, ddof=1).mean())
    return [free, squares, neighbours, own.var(ddof=1), own.mean(), (own**2).mean(), scatter]


def _lag(samples: np.ndarray, repeats: int) -> np.ndarray:
    """Return the correlation from start to start whose centred values have these products of neighbours.

    n values of which the mean is taken away correlate by less than they did, independent ones by -1/n. So it
    is solved for: the expected products are those of C = lag^|i - j|, centred. Each run counts alike, however
    noisy it was.
    """
    place = np.arange(repeats)
    centred = np.eye(repeats) - 1 / repeats
    expected = []
    for lag in _LAGS:
        products = centred @ np.power(lag, abs(place[:, None] - place)) @ centred
        expected.append(np.diag(products, 1).sum() / np.trace(products))
    return np.asarray(np.interp(samples[:, 2], expected, _LAGS))


def levels_of_starts(values: Sequence[Mapping[int, float]]) -> float:
    """Return how far apart the two levels are that starts have, as a logarithm; 0 if they have one, or a
    value of 0. `values`: of each deployment, by repeat.

    The starts, each less its deployment's median, are split where they scatter least around two means. A
    start has another level only if one beside it, in the same repeat, has not.
    """
    if not may_be_logged([value for own in values for value in own.values()]):
        return 0.0
    logs = [{k: math.log(value) for k, value in own.items()} for own in values]
    rest = [{k: v - float(np.median([*own.values()])) for k, v in own.items()} for own in logs]
    ordered = np.sort([value for own in rest for value in own.values()])
    if len(ordered) < 2 * _OF_A_LEVEL:
        return 0.0
    places = range(_OF_A_LEVEL, len(ordered) - _OF_A_LEVEL + 1)
    parts = [(ordered[:place], ordered[place:]) for place in places]
    low, high = min(parts, key=lambda pair: sum(part.var() * len(part) for part in pair))
    within = math.sqrt(sum(part.var() * len(part) for part in (low, high)) / (len(ordered) - 2))
    distance = float(high.mean() - low.mean())
    if distance <= _APART * within:
        return 0.0
    rare = [(k, (value <= low[-1]) == (len(low) <= len(high))) for own in rest for k, value in own.items()]
    usual = {k for k, is_rare in rare if not is_rare}
    mixed = sum(is_rare and k in usual for k, is_rare in rare)
    return distance if mixed >= _OF_A_LEVEL else 0.0
