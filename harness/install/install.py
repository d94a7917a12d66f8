"""Install, find and remove environments: a venv from a lock, or a program compiled from C files.

An interrupted install never counts: a marker is written last, with a hash of everything it was made from.
"""

import hashlib
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from serving_bench.harness.cache import cache_dir as cache_dir
from serving_bench.harness.contracts import InstallSpec, ProgressLines
from serving_bench.harness.errors import MissingError, UserError
from serving_bench.harness.install.packages import InstallError, installer
from serving_bench.harness.install.steps import run_step
from serving_bench.harness.whole_files import check_room, locked, write_whole

MARKER = "installed.json"
PROGRAM = Path("bin", "program")
COMPILE = ("-std=c11", "-O2", "-Wall", "-Wextra", "-D_GNU_SOURCE")
# The locks are resolved for this Python. Another one works if every package has a wheel for it.
LOCK_PYTHON = "3.11"
# The beginnings of the lines of uv's output that a user sees.
_BY_UV = r"\s*(Resolved|Downloading|Building|Prepared|Installed|warning:)"
_VERSIONS = (
    "import importlib.metadata as m, json; "
    "print(json.dumps({d.name: d.version for d in m.distributions()}, sort_keys=True))"
)


@dataclass(frozen=True)
class Environment:
    """An environment on this machine that starts servers or makes weights. `name` is None for the user's own.

    `versions` has those of the distributions; for a compiled program the compiler's (`cc`), for a program of
    the user's its hash.
    """

    folder: Path
    python: Path | None
    program: Path | None
    versions: Mapping[str, str]
    name: str | None = None
    size_bytes: int = 0


def environment_dir(cache: Path, spec: InstallSpec, suffix: str = "") -> Path:
    """Return the directory, which may not exist. Beside it lie the last install's .log and a .lock."""
    return cache / "engines" / (spec.environment + suffix)


def compiled_dir(cache: Path, environment: str) -> Path:
    """Return where an engine keeps what it compiled for later starts. The directory may not exist."""
    return cache / "compiled" / environment


def python_of(folder: Path) -> Path:
    return folder / "bin" / "python"


def installed(cache: Path, spec: InstallSpec) -> Environment | None:
    """Return the environment; None if it is missing, unfinished, or made from another lock or sources."""
    folder = environment_dir(cache, spec)
    try:
        marker = msgspec.json.decode((folder / MARKER).read_bytes(), type=dict[str, Any])
    except (FileNotFoundError, ValueError, RecursionError):
        return None
    environment = _environment(folder, spec, marker)
    is_whole = all(part.exists() for part in (environment.python, environment.program) if part)
    return environment if is_whole and marker["lock_sha256"] == _made_from_sha256(spec) else None


def install(
    cache: Path, spec: InstallSpec, progress: ProgressLines, limit_bytes: int | None = None
) -> Environment:
    """Install the environment unless it is there. Blocks for seconds to many minutes.

    A mending script that would install more than `limit_bytes` fails. Raises MissingError, and UserError if
    the disk is too full.
    """
    folder, log = environment_dir(cache, spec), environment_dir(cache, spec, ".log")
    with locked(environment_dir(cache, spec, ".lock"), progress, f"installs {spec.environment}"):
        if ready := installed(cache, spec):
            return ready
        _clear(folder)
        check_room(cache, spec.size_bytes, spec.environment)
        log.write_bytes(b"")
        made_from = _made_from_sha256(spec)
        progress.line(f"making {folder}")
        versions: dict[str, str] = {}
        # In place, since a venv cannot be moved: its scripts contain its path. The marker is written last.
        if spec.lock is not None:
            _make_venv(folder, spec, spec.lock, log, progress, limit_bytes)
            versions |= versions_in(folder, spec.environment)
        if spec.sources:
            versions["cc"] = build(spec.sources, folder / PROGRAM, progress)
        marker = {"lock_sha256": made_from, "versions": versions, "size_bytes": _size_bytes(folder)}
        environment = _environment(folder, spec, marker)
        if environment.program is not None and not environment.program.exists():
            raise MissingError(
                f"{spec.environment} was installed without {environment.program.relative_to(folder)}"
            )
        write_whole(folder / MARKER, msgspec.json.format(msgspec.json.encode(marker)))
        return environment


def _environment(folder: Path, spec: InstallSpec, marker: Mapping[str, Any]) -> Environment:
    python = python_of(folder) if spec.lock else None
    program = folder / spec.program if spec.program else folder / PROGRAM if spec.sources else None
    return Environment(folder, python, program, marker["versions"], spec.environment, marker["size_bytes"])


def remove(cache: Path, spec: InstallSpec) -> int:
    """Delete the environment, finished or not, and what its engine compiled. Return the bytes freed."""
    folders = [environment_dir(cache, spec), compiled_dir(cache, spec.environment)]
    if not any(folder.exists() for folder in folders):
        return 0
    with locked(environment_dir(cache, spec, ".lock")):
        freed = sum(_size_bytes(folder, is_shared=False) for folder in folders)
        for folder in folders:
            _clear(folder)
        environment_dir(cache, spec, ".log").unlink(missing_ok=True)
    return freed


def compiler() -> list[str]:
    """Return the command of the C compiler: CC with its arguments, else cc. Raises MissingError for none."""
    command = shlex.split(os.environ.get("CC", "")) or ["cc"]
    if shutil.which(command[0]) is None:
        raise MissingError(
            f"{command[0]}: no C compiler here; install one (on Debian: apt-get install gcc libc6-dev)"
        )
    return command


