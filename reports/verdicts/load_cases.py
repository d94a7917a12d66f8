"""The deployments that stand beside each other at a load, and which load the whole page tells first."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from reports.data import Group, Run, grouped, once
from reports.measures import stand_ins, work_of
from reports.measures.quality import beyond_limit
from reports.stats.intervals import STARTS_NEEDED
from reports.verdicts.comparisons import comparisons_of
from reports.verdicts.searches import SloRow, capacities_of, slo_rows


@dataclass(frozen=True)
class LoadCase:
    """A load of a scenario and the groups of one model there, one or more, in the plan's order.

    Of a search the case that is told first has each deployment at the highest load that it keeps. `is_open`:
    whether a page shows it open, since it is the load told first.
    """

    scenario: str
    load: str
    model: str
    groups: tuple[Group, ...]
    is_open: bool = False

    @property
    def key(self) -> tuple[str, str, str]:
        return self.scenario, self.load, self.model


def baseline_of(run: Run, case: LoadCase) -> Group | None:
    """Return the group that the others of a case are compared to; None where it was not measured."""
    baseline = comparisons_of(run).baselines[case.model]
    return next((group for group in case.groups if group.deployment == baseline), None)


@once
def told_first(run: Run) -> tuple[LoadCase, ...]:
    """Return the load that the page opens with for each scenario and model; with an SLO per family of loads.

    With an SLO it is the highest load at which any deployment with kernels of its own is known to keep it,
    else the lowest. Without one it is the highest of the first family at which most were measured.
    """
    if run.record.slo:
        rows = grouped(slo_rows(run), lambda row: (row.scenario, row.model, row.family))
        return tuple(_decisive(run, own) for own in rows.values())
    groups = grouped(run.groups, lambda group: (group.scenario, group.model))
    return tuple(_highest_common(run, own) for own in groups.values())


def _decisive(run: Run, rows: Sequence[SloRow]) -> LoadCase:
    unfit = stand_ins(run).keys() | work_of(run).odd.keys() | beyond_limit(run).keys()
    row = ([row for row in rows if set(row.labels("kept")) - unfit] or rows[:1])[-1]
    if run.record.search is None:
        return _case(run, row.scenario, row.load, row.model)
    own = (each.group for each in capacities_of(run) if each.scenario == row.scenario)
    return LoadCase(row.scenario, row.load, row.model, tuple(g for g in own if g.model == row.model))


def _highest_common(run: Run, groups: Sequence[Group]) -> LoadCase:
    family = min(group.family for group in groups)
    own = sorted((group for group in groups if group.family == family), key=lambda group: -group.level)
    # Where several loads have the most, the highest, which is counted first.
    whole = [group for group in own if len(group.counted) >= min(STARTS_NEEDED, len(group.cells))]
    measured = whole or [group for group in own if group.counted]
    (load, _), *_ = Counter(group.load for group in measured).most_common(1) or [(own[0].load, 0)]
    return _case(run, own[0].scenario, load, own[0].model)


def _case(run: Run, scenario: str, load: str, model: str) -> LoadCase:
    key = (scenario, load, model)
    return LoadCase(*key, tuple(g for g in run.groups if (g.scenario, g.load, g.model) == key))


@once
def load_cases_of(run: Run) -> tuple[LoadCase, ...]:
    """Return all cases, by scenario and model; the load told first comes first, then the others of each
    family from the highest down."""
    told = {case.key for case in told_first(run)}
    models = list(dict.fromkeys(deployment.model for deployment in run.deployments.values()))
    scenarios = list(dict.fromkeys(group.scenario for group in run.groups))
    keys = dict.fromkeys((group.scenario, group.load, group.model) for group in run.groups)
    cases = [replace(_case(run, *key), is_open=key in told) for key in keys]
    cases.sort(key=lambda case: (case.groups[0].family, -case.groups[0].level))
    return tuple(
        sorted(cases, key=lambda c: (scenarios.index(c.scenario), models.index(c.model), not c.is_open))
    )


def title_of_case(run: Run, case: LoadCase) -> str:
    """Return `At 4 users`, with what tells it from the run's other cases."""
    said = [f"At {case.load}"]
    said += [case.scenario] if run.has_scenarios else []
    said += [case.model] if len({group.model for group in run.groups}) > 1 and case.model != "-" else []
    return ", ".join(said)
