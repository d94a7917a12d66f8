"""Makes, finds and removes environments: a venv from a lock, or a program from C files.

An InstallSpec says all of an environment; no engine is known here. The only place that knows where bench's
cache is. What is cut short never counts: a marker is written last, and its hash covers all that went in.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from platformdirs import user_cache_path

from harness.contracts import InstallSpec
from harness.errors import MissingError, UserError
from harness.install.install_step import OnLine, run_step
from harness.install.packages import installer
from harness.whole_files import write_whole

MARKER = "installed.json"
# In the marker: the hash of all that the environment is made from.
MADE_FROM = "lock_sha256"
PROGRAM = Path("bin", "program")
COMPILE = ("-std=c11", "-O2", "-Wall", "-Wextra", "-D_GNU_SOURCE")
# In an environment while it is made, as TMPDIR: a small /tmp does not matter, and nothing is left there.
SCRATCH = "tmp"
# Tells mending scripts how many bytes they may add; absent where the user asked for the install.
LIMIT = "BENCH_INSTALL_LIMIT_BYTES"
# The locks are resolved for this Python; another works where every package has a wheel for it.
LOCK_PYTHON = "3.11"
# What uv says that is worth a line to people, and what a mending script indents: pip's lines, for the log.
_SAID_BY_UV = ("Resolved", "Downloading", "Building", "Prepared", "Installed", "warning:")
_INDENT = "  "
LIST_VERSIONS = (
    "import importlib.metadata as m, json; "
    "print(json.dumps({d.name: d.version for d in m.distributions()}, sort_keys=True))"
)


@dataclass(frozen=True)
class InstalledEnvironment:
    """An environment that is whole. `python` and `program` are None where it has none."""

    folder: Path
    python: Path | None
    program: Path | None
    versions: Mapping[str, str]  # distribution -> version; `cc`: the compiler's
    size_bytes: int
    installed: str  # ISO 8601, UTC


def cache_dir() -> Path:
    """Return where environments and weights are kept: BENCH_CACHE_DIR, else the user's cache directory."""
    given = os.environ.get("BENCH_CACHE_DIR")
    return Path(given).expanduser().absolute() if given else user_cache_path("serving-bench")


def environment_dir(cache: Path, spec: InstallSpec) -> Path:
    """Return the environment's directory, whether it is there or not."""
    return cache / "engines" / spec.environment


def compiled_dir(cache: Path, environment: str) -> Path:
    """Return where an engine keeps what it compiled at a start, for the next one; it may be absent."""
    return cache / "compiled" / environment


def log_path(cache: Path, spec: InstallSpec) -> Path:
    """Return the file that has all output of the environment's last install."""
    return _beside(cache, spec, ".log")


def python_of(folder: Path) -> Path:
    """Return the interpreter of an environment."""
    return folder / "bin" / "python"


def installed(cache: Path, spec: InstallSpec) -> InstalledEnvironment | None:
    """Return the environment; None where it is absent, unfinished, or made from another lock or sources.

    Starts nothing."""
    folder = environment_dir(cache, spec)
    try:
        marker = json.loads((folder / MARKER).read_text(encoding="utf-8"))
        if marker.pop(MADE_FROM) != _made_from_sha256(spec):
            return None
        found = _environment(folder, spec, **marker)
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return found if all(part.exists() for part in (found.python, found.program) if part) else None


def install(
    cache: Path, spec: InstallSpec, on_line: OnLine, limit_bytes: int | None = None
) -> InstalledEnvironment:
    """Make the environment unless it is there; blocks, for seconds to many minutes.

    `on_line` gets few lines on how far it is; all output goes to log_path. What was cut short is made from
    the beginning, with the downloads that uv's cache has. Waits for another install of the same. However it
    ends, no process is left. With `limit_bytes` a mending script that finds that more is needed fails. Raises
    MissingError with the end of the output where it fails or no compiler is here, UserError where the disk
    is full.
    """
    with _exclusive(cache, spec, on_line):
        found = installed(cache, spec)
        if found is None:
            _clear(environment_dir(cache, spec))
            _check_disk(cache, spec)
            _make(cache, spec, on_line, limit_bytes)
            found = installed(cache, spec)
    if found is None:
        raise MissingError(f"{spec.environment} was made but is not usable: {environment_dir(cache, spec)}")
    return found


