"""Builds of engines and tools: which there are, what of them is on this machine, and what they serve.

Looks at files, starts nothing. Knows no engine: asks each engine's own file.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import engines
from engines import ALIASES, ENGINES, QUANTIZATIONS
from harness.contracts import Deployment, EngineTerms, InstallSpec, Reason, Weights
from harness.errors import UserError
from harness.install import install

# How a reason begins where the engine serves the quantization, but the model cannot be had at it.
SERVED_BUT = "served, but "

# ready: needs no environment. other: made from another lock, or cut short; made again when installed.
State = Literal["ready", "installed", "installing", "other", "not installed", "none"]


@dataclass(frozen=True)
class Build:
    """An engine's program in bench's environment of it, or in a directory of the user's.

    `program` is a name, or the path of the user's own (it has a slash).
    """

    engine: str
    program: str | None = None
    environment: str | None = None

    @property
    def label(self) -> str:
        """Return the engine's name, then a program that is not its first and the user's environment."""
        program = None if self.program == ENGINES[self.engine].programs[0] else self.program
        return " ".join(filter(None, (self.engine, program, self.environment)))

    @property
    def has_own_program(self) -> bool:
        """Return whether the program is the user's, given by its path."""
        return "/" in (self.program or "")

    @property
    def is_own(self) -> bool:
        """Return whether the user brought it."""
        return self.environment is not None or self.has_own_program

    @property
    def install_line(self) -> str:
        """Return the command that installs it."""
        named = self.program not in (None, ENGINES[self.engine].programs[0])
        return f"bench install {self.engine}" + (f" --program {self.program}" if named else "")

    def spec(self, *, has_device: bool) -> InstallSpec | Reason | None:
        """Return its environment: for CUDA where there is a device and such a build, else for the CPU."""
        spec = self.spec_for("cuda") if has_device else None
        return spec if isinstance(spec, InstallSpec) else self.spec_for("cpu")

    def spec_for(self, device: str) -> InstallSpec | Reason | None:
        """Return its environment for a kind of device; None where it needs none."""
        return ENGINES[self.engine].install(self.program, device)


def build_of(deployment: Deployment) -> Build:
    """Return what serves a deployment that is started as a process."""
    environment = getattr(deployment.options, "environment", None)
    return Build(deployment.engine, getattr(deployment.options, "program", None), environment)


def is_process(deployment: Deployment) -> bool:
    """Return whether it is started as a process of this machine."""
    return deployment.terms.base_url is None and deployment.terms.launcher != "docker"


def uses_devices(deployment: Deployment) -> bool:
    """Return whether it uses a device where there is one. What bench cannot look into is taken to."""
    build = build_of(deployment)
    return not is_process(deployment) or build.is_own or isinstance(build.spec_for("cuda"), InstallSpec)


# --- what is here


@dataclass(frozen=True)
class Installable:
    """An engine's program, or a tool."""

    name: str
    program: str | None
    state: State
    version: str | None = None
    size_bytes: int | None = None  # on disk, or what it will roughly take
    install: str | None = None  # the command; None where there is nothing to install
    compiles: bool = False
    reason: str | None = None  # why it cannot be installed here


@dataclass(frozen=True)
class EngineHere:
    """An engine with all that bench can install of it."""

    engine: str
    description: str
    launchers: tuple[str, ...]  # how it is started, its first one first; none where it is only attached to
    programs: tuple[Installable, ...]


@dataclass(frozen=True)
class QuantizationServed:
    """A row of the engine x quantization matrix."""

    quantization: str
    alias: str | None
    bits_per_weight: float
    file_format: str | None
    description: str
    # Engine -> `yes`, or why not: the pair does not exist or, after SERVED_BUT, there are no such weights.
    engines: Mapping[str, str]


def engines_here(cache: Path, *, has_device: bool) -> list[EngineHere]:
    """Return every engine, with the state of each of its programs."""
    return [
        EngineHere(
            name,
            engine.description,
            tuple(engine.launchers),
            tuple(_program(Build(name, each), cache, has_device=has_device) for each in engine.programs),
        )
        for name, engine in ENGINES.items()
    ]


