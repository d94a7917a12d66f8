"""Define what deployments have on this machine, and the protocol of the store that provides weights."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from serving_bench.engines import ENGINES
from serving_bench.harness.contracts import (
    Adapter,
    AdapterFile,
    Deployment,
    InstallSpec,
    Reason,
    Weights,
    WeightsFile,
    Workshop,
    all_adapters,
)
from serving_bench.harness.install.builds import Build, build_of, is_process
from serving_bench.harness.install.install import Environment


class WeightsStore(Protocol):
    """What engines/model/weights provides. The command line passes it in: harness may not import it."""

    def can_prepare(self, weights: Weights, cache: Path | None = None) -> Reason | None: ...
    def find(self, weights: Weights, cache: Path) -> WeightsFile | None: ...
    def missing_bytes(self, weights: Weights, cache: Path) -> int | None: ...
    def disk_bytes(self, weights: Iterable[Weights], cache: Path) -> int: ...
    def tools_for(self, weights: Weights, cache: Path) -> Iterable[InstallSpec]: ...
    def calls_hub(self, weights: Weights, cache: Path) -> bool: ...
    def prepare(self, weights: Weights, cache: Path, workshop: Workshop) -> WeightsFile: ...
    def adapted(self, adapter: Adapter, weights: Weights, cache: Path) -> AdapterFile: ...


@dataclass(frozen=True)
class Provisions:
    """What the deployments of a run have on this machine."""

    environments: Mapping[Build, Environment] = field(default_factory=dict)  # of the builds that need one
    weights: Mapping[Weights, WeightsFile] = field(default_factory=dict)
    adapters: Mapping[tuple[Weights, Adapter], AdapterFile] = field(default_factory=dict)
    # A container image's name -> the facts that identify it (container.image_facts).
    images: Mapping[str, Mapping[str, str | None]] = field(default_factory=dict)

    @property
    def versions(self) -> Mapping[str, Mapping[str, str]]:
        """Return the versions of each build's distributions, and each image's id, by name."""
        images = {
            f"image {name}": {"image_id": str(facts["image_id"])} for name, facts in self.images.items()
        }
        return {
            build.label: environment.versions for build, environment in self.environments.items()
        } | images

    def environment_of(self, deployment: Deployment) -> Environment | None:
        """Return None if it needs none: a container, a running server, or a program of bench's own."""
        return self.environments.get(build_of(deployment)) if is_process(deployment) else None

    def weights_of(self, deployment: Deployment | None) -> WeightsFile | None:
        if deployment is None:
            return None
        needed = None if deployment.terms.base_url else ENGINES[deployment.engine].weights(deployment)
        return self.weights[needed] if isinstance(needed, Weights) else None

    def adapters_of(self, deployment: Deployment) -> tuple[AdapterFile, ...]:
        return tuple(self.adapters[pair] for pair in all_adapters(ENGINES[deployment.engine], deployment))
