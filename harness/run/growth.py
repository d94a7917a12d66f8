"""Whether a run measures one more block: the decision behind `until`. Pure.

Knows no statistic: how sure the run is of its means is told by the reports, which the command line hands in.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.cli.show.plan_text import counted, duration_text
from harness.contracts import Plan, Precision, Until
from harness.plan.plan import Expect
from harness.settings.config import Settings

# However long the budget: a run of so many blocks is no longer read at once.
MOST_BLOCKS = 1000
# As many cases are named in a sentence.
_NAMED = 3

# How sure a run is of the metric of `until`, the widest interval first.
Precisions = Callable[[Path], Sequence[Precision]]


@dataclass(frozen=True)
class Growth:
    """What a run with `until` grows by: its settings, its plan so far, and who tells how sure it is."""

    settings: Settings
    until: Until
    whole: Plan
    precisions: Precisions
    expect: Expect


def why_stop(until: Until, found: Sequence[Precision], blocks: int, spent_s: float) -> str | None:
    """Why no further block is measured, in a sentence with numbers; None: one more.

    `found`: the widest first. `spent_s`: seconds measured so far, all attempts together; the next block is
    taken to last as long as the mean of those `blocks`.
    """
    known = [each for each in found if each.half_width_share is not None]
    left_out = _left_out(found)
    if not known:
        return f"no deployment has a mean of {until.metric} that further repeats could narrow{left_out}"
    took = f"{counted(blocks, 'repeat')} took {duration_text(spent_s)}"
    asked = f"the {100 * until.half_width_share:g} % asked for"
    if _share(known[0]) <= until.half_width_share:
        return f"{widest(until, known)}, within {asked}; {took}{left_out}"
    so_far = f"{widest(until, known)}, not within {asked}{left_out}"
    if blocks >= MOST_BLOCKS:
        return f"{blocks:,} repeats are the most that until measures; {so_far}"
    budget = f"until.budget ({duration_text(until.budget_s)})"
    if spent_s > until.budget_s:
        return f"{took}, more than {budget}; {so_far}"
    if spent_s + spent_s / blocks > until.budget_s:
        more = f"one more, of about {duration_text(spent_s / blocks)}"
        return f"{took}, and {more}, would not end within {budget}; {so_far}"
    return None


def widest(until: Until, found: Sequence[Precision]) -> str:
    """How far the widest interval reaches; `found` begins with it."""
    share, case = _share(found[0]), found[0].case
    if share == float("inf"):
        return f"of {until.metric} there is one start that counts, and no interval ({case})"
    how_far = f"{100 * share:.3g} %" if share < 10 else f"{share:.3g} times the mean"
    return f"the widest 95 % interval of {until.metric} reaches {how_far} from its mean ({case})"


def _share(each: Precision) -> float:
    return float("inf") if each.half_width_share is None else each.half_width_share


def _left_out(found: Sequence[Precision]) -> str:
    unknown = [f"{each.case} ({each.why})" for each in found if each.half_width_share is None]
    if not unknown:
        return ""
    more = f"; and {len(unknown) - _NAMED} more" if len(unknown) > _NAMED else ""
    return f"; left out, since no further repeat would help: {'; '.join(unknown[:_NAMED])}{more}"
