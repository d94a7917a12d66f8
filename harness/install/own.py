"""Programs and environments that the user brought: looked at, never changed, installed into or removed.

Knows no engine.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from pathlib import Path

from harness.errors import UserError
from harness.install import install

_LIMIT_S = 60.0


def check(program: str | None, environment: str | None, engine: str) -> None:
    """Raise UserError where a program's path or an environment's directory cannot be what it should be.

    Starts nothing. A `program` without a slash is bench's own affair.
    """
    if program is not None and "/" in program:
        _check_program(Path(program), f"{engine}.program={program}")
        if environment is not None:
            raise UserError(
                f"{engine}.environment={environment}: {engine}.program={program} is started by itself; "
                "give one of them"
            )
    if environment is not None:
        _check_environment(Path(environment), f"{engine}.environment={environment}")


def _check_program(path: Path, what: str) -> None:
    if not path.exists():
        raise UserError(f"{what}: no such file")
    if not path.is_file():
        raise UserError(f"{what}: is not a file; give the path of the program itself")
    if not os.access(path, os.X_OK):
        is_program = _begins_as_program(path)
        remedy = "chmod +x would let it" if is_program else "it is no program; give the path of the program"
        raise UserError(f"{what}: cannot be executed; {remedy}")


def _begins_as_program(path: Path) -> bool:
    """As a binary (ELF, Mach-O's 64 bits) or a script."""
    try:
        with path.open("rb") as file:
            return file.read(4).startswith((b"\x7fELF", b"\xcf\xfa\xed\xfe", b"#!"))
    except OSError:
        return False


def _check_environment(folder: Path, what: str) -> None:
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{what}: is a file; give the directory that has bin/python")
    if not folder.is_dir():
        raise UserError(f"{what}: no such directory")
    if not os.access(install.python_of(folder), os.X_OK):
        raise UserError(f"{what}: is not a Python environment (it has no bin/python)")


def versions_of(folder: Path, key: str) -> dict[str, str]:
    """Distribution -> version of an environment, by its own Python; blocks. UserError: it does not run."""
    python = install.python_of(folder)
    try:
        done = subprocess.run(
            [python, "-I", "-c", install.LIST_VERSIONS], capture_output=True, text=True, timeout=_LIMIT_S
        )
        versions: dict[str, str] = json.loads(done.stdout)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UserError(f"{key}={folder}: {python} does not run ({error})") from error
    except ValueError as error:
        said = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise UserError(f"{key}={folder}: {python} does not run ({said})") from error
    return versions


def hash_of(program: Path) -> dict[str, str]:
    """A program's name and the beginning of its SHA-256, as a version."""
    with program.open("rb") as file:
        return {program.name: f"sha256 {hashlib.file_digest(file, 'sha256').hexdigest()[:16]}"}
