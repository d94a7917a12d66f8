"""Values of a group over its starts: what may stand side by side, with intervals.

Goes by the values of cells (values.py) and by which deployments did equal work (equal_work.py).
"""

from collections.abc import Sequence

from reports.data.cells import Aggregate, Group
from reports.data.run import Run
from reports.measures.equal_work import work_of
from reports.measures.metrics import Value, is_percentile, metric_of, value_of_start, why_no_mean
from reports.measures.values import values_of
from reports.stats import intervals


def aggregate(run: Run, group: Group, name: str) -> Aggregate:
    """The value of a name over the group's starts that count; none where the group's answers have not the
    length that it needs."""
    if why := withheld(run, group.key, name):
        return Aggregate(None, None, None, 0, 0, (), why=why)
    return aggregate_of(run, group, name, list(by_start(run, group, name).values()))


def aggregate_of(run: Run, group: Group, name: str, found: Sequence[Value]) -> Aggregate:
    """The same of values of a name, one of each of the group's starts that count."""
    by_start = tuple(value.value for value in found)
    used = [value for value in found if value.value is not None]
    if not used or (is_percentile(name) and len(used) < len(found)):
        why = why_no_mean(name, found) if found else None
        return Aggregate(None, None, None, 0, 0, by_start, why=why)
    known = [value for value in by_start if value is not None]
    requests = [value.requests for value in used if value.requests is not None]
    # A value of 0 has no logarithm: such means are as additive ones.
    is_log = not metric_of(name).is_additive and intervals.may_be_logged(known)
    estimate = intervals.of_values(known, is_log=is_log)
    return Aggregate(
        mean=estimate.shown,
        low=min(known),
        high=max(known),
        k=len(used),
        n=sum(value.n for value in used),
        values=by_start,
        requests=sum(requests) if requests else None,
        interval=estimate.interval() if len(known) > 1 else None,
        is_of_starts=run.is_restarted(group.deployment),
    )


def by_start(run: Run, group: Group, name: str) -> dict[int, Value]:
    """The value of a name of each start that counts, by its repeat: over all its windows at that load."""
    return {
        cells[0].planned.repeat: value_of_start(
            [values_of(run)[cell.number].get(name, Value(None, 0)) for cell in cells]
        )
        for cells in group.counted_by_start
    }


def withheld(run: Run, key: tuple[str, str, str], name: str) -> str | None:
    """Why a value is not offered for the cells of this key (deployment, scenario, load); None: it is."""
    return work_of(run).per_token_only.get(key) if metric_of(name).needs_equal_lengths else None


def unit_of(run: Run, name: str) -> str:
    """A value's unit as it is shown; of a cost the currency of the run's own price."""
    metric, price = metric_of(name), run.record.price
    return price.currency if metric.unit == "price.currency" and price else metric.shown_unit
