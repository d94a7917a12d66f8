"""What a plan's deployments need on this machine, an environment and weights, found or made.

`bench run` makes what is missing itself where it is small; else the error names the command. What is the
user's own is looked at and never changed. Knows no engine: InstallSpec and Weights say all.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Protocol

from engines import ENGINES
from harness.contracts import (
    ContainerSpec,
    Deployment,
    InstallSpec,
    LaunchSpec,
    Place,
    Reason,
    Weights,
    WeightsFile,
)
from harness.errors import MissingError, UserError
from harness.install import install, own
from harness.install.builds import (
    Build,
    build_of,
    install_line,
    install_spec,
    is_process,
    tools,
    uses_devices,
)
from harness.install.install_step import run_supervised
from harness.plan.candidates import candidates
from harness.sampling import gpu
from harness.settings.config import Settings
from harness.settings.units import size_text
from harness.settings.values import as_text

OnLine = Callable[[str], None]
# Makes the environment of a tool, or finds it: its directory.
Tool = Callable[[InstallSpec], Path]
# Runs a command under a watchdog: see run_supervised.
Run = Callable[[Sequence[str], Mapping[str, str], OnLine, Callable[[float], None]], int | None]

# Up to here `bench run` installs or prepares by itself.
SMALL_BYTES = 2 << 30


class WeightsStore(Protocol):
    """engines/weights, handed in by the command line: harness may not import it."""

    def find(self, weights: Weights, cache: Path) -> WeightsFile | None: ...
    def missing_bytes(self, weights: Weights, cache: Path) -> int | None: ...
    def calls_hub(self, weights: Weights, cache: Path) -> bool: ...
    def prepare(
        self, weights: Weights, cache: Path, tool: Tool, on_line: OnLine, run: Run
    ) -> WeightsFile: ...


@dataclass(frozen=True)
class Environment:
    """A build on this machine. `versions`: distribution -> version, of what is installed; for a program of
    the user's its hash, so that a run is not resumed with another. `name`: of the environment that bench
    installed (see install.compiled_dir); None where it is the user's own."""

    python: Path | None
    program: Path | None
    versions: Mapping[str, str]
    name: str | None = None


@dataclass(frozen=True)
class Provisions:
    """`environments`: of the builds that need one. `weights`: what each deployment's files are. `images`:
    what identifies each container's image (docker_cli.image_facts), by its name."""

    environments: Mapping[Build, Environment] = field(default_factory=dict)
    weights: Mapping[Weights, WeightsFile] = field(default_factory=dict)
    images: Mapping[str, Mapping[str, str | None]] = field(default_factory=dict)

    @property
    def versions(self) -> Mapping[str, Mapping[str, str]]:
        """Build -> distribution -> version; image -> its id."""
        images = {
            f"image {name}": {"image_id": str(facts["image_id"])} for name, facts in self.images.items()
        }
        return {build.label: found.versions for build, found in self.environments.items()} | images

    def environment_of(self, deployment: Deployment) -> Environment | None:
        """None where it needs none: a container, a running server, a program of bench's own."""
        return self.environments.get(build_of(deployment)) if is_process(deployment) else None

    def weights_of(self, deployment: Deployment) -> WeightsFile | None:
        needed = None if deployment.terms.base_url else ENGINES[deployment.engine].weights(deployment)
        return self.weights[needed] if isinstance(needed, Weights) else None

    def devices_of(self, deployment: Deployment, devices: Sequence[int]) -> Sequence[int]:
        """The devices that a deployment uses: none where its build serves on the CPU. A container, and what
        the user brought, is taken to use those that were asked for."""
        return devices if uses_devices(deployment) else ()


def select_devices(device: str) -> tuple[int, ...]:
    """Indices of the devices to use; `auto` is the first one, or none where there is none."""
    if device != "auto":
        return gpu.select(device)
    return () if isinstance(gpu.devices(), Reason) else (0,)


def device_of(settings: Settings) -> str:
    """The run's `device`: `cpu` instead of `auto` where nothing that was asked for could use another."""
    if settings.device != "auto":
        return settings.device
    could = (_could_use_device(each) for each in candidates(settings))
    return "auto" if any(could) else "cpu"


def _could_use_device(deployment: Deployment) -> bool:
    """Not a server without weights, which computes nothing, wherever it is."""
    if deployment.terms.base_url:
        return True
    return uses_devices(deployment) and ENGINES[deployment.engine].weights(deployment) is not None


def why_not_here(device: str) -> Callable[[Deployment], Reason | None]:
    """A function that says why this machine cannot start a deployment, whatever gets installed; None where it
    can, as far as is known. It looks at no file. Raises UserError for a `device` that is not here."""
    return why_not_on(select_devices(device))


