"""What stands beside each other: the deployments of one model at one load of a scenario, and their baseline.

Computes no value and draws nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from reports.cells import Group
from reports.verdicts import Verdict

if TYPE_CHECKING:
    from reports.frames import Run


@dataclass(frozen=True)
class LoadCase:
    """`groups`: two or more, in the plan's order. `baseline`: which of them the others are compared to; None
    where it is not among them."""

    scenario: str
    load: str
    model: str
    groups: tuple[Group, ...]
    baseline: Group | None


def load_cases_of(run: Run) -> list[LoadCase]:
    """By scenario and model, each family's highest load first."""
    by_case: dict[tuple[str, str, str], list[Group]] = {}
    for group in run.groups:
        by_case.setdefault((group.scenario, group.load, group.model), []).append(group)
    order = list(dict.fromkeys(deployment.model for deployment in run.deployments.values()))
    found = []
    for (scenario, load, model), groups in by_case.items():
        baseline = next((g for g in groups if g.deployment == run.comparisons.baselines[model]), None)
        if len(groups) > 1:
            found.append(LoadCase(scenario, load, model, tuple(groups), baseline))
    return sorted(
        found, key=lambda c: (c.scenario, order.index(c.model), c.groups[0].family, -c.groups[0].level)
    )


@dataclass(frozen=True)
class LoadPoint:
    """A load of a scenario and the groups there, in the plan's order."""

    scenario: str
    load: str
    groups: tuple[Group, ...]


def load_points(run: Run) -> dict[str, list[LoadPoint]]:
    """By scenario, the load that decides first: the highest of the first family that all deployments have (in
    a search, as many as any load has); then the others by family, each from the highest down."""
    by_load: dict[str, dict[str, list[Group]]] = {}
    for group in run.groups:
        by_load.setdefault(group.scenario, {}).setdefault(group.load, []).append(group)
    found = {}
    for scenario, loads in by_load.items():
        points = [LoadPoint(scenario, load, tuple(groups)) for load, groups in loads.items()]
        points.sort(key=lambda point: (point.groups[0].family, -point.groups[0].level))
        most = max(len(point.groups) for point in points)
        first = next(point for point in points if len(point.groups) == most)
        found[scenario] = [first, *(point for point in points if point is not first)]
    return found


def title_of_case(run: Run, case: LoadCase) -> str:
    """`At 4 users`, with what tells it from the run's other cases."""
    said = [f"At {case.load}"]
    said += [case.scenario] if len({group.scenario for group in run.groups}) > 1 else []
    said += [case.model] if len({group.model for group in run.groups}) > 1 else []
    return ", ".join(said)


def verdict_of(run: Run, case: LoadCase, group: Group, metric: str) -> Verdict | None:
    """Of a deployment against its case's baseline; None for the baseline itself."""
    if case.baseline is None or group is case.baseline:
        return None
    return run.comparisons.of(case.scenario, case.load, metric, group.deployment, case.baseline.deployment)
