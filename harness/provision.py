"""What a plan's deployments need on this machine, an environment and weights, found or made.

`bench run` makes what is missing itself where it is small; else the error names the command. Knows no
engine: InstallSpec and Weights say all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, get_args, get_type_hints

from engines import ENGINES
from harness import gpu, install
from harness.contracts import Deployment, InstallSpec, Reason, Weights, WeightsFile
from harness.errors import MissingError, UserError

OnLine = Callable[[str], None]
# Makes the environment of a tool, or finds it: its directory.
Tool = Callable[[InstallSpec], Path]

# Up to here `bench run` installs or prepares by itself.
SMALL_BYTES = 2 << 30


class WeightsStore(Protocol):
    """engines/weights.py, handed in by the command line: harness may not import it."""

    def find(self, weights: Weights, cache: Path) -> WeightsFile | None: ...
    def missing_bytes(self, weights: Weights, cache: Path) -> int | None: ...
    def prepare(self, weights: Weights, cache: Path, tool: Tool, on_line: OnLine) -> WeightsFile: ...


@dataclass(frozen=True)
class Provisions:
    """`environments`: by engine and program, of those that need one. `weights`: what each deployment's files
    are."""

    environments: Mapping[tuple[str, str | None], install.InstalledEnvironment] = field(default_factory=dict)
    weights: Mapping[Weights, WeightsFile] = field(default_factory=dict)

    @property
    def versions(self) -> Mapping[str, Mapping[str, str]]:
        """Engine -> distribution -> version; a program that is not the engine's first is named with it."""
        return {
            engine if program == default_program(engine) else f"{engine} {program}": found.versions
            for (engine, program), found in self.environments.items()
        }

    def environment_of(self, deployment: Deployment) -> install.InstalledEnvironment | None:
        return self.environments.get((deployment.engine, program_of(deployment)))

    def weights_of(self, deployment: Deployment) -> WeightsFile | None:
        needed = None if deployment.terms.base_url else ENGINES[deployment.engine].weights(deployment)
        return self.weights[needed] if isinstance(needed, Weights) else None

    def devices_of(self, deployment: Deployment, devices: Sequence[int]) -> Sequence[int]:
        """The devices that a deployment uses: none where its build serves on the CPU."""
        if deployment.terms.base_url:
            return devices
        spec = ENGINES[deployment.engine].install(program_of(deployment), "cuda")
        return devices if isinstance(spec, InstallSpec) else ()


def program_of(deployment: Deployment) -> str | None:
    """The engine's own option `program`, where it has one."""
    return getattr(deployment.options, "program", None)


def default_program(engine: str) -> str | None:
    return getattr(ENGINES[engine].options(), "program", None)


def programs_of(engine: str) -> tuple[str | None, ...]:
    """The values of an engine's own option `program`, the default first; just None where it has none."""
    first = default_program(engine)
    others = get_args(get_type_hints(ENGINES[engine].options).get("program"))
    return first, *(program for program in others if program != first)


def select_devices(device: str) -> tuple[int, ...]:
    """Indices of the devices to use; `auto` is the first one, or none where there is none."""
    if device != "auto":
        return gpu.select(device)
    return () if isinstance(gpu.devices(), Reason) else (0,)


def check_builds(device: str, deployments: Iterable[Deployment]) -> None:
    """Raise UserError where a device was asked for by name and an engine's build here cannot use one."""
    if device in ("auto", "cpu"):
        return
    for deployment in deployments:
        engine = ENGINES[deployment.engine]
        spec = engine.install(program_of(deployment), "cuda")
        if not deployment.terms.base_url and isinstance(spec, Reason):
            raise UserError(f"device={device}: {deployment.engine}: {spec.text}; use device=cpu")


def install_spec(engine: str, program: str | None, *, has_device: bool) -> InstallSpec | Reason | None:
    """The program's environment here: for CUDA where there is a device and such a build, else for the CPU."""
    spec = ENGINES[engine].install(program, "cuda") if has_device else None
    return spec if isinstance(spec, InstallSpec) else ENGINES[engine].install(program, "cpu")


def provide(
    deployments: Iterable[Deployment], store: WeightsStore, cache: Path, on_line: OnLine, *, has_device: bool
) -> Provisions:
    """Find or make everything; blocks. Raises MissingError naming the command where that is too much."""
    started = [deployment for deployment in deployments if not deployment.terms.base_url]
    environments = {}
    for engine, program in dict.fromkeys((each.engine, program_of(each)) for each in started):
        if found := _environment(engine, program, cache, on_line, has_device=has_device):
            environments[engine, program] = found
    weights = {}
    for deployment in started:
        needed = ENGINES[deployment.engine].weights(deployment)
        if isinstance(needed, Weights) and needed not in weights:
            weights[needed] = provide_weights(needed, store, cache, on_line)
    return Provisions(environments, weights)


def _environment(
    engine: str, program: str | None, cache: Path, on_line: OnLine, *, has_device: bool
) -> install.InstalledEnvironment | None:
    spec = install_spec(engine, program, has_device=has_device)
    if spec is None:
        return None
    if isinstance(spec, Reason):
        raise MissingError(f"engine={engine}: {spec.text}")
    found = install.installed(cache, spec)
    if found:
        return found
    if spec.sources:
        command = f"bench install {engine} --program {program}"
        raise MissingError(f"{engine}.program={program}: not built, or from other sources; run `{command}`")
    if spec.size_bytes > SMALL_BYTES:
        size = f"{spec.size_bytes / 2**30:.1f} GiB"
        raise MissingError(f"engine={engine}: not installed; run `bench install {engine}` ({size})")
    on_line(f"{engine} is not installed; installing it ({spec.size_bytes / 2**20:.0f} MiB)")
    return install.install(cache, spec, on_line)


def provide_weights(
    needed: Weights,
    store: WeightsStore,
    cache: Path,
    on_line: OnLine,
    *,
    limit_bytes: int | None = SMALL_BYTES,
) -> WeightsFile:
    """Find or make a weights file; no limit where limit_bytes is None."""
    found = store.find(needed, cache)
    if found:
        return found
    missing = store.missing_bytes(needed, cache)
    if missing is not None and limit_bytes is not None and missing > limit_bytes:
        command = f"bench prepare model={needed.model} quantization={needed.quantization}"
        raise MissingError(f"{needed.model} at {needed.quantization}: not here; run `{command}`")
    size = f" ({missing / 2**20:.0f} MiB to download and write)" if missing else ""
    on_line(f"{needed.model} at {needed.quantization} is not here; preparing it{size}")
    return store.prepare(needed, cache, lambda spec: _tool(spec, cache, on_line, limit_bytes), on_line)


def _tool(spec: InstallSpec, cache: Path, on_line: OnLine, limit_bytes: int | None) -> Path:
    """Its environment's directory, made if it is missing. Raises MissingError where that is too much."""
    found = install.installed(cache, spec)
    if found is None:
        size = f"{spec.size_bytes / 2**20:.0f} MiB"
        if limit_bytes is not None and (spec.is_built or spec.size_bytes > limit_bytes):
            raise MissingError(f"{spec.environment} is needed for this and not installed ({size})")
        on_line(f"{spec.environment} is not installed; installing it ({size})")
        found = install.install(cache, spec, on_line)
    return found.folder
