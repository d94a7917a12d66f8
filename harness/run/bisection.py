"""Which load a search tries next on one server start, given what it has tried there. Pure.

From the lowest load it doubles until one breaks the objectives. Then it halves the distance: numbers of
users at the arithmetic mean, rates at the geometric one. Whether a window kept the objectives is the reports'
question.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from harness.contracts import SearchTerms

# If even the lowest rate breaks the objectives, lower ones are tried, down to a sixteenth.
_HALVINGS = 4


Verdict = Literal["kept", "broken", "unclear"]


@dataclass(frozen=True)
class Trial:
    """What one load came to, in all its `windows` on one start together.

    `meets` says whether the shares meet the objectives as they stand, without their intervals. It decides
    while the verdict is unclear.
    """

    load: float
    verdict: Verdict
    meets: bool
    windows: int

    @property
    def keeps(self) -> bool:
        return self.verdict == "kept" or (self.verdict == "unclear" and self.meets)


def bracket(trials: Sequence[Trial]) -> tuple[float | None, float | None]:
    """Return the highest load kept below all that are broken, and the lowest broken. Each may be None."""
    broken = min((trial.load for trial in trials if not trial.keeps), default=None)
    below = math.inf if broken is None else broken
    kept = max((trial.load for trial in trials if trial.keeps and trial.load < below), default=None)
    return kept, broken


def next_load(terms: SearchTerms, trials: Sequence[Trial]) -> float | None:
    """Return the load to try next, or None at the search's end. One that was tried gets fresh prompts.

    An unclear load is tried again only once it is an end of the closed bracket, for up to `terms.trials`
    windows. Until then a higher load that is kept, or a lower one that is broken, makes that needless. What
    is found there may open the bracket again.
    """
    kept, broken = bracket(trials)
    load = _narrower(terms, kept, broken)
    if load is not None:
        return load
    ends = [trial for trial in trials if trial.load in (kept, broken)]
    left = [trial.load for trial in ends if trial.verdict == "unclear" and trial.windows < terms.trials]
    return min(left, default=None)


def _narrower(terms: SearchTerms, kept: float | None, broken: float | None) -> float | None:
    """Return a load outside of the bracket if one side is open, else within it, or None once it is narrow.

    If the lowest is broken as well, that is a lower one, or None if no lower one is tried.
    """
    assert terms.lowest is not None
    assert terms.highest is not None
    if broken is None:
        if kept is None:
            return terms.lowest
        return min(2 * kept, terms.highest) if kept < terms.highest else None
    if kept is None:
        if terms.over == "concurrency":
            return 1.0 if broken > 1 else None
        return broken / 2 if broken > terms.lowest / 2**_HALVINGS else None
    if terms.over == "concurrency":
        return None if broken - kept <= max(1.0, terms.precision_share * kept) else (kept + broken) // 2
    middle = float(f"{math.sqrt(kept * broken):.4g}")
    return middle if broken > kept * (1 + terms.precision_share) and kept < middle < broken else None
