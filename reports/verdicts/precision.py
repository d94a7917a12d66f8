"""How sure a run is of one metric: how far the interval of each mean reaches beyond it, for `until`."""

import math
from collections.abc import Iterator
from pathlib import Path

from harness.contracts import Precision
from reports.data.cells import Group
from reports.data.run import Run, open_run
from reports.measures.over_starts import Aggregate, aggregate


def precisions(run_dir: Path, metric: str) -> tuple[Precision, ...]:
    """Return every deployment, scenario and load, the widest interval first, those without a mean last.

    Raises StoreError where the directory cannot be read.
    """
    found = _precisions(open_run(run_dir), metric)
    return tuple(sorted(found, key=lambda each: -_order(each)))


def _order(each: Precision) -> float:
    return -1.0 if each.half_width_share is None else each.half_width_share


def _precisions(run: Run, metric: str) -> Iterator[Precision]:
    scenarios = {group.scenario for group in run.groups}
    for group in run.groups:
        parts = [group.deployment, *([group.scenario] if len(scenarios) > 1 else []), group.load]
        yield _precision(", ".join(parts), group, aggregate(run, group, metric))


def _precision(case: str, group: Group, found: Aggregate) -> Precision:
    if found.mean is None:
        return Precision(case, None, found.why or _why_none(group))
    share = half_width_share(found)
    if share is None:
        return Precision(case, None, "its mean is 0: an interval has no share of it")
    return Precision(case, share)


def half_width_share(found: Aggregate) -> float | None:
    """Return the larger side of a mean's 95 % interval over the mean.

    Infinite for a single start; None where the mean is 0 and the interval is not.
    """
    if found.mean is None or found.interval is None:
        return math.inf
    side = max(found.mean - found.interval[0], found.interval[1] - found.mean)
    if side == 0:
        return 0.0
    return abs(side / found.mean) if found.mean else None


def _why_none(group: Group) -> str:
    errors = [cell.reason for cell in group.cells if cell.reason and not cell.counts]
    return errors[-1].splitlines()[0] if errors else "no cell of it counts"
