"""Makes, finds and removes environments: a venv from a lock, or a program from C files.

An InstallSpec says all of an environment; no engine is known here. The only place that knows where bench's
cache is. What is cut short never counts: a marker is written last, and its hash covers all that went in.
"""

import fcntl
import hashlib
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import msgspec
from platformdirs import user_cache_path

from harness.contracts import InstallSpec
from harness.errors import MissingError, UserError
from harness.install.install_step import OnLine, run_step
from harness.install.packages import installer
from harness.whole_files import write_whole

MARKER = "installed.json"
PROGRAM = Path("bin", "program")
COMPILE = ("-std=c11", "-O2", "-Wall", "-Wextra", "-D_GNU_SOURCE")
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


@dataclass(frozen=True)
class _Marker:
    """What the marker of a whole environment says."""

    lock_sha256: str  # of all that the environment is made from
    versions: dict[str, str]
    size_bytes: int


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
        marker = msgspec.json.decode((folder / MARKER).read_bytes(), type=_Marker)
    except (FileNotFoundError, ValueError):
        return None
    found = _environment(folder, spec, marker)
    is_whole = all(part.exists() for part in (found.python, found.program) if part)
    return found if is_whole and marker.lock_sha256 == _made_from_sha256(spec) else None


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
    folder, log = environment_dir(cache, spec), log_path(cache, spec)
    with _exclusive(cache, spec, on_line):
        if found := installed(cache, spec):
            return found
        _clear(folder)
        free = shutil.disk_usage(cache).free
        if free < spec.size_bytes:
            raise UserError(
                f"{spec.environment} needs about {spec.size_bytes / 1e9:.1f} GB under {cache}, where "
                f"{free / 1e9:.1f} GB are free; BENCH_CACHE_DIR names another place"
            )
        log.write_bytes(b"")
        made_from = _made_from_sha256(spec)
        on_line(f"making {folder}")
        versions: dict[str, str] = {}
        # In place: a venv cannot be moved, its scripts hold its path. The marker is written last instead.
        if spec.lock is not None:
            versions |= _make_venv(folder, spec, spec.lock, log, on_line, limit_bytes)
        if spec.sources:
            versions["cc"] = build(spec.sources, folder / PROGRAM, on_line)
        marker = _Marker(made_from, versions, _size_bytes(folder))
        made = _environment(folder, spec, marker)
        if made.program is not None and not made.program.exists():
            raise MissingError(f"{spec.environment} was installed without {made.program.relative_to(folder)}")
        write_whole(folder / MARKER, msgspec.json.format(msgspec.json.encode(marker)))
        return made


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
    # A small /tmp does not matter, and nothing is left there.
    scratch = folder / "tmp"
    scratch.mkdir()
    # A start that is measured should not be the one that compiles modules.
    environment = {"TMPDIR": str(scratch), "UV_COMPILE_BYTECODE": "1"}
    environment |= {} if limit_bytes is None else {LIMIT: str(limit_bytes)}
    command, settings = installer(python)
    count = sum(line[:1].isalnum() for line in lock.read_text(encoding="utf-8").splitlines())
    advice = _advice(spec)
    # The lock is the whole of it: no dependencies are looked for.
    step(
        [*command, "--no-deps", "--require-hashes", "-r", str(lock)],
        f"installing {count} packages",
        f"{name} could not be installed",
        environment=environment | settings,
        shows=lambda line: line.strip().startswith(_SAID_BY_UV),
        advice=advice,
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
            advice=advice,
        )
    shutil.rmtree(scratch)
    step([python, "-I", "-c", spec.check], "trying it", f"{name} was installed but does not work")
    return versions_in(folder, name)


def _advice(spec: InstallSpec) -> list[str]:
    """Return what to try when the packages cannot be installed."""
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    other = (
        f"The lock was made for Python {LOCK_PYTHON}, bench runs on {python}: "
        f"install bench with Python {LOCK_PYTHON}."
    )
    return [*([spec.needs] if spec.needs else []), *([other] if python != LOCK_PYTHON else [])]


def versions_in(folder: Path, whose: str) -> dict[str, str]:
    """Return distribution -> version of a Python environment. `whose` begins the message of an error.

    Blocks while its Python runs. Raises UserError where that does not run.
    """
    python = python_of(folder)
    argv = [str(python), "-I", "-c", LIST_VERSIONS]
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
        return msgspec.json.decode(done.stdout, type=dict[str, str])
    except (OSError, subprocess.TimeoutExpired) as error:
        said = str(error)
    except ValueError:
        said = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
    raise UserError(f"{whose}: {python} does not run ({said})")


def _environment(folder: Path, spec: InstallSpec, marker: _Marker) -> InstalledEnvironment:
    python = python_of(folder) if spec.lock else None
    program = folder / spec.program if spec.program else folder / PROGRAM if spec.sources else None
    return InstalledEnvironment(folder, python, program, marker.versions, marker.size_bytes)


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
