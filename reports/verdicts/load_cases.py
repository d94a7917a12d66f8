"""The deployments that stand beside each other at a load, and which load the whole page tells first."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from reports.data.cells import Group
from reports.data.run import Run
from reports.verdicts.comparisons import comparisons_of
from reports.verdicts.standings import Row, slo_rows


@dataclass(frozen=True)
class LoadCase:
    """A load of a scenario and one model's groups there, one or more, in the plan's order.

    `baseline`: which of them the others are compared to; None where it is not among them.
    """

    scenario: str
    load: str
    model: str
    groups: tuple[Group, ...]
    baseline: Group | None

    @property
    def topic(self) -> tuple[str, ...]:
        """What a page tells one load of first."""
        return self.scenario, self.model


@dataclass(frozen=True)
class LoadPoint:
    """A load of a scenario and the groups there, of all models, in the plan's order."""

    scenario: str
    load: str
    groups: tuple[Group, ...]

    @property
    def topic(self) -> tuple[str, ...]:
        """What a page tells one load of first."""
        return (self.scenario,)


Either = TypeVar("Either", LoadCase, LoadPoint)


# --- which load is told first ----------------------------------------------------------------------


def told_first(run: Run) -> list[LoadCase]:
    """Return the load that the page opens with for each scenario and model; with an SLO per family of loads.

    With an SLO it is the highest load at which any deployment is known to keep it, else the lowest. Without
    one, and for a search, it is the highest of the first family at which most deployments were measured.
    """
    if run.record.slo and run.record.search is None:
        by_case: dict[tuple[str, str, str], list[Row]] = {}
        for row in slo_rows(run):
            by_case.setdefault((row.scenario, row.model, row.family), []).append(row)
        decisive = [([r for r in rows if r.labels("kept")] or rows[:1])[-1] for rows in by_case.values()]
        return [_case(run, row.scenario, row.model, row.load) for row in decisive]
    found: dict[tuple[str, str], list[Group]] = {}
    for group in run.groups:
        found.setdefault((group.scenario, group.model), []).append(group)
    return [_case(run, *key, _highest_common(groups)) for key, groups in found.items()]


def _highest_common(groups: Sequence[Group]) -> str:
    own = [group for group in groups if group.family == min(each.family for each in groups)]
    measured: dict[str, int] = {}
    for group in sorted(own, key=lambda each: -each.level):
        measured[group.load] = measured.get(group.load, 0) + bool(group.counted)
    return max(measured, key=lambda load: measured[load])  # the first of those with as many


def _case(run: Run, scenario: str, model: str, load: str) -> LoadCase:
    groups = tuple(g for g in run.groups if (g.scenario, g.model, g.load) == (scenario, model, load))
    baseline = next((g for g in groups if g.deployment == comparisons_of(run).baselines[model]), None)
    return LoadCase(scenario, load, model, groups, baseline)


def opened(run: Run, found: Sequence[Either]) -> list[Either]:
    """Return those that a page shows open: for each topic the load told first, else the first of `found`."""
    first = {(case.topic, case.load) for case in told_first(run)}
    first |= {((scenario,), load) for (scenario, *_), load in first}
    told = [each for each in found if (each.topic, each.load) in first]
    for each in found:
        if each.topic not in {other.topic for other in told}:
            told.append(each)
    return [each for each in found if each in told]


# --- all loads -------------------------------------------------------------------------------------


def load_cases_of(run: Run, at_least: int = 2) -> list[LoadCase]:
    """Return the cases with at least so many deployments, by scenario and model.

    The load told first comes first, then the others of each family from the highest down.
    """
    keys = dict.fromkeys((group.scenario, group.model, group.load) for group in run.groups)
    order = list(dict.fromkeys(deployment.model for deployment in run.deployments.values()))
    found = [case for case in (_case(run, *key) for key in keys) if len(case.groups) >= at_least]
    found.sort(key=lambda c: (c.scenario, order.index(c.model), c.groups[0].family, -c.groups[0].level))
    first = opened(run, found)
    return sorted(found, key=lambda c: (c.scenario, order.index(c.model), c not in first))


def load_points(run: Run) -> dict[str, list[LoadPoint]]:
    """Return the loads by scenario: the one told first, then those of each family from the highest down."""
    by_load: dict[str, dict[str, list[Group]]] = {}
    for group in run.groups:
        by_load.setdefault(group.scenario, {}).setdefault(group.load, []).append(group)
    found = {}
    for scenario, loads in by_load.items():
        points = [LoadPoint(scenario, load, tuple(groups)) for load, groups in loads.items()]
        points.sort(key=lambda point: (point.groups[0].family, -point.groups[0].level))
        first = opened(run, points)
        found[scenario] = [*first, *(point for point in points if point not in first)]
    return found


def title_of_case(run: Run, case: LoadCase) -> str:
    """Return `At 4 users`, with what tells it from the run's other cases."""
    said = [f"At {case.load}"]
    said += [case.scenario] if len({group.scenario for group in run.groups}) > 1 else []
    said += [case.model] if len({group.model for group in run.groups}) > 1 else []
    return ", ".join(said)
