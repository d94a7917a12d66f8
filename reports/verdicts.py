"""What may be said of two deployments: the same, better, worse, or that one cannot tell. Pure.

One rule for all comparisons that a reader sees together (a family): each is decided by its interval at the
level that Holm's step-down procedure (1979) leaves for it, so that in 95 % of such families no word is wrong.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from reports.intervals import CONFIDENCE, Estimate

# Fewer starts give numbers and no verdict: two have one degree of freedom, and say nearly nothing.
STARTS_NEEDED = 3
Kind = Literal["better", "worse", "same", "unknown", "none"]


@dataclass(frozen=True)
class Verdict:
    """`kind`: of the first of the two, by its metric; `none`: nothing is said, and `why` says why.

    `ratio` within [`low`, `high`] at `confidence` (that which Holm leaves, 0.95 or more): the first's value
    over the second's, their difference where `is_log` is False; None without an estimate. `k`: blocks.
    """

    kind: Kind
    ratio: float | None = None
    low: float | None = None
    high: float | None = None
    confidence: float = CONFIDENCE
    k: int = 0
    is_log: bool = True
    why: str | None = None


@dataclass(frozen=True)
class Question:
    """One comparison of a family. `margin`: on the scale of the estimate (log(1.05), or a difference), 0
    where nothing counts as the same. `why_none`: why it gets no verdict, though it may have an estimate; such
    a question is none of the family's."""

    estimate: Estimate | None
    better: Literal["higher", "lower"]
    margin: float
    why_none: str | None = None


def log_margin(share: float) -> float:
    """The margin of a ratio: within 5 % is from 1/1.05 to 1.05, so that a / b and b / a agree."""
    return math.log1p(share)


def decide(questions: Sequence[Question], alpha: float = 1 - CONFIDENCE) -> list[Verdict]:
    """A verdict for each question of one family, in order.

    Every question has the least level at which its interval would decide it: by lying within the margin (two
    one-sided tests, each at half that level) or on one side of no difference. From the smallest on, the jth
    of m is decided if its level is at most alpha / (m - j + 1); the first that is not ends it, and that
    question and all after it are `unknown`. Each one's interval is the one that decided it.
    """
    family = [n for n, each in enumerate(questions) if _counts(each)]
    levels = {n: _deciding_level(questions[n]) for n in family}
    found = {n: _none(each) for n, each in enumerate(questions) if n not in levels}
    ordered = sorted(family, key=lambda n: levels[n])
    has_ended = False
    for place, n in enumerate(ordered):
        if not has_ended:
            level = alpha / (len(ordered) - place)
            has_ended = levels[n] > level
        found[n] = _decided(questions[n], level, is_known=not has_ended)
    return [found[n] for n in range(len(questions))]


def _counts(question: Question) -> bool:
    return question.why_none is None and question.estimate is not None


def _deciding_level(question: Question) -> float:
    """The least level whose interval decides; 1 or more where none does."""
    estimate = question.estimate
    assert estimate is not None
    differs = 2 * min(estimate.p_beyond(0.0), _p_below(estimate, 0.0))
    if not question.margin:
        return differs
    is_same = 2 * max(estimate.p_beyond(-question.margin), _p_below(estimate, question.margin))
    return min(differs, is_same)


def _p_below(estimate: Estimate, bound: float) -> float:
    mirrored = Estimate(-estimate.mean, estimate.error, estimate.df, estimate.k, estimate.is_log)
    return mirrored.p_beyond(-bound)


def _decided(question: Question, level: float, *, is_known: bool) -> Verdict:
    estimate = question.estimate
    assert estimate is not None
    confidence = 1 - level
    low, high = estimate.interval(confidence)
    kind = _kind(question, low, high) if is_known else "unknown"
    return Verdict(kind, estimate.shown, low, high, confidence, estimate.k, estimate.is_log)


def _kind(question: Question, low: float, high: float) -> Kind:
    """By an interval alone, the margin first."""
    is_log = question.estimate is not None and question.estimate.is_log
    none = 1.0 if is_log else 0.0
    nearest, farthest = (math.exp(side) if is_log else side for side in (-question.margin, question.margin))
    if question.margin and nearest < low and high < farthest:
        return "same"
    if low > none:
        return "better" if question.better == "higher" else "worse"
    if high < none:
        return "worse" if question.better == "higher" else "better"
    return "unknown"


def _none(question: Question) -> Verdict:
    estimate, why = question.estimate, question.why_none or "no value of both"
    if estimate is None:
        return Verdict("none", why=why)
    low, high = estimate.interval()
    return Verdict("none", estimate.shown, low, high, k=estimate.k, is_log=estimate.is_log, why=why)