def why_not_on(devices: Sequence[int]) -> Callable[[Deployment], Reason | None]:
    """The same for these devices, none of them being the CPU."""

    def why_not(deployment: Deployment) -> Reason | None:
        if deployment.terms.base_url:
            return None
        return _no_build(devices, deployment) or _no_launch(devices, deployment)

    return why_not


def _no_build(devices: Sequence[int], deployment: Deployment) -> Reason | None:
    build = build_of(deployment)
    if not is_process(deployment) or build.is_own:
        return None
    spec = install_spec(build.engine, build.program, has_device=bool(devices))
    if isinstance(spec, Reason):
        return spec
    # A run is on one device. A server without weights computes nothing, wherever it is.
    if not devices or ENGINES[build.engine].weights(deployment) is None:
        return None
    for_device = ENGINES[build.engine].install(build.program, "cuda")
    return Reason(f"{for_device.text}; {_ways(build)} would do") if isinstance(for_device, Reason) else None


def _ways(build: Build) -> str:
    """What to give instead of a program that serves on the CPU only."""
    engine = ENGINES[build.engine]
    others = [each for each in engine.programs if isinstance(engine.install(each, "cuda"), InstallSpec)]
    return " or ".join([*(f"{engine.name}.program={each}" for each in others[:1]), "device=cpu"])


def _no_launch(devices: Sequence[int], deployment: Deployment) -> Reason | None:
    """What the engine's file says to the launch itself."""
    try:
        _launch_somewhere(devices, deployment)
    except UserError as error:
        return Reason(str(error))
    return None


def _launch_somewhere(devices: Sequence[int], deployment: Deployment) -> LaunchSpec:
    """Its launch at a place that stands for any."""
    path = Path("program")
    somewhere = Place(path, Path("/weights"), "127.0.0.1", 0, Path(), program=path, devices=tuple(devices))
    return ENGINES[deployment.engine].launch(deployment, somewhere)


def images_of(deployments: Iterable[Deployment], devices: Sequence[int]) -> list[str]:
    """The images that the deployments' containers are made of, each once."""
    docker = [each for each in deployments if not each.terms.base_url and each.terms.launcher == "docker"]
    specs = [_launch_somewhere(devices, deployment) for deployment in docker]
    return list(dict.fromkeys(spec.image for spec in specs if isinstance(spec, ContainerSpec)))


def check_builds(device: str, deployments: Iterable[Deployment]) -> None:
    """Raise UserError where what the user brought is not there, or a server would need more devices than
    were asked for."""
    count = len(select_devices(device))
    for deployment in deployments:
        if is_process(deployment):
            own.check(build_of(deployment).program, build_of(deployment).environment, deployment.engine)
        wanted = deployment.terms.tensor_parallel
        if count and wanted > count and deployment.terms.base_url is None:
            listed = ",".join(map(str, range(wanted)))
            raise UserError(
                f"engine.tensor_parallel={wanted}: device={device} is {count} of them; "
                f"name as many, such as 'device=\"{listed}\"'"
            )


def provide(
    deployments: Iterable[Deployment], store: WeightsStore, cache: Path, on_line: OnLine, *, has_device: bool
) -> Provisions:
    """Find or make everything; blocks. Raises MissingError naming the command where that is too much."""
    started = [deployment for deployment in deployments if not deployment.terms.base_url]
    environments = {}
    for build in dict.fromkeys(build_of(each) for each in started if is_process(each)):
        if found := _environment(build, cache, on_line, has_device=has_device):
            environments[build] = found
    asked: dict[Weights, list[str]] = {}
    for deployment in started:
        needed = ENGINES[deployment.engine].weights(deployment)
        if isinstance(needed, Weights):
            asked.setdefault(needed, []).append(deployment.engine)
    _refuse_weights(asked, store, cache, SMALL_BYTES)
    weights = {each: provide_weights(each, store, cache, on_line) for each in asked}
    return Provisions(environments, weights)


def _environment(build: Build, cache: Path, on_line: OnLine, *, has_device: bool) -> Environment | None:
    if build.is_own:
        return _own(build, has_device=has_device)
    spec = install_spec(build.engine, build.program, has_device=has_device)
    if spec is None:
        return None
    if isinstance(spec, Reason):
        raise MissingError(f"engine={build.engine}: {spec.text}")
    found = install.installed(cache, spec)
    if found is None:
        _refuse_large(build, spec)
        on_line(f"{build.label} is not installed; installing it ({size_text(spec.size_bytes)})")
        found = install.install(cache, spec, on_line, limit_bytes=SMALL_BYTES)
    return Environment(found.python, found.program, found.versions, spec.environment)


