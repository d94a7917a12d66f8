"""Writes a program of a few lines of shell, as a user would have it on PATH."""

import shlex
import sys
from pathlib import Path


def shell_script(path: Path, lines: str) -> Path:
    """Write an executable file of these lines. Return its path."""
    path.write_text(f"#!/bin/sh\n{lines}\n")
    path.chmod(0o755)
    return path


def python_program(path: Path, script: Path) -> Path:
    """Write a program that runs a Python script with the arguments that it gets. Return its path."""
    return shell_script(path, f'exec {shlex.join([sys.executable, str(script)])} "$@"')
