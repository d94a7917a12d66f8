"""Runs a program that makes weights, to its end. Knows nothing of weights."""

from __future__ import annotations

import os
import subprocess
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.errors import MissingError

OnLine = Callable[[str], None]

INSIDE = Path(__file__).parent.parent / "inside"
_TAIL_LINES = 10


@dataclass(frozen=True)
class Script:
    """A script of engines/inside and the interpreter that runs it; `environment` is added to ours."""

    python: Path
    path: Path
    environment: Mapping[str, str] | None = None

    def run(self, arguments: Sequence[object], on_line: OnLine, failure: str) -> str:
        """See `run`."""
        argv = [str(self.python), "-P", str(self.path), *map(str, arguments)]
        return run(argv, on_line, failure, self.environment)


def run(
    argv: Sequence[str], on_line: OnLine, failure: str, environment: Mapping[str, str] | None = None
) -> str:
    """Pass its lines on until it ends; the last one. MissingError with the last ones if it fails.

    An exception here kills it. After a kill -9 of bench it goes on until its next line finds no reader."""
    tail: deque[str] = deque(maxlen=_TAIL_LINES)
    with subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env={**os.environ, **(environment or {})},
    ) as process:
        try:
            for line in process.stdout or ():
                tail.append(line.rstrip())
                on_line(line.rstrip())
        except BaseException:
            process.kill()
            raise
    if process.returncode != 0:
        raise MissingError(
            "\n".join([f"{failure} (exit code {process.returncode}); the end of its output:", *tail])
        )
    return tail[-1] if tail else ""


def version_of(python: Path, distribution: str) -> str:
    """`name version` of a package in an environment."""
    code = f"import importlib.metadata as m; print({distribution!r}, m.version({distribution!r}))"
    done = subprocess.run([python, "-I", "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()