def build(sources: Sequence[Path], program: Path, progress: ProgressLines) -> str:
    """Compile the .c files of `sources` to `program`, and return the compiler's version line.

    Raises MissingError.
    """
    command = compiler()
    version = subprocess.run([*command, "--version"], capture_output=True, text=True, errors="replace")
    units = [str(path) for path in sources if path.suffix == ".c"]
    program.parent.mkdir(parents=True, exist_ok=True)
    argv = [*command, *COMPILE, "-o", str(program), *units]
    progress.line(shlex.join(argv))
    run_step(argv, f"building {program.name}", f"{program.name} could not be built", progress)
    return (version.stdout.splitlines() or ["unknown"])[0]


def _make_venv(
    folder: Path, spec: InstallSpec, lock: Path, log: Path, progress: ProgressLines, limit_bytes: int | None
) -> None:
    name, python = spec.environment, str(python_of(folder))
    step = partial(run_step, progress=progress, log=log)
    venv = [sys.executable, "-I", "-m", "venv", "--clear", str(folder)]
    step(venv, "making a virtual environment", f"{name} got no virtual environment")
    scratch = folder / "tmp"
    scratch.mkdir()
    environment = _environment_of(spec, scratch, limit_bytes)
    advice = [spec.needs] if spec.needs else []
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    if here != LOCK_PYTHON:
        advice.append(f"The lock was made for Python {LOCK_PYTHON}, bench runs on {here}.")
    try:
        command, settings = installer(python)
    except InstallError as error:
        raise MissingError(f"{name} could not be installed: {error}") from error
    fetching = partial(step, shown=_BY_UV)
    # The lock has everything: no dependencies are resolved, not even those of a build.
    hashed = [*command, "--no-deps", "--require-hashes"]
    binary = ["--only-binary", ":all:"]
    if spec.builders is not None:
        argv = [*hashed, *binary, "-r", str(spec.builders)]
        environment |= _install_builders(name, argv, scratch / "builders", environment | settings, fetching)
        binary = ["--no-build-isolation"]
    fetching(
        [*hashed, *binary, "-r", str(lock)],
        "installing packages",
        f"{name} could not be installed",
        environment=environment | settings,
        advice=advice,
    )
    # -I: this process's PYTHONPATH must not reach the environment.
    for script in spec.mend:
        progress.line(f"mending: {script.name}")
        step(
            [python, "-I", str(script)],
            script.name,
            f"{name} could not be mended by {script.name}",
            environment=environment,
            shown="(?!  )",  # it indents pip's lines
            advice=advice,
        )
    shutil.rmtree(scratch)
    step([python, "-I", "-c", spec.check], "trying it", f"{name} was installed but does not work")


def _environment_of(spec: InstallSpec, scratch: Path, limit_bytes: int | None) -> dict[str, str]:
    """Return the variables for the installer: scratch directory, number of compile jobs, limit of bytes."""
    # Compile modules now, not during a start that is measured.
    variables = {"TMPDIR": str(scratch), "UV_COMPILE_BYTECODE": "1"}
    if spec.jobs_variable and spec.jobs_variable not in os.environ:
        variables[spec.jobs_variable] = str(os.cpu_count() or 1)
    if spec.cmake_args:
        variables["CMAKE_ARGS"] = " ".join([spec.cmake_args, os.environ.get("CMAKE_ARGS", "")]).strip()
    if limit_bytes is not None:
        variables["BENCH_INSTALL_LIMIT_BYTES"] = str(limit_bytes)
    return variables


def _install_builders(
    name: str, argv: list[str], folder: Path, environment: dict[str, str], fetching: partial[None]
) -> dict[str, str]:
    """Install build tools (setuptools, CMake ...) into a folder; return the variables that a build needs.

    An isolated build would fetch them without hashes.
    """
    argv = [*argv, "--target", str(folder)]
    failure = f"{name}: the tools that build its packages could not be installed"
    fetching(argv, "installing build tools", failure, environment=environment)
    return {"PYTHONPATH": str(folder), "PATH": f"{folder / 'bin'}:{os.environ['PATH']}"}


def versions_in(folder: Path, whose: str) -> dict[str, str]:
    """Return each distribution's version. Raises UserError, beginning with `whose`, if its Python fails."""
    python = python_of(folder)
    argv = [str(python), "-I", "-c", _VERSIONS]
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=True)
        return msgspec.json.decode(done.stdout, type=dict[str, str])
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        stderr = getattr(error, "stderr", None) or str(error)
        raise UserError(f"{whose}: {python} does not run ({stderr.strip().splitlines()[-1]})") from error


def _made_from_sha256(spec: InstallSpec) -> str:
    # Without `builders`: a newer CMake is no reason to compile again for minutes.
    parts = [spec.lock.read_bytes()] if spec.lock else []
    parts += [b"\0".join((path.name.encode(), path.read_bytes())) for path in (*spec.mend, *spec.sources)]
    if spec.sources:
        parts.append(" ".join(COMPILE).encode())
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def _clear(folder: Path) -> None:
    (folder / MARKER).unlink(missing_ok=True)  # first, so that a half-deleted folder does not count
    if folder.exists():
        shutil.rmtree(folder)


def _size_bytes(folder: Path, *, is_shared: bool = True) -> int:
    files = (path.lstat() for path in folder.rglob("*") if path.is_symlink() or path.is_file())
    return sum(file.st_size for file in files if is_shared or file.st_nlink == 1)
