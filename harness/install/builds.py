"""What serves a deployment as a process of this machine: bench's own build, or what the user brought.

Knows no engine: asks each engine's own file. What the user brought is looked at and never changed.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from engines import ENGINES
from harness.contracts import Deployment, InstallSpec, Reason
from harness.errors import UserError
from harness.install.install import python_of, versions_in

# How a program's file begins: ELF, Mach-O's 64 bits, or a script.
_PROGRAMS = (b"\x7fELF", b"\xcf\xfa\xed\xfe", b"#!")


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
        """The engine, with what is not its first program or bench's own environment."""
        program = None if self.program == ENGINES[self.engine].programs[0] else self.program
        return " ".join(filter(None, (self.engine, program, self.environment)))

    @property
    def has_own_program(self) -> bool:
        """Whether the program is the user's, by its path."""
        return "/" in (self.program or "")

    @property
    def is_own(self) -> bool:
        """Whether the user brought it."""
        return self.environment is not None or self.has_own_program

    @property
    def install_line(self) -> str:
        """The command that installs it."""
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
    return Build(deployment.engine, program_of(deployment), environment)


def program_of(deployment: Deployment) -> str | None:
    """Return the engine's own option `program`; None where it has no such option."""
    return getattr(deployment.options, "program", None)


def is_process(deployment: Deployment) -> bool:
    """Return whether it is started as a process of this machine."""
    return deployment.terms.base_url is None and deployment.terms.launcher != "docker"


def uses_devices(deployment: Deployment) -> bool:
    """Return whether it uses a device where there is one. What bench cannot look into is taken to."""
    build = build_of(deployment)
    return not is_process(deployment) or build.is_own or isinstance(build.spec_for("cuda"), InstallSpec)


def check_own(build: Build) -> None:
    """Raise UserError where a program or an environment of the user's cannot be what it should be.

    Starts nothing.
    """
    said = f"{build.engine}.program={build.program}"
    if build.has_own_program:
        path = Path(build.program or "")
        is_program = path.is_file() and _begins_as_program(path)
        remedy = "chmod +x would let it" if is_program else "it is no program; give the path of the program"
        problems = {
            "no such file": not path.exists(),
            "is not a file; give the path of the program itself": not path.is_file(),
            f"cannot be executed; {remedy}": not os.access(path, os.X_OK),
        }
        _refuse(said, problems)
    if build.environment is not None:
        what, folder = f"{build.engine}.environment={build.environment}", Path(build.environment)
        problems = {
            f"{said} is started by itself; give one of them": build.has_own_program,
            "no such directory": not folder.exists(),
            "is a file; give the directory that has bin/python": not folder.is_dir(),
            "is not a Python environment (it has no bin/python)": not os.access(python_of(folder), os.X_OK),
        }
        _refuse(what, problems)


def _begins_as_program(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(4).startswith(_PROGRAMS)
    except OSError:
        return False


def _refuse(what: str, problems: Mapping[str, bool]) -> None:
    """Raise UserError with the first problem that there is."""
    for said, is_there in problems.items():
        if is_there:
            raise UserError(f"{what}: {said}")


def own_versions(build: Build) -> dict[str, str]:
    """Return distribution -> version of the user's environment; of a program its name and hash.

    Blocks while the environment's Python runs. Raises UserError where it does not run.
    """
    if build.environment is not None:
        return versions_in(Path(build.environment), f"{build.engine}.environment={build.environment}")
    program = Path(build.program or "")
    with program.open("rb") as file:
        return {program.name: f"sha256 {hashlib.file_digest(file, 'sha256').hexdigest()[:16]}"}
