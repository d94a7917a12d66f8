"""Say which builds of engines and tools exist, are installed here, and can start here. Installs nothing."""

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from serving_bench import engines
from serving_bench.engines import ENGINES, launch_of
from serving_bench.harness.contracts import (
    ContainerSpec,
    Deployment,
    EngineTerms,
    InstallSpec,
    LaunchSpec,
    Place,
    Reason,
    Weights,
)
from serving_bench.harness.errors import UserError, choose_from, refuse_first
from serving_bench.harness.install import install
from serving_bench.harness.sampling import gpu
from serving_bench.harness.settings.units import either


@dataclass(frozen=True)
class Build:
    """An engine's program: in an environment of bench's or of the user's, or the user's own program (a path).

    `environment` is the user's directory.
    """

    engine: str
    program: str | None = None
    environment: str | None = None

    @property
    def label(self) -> str:
        """Return the engine's name, then its program unless it is the first, and the user's environment."""
        program = None if self.program == ENGINES[self.engine].programs[0] else self.program
        return " ".join(filter(None, (self.engine, program, self.environment)))

    @property
    def has_own_program(self) -> bool:
        return "/" in (self.program or "")

    @property
    def is_own(self) -> bool:
        return self.environment is not None or self.has_own_program

    @property
    def install_line(self) -> str:
        is_first = self.program in (None, ENGINES[self.engine].programs[0])
        return f"bench install {self.engine}" + ("" if is_first else f" --program {self.program}")

    def spec(self, *, has_device: bool) -> InstallSpec | Reason | None:
        """Return how to install it: for CUDA if there is a device and such a build, else for the CPU."""
        spec = self.spec_for("cuda") if has_device else None
        return spec if isinstance(spec, InstallSpec) else self.spec_for("cpu")

    def spec_for(self, device: str) -> InstallSpec | Reason | None:
        return ENGINES[self.engine].install(self.program, device)


def build_of(deployment: Deployment) -> Build:
    environment = getattr(deployment.options, "environment", None)
    return Build(deployment.engine, getattr(deployment.options, "program", None), environment)


def is_process(deployment: Deployment) -> bool:
    return deployment.terms.base_url is None and deployment.terms.launcher != "docker"


def uses_devices(deployment: Deployment) -> bool:
    """Return whether a deployment uses a device if there is one. What bench cannot inspect counts as yes."""
    build = build_of(deployment)
    if not is_process(deployment) or build.is_own:
        return True
    spec = build.spec_for("cuda")
    is_on_path = spec is None and ENGINES[build.engine].weights(deployment) is not None
    return is_on_path or isinstance(spec, InstallSpec)


def select_devices(device: str) -> tuple[int, ...]:
    """Return the indices of the devices to use; `auto` is the first one, or none if there is none."""
    if device != "auto":
        return gpu.select(device)
    return () if isinstance(gpu.devices(), Reason) else (0,)


def why_not_on(devices: Sequence[int], deployment: Deployment) -> Reason | None:
    """Return why a deployment cannot be started on these devices (none: on the CPU); None if it can."""
    if deployment.terms.base_url:
        return None
    if reason := _no_build(devices, deployment):
        return reason
    try:
        _launch_somewhere(devices, deployment)
    except UserError as error:
        return error.reason
    return None


def _no_build(devices: Sequence[int], deployment: Deployment) -> Reason | None:
    build = build_of(deployment)
    if not is_process(deployment) or build.is_own:
        return None
    spec = build.spec(has_device=bool(devices))
    if isinstance(spec, Reason) or not devices or ENGINES[build.engine].weights(deployment) is None:
        return spec if isinstance(spec, Reason) else None
    for_device = build.spec_for("cuda")
    if not isinstance(for_device, Reason):
        return None
    others = [Build(build.engine, each) for each in ENGINES[build.engine].programs]
    able = [each.program for each in others if isinstance(each.spec_for("cuda"), InstallSpec)]
    ways = [*(f"{build.engine}.program={each}" for each in able[:1]), "device=cpu"]
    return Reason("{why}; {ways} works", why=for_device, ways=" or ".join(ways))


def _launch_somewhere(devices: Sequence[int], deployment: Deployment) -> LaunchSpec:
    path = Path("program")
    somewhere = Place(path, Path("/weights"), "127.0.0.1", 0, Path(), program=path, devices=tuple(devices))
    return launch_of(ENGINES[deployment.engine], deployment, somewhere)


def images_of(deployments: Iterable[Deployment], devices: Sequence[int]) -> list[str]:
    docker = [each for each in deployments if not each.terms.base_url and each.terms.launcher == "docker"]
    specs = [_launch_somewhere(devices, deployment) for deployment in docker]
    return list(dict.fromkeys(spec.image for spec in specs if isinstance(spec, ContainerSpec)))


def check_builds(device: str, deployments: Iterable[Deployment]) -> None:
    """Raise UserError if the user's program or environment is missing, or a server needs more devices."""
    count = len(select_devices(device))
    for deployment in deployments:
        if is_process(deployment):
            check_own(build_of(deployment))
        wanted = deployment.terms.tensor_parallel
        if count and wanted > count and deployment.terms.base_url is None:
            raise UserError(
                f"engine.tensor_parallel={wanted}: device={device} has {count}; "
                f"name that many, such as 'device=\"{','.join(map(str, range(wanted)))}\"'"
            )


