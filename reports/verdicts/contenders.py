"""Which deployments may win, and the values that decide between them: fixed before any test, never by one."""

import itertools
from collections.abc import Sequence

from reports.data import Group, Run, first_that_holds
from reports.measures import aggregate, by_start, stand_ins, why_other_work, withheld
from reports.measures.quality import beyond_limit
from reports.stats.intervals import STARTS_NEEDED, odd_ones
from reports.verdicts.load_cases import LoadCase
from reports.verdicts.pairs import why_not_measured
from reports.verdicts.searches import Capacity, SloRow

# Values by deployment and repeat.
Values = dict[str, dict[int, float]]
_NOT_KEPT = {
    "broken": "it misses the SLO",
    "unclear": "whether it keeps the SLO is not clear",
    "unknown": "whether it keeps the SLO is not known",
}


def _why_uncounted(run: Run, group: Group) -> str:
    """Return why no cell of a group counts. What was only not measured did not fail."""
    records = [run.start_of(cell) for cell in group.cells]
    has_failed = any(cell.became in ("failed", "invalid") for cell in group.cells)
    is_failure = has_failed or any(record and record.error for record in records)
    return f"{'it failed: ' * is_failure}{why_not_measured(group)}"


def why_unfit(run: Run, group: Group, metric: str) -> str | None:
    """Return why a deployment cannot win whatever its speed is; None if it can."""
    what = stand_ins(run).get(group.deployment)
    reasons = {
        _why_uncounted(run, group): not group.counted,
        f"its speed is not its own: {what}": what,
    }
    # A load that is kept is a goodput.
    unequal = withheld(run, group.key, metric if run.record.search is None else "goodput_per_s")
    return first_that_holds(reasons) or beyond_limit(run).get(group.deployment) or unequal


def short_of_slo(row: SloRow | None, capacities: Sequence[Capacity]) -> dict[str, str]:
    """Return the deployments that are not known to keep the SLO, each with the reason."""
    said = {each.deployment: each.why or f"it keeps the SLO up to {each.words}" for each in capacities}
    short = [each for each in row.standings if each.state != "kept"] if row else []
    return {each.label: said.get(each.label) or _NOT_KEPT[each.state] for each in short}


def leave_out_other_work(run: Run, case: LoadCase, left_out: dict[str, str]) -> str | None:
    """Leave out those whose work differs from that of most. Return why if no work is that of most."""
    groups = [group for group in case.groups if group.deployment not in left_out]
    differences = {
        frozenset((a.deployment, b.deployment)): why
        for a, b in itertools.combinations(groups, 2)
        if (why := why_other_work(run, a, b))
    }
    odd, is_split = odd_ones([group.deployment for group in groups], differences)
    if is_split:
        return next(iter(odd.values()))
    left_out |= odd
    return None


def known_values(run: Run, case: LoadCase, metric: str, left_out: dict[str, str]) -> Values:
    """Return the values of the contenders; leave out those that have none, or too few."""
    groups = [group for group in case.groups if group.deployment not in left_out]
    values = values_by_repeat(run, groups, metric)
    for group in groups:
        if group.deployment not in values:
            left_out[group.deployment] = aggregate(run, group, metric).why or "it has no value"
    # Without those that have too few values, where the others then have enough.
    most = {label: own for label, own in values.items() if len(own) >= STARTS_NEEDED}
    if len(shared_repeats(values)) < STARTS_NEEDED <= len(shared_repeats(most)) and len(most) > 1:
        few = [label for label in values if label not in most]
        left_out |= {label: f"only {len(values[label])} of its starts have a value" for label in few}
        return most
    return values


def values_by_repeat(run: Run, groups: Sequence[Group], metric: str) -> Values:
    """Return the values of each group's starts, of those groups that have a mean."""
    # One of whose starts some lack requests for a percentile has none: it is the slow starts that have few.
    return {
        group.deployment: {k: v.value for k, v in by_start(run, group, metric).items() if v.value is not None}
        for group in groups
        if aggregate(run, group, metric).mean is not None
    }


def shared_repeats(values: Values) -> list[int]:
    """Return the repeats in which all have a value, in order."""
    return sorted(set.intersection(*map(set, values.values()))) if values else []
