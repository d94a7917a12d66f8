"""A run with `until` grows by one more block at a time, until its means are known well enough.

Knows no statistic: the reports say how sure the run is of its means, and the command line hands them in.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from harness.contracts import Plan, PlannedStart, Precision, Until
from harness.plan import plan
from harness.run.resume import last_index
from harness.run.site import Observer
from harness.settings.config import Settings
from harness.settings.units import counted, duration_text
from harness.store import store
from harness.store.store import Kept, RunRecord, StartRecord

# However long the budget: a longer run is no longer read at once.
MOST_BLOCKS = 1000
# How many cases a sentence names.
_NAMED = 3

# How sure a run is of the metric of `until`, the widest interval first.
Precisions = Callable[[Path, str], Sequence[Precision]]


def growing(
    run: Kept[RunRecord],
    starts: Sequence[PlannedStart],
    whole: Plan,
    settings: Settings,
    precisions: Precisions,
    observer: Observer,
) -> Iterator[PlannedStart]:
    """Yield the starts, then the starts of one more block as long as `until` asks for one.

    A block is in run.json before it begins, and so is the reason why there is no further one. `whole` is the
    plan so far.
    """
    until, directory = settings.until, run.path.parent
    assert until is not None
    before_s, began_s = measured_s(directory), time.monotonic()
    yield from starts
    while True:
        found = precisions(directory, until.metric)
        spent_s = before_s + time.monotonic() - began_s
        if stop := why_stop(until, found, whole.blocks, spent_s):
            observer.line(f"no further repeat: {stop}")
            run.update(stopped_because=stop)
            return
        grown = plan.grown(whole, settings, last_index(directory, run.record) + 1)
        block = grown.starts[len(whole.starts) :]
        whole, recorded = grown, run.record.plan
        observer.grow(block, f"repeat {whole.blocks} follows: {widest(until, found)}")
        run.update(plan=replace(recorded, starts=(*recorded.starts, *block), estimate_s=whole.estimate_s))
        yield from block


def measured_s(directory: Path) -> float:
    """Return the seconds that a run has measured: the lives of its servers, of all attempts."""
    return sum(map(_life_s, store.read_starts(directory)))


def _life_s(start: StartRecord) -> float:
    seen = [start.spawned_ns, start.ready_ns, start.stopped_ns, *(phase.t_ns for phase in start.phases)]
    known = [t_ns for t_ns in seen if t_ns is not None]
    return (max(known) - min(known)) / 1e9 if known else 0.0


def why_stop(until: Until, found: Sequence[Precision], blocks: int, spent_s: float) -> str | None:
    """Return why no further block is measured, in a sentence with numbers, or None for one more.

    `found` begins with the widest. `spent_s` is what was measured so far, all attempts together; the next
    block is taken to last as long as the mean of those `blocks`.
    """
    known = [each.half_width_share for each in found if each.half_width_share is not None]
    left_out = _left_out(found)
    if not known:
        return f"no deployment has a mean of {until.metric} that further repeats could narrow{left_out}"
    took = f"{counted(blocks, 'repeat')} took {duration_text(spent_s)}"
    asked = f"the {100 * until.half_width_share:g} % asked for"
    if known[0] <= until.half_width_share:
        return f"{widest(until, found)}, within {asked}; {took}{left_out}"
    so_far = f"{widest(until, found)}, not within {asked}{left_out}"
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
    """Say how far the widest interval reaches. `found` begins with it."""
    share, case = found[0].half_width_share, found[0].case
    if share is None or math.isinf(share):
        return f"of {until.metric} there is one start that counts, and no interval ({case})"
    how_far = f"{100 * share:.3g} %" if share < 10 else f"{share:.3g} times the mean"
    return f"the widest 95 % interval of {until.metric} reaches {how_far} from its mean ({case})"


def _left_out(found: Sequence[Precision]) -> str:
    unknown = [f"{each.case} ({each.why})" for each in found if each.half_width_share is None]
    if not unknown:
        return ""
    more = f"; and {len(unknown) - _NAMED} more" if len(unknown) > _NAMED else ""
    return f"; left out, since no further repeat would help: {'; '.join(unknown[:_NAMED])}{more}"