def remove(cache: Path, spec: InstallSpec) -> int:
    """Delete the environment, whole or half, and what its engine compiled. Return the bytes freed.

    Files that the environment shares with uv's cache are deleted, but free nothing."""
    folders = [environment_dir(cache, spec), compiled_dir(cache, spec.environment)]
    if not any(folder.exists() for folder in folders):
        return 0
    with _exclusive(cache, spec, lambda line: None):
        freed = sum(_size_bytes(folder, is_shared=False) for folder in folders)
        for folder in folders:
            _clear(folder)
        log_path(cache, spec).unlink(missing_ok=True)
    return freed


def is_busy(cache: Path, spec: InstallSpec) -> bool:
    """Return whether a process installs or removes it right now."""
    try:
        with _beside(cache, spec, ".lock").open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def compiler() -> list[str]:
    """Return the system's C compiler as a command: CC, which may hold arguments, else cc.

    Raises MissingError where there is none."""
    command = shlex.split(os.environ.get("CC", "")) or ["cc"]
    if shutil.which(command[0]) is None:
        raise MissingError(
            f"{command[0]}: no C compiler here; install one (on Debian: apt-get install gcc libc6-dev)"
        )
    return command


def build(sources: Sequence[Path], program: Path, on_line: OnLine) -> str:
    """Compile C files to a program and return the compiler's version. Headers among the files are left out.

    Blocks for seconds. Raises MissingError with the end of the compiler's output where it fails."""
    command = compiler()
    said = subprocess.run([*command, "--version"], capture_output=True, text=True, errors="replace")
    units = [str(path) for path in sources if path.suffix == ".c"]
    program.parent.mkdir(parents=True, exist_ok=True)
    argv = [*command, *COMPILE, "-o", str(program), *units]
    on_line(shlex.join(argv))
    run_step(argv, f"building {program.name}", f"{program.name} could not be built", on_line)
    return (said.stdout.splitlines() or ["unknown"])[0]


def _make(cache: Path, spec: InstallSpec, on_line: OnLine, limit_bytes: int | None) -> None:
    # In place: a venv cannot be moved, its scripts hold its path. The marker is written last instead.
    folder, log = environment_dir(cache, spec), log_path(cache, spec)
    log.write_bytes(b"")
    made_from = _made_from_sha256(spec)
    on_line(f"making {folder}")
    versions: dict[str, str] = {}
    if spec.lock is not None:
        versions |= _make_venv(folder, spec, spec.lock, log, on_line, limit_bytes)
    if spec.sources:
        versions |= {"cc": build(spec.sources, folder / PROGRAM, on_line)}
    size_bytes, now = _size_bytes(folder), datetime.now(UTC).isoformat(timespec="seconds")
    made = _environment(folder, spec, versions=versions, size_bytes=size_bytes, installed=now)
    if made.program is not None and not made.program.exists():
        raise MissingError(f"{spec.environment} was installed without {made.program.relative_to(folder)}")
    _write_marker(folder, made, made_from)