def check_own(build: Build) -> None:
    """Raise UserError unless the user's program can be executed and the user's environment has a Python."""
    program, folder = build.program or "", build.environment
    is_executable = os.path.isfile(program) and os.access(program, os.X_OK)
    given = f"{build.engine}.program={program}"
    refuse_first(
        (
            build.has_own_program and not is_executable,
            f"{given}: no file that can be executed; give a program's",
        ),
        (
            folder is not None and build.has_own_program,
            f"{given} needs no environment; give one of them",
        ),
        (
            folder is not None and not os.access(install.python_of(Path(folder)), os.X_OK),
            f"{build.engine}.environment={folder}: no Python environment with bin/python there",
        ),
    )


@dataclass(frozen=True)
class Installable:
    """An engine's program or a tool on this machine. `state` is `ready` if it needs no environment."""

    name: str
    program: str | None
    state: Literal["ready", "installed", "other", "not installed", "none"]
    version: str | None = None
    size_bytes: int | None = None  # on disk, or an estimate before the install
    install: str | None = None  # the command; None where there is nothing to install
    compiles: bool = False
    reason: str | None = None  # why it cannot be installed here


@dataclass(frozen=True)
class EngineHere:
    """An engine with all of its programs."""

    engine: str
    description: str
    launchers: tuple[str, ...]  # how it can be started, the default first; empty if bench only attaches to it
    programs: tuple[Installable, ...]
    origin: str | None  # the distribution and its version, if it is not bench's own


def engines_here(cache: Path, *, has_device: bool) -> list[EngineHere]:
    rows = []
    for name, engine in ENGINES.items():
        programs = []
        for build in (Build(name, program) for program in engine.programs):
            spec = build.spec(has_device=has_device) if engine.launchers else None
            programs.append(_installable(name, build.program, spec, build.install_line, cache))
        rows.append(
            EngineHere(
                name, engine.description, tuple(engine.launchers), tuple(programs), ENGINES.origins.get(name)
            )
        )
    return rows


def tools_here(cache: Path) -> dict[str, Installable]:
    tools = engines.TOOLS.items()
    return {name: _installable(name, None, spec, f"bench install {name}", cache) for name, spec in tools}


def _installable(
    name: str, program: str | None, spec: InstallSpec | Reason | None, line: str, cache: Path
) -> Installable:
    if not isinstance(spec, InstallSpec):
        return Installable(name, program, "none" if spec else "ready", reason=str(spec) if spec else None)
    compiles = spec.is_built or bool(spec.sources)
    if environment := install.installed(cache, spec):
        version = version_of(name, program, environment.versions)
        return Installable(name, program, "installed", version, environment.size_bytes, line, compiles)
    is_begun = install.environment_dir(cache, spec).exists()
    return Installable(
        name, program, "other" if is_begun else "not installed", None, spec.size_bytes, line, compiles
    )


def spec_of(name: str, program: str | None, *, has_device: bool) -> InstallSpec | Reason | None:
    """Return how to install an engine's program or a tool; None if it needs no environment.

    `name` may leave out the -cpu or -cuda of a tool. Raises UserError for an unknown name.
    """
    tools = engines.TOOLS
    if name in ENGINES:
        programs = ENGINES[name].programs
        if program is not None and program not in programs:
            choices = list(filter(None, programs))
            hint = choose_from(program, choices) if choices else "it is one program; leave --program out"
            raise UserError(f"--program {program}: {name} has no such program; {hint}")
        wanted = programs if program is None else (program,)
        specs = (Build(name, each).spec(has_device=has_device) for each in wanted)
        return next((spec for spec in specs if spec is not None), None)
    names = (name, *(f"{name}-{device}" for device in (("cuda", "cpu") if has_device else ("cpu",))))
    tool = next((tools[each] for each in names if each in tools), None)
    if tool is None:
        here = engines_here(install.cache_dir(), has_device=has_device)
        needed = sorted(each.engine for each in here if any(program.install for program in each.programs))
        # An engine without a build for this machine, or that others must install.
        refused = [each.engine for each in here if all(program.reason for program in each.programs)]
        elsewhere = f"; not {either(refused)} here: `bench list engines` says why" if refused else ""
        advice = choose_from(name, [*needed, *sorted(tools)])
        raise UserError(f"{name}: no such engine or tool; {advice}{elsewhere}")
    if program is not None:
        raise UserError(f"--program {program}: {name} is one program; leave --program out")
    return tool


def version_of(name: str, program: str | None, versions: Mapping[str, str]) -> str | None:
    by_name = {_plain(distribution): version for distribution, version in versions.items()}
    begins = sorted(each for each in by_name if each.startswith(_plain(name) + "-"))
    wanted = [*map(_plain, filter(None, (program, name))), *begins]
    return next((by_name[each] for each in wanted if each in by_name), None)


def _plain(name: str) -> str:  # as packages compare their names (PEP 503)
    return re.sub("[-_.]+", "-", name).lower()


def weights_needed(engine: str, model: str, quantization: str) -> Weights | Reason | None:
    adapter = ENGINES[engine]
    return adapter.weights(Deployment(engine, model, quantization, EngineTerms(), adapter.options(), ""))