def _refuse_large(build: Build, spec: InstallSpec) -> None:
    """Raise MissingError, with the command, where bench does not make it without being asked."""
    command = install_line(build.engine, build.program)
    if spec.is_built or spec.sources:
        raise MissingError(f"{build.label}: not built here, or from another version; run `{command}`")
    if spec.size_bytes > SMALL_BYTES:
        size = f"{spec.size_bytes / 2**30:.1f} GiB"
        raise MissingError(f"{build.label}: not installed; run `{command}` ({size})")


def _own(build: Build, *, has_device: bool) -> Environment:
    """What the user brought, as it is. Raises UserError where it is not there or does not run."""
    own.check(build.program, build.environment, build.engine)
    if build.environment is None:
        given = Path(build.program or "")
        return Environment(None, given, own.hash_of(given))
    folder = Path(build.environment)
    spec = install_spec(build.engine, build.program, has_device=has_device)
    program = folder / spec.program if isinstance(spec, InstallSpec) and spec.program else None
    if program is not None and not os.access(program, os.X_OK):
        raise UserError(f"{build.engine}.environment={folder}: has no {program.relative_to(folder)}")
    versions = own.versions_of(folder, f"{build.engine}.environment")
    return Environment(install.python_of(folder), program, versions)


def provide_weights(
    needed: Weights,
    store: WeightsStore,
    cache: Path,
    on_line: OnLine,
    *,
    limit_bytes: int | None = SMALL_BYTES,
) -> WeightsFile:
    """Find or make weights; no limit where limit_bytes is None."""
    found = store.find(needed, cache)
    if found:
        return found
    if limit_bytes is not None:
        _refuse_weights({needed: ()}, store, cache, limit_bytes)
    missing = store.missing_bytes(needed, cache)
    size = f" ({size_text(missing)} to download and write)" if missing else ""
    on_line(f"{needed.model} at {needed.quantization} is not here; preparing it{size}")
    tool = partial(_tool, cache=cache, on_line=on_line, limit_bytes=limit_bytes)
    return store.prepare(needed, cache, tool, on_line, run_supervised)


def _refuse_weights(
    asked: Mapping[Weights, Sequence[str]], store: WeightsStore, cache: Path, limit_bytes: int
) -> None:
    """Raise MissingError, with one command for all, where some are too much to be made without being asked:
    a run never asks a hub, nor does it fetch gigabytes by itself. `asked`: the engines that need each."""
    sizes = {each: store.missing_bytes(each, cache) for each in asked if store.find(each, cache) is None}
    refused = {
        each: size
        for each, size in sizes.items()
        if size is None or size > limit_bytes or store.calls_hub(each, cache)
    }
    if not refused:
        return
    words = {
        "engine": [engine for each in refused for engine in asked[each]],
        "model": [as_text(each.model) for each in refused],
        "quantization": [each.quantization for each in refused],
    }
    keys = (f"{key}={','.join(dict.fromkeys(values))}" for key, values in words.items() if values)
    what = ", ".join(dict.fromkeys(f"{each.model} at {each.quantization}" for each in refused))
    known = [size for size in refused.values() if size is not None]
    # Two may be made of one source, which the size of each has in it.
    total = f"{'up to ' if len(refused) > 1 else ''}{sum(known) / 2**30:.1f} GiB"
    cost = f" ({total} to download and write)" if len(known) == len(refused) else ""
    raise MissingError(f"{what}: not here; run `bench prepare {' '.join(keys)}`{cost}")


def _tool(spec: InstallSpec, cache: Path, on_line: OnLine, limit_bytes: int | None) -> Path:
    """Its environment's directory, made if it is missing. Raises MissingError where that is too much."""
    found = install.installed(cache, spec)
    if found is None:
        size = size_text(spec.size_bytes)
        if spec.is_built or (limit_bytes is not None and spec.size_bytes > limit_bytes):
            raise MissingError(f"{spec.environment} is needed for this; run `{_tool_line(spec)}` ({size})")
        on_line(f"{spec.environment} is not installed; installing it ({size})")
        found = install.install(cache, spec, on_line, limit_bytes=limit_bytes)
    return found.folder


def _tool_line(spec: InstallSpec) -> str:
    """The command that installs an environment that a tool or an engine's program has."""
    for name, tool in tools().items():
        if tool.environment == spec.environment:
            return f"bench install {name}"
    for name, engine in ENGINES.items():
        for program in engine.programs:
            made = (engine.install(program, device) for device in ("cpu", "cuda"))
            if any(isinstance(each, InstallSpec) and each.environment == spec.environment for each in made):
                return install_line(name, program)
    raise ValueError(f"{spec.environment} belongs to no engine and no tool")