def tools_here(cache: Path) -> dict[str, Installable]:
    """Return the state of every tool, by its name."""
    return {
        name: _found(name, None, spec, f"bench install {name}", cache) for name, spec in engines.TOOLS.items()
    }


def spec_of(name: str, program: str | None, *, has_device: bool) -> InstallSpec | Reason | None:
    """Return the environment of an engine's program or of a tool; None where it needs none.

    Without a program it is the engine's first that needs one. A tool NAME-cpu or NAME-cuda is found by NAME
    too. Raises UserError for an unknown name.
    """
    if name in ENGINES:
        programs = ENGINES[name].programs
        if program is not None and program not in programs:
            choices = ", ".join(filter(None, programs))
            hint = f"choose from {choices}" if choices else "it is one program; leave --program out"
            raise UserError(f"--program {program}: {name} has no such program; {hint}")
        wanted = programs if program is None else (program,)
        specs = (Build(name, each).spec(has_device=has_device) for each in wanted)
        return next((spec for spec in specs if spec is not None), None)
    known = engines.TOOLS
    names = (name, *(f"{name}-{device}" for device in (("cuda", "cpu") if has_device else ("cpu",))))
    found = next((known[each] for each in names if each in known), None)
    if found is None:
        choices = ", ".join([*sorted(ENGINES), *sorted(known)])
        raise UserError(f"{name}: no such engine or tool; choose from {choices}")
    if program is not None:
        raise UserError(f"--program {program}: {name} is one program; leave --program out")
    return found


def _program(build: Build, cache: Path, *, has_device: bool) -> Installable:
    spec = build.spec(has_device=has_device) if ENGINES[build.engine].launchers else None
    if spec is None:
        return Installable(build.engine, build.program, "ready")
    if isinstance(spec, Reason):
        return Installable(build.engine, build.program, "none", reason=spec.text)
    return _found(build.engine, build.program, spec, build.install_line, cache)


def _found(name: str, program: str | None, spec: InstallSpec, line: str, cache: Path) -> Installable:
    compiles = spec.is_built or bool(spec.sources)
    if found := install.installed(cache, spec):
        version = version_of(name, program, found.versions)
        return Installable(name, program, "installed", version, found.size_bytes, line, compiles)
    state: State = "other" if install.environment_dir(cache, spec).exists() else "not installed"
    if install.is_busy(cache, spec):
        state = "installing"
    return Installable(name, program, state, None, spec.size_bytes, line, compiles)


def version_of(name: str, program: str | None, versions: Mapping[str, str]) -> str | None:
    """Return the version of the distribution whose name is, or begins with, the program's or the engine's."""
    by_name = {_plain(distribution): version for distribution, version in versions.items()}
    begins = sorted(each for each in by_name if each.startswith(_plain(name) + "-"))
    wanted = [*map(_plain, filter(None, (program, name))), *begins]
    return next((by_name[each] for each in wanted if each in by_name), None)


def _plain(name: str) -> str:
    """Return a distribution's name as packages compare them (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def quantizations_served(
    model: str, can_prepare: Callable[[Weights], Reason | None]
) -> list[QuantizationServed]:
    """Return the matrix, derived from the engines' own files, of engines that take weights.

    `can_prepare`: why there are no such weights of a model."""
    aliases = {target: alias for alias, target in ALIASES.items()}
    rows = []
    for name, facts in QUANTIZATIONS.items():
        served: dict[str, str] = {}
        for engine in ENGINES:
            needed = weights_needed(engine, model, name)
            if isinstance(needed, Reason):
                served[engine] = needed.text
            elif needed is not None:
                lacking = can_prepare(needed)
                served[engine] = f"{SERVED_BUT}{lacking.text}" if lacking else "yes"
        rows.append(
            QuantizationServed(
                name, aliases.get(name), facts.bits_per_weight, facts.file_format, facts.description, served
            )
        )
    return rows


def weights_needed(engine: str, model: str, quantization: str) -> Weights | Reason | None:
    """Return what an engine, as it is first started, needs of a model; None where it takes no weights."""
    known = ENGINES[engine]
    return known.weights(Deployment(engine, model, quantization, EngineTerms(), known.options(), ""))
