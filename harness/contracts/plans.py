"""The plan: starts and cells in their order, and how sure a run is of what it measured. Standard library
only; no other behaviour."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

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
    """Ordered starts with their cells, and what is left out.

    `estimate_s` is the expected duration. `labels`: of the deployments, in the order in which they were asked
    for. `filled`: why the plan gave a common term its value, a clause by the term's name, of those that
    nobody gave.
    """

    starts: tuple[PlannedStart, ...]
    skips: tuple[Skip, ...]
    estimate_s: float
    labels: tuple[str, ...] = ()
    filled: Mapping[str, str] = field(default_factory=dict)

    @property
    def deployments(self) -> dict[str, Deployment]:
        """Return the deployments by label, in the order in which they were asked for."""
        found = {start.deployment.label: start.deployment for start in self.starts}
        return {label: found[label] for label in dict.fromkeys([*self.labels, *found]) if label in found}

    @property
    def blocks(self) -> int:
        """Return how often each deployment is started."""
        return max((start.repeat + 1 for start in self.starts), default=0)


@dataclass(frozen=True)
class Precision:
    """How sure a run is of one mean over starts.

    `case`: of which deployment and load, in words.

    `half_width_share`: how far the mean's 95 % interval reaches from it, over the mean; infinite for a single
    start. None: there is no mean, nor will there be one after further blocks, and `why` says why.
    """

    case: str
    half_width_share: float | None
    why: str | None = None
