"""How sure a run is of one metric: how far the interval of each mean reaches beyond it, for `until`."""

import math
from pathlib import Path

from harness.contracts import Precision
from reports.data.run import open_run
from reports.measures.over_starts import Aggregate, aggregate


def precisions(run_dir: Path, metric: str) -> tuple[Precision, ...]:
    """Return every deployment, scenario and load, the widest interval first, those without a mean last.

    Raises StoreError where the directory cannot be read.
    """
    run, found = open_run(run_dir), []
    has_scenarios = len({group.scenario for group in run.groups}) > 1
    for group in run.groups:
        value = aggregate(run, group, metric)
        share, why = half_width_share(value), None
        if share is None:
            errors = [cell.reason.splitlines()[0] for cell in group.cells if cell.reason and not cell.counts]
            is_zero = value.mean is not None
            why = "its mean is 0" if is_zero else value.why or (errors or ["no cell of it counts"])[-1]
        case = [group.deployment, *([group.scenario] if has_scenarios else []), group.load]
        found.append(Precision(", ".join(case), share, why))
    return tuple(sorted(found, key=lambda e: math.inf if e.half_width_share is None else -e.half_width_share))


def half_width_share(found: Aggregate) -> float | None:
    """Return the larger side of a mean's 95 % interval over the mean.

    Infinite for a single start; None without a mean, and where it is 0 and the interval is not.
    """
    if found.mean is None or found.interval is None:
        return None if found.mean is None else math.inf
    side = max(found.mean - found.interval[0], found.interval[1] - found.mean)
    if side == 0:
        return 0.0
    return abs(side / found.mean) if found.mean else None
