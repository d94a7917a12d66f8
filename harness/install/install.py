"""Makes, finds and removes the environments of engines: a venv from a lock file, by pip, mended by scripts,
or a program from C files, by the system's compiler.

Knows no engine: an InstallSpec says all. The only place that knows where bench's cache is.
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
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from platformdirs import user_cache_path

from harness.contracts import InstallSpec
from harness.errors import MissingError, UserError
from harness.install.install_step import OnLine, Step
from harness.install.pip import MendProgress, PipProgress, packages_of, why_it_failed
from harness.whole_files import write_whole

MARKER = "installed.json"
# In the marker: the hash of all that the environment is made from. Its name is older than sources are.
MADE_FROM = "lock_sha256"
PROGRAM = Path("bin", "program")
COMPILE = ("-std=c11", "-O2", "-Wall", "-Wextra", "-D_GNU_SOURCE")
# In an environment while it is made, for pip: a small /tmp does not matter, and nothing is left there.
SCRATCH = "tmp"
# Tells mending scripts how many bytes they may add; absent where the user asked for the install.
LIMIT = "BENCH_INSTALL_LIMIT_BYTES"
LIST_VERSIONS = (
    "import importlib.metadata as m, json; "
    "print(json.dumps({d.name: d.version for d in m.distributions()}, sort_keys=True))"
)


@dataclass(frozen=True)
class InstalledEnvironment:
    """`versions`: distribution name -> version; `cc`: the compiler's. `installed`: ISO 8601, UTC. `python`
    and `program` are None where the environment has none."""

    folder: Path
    python: Path | None
    program: Path | None
    versions: Mapping[str, str]
    size_bytes: int
    installed: str


def cache_dir() -> Path:
    """Where environments and weights are kept: BENCH_CACHE_DIR, else the user's cache directory."""
    given = os.environ.get("BENCH_CACHE_DIR")
    return Path(given).expanduser().absolute() if given else user_cache_path("serving-bench")


def environment_dir(cache: Path, spec: InstallSpec) -> Path:
    return cache / "engines" / spec.environment


def compiled_dir(cache: Path, environment: str) -> Path:
    """Where the engine of an environment keeps what it compiled at a start, for the next; may be absent."""
    return cache / "compiled" / environment


def installed(cache: Path, spec: InstallSpec) -> InstalledEnvironment | None:
    """The environment; None where it is absent, unfinished, or made from another lock or other sources.
    Starts nothing."""
    folder = environment_dir(cache, spec)
    try:
        marker = json.loads((folder / MARKER).read_text(encoding="utf-8"))
        if marker.pop(MADE_FROM) != _made_from_sha256(spec):
            return None
        found = _environment(folder, spec, **marker)
        parts = [part for part in (found.python, found.program) if part]
        return found if all(part.exists() for part in parts) else None
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
        return None


def install(
    cache: Path, spec: InstallSpec, on_line: OnLine, limit_bytes: int | None = None
) -> InstalledEnvironment:
    """Make the environment unless it is there; blocks, for seconds to many minutes. `on_line` gets few lines
    on how far it is; all output goes to log_path.

    What was cut short is made anew (pip's cache keeps the downloads, and what it built). Waits for another
    install of the same. However it ends, no process is left. With `limit_bytes` a mending script that finds
    that more is needed fails. Raises MissingError with the end of the output where it fails or no compiler is
    here, UserError where the disk is full.
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
    """Delete the environment, whole or half, and what its engine compiled; bytes freed, 0 where there was
    nothing."""
    folder, compiled = environment_dir(cache, spec), compiled_dir(cache, spec.environment)
    if not folder.exists() and not compiled.exists():
        return 0
    with _exclusive(cache, spec, lambda line: None):
        freed = _size_bytes(folder) + _size_bytes(compiled)
        _clear(folder)
        _clear(compiled)
        log_path(cache, spec).unlink(missing_ok=True)
    return freed


def log_path(cache: Path, spec: InstallSpec) -> Path:
    """All that the last install of it printed."""
    folder = environment_dir(cache, spec)
    return folder.with_name(folder.name + ".log")


def _clear(folder: Path) -> None:
    if folder.exists():
        (folder / MARKER).unlink(missing_ok=True)  # first: what is half gone does not count
        shutil.rmtree(folder)


def _make(cache: Path, spec: InstallSpec, on_line: OnLine, limit_bytes: int | None) -> None:
    # In place: a venv cannot be moved, its scripts hold its path. The marker is written last instead.
    folder = environment_dir(cache, spec)
    log = log_path(cache, spec)
    log.write_bytes(b"")
    made_from_sha256 = _made_from_sha256(spec)
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
    _write_marker(folder, made, made_from_sha256)


def _environment(folder: Path, spec: InstallSpec, **facts: Any) -> InstalledEnvironment:
    python = python_of(folder) if spec.lock else None
    program = folder / spec.program if spec.program else folder / PROGRAM if spec.sources else None
    return InstalledEnvironment(folder=folder, python=python, program=program, **facts)


def compiler() -> list[str]:
    """The system's C compiler as a command: CC, which may hold arguments, else cc. MissingError: none."""
    command = shlex.split(os.environ.get("CC", "")) or ["cc"]
    if shutil.which(command[0]) is None:
        raise MissingError(
            f"{command[0]}: no C compiler here; install one (on Debian: apt-get install gcc libc6-dev)"
        )
    return command


