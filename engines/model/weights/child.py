"""Runs a program that makes weights, to its end, and says what it does. Knows nothing of weights."""

from __future__ import annotations

import subprocess
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from harness.errors import MissingError

OnLine = Callable[[str], None]
# Runs a command to its end: argv, what is added to our environment, what gets its lines, what gets the
# seconds so far while it says nothing; its exit code. Whatever way bench ends, the command ends with it.
Run = Callable[[Sequence[str], Mapping[str, str], OnLine, Callable[[float], None]], int | None]

INSIDE = Path(__file__).parents[2] / "inside"
_TAIL_LINES = 10


class ProgramError(MissingError):
    """A program failed; `exit_code_of_program` and `last_line` are what it ended with."""

    def __init__(self, failure: str, code: int | None, tail: Sequence[str]) -> None:
        super().__init__("\n".join([f"{failure} (exit code {code}); the end of its output:", *tail]))
        self.exit_code_of_program = code
        self.last_line = tail[-1] if tail else ""


@dataclass(frozen=True)
class Program:
    """A command. `doing` and `failure` are for people; `environment` is added to ours."""

    argv: Sequence[str]
    doing: str
    failure: str
    environment: Mapping[str, str] = field(default_factory=dict)

    def run(self, run: Run, on_line: OnLine, on_quiet: OnLine | None = None) -> str:
        """Pass its lines on until it ends; the last one. ProgramError with the last ones if it fails.

        `on_quiet` (by default `on_line`) is told now and then that a silent one is still at work."""
        tail: deque[str] = deque(maxlen=_TAIL_LINES)

        def read(line: str) -> None:
            tail.append(line.rstrip())
            on_line(line.rstrip())

        def say_alive(elapsed_s: float) -> None:
            so_far = f"{elapsed_s // 60:.0f} min {elapsed_s % 60:.0f} s so far"
            (on_quiet or on_line)(f"{self.doing} ({so_far})")

        code = run(self.argv, self.environment, read, say_alive)
        if code != 0:
            raise ProgramError(self.failure, code, list(tail))
        return tail[-1] if tail else ""


def script(python: Path, path: Path, *arguments: object) -> list[str]:
    """The command that runs a script of engines/inside."""
    return [str(python), "-P", str(path), *map(str, arguments)]


def version_of(python: Path, distribution: str) -> str:
    """`name version` of a package in an environment."""
    code = f"import importlib.metadata as m; print({distribution!r}, m.version({distribution!r}))"
    done = subprocess.run([python, "-I", "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()
