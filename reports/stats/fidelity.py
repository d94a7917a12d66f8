"""How far one server's token probabilities are from another's, and how soon their answers differ. Pure."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from scipy.special import stdtrit

# The least probability that is assumed for all tokens that are not named.
LEAST_REST = 1e-9
# Servers write -9999 for a probability of 0; exp of less than this is 0, too.
LOWEST = -700.0
# With fewer texts it is not known how much texts differ.
TEXTS_NEEDED = 5


def kl_nats(p: Mapping[str, float], q: Mapping[str, float], k: int) -> float:
    """Return a lower bound of the Kullback-Leibler divergence of q from p in nats. Both map names of their
    likeliest tokens to log probabilities.

    It takes the tokens that both have among their k likeliest, and one bucket for all others, so it is at
    most the divergence over all tokens (log sum inequality; Cover and Thomas 2006, Elements of Information
    Theory, 2.7). The tokens that only p names get a bucket of their own where that raises the bound. q can
    give each of them at most its k-th probability, and all of them at most what its own names leave.
    """
    named_p, named_q = _likeliest(p, k), _likeliest(q, k)
    both = [(value, named_q[name]) for name, value in named_p.items() if name in named_q]
    rest_p = max(LEAST_REST, 1 - sum(each for each, _ in both))
    rest_q = max(LEAST_REST, 1 - sum(each for _, each in both))
    only_p = [value for name, value in named_p.items() if name not in named_q]
    alone_p = sum(only_p)
    left_q = rest_q - sum(value for name, value in named_q.items() if name not in named_p)
    # A q with fewer than k names does not say how likely its next token is.
    if len(named_q) == k:
        left_q = min(left_q, len(only_p) * min(named_q.values()))
    left_q = max(LEAST_REST, left_q)
    others = [(rest_p, rest_q)]
    if left_q < rest_q * alone_p / rest_p:
        others = [(alone_p, left_q), (max(LEAST_REST, rest_p - alone_p), max(LEAST_REST, rest_q - left_q))]
    return max(0.0, sum(a * math.log(a / b) for a, b in [*both, *others]))


def _likeliest(logprobs: Mapping[str, float], k: int) -> dict[str, float]:
    named = sorted(logprobs.items(), key=lambda pair: -pair[1])[:k]
    return {name: math.exp(value) for name, value in named if value > LOWEST and _is_told(name)}


def _is_told(name: str) -> bool:
    """Return whether a name identifies a token. For a part of a character some servers give its bytes, others
    nothing or U+FFFD whatever the part; for the token that ends an answer some give nothing."""
    return bool(name) and "\ufffd" not in name


def mean_interval(sums: Sequence[float], counts: Sequence[int]) -> tuple[float, float]:
    """Return the 95 % interval of the mean over all places of TEXTS_NEEDED texts or more, given each text's
    sum and number of places.

    It is Student's t for the logarithm of that ratio, with the error over texts (Cochran 1977, Sampling
    Techniques, 6.4): the places of one text are not independent, and the means of texts are skewed.
    tests/reports/stats/test_fidelity_simulation.py simulates its coverage, and that of other intervals.
    """
    texts = len(sums)
    totals, places = np.asarray(sums), np.asarray(counts)
    mean = totals.sum() / places.sum()
    if mean == 0:
        return 0.0, 0.0
    spread = texts / (texts - 1) * ((totals - mean * places) ** 2).sum()
    error = math.sqrt(spread) / totals.sum()
    factor = math.exp(stdtrit(texts - 1, 0.975) * error)
    return float(mean / factor), float(mean * factor)


def survival(lengths: Sequence[int], is_parted: Sequence[bool]) -> list[float]:
    """Return the share of answers that agree in their first 0, 1, 2 ... tokens, up to the longest known.

    `lengths`: how many first tokens are the same. An answer that has not parted is censored at that length
    (Kaplan and Meier 1958, J. Am. Stat. Assoc. 53:457).
    """
    same, parted = np.asarray(lengths), np.asarray(is_parted, dtype=bool)
    shares = [1.0]
    for length in range(int(max(same.max(initial=0), 1 + same[parted].max(initial=-1)))):
        shares.append(shares[-1] * float(1 - (parted & (same == length)).sum() / (same >= length).sum()))
    return shares