def build(sources: Sequence[Path], program: Path, on_line: OnLine) -> str:
    """Compile C files to a program; headers among them only count for `installed`. The compiler's version.

    Blocks for seconds. Raises MissingError with the end of its output where it fails."""
    command = compiler()
    said = subprocess.run([*command, "--version"], capture_output=True, text=True, errors="replace")
    units = [str(path) for path in sources if path.suffix == ".c"]
    program.parent.mkdir(parents=True, exist_ok=True)
    argv = [*command, *COMPILE, "-o", str(program), *units]
    on_line(shlex.join(argv))
    Step(f"building {program.name}", f"{program.name} could not be built", on_line).run(argv)
    return (said.stdout.splitlines() or ["unknown"])[0]


def _make_venv(
    folder: Path, spec: InstallSpec, lock: Path, log: Path, on_line: OnLine, limit_bytes: int | None
) -> dict[str, str]:
    """A fresh venv with what the lock names, mended and checked; the versions of its packages."""
    name, python = spec.environment, str(python_of(folder))
    scratch = folder / SCRATCH
    environment = {"TMPDIR": str(scratch)} | ({} if limit_bytes is None else {LIMIT: str(limit_bytes)})

    def step(doing: str, failure: str, **more: Any) -> Step:
        return Step(doing, f"{name} {failure}", on_line, log=log, **more)

    def explain(lines: Sequence[str]) -> Sequence[str]:
        return why_it_failed(lines, spec.needs)

    venv = [sys.executable, "-I", "-m", "venv", "--clear", str(folder)]
    step("making a virtual environment", "got no virtual environment").run(venv)
    scratch.mkdir()
    packages = PipProgress(packages_of(lock.read_text(encoding="utf-8")), time.monotonic)
    common: dict[str, Any] = {"environment": environment, "explain": explain}
    step("pip", "could not be installed", progress=packages, **common).run(_pip_command(python, lock))
    # -I: this process's PYTHONPATH is none of the environment's business.
    for script in spec.mend:
        on_line(f"mending: {script.name}")
        mending = step(
            script.name,
            f"could not be mended by {script.name}",
            progress=MendProgress(script.name),
            **common,
        )
        mending.run([python, "-I", str(script)])
    shutil.rmtree(scratch)
    step("trying it", "was installed but does not work").run([python, "-I", "-c", spec.check])
    listed = subprocess.run([python, "-I", "-c", LIST_VERSIONS], capture_output=True, text=True, check=True)
    versions: dict[str, str] = json.loads(listed.stdout)
    return versions


def _pip_command(python: str, lock: Path) -> list[str]:
    """By the user's own pip settings. The lock is the whole of it, so pip looks for no dependencies."""
    pip = [python, "-I", "-m", "pip", "install", "--no-input", "--progress-bar=off"]
    return [*pip, "--disable-pip-version-check", "--no-deps", "--require-hashes", "-r", str(lock)]


def _write_marker(folder: Path, made: InstalledEnvironment, made_from_sha256: str) -> None:
    marker = asdict(made) | {MADE_FROM: made_from_sha256}
    for path in ("folder", "python", "program"):
        del marker[path]
    write_whole(folder / MARKER, json.dumps(marker, indent=2).encode())


def python_of(folder: Path) -> Path:
    """The interpreter of an environment."""
    return folder / "bin" / "python"


def _made_from_sha256(spec: InstallSpec) -> str:
    """Of the lock, the mending scripts and the sources, with what they are compiled with."""
    parts = [spec.lock.read_bytes()] if spec.lock else []
    parts += [b"\0".join((path.name.encode(), path.read_bytes())) for path in (*spec.mend, *spec.sources)]
    if spec.sources:
        parts.append(" ".join(COMPILE).encode())
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def _size_bytes(folder: Path) -> int:
    """Bytes of all files below, links counted as links."""
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_symlink() or path.is_file())


def _check_disk(cache: Path, spec: InstallSpec) -> None:
    # The folder exists: the lock of flock beside it does.
    free = shutil.disk_usage(cache).free
    if free < spec.size_bytes:
        raise UserError(
            f"{spec.environment} needs about {spec.size_bytes / 1e9:.1f} GB under {cache}, where "
            f"{free / 1e9:.1f} GB are free; BENCH_CACHE_DIR names another place"
        )


def is_busy(cache: Path, spec: InstallSpec) -> bool:
    """Whether a process installs or removes it right now."""
    try:
        with _lock_path(cache, spec).open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def _lock_path(cache: Path, spec: InstallSpec) -> Path:
    folder = environment_dir(cache, spec)
    return folder.with_name(folder.name + ".lock")


@contextmanager
def _exclusive(cache: Path, spec: InstallSpec, on_line: OnLine) -> Iterator[None]:
    """Hold the environment's lock; waits while another process installs or removes it."""
    path = _lock_path(cache, spec)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            on_line(f"waiting for another process that installs {spec.environment}")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
