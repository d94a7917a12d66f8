"""What serves a deployment as a process of this machine, and how bench would install it.

Knows no engine: asks each engine's own file. Looks at no file of this machine.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import engines
from engines import ENGINES
from harness.contracts import Deployment, InstallSpec, Reason


@dataclass(frozen=True)
class Build:
    """What serves a deployment as a process: an engine's program (a name, or the path of the user's own) in
    bench's environment or in a directory of the user's."""

    engine: str
    program: str | None = None
    environment: str | None = None

    @property
    def label(self) -> str:
        """The engine, with what is not its first program or bench's own environment."""
        program = None if self.program == default_program(self.engine) else self.program
        return " ".join(filter(None, (self.engine, program, self.environment)))

    @property
    def is_own(self) -> bool:
        """Whether the user brought it."""
        return self.environment is not None or is_path(self.program)


def build_of(deployment: Deployment) -> Build:
    environment = getattr(deployment.options, "environment", None)
    return Build(deployment.engine, program_of(deployment), environment)


def is_process(deployment: Deployment) -> bool:
    """Whether it is started as a process of this machine."""
    return deployment.terms.base_url is None and deployment.terms.launcher != "docker"


def uses_devices(deployment: Deployment) -> bool:
    build = build_of(deployment)
    if not is_process(deployment) or build.is_own:
        return True
    return isinstance(ENGINES[build.engine].install(build.program, "cuda"), InstallSpec)


def program_of(deployment: Deployment) -> str | None:
    """The engine's own option `program`, where it has one."""
    return getattr(deployment.options, "program", None)


def default_program(engine: str) -> str | None:
    return ENGINES[engine].programs[0]


def is_path(program: str | None) -> bool:
    """Whether a value of `program` is the path of the user's own."""
    return program is not None and "/" in program


def tools() -> Mapping[str, InstallSpec]:
    """Environments of programs that prepare weights, by the name that `bench install` knows."""
    return engines.TOOLS


def install_line(engine: str, program: str | None = None) -> str:
    """The command that installs it."""
    named = program is not None and program != default_program(engine)
    return f"bench install {engine}" + (f" --program {program}" if named else "")


def install_spec(engine: str, program: str | None, *, has_device: bool) -> InstallSpec | Reason | None:
    """The program's environment here: for CUDA where there is a device and such a build, else for the CPU."""
    spec = ENGINES[engine].install(program, "cuda") if has_device else None
    return spec if isinstance(spec, InstallSpec) else ENGINES[engine].install(program, "cpu")