def _make_venv(
    folder: Path, spec: InstallSpec, lock: Path, log: Path, on_line: OnLine, limit_bytes: int | None
) -> dict[str, str]:
    """Make a venv with what the lock names, mend it and try it. Return the versions of its packages."""
    name, python = spec.environment, str(python_of(folder))
    step = partial(run_step, on_line=on_line, log=log)
    step(
        [sys.executable, "-I", "-m", "venv", "--clear", str(folder)],
        "making a virtual environment",
        f"{name} got no virtual environment",
    )
    scratch = folder / SCRATCH
    scratch.mkdir()
    # A start that is measured should not be the one that compiles modules.
    environment = {"TMPDIR": str(scratch), "UV_COMPILE_BYTECODE": "1"}
    environment |= {} if limit_bytes is None else {LIMIT: str(limit_bytes)}
    command, settings = installer(python)
    # The lock is the whole of it: no dependencies are looked for.
    step(
        [*command, "--no-deps", "--require-hashes", "-r", str(lock)],
        f"installing {_count_of_packages(lock)} packages",
        f"{name} could not be installed",
        environment=environment | settings,
        shows=lambda line: line.strip().startswith(_SAID_BY_UV),
        advice=_advice(spec),
    )
    # -I: this process's PYTHONPATH is none of the environment's business.
    for script in spec.mend:
        on_line(f"mending: {script.name}")
        step(
            [python, "-I", str(script)],
            script.name,
            f"{name} could not be mended by {script.name}",
            environment=environment,
            shows=lambda line: not line.startswith(_INDENT),
            advice=_advice(spec),
        )
    shutil.rmtree(scratch)
    step([python, "-I", "-c", spec.check], "trying it", f"{name} was installed but does not work")
    listed = subprocess.run([python, "-I", "-c", LIST_VERSIONS], capture_output=True, text=True, check=True)
    versions: dict[str, str] = json.loads(listed.stdout)
    return versions


def _count_of_packages(lock: Path) -> int:
    return sum(line[:1].isalnum() for line in lock.read_text(encoding="utf-8").splitlines())


def _advice(spec: InstallSpec) -> list[str]:
    """Return what to try where the packages of an environment could not be installed."""
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    other = (
        f"The lock was made for Python {LOCK_PYTHON}, bench runs on {python}: "
        f"install bench with Python {LOCK_PYTHON}."
    )
    return [*([spec.needs] if spec.needs else []), *([other] if python != LOCK_PYTHON else [])]


def _environment(folder: Path, spec: InstallSpec, **facts: Any) -> InstalledEnvironment:
    python = python_of(folder) if spec.lock else None
    program = folder / spec.program if spec.program else folder / PROGRAM if spec.sources else None
    return InstalledEnvironment(folder=folder, python=python, program=program, **facts)


def _write_marker(folder: Path, made: InstalledEnvironment, made_from: str) -> None:
    facts = {key: value for key, value in asdict(made).items() if not isinstance(value, Path | None)}
    write_whole(folder / MARKER, json.dumps(facts | {MADE_FROM: made_from}, indent=2).encode())


def _made_from_sha256(spec: InstallSpec) -> str:
    """Return a hash of the lock, the mending scripts and the sources, with what these are compiled with."""
    parts = [spec.lock.read_bytes()] if spec.lock else []
    parts += [b"\0".join((path.name.encode(), path.read_bytes())) for path in (*spec.mend, *spec.sources)]
    if spec.sources:
        parts.append(" ".join(COMPILE).encode())
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def _clear(folder: Path) -> None:
    if folder.exists():
        (folder / MARKER).unlink(missing_ok=True)  # first: what is half gone does not count
        shutil.rmtree(folder)


def _size_bytes(folder: Path, *, is_shared: bool = True) -> int:
    """Return the bytes of all files below; without is_shared, of those that no other place has as well."""
    files = (path.lstat() for path in folder.rglob("*") if path.is_symlink() or path.is_file())
    return sum(file.st_size for file in files if is_shared or file.st_nlink == 1)


def _check_disk(cache: Path, spec: InstallSpec) -> None:
    # The folder exists: the lock of flock beside it does.
    free = shutil.disk_usage(cache).free
    if free < spec.size_bytes:
        raise UserError(
            f"{spec.environment} needs about {spec.size_bytes / 1e9:.1f} GB under {cache}, where "
            f"{free / 1e9:.1f} GB are free; BENCH_CACHE_DIR names another place"
        )


def _beside(cache: Path, spec: InstallSpec, suffix: str) -> Path:
    folder = environment_dir(cache, spec)
    return folder.with_name(folder.name + suffix)


@contextmanager
def _exclusive(cache: Path, spec: InstallSpec, on_line: OnLine) -> Iterator[None]:
    """Hold the environment's lock; waits while another process installs or removes it."""
    path = _beside(cache, spec, ".lock")
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            on_line(f"waiting for another process that installs {spec.environment}")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
