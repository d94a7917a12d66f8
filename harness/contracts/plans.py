"""The plan: starts and cells in their order. Standard library only; no behaviour."""

from __future__ import annotations

from dataclasses import dataclass

from harness.contracts.deployments import Deployment
from harness.contracts.loads import Load
from harness.contracts.scenarios import ScenarioChoice


@dataclass(frozen=True)
class PlannedCell:
    """The unit that is measured. `number` counts over the run; `seed` is the same for every deployment."""

    number: int
    scenario: ScenarioChoice
    load: Load
    repeat: int
    seed: int


@dataclass(frozen=True)
class PlannedStart:
    index: int
    deployment: Deployment
    repeat: int
    cells: tuple[PlannedCell, ...]

    @property
    def name(self) -> str:
        return f"{self.index:02d}-{self.deployment.slug}"


@dataclass(frozen=True)
class Skip:
    """A combination that was asked for and will not run, with its reason."""

    what: str
    reason: str


@dataclass(frozen=True)
class Plan:
    """Ordered starts with their cells, and what is left out. `estimate_s` is the expected duration; `labels`:
    of the deployments in the order in which they were asked for (empty in runs of before schema version 5,
    whose first starts are in that order)."""

    starts: tuple[PlannedStart, ...]
    skips: tuple[Skip, ...]
    estimate_s: float
    labels: tuple[str, ...] = ()
