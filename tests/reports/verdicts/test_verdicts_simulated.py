"""What verdicts and intervals come to on made-up runs: 2,000 draws each, of one fixed seed.

A run: k blocks; each deployment's value in a block is its truth times a log-normal noise of its own start.
All deployments are compared to one baseline. Tolerances are two binomial standard errors.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from scipy.special import stdtr

from serving_bench.harness.contracts import Precision, Until
from serving_bench.harness.plan.plan import LEAST_BLOCKS
from serving_bench.harness.run.next_starts import why_stop
from serving_bench.reports.stats.intervals import (
    Estimate,
    Question,
    decide,
    of_pairs,
    of_two_samples,
    of_values,
)

DRAWS = 2_000
MARGIN = math.log1p(0.05)
TEN_PERCENT = math.log(1.1)
FALSE_AT_MOST = 0.05 + 2 * math.sqrt(0.05 * 0.95 / DRAWS)


def pairs(
    truths: Sequence[float], noises: Sequence[float] | float, k: int, *, baseline_noise: float | None = None
) -> np.ndarray:
    """Log-ratios, draws x comparisons x blocks. The baseline's noise is the first's unless given."""
    rng = np.random.default_rng(20261125)
    spread = np.broadcast_to(np.asarray(noises, dtype=float), (len(truths),))
    ours = rng.normal(np.asarray(truths)[:, None], spread[:, None], (DRAWS, len(truths), k))
    base = rng.normal(0.0, spread[0] if baseline_noise is None else baseline_noise, (DRAWS, 1, k))
    return np.asarray(ours - base)


def verdicts(ratios: np.ndarray) -> np.ndarray:
    """Kinds by the real rule, draws x comparisons, from estimates as of_pairs gives them."""
    k = ratios.shape[-1]
    means, errors = ratios.mean(axis=-1), ratios.std(axis=-1, ddof=1) / math.sqrt(k)
    return np.array(
        [
            [found.kind for found in decide([Question(Estimate(*each, k - 1.0, k, True), "higher", MARGIN)
                                             for each in zip(*run, strict=True)])]
            for run in zip(means.tolist(), errors.tolist(), strict=True)
        ]
    )  # fmt: skip


def is_false(kinds: np.ndarray, truths: Sequence[float]) -> np.ndarray:
    truth = np.asarray(truths)
    is_same = np.abs(truth) < MARGIN
    return np.asarray(
        ((kinds == "same") & ~is_same)
        | ((kinds == "better") & (truth <= 0))
        | ((kinds == "worse") & (truth >= 0))
    )


def share_of_false(ratios: np.ndarray, truths: Sequence[float]) -> float:
    """Of families with any false word."""
    return float(is_false(verdicts(ratios), truths).any(axis=1).mean())


def uncorrected(ratios: np.ndarray) -> np.ndarray:
    """Whether each comparison's own 95 % interval leaves out no difference."""
    k = ratios.shape[-1]
    t = ratios.mean(axis=-1) / (ratios.std(axis=-1, ddof=1) / math.sqrt(k))
    return np.asarray(2 * stdtr(k - 1, -np.abs(t)) <= 0.05)


# --- nothing false ---------------------------------------------------------------------------------


@pytest.mark.parametrize("noise", [0.01, 0.03, 0.10])
@pytest.mark.parametrize("family", [1, 5, 15])
def test_with_no_difference_at_most_5_percent_of_families_say_something_false(family: int, noise: float):
    truths = [0.0] * family
    ratios = pairs(truths, noise, 5)
    assert share_of_false(ratios, truths) <= FALSE_AT_MOST
    if family == 15:
        # What the correction is for.
        assert uncorrected(ratios).any(axis=1).mean() > 0.25


