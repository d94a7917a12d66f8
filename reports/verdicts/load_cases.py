"""The deployments that stand beside each other at a load, and which load the whole page tells first."""

from collections.abc import Sequence
from dataclasses import dataclass

from reports.data.cells import Group
from reports.data.run import Run, once
from reports.measures.equal_work import stand_ins
from reports.verdicts.comparisons import comparisons_of
from reports.verdicts.searches import capacities_of
from reports.verdicts.standings import Row, slo_rows


@dataclass(frozen=True)
class LoadCase:
    """A load of a scenario and the groups there, one or more, in the plan's order.

    `model`: theirs; empty where those of all models stand together. Of a search the case that is told first
    has each deployment at the highest load that it keeps.
    """

    scenario: str
    load: str
    model: str
    groups: tuple[Group, ...]

    @property
    def topic(self) -> tuple[str, str]:
        """What a page tells one load of first."""
        return self.scenario, self.model


def baseline_of(run: Run, case: LoadCase) -> Group | None:
    """Return the group that the others of a model's case are compared to; None where it was not measured."""
    baseline = comparisons_of(run).baselines[case.model]
    return next((group for group in case.groups if group.deployment == baseline), None)


@once
def told_first(run: Run) -> tuple[LoadCase, ...]:
    """Return the load that the page opens with for each scenario and model; with an SLO per family of loads.

    With an SLO it is the highest load at which any deployment with kernels of its own is known to keep it,
    else the lowest. Without one it is the highest of the first family at which most were measured.
    """
    if run.record.slo:
        by_case: dict[tuple[str, str, str], list[Row]] = {}
        for row in slo_rows(run):
            by_case.setdefault((row.scenario, row.model, row.family), []).append(row)
        return tuple(_decisive(run, rows) for rows in by_case.values())
    found: dict[tuple[str, str], list[Group]] = {}
    for group in run.groups:
        found.setdefault((group.scenario, group.model), []).append(group)
    return tuple(_case(run, key[0], _highest_common(groups), key[1]) for key, groups in found.items())


def _decisive(run: Run, rows: Sequence[Row]) -> LoadCase:
    fakes = stand_ins(run).keys()
    row = ([row for row in rows if set(row.labels("kept")) - fakes] or rows[:1])[-1]
    if run.record.search is None:
        return _case(run, row.scenario, row.load, row.model)
    own = [each.group for each in capacities_of(run) if each.scenario == row.scenario]
    return LoadCase(row.scenario, row.load, row.model, tuple(g for g in own if g.model == row.model))


def _highest_common(groups: Sequence[Group]) -> str:
    own = [group for group in groups if group.family == min(each.family for each in groups)]
    measured: dict[str, int] = {}
    for group in sorted(own, key=lambda each: -each.level):
        measured[group.load] = measured.get(group.load, 0) + bool(group.counted)
    return max(measured, key=lambda load: measured[load])  # the first of those with as many


def _case(run: Run, scenario: str, load: str, model: str) -> LoadCase:
    groups = (group for group in run.groups if (group.scenario, group.load) == (scenario, load))
    return LoadCase(scenario, load, model, tuple(group for group in groups if model in ("", group.model)))


def opened(run: Run, found: Sequence[LoadCase]) -> list[LoadCase]:
    """Return those that a page shows open: for each topic the load told first, else the first of `found`."""
    first = {(*topic, case.load) for case in told_first(run) for topic in (case.topic, (case.scenario, ""))}
    told = [each for each in found if (*each.topic, each.load) in first]
    for each in found:
        if each.topic not in {other.topic for other in told}:
            told.append(each)
    return [each for each in found if each in told]


def load_cases_of(run: Run, at_least: int = 2) -> list[LoadCase]:
    """Return the cases of one model with at least so many deployments, by scenario and model.

    The load told first comes first, then the others of each family from the highest down.
    """
    keys = dict.fromkeys((group.scenario, group.load, group.model) for group in run.groups)
    found = [case for case in (_case(run, *key) for key in keys) if len(case.groups) >= at_least]
    return _in_order(run, found)


def load_points(run: Run) -> dict[str, list[LoadCase]]:
    """Return the loads of each scenario with the deployments of all models, in the same order."""
    keys = dict.fromkeys((group.scenario, group.load, "") for group in run.groups)
    points: dict[str, list[LoadCase]] = {}
    for point in _in_order(run, [_case(run, *key) for key in keys]):
        points.setdefault(point.scenario, []).append(point)
    return points


def _in_order(run: Run, cases: Sequence[LoadCase]) -> list[LoadCase]:
    models = list(dict.fromkeys(["", *(deployment.model for deployment in run.deployments.values())]))
    found = sorted(cases, key=lambda case: (case.groups[0].family, -case.groups[0].level))
    first = opened(run, found)
    return sorted(found, key=lambda case: (case.scenario, models.index(case.model), case not in first))


def title_of_case(run: Run, case: LoadCase) -> str:
    """Return `At 4 users`, with what tells it from the run's other cases."""
    said = [f"At {case.load}"]
    said += [case.scenario] if len({group.scenario for group in run.groups}) > 1 else []
    said += [case.model] if len({group.model for group in run.groups}) > 1 else []
    return ", ".join(said)
