"""Infer from the time to first token how much of a prompt was read, and so how much was cached. Pure.

With a single user, a server takes a seconds plus b for each token that it reads. Prompts that no cache can
have seen give a and b by the median of the slopes between all pairs (Theil 1950, Sen 1968), which a single
slow request does not move. Intervals are bootstrapped over requests.
"""

from dataclasses import dataclass

import numpy as np

from serving_bench.harness.contracts import Fact, because

# How many different lengths of new prompts a line needs, and the most prompts that it uses.
LEAST_LENGTHS, _MOST = 5, 100
_REDRAWS = 400
_LEVELS = (0.025, 0.975)
# The slowest and the fastest tenth of the requests are left out.
_CUT = 0.1


@dataclass(frozen=True)
class Line:
    """Seconds to first token as a line: `base_s` + `per_token_s` for each token read. Both are arrays of the
    estimate, followed by those of the bootstrap."""

    base_s: np.ndarray
    per_token_s: np.ndarray


@dataclass(frozen=True)
class Inferred:
    """The mean cached tokens of some requests, inferred from their times, with its 95 % interval. It may be a
    little below 0 if nothing was cached."""

    tokens: float
    low: float
    high: float


def line_of(tokens: np.ndarray, seconds: np.ndarray) -> Line | Fact:
    """Return the line fitted to new prompts, or why they do not give one."""
    rng = np.random.default_rng(len(tokens))
    chosen = rng.permutation(len(tokens))[:_MOST]
    tokens, seconds, n = tokens[chosen], seconds[chosen], len(chosen)
    if (lengths := len(np.unique(tokens))) < LEAST_LENGTHS:
        return because("few_lengths", least=LEAST_LENGTHS, lengths=lengths)
    draws = [np.arange(n), *(_redraw(rng, tokens) for _ in range(_REDRAWS))]
    slopes = np.array([_slope(tokens[draw], seconds[draw]) for draw in draws])
    if not np.quantile(slopes, _LEVELS[0]) > 0:
        return because("times_show_nothing", n=n)
    bases = [np.median(seconds[draw] - b * tokens[draw]) for draw, b in zip(draws, slopes, strict=True)]
    return Line(np.array(bases), slopes)


def _redraw(rng: np.random.Generator, tokens: np.ndarray) -> np.ndarray:
    """Return a bootstrap sample with two lengths or more: a single length has no slope."""
    draw = rng.integers(0, len(tokens), len(tokens))
    while len(np.unique(tokens[draw])) == 1:
        draw = rng.integers(0, len(tokens), len(tokens))
    return draw


def _slope(tokens: np.ndarray, seconds: np.ndarray) -> float:
    one, other = np.triu_indices(len(tokens), 1)
    apart = tokens[one] - tokens[other]
    differ = apart != 0
    return float(np.median((seconds[one] - seconds[other])[differ] / apart[differ]))


def _trimmed_mean(values: np.ndarray) -> float:
    cut = int(_CUT * len(values))
    return float(np.partition(values, (cut, len(values) - cut - 1))[cut : len(values) - cut].mean())


def inferred(
    line: Line, tokens: np.ndarray, seconds: np.ndarray, expected: np.ndarray, never_known: float
) -> Inferred:
    """Return how many tokens of prompts of these lengths were cached, on average.

    `expected` is what should have been cached of each prompt. Its mean is known exactly; only the trimmed
    mean of the times' difference from it is bootstrapped. `never_known`: tokens of each prompt that may have
    been cached for the line's own prompts, too, so that the line cannot tell; they widen the upper end.
    """
    rng, n = np.random.default_rng(len(tokens)), len(tokens)
    draws = [np.arange(n), *(rng.integers(0, n, n) for _ in range(len(line.base_s) - 1))]
    means = [
        expected.mean() + _trimmed_mean((tokens - (seconds - base) / slope - expected)[draw])
        for draw, base, slope in zip(draws, line.base_s, line.per_token_s, strict=True)
    ]
    low, high = np.quantile(means[1:], _LEVELS)
    return Inferred(float(means[0]), float(low), float(high) + never_known)
