"""What may be said of two deployments: the same, better, worse, or that one cannot tell. Pure.

The comparisons that a reader sees together are a family. Each is decided by its own interval, at the level
5 % / m for a family of m, so that in 95 % of such families no word is wrong (Bonferroni). Steps such as
Holm's are not taken: with "same" and "differs" both sayable up to 14 % of families had a false word.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from reports.stats.intervals import CONFIDENCE, Estimate

# Fewer starts give numbers and no verdict: two have one degree of freedom, and say nearly nothing.
STARTS_NEEDED = 3
Kind = Literal["better", "worse", "same", "unknown", "none"]


@dataclass(frozen=True)
class Verdict:
    """`kind`: of the first of the two, by its metric; `none`: nothing is said, and `why` says why.

    `ratio` within [`low`, `high`] at `confidence` (the family's, 0.95 or more): the first's value
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
    """One comparison of a family.

    `margin`: on the scale of the estimate, 0 where nothing counts as the same. That of a ratio is log(1.05):
    within 5 % is from 1/1.05 to 1.05, so that a / b and b / a agree.
    `why_none`: why it gets no verdict, though it may have an estimate; it does not count for the family.
    """

    estimate: Estimate | None
    better: Literal["higher", "lower"]
    margin: float
    why_none: str | None = None


def decide(questions: Sequence[Question], alpha: float = 1 - CONFIDENCE) -> list[Verdict]:
    """Return a verdict for each question of one family, in order.

    By its interval at level alpha / m: `same` where it lies within the margin (two one-sided tests), else
    `better` or `worse` where it lies on one side of no difference, else `unknown`.
    """
    count = sum(each.why_none is None and each.estimate is not None for each in questions)
    return [_decided(each, 1 - alpha / max(count, 1)) for each in questions]


def _decided(question: Question, confidence: float) -> Verdict:
    estimate, why = question.estimate, question.why_none
    if estimate is None:
        return Verdict("none", why=why or "no value of both")
    confidence = CONFIDENCE if why else confidence
    low, high = estimate.interval(confidence)
    kind = "none" if why else _kind(question, low, high, estimate.is_log)
    return Verdict(kind, estimate.shown, low, high, confidence, estimate.k, estimate.is_log, why)


def _kind(question: Question, low: float, high: float, is_log: bool) -> Kind:
    margin, none = (math.exp(question.margin), 1.0) if is_log else (question.margin, 0.0)
    if (1 / margin if is_log else -margin) < low and high < margin:
        return "same"
    if low <= none <= high:
        return "unknown"
    return "better" if (low > none) == (question.better == "higher") else "worse"