@pytest.mark.parametrize(
    ("truths", "noises", "k"),
    [
        ([0.3] * 7 + [0.0] * 8, 0.03, 5),
        # Quiet ones at the margin's very edge, where "same" is false, beside a noisy one that is the same.
        ([MARGIN] * 14 + [0.0], [0.005] * 14 + [0.10], 5),
        ([MARGIN] * 7 + [-MARGIN] * 7 + [0.0], [0.01] * 14 + [0.03], 10),
        # Differences next to nothing, whose direction may be wrong.
        ([1e-6] * 15, 0.03, 5),
        ([0.0] * 5 + [TEN_PERCENT] * 5 + [-0.02] * 5, 0.03, 5),
    ],
)
def test_of_families_in_which_some_differ_at_most_5_percent_say_something_false(
    truths: list[float], noises: list[float] | float, k: int
) -> None:
    ratios = pairs(truths, noises, k, baseline_noise=min(np.atleast_1d(noises)))
    assert share_of_false(ratios, truths) <= FALSE_AT_MOST


def two_errors(share: float) -> float:
    return 2 * math.sqrt(share * (1 - share) / DRAWS)


# --- repeats that are added until an interval is narrow --------------------------------------------


@pytest.mark.parametrize(("noise", "covers"), [(0.03, 0.94), (0.05, 0.92), (0.10, 0.90)])
def test_intervals_at_which_until_stopped_cover_a_little_less(noise: float, covers: float) -> None:
    """As METHODOLOGY.md has it: 5 % asked for, from three repeats on, thirty at most."""
    values = np.random.default_rng(3).normal(0.0, noise, (DRAWS, 30))
    missed = 0
    for run in values:
        for k in range(LEAST_BLOCKS, 31):
            found = of_values(np.exp(run[:k]).tolist(), is_log=True)
            low, high = found.interval()
            widest = Precision("the only one", high / found.shown - 1)
            if why_stop(Until(0.05), [widest], k, 0.0):
                break
        missed += not low <= 1.0 <= high
    assert 1 - missed / DRAWS == pytest.approx(covers, abs=two_errors(covers) + 0.005)


# --- coverage --------------------------------------------------------------------------------------


def drawn(mean: float, noise: float, k: int, seed: int = 1) -> list[list[float]]:
    return np.random.default_rng(seed).normal(mean, noise, (DRAWS, k)).tolist()


def raised(rows: Sequence[Sequence[float]]) -> list[list[float]]:
    return np.exp(rows).tolist()


def of_blocks(k: int) -> list[Estimate]:
    """Pairs 10 % apart, of blocks that differ by 30 %."""
    blocks = np.array(drawn(0.0, 0.3, k, seed=2))
    sides = [raised(blocks + drawn(mean, 0.03, k, seed)) for mean, seed in ((math.log(1.1), 3), (0.0, 4))]
    return [of_pairs(a, b, is_log=True) for a, b in zip(*sides, strict=True)]


def of_runs(k: int, others: int, noise: float, other_noise: float) -> list[Estimate]:
    a, b = raised(drawn(math.log(1.1), noise, k, seed=5)), raised(drawn(0.0, other_noise, others, seed=6))
    return [of_two_samples(x, y, is_log=True) for x, y in zip(a, b, strict=True)]


def geometric(k: int, noise: float) -> list[Estimate]:
    return [of_values(each, is_log=True) for each in raised(drawn(math.log(1.1), noise, k))]


def additive(k: int) -> list[Estimate]:
    return [of_values(each, is_log=False) for each in drawn(1.1, 0.01, k)]


@pytest.mark.parametrize(
    ("made", "given"),
    [(geometric, (3, 0.01)), (geometric, (10, 0.1)), (additive, (2,)), (additive, (5,)),
     (of_blocks, (3,)), (of_blocks, (5,)), (of_runs, (5, 5, 0.03, 0.03)), (of_runs, (4, 12, 0.1, 0.02))],
)  # fmt: skip
def test_intervals_cover_the_truth(made: Callable[..., list[Estimate]], given: tuple[float, ...]) -> None:
    ends = [each.interval() for each in made(*given)]
    assert 0.93 <= sum(low <= 1.1 <= high for low, high in ends) / DRAWS <= 0.97
