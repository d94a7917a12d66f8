"""One command of an install: its output shortened for people, kept whole in a log, and a sign of life.

Knows neither pip nor a compiler.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from harness.errors import MissingError
from harness.processes.supervise import supervise

OnLine = Callable[[str], None]

TAIL_LINES = 15
# A command that prints nothing (a compiler, a large download) is said to be alive this often.
QUIET_S = 15.0


class Progress(Protocol):
    """Reads a command's lines. `step` is what it does now."""

    @property
    def step(self) -> str: ...
    def read(self, line: str) -> str | None:
        """What to say of a line, if anything."""
        ...


@dataclass(frozen=True)
class Step:
    """One command. `doing` and `failure` are for people; `environment` is added to a copy of
    ours; `progress` shortens its lines; `explain` turns its last lines into advice."""

    doing: str
    failure: str
    on_line: OnLine
    log: Path = Path(os.devnull)
    environment: Mapping[str, str] | None = None
    progress: Progress | None = None
    explain: Callable[[Sequence[str]], Sequence[str]] = lambda lines: ()

    def run(self, argv: Sequence[str]) -> None:
        """To its end; MissingError with its last lines if it fails. An exception here, or the end of bench
        by whatever signal, ends it with all that it started."""
        tail: deque[str] = deque(maxlen=TAIL_LINES)
        with self.log.open("a", encoding="utf-8") as log:

            def read(line: str) -> None:
                log.write(line + "\n")
                tail.append(line.rstrip())
                said = self.progress.read(line) if self.progress else line.rstrip()
                if said is not None:
                    self.on_line(said)

            code = run_supervised(argv, self.environment or {}, read, self._say_alive)
        if code != 0:
            raise MissingError(self._failure(code, tail))

    def _say_alive(self, elapsed_s: float) -> None:
        step = self.progress.step if self.progress else self.doing
        self.on_line(f"{step} ({elapsed_s // 60:.0f} min {elapsed_s % 60:.0f} s so far)")

    def _failure(self, code: int | None, tail: Sequence[str]) -> str:
        where = "" if self.log == Path(os.devnull) else f"; all of it: {self.log}"
        head = f"{self.failure} (exit code {code}); the end of its output{where}"
        return "\n".join([head + ":", *tail, *self.explain(tail)])


def run_supervised(
    argv: Sequence[str], environment: Mapping[str, str], read: OnLine, on_quiet: Callable[[float], None]
) -> int | None:
    """Run a command to its end and return its exit code. `read` gets each line of its output, `on_quiet` the
    seconds so far whenever it says nothing for QUIET_S. An exception in these, or the end of bench by
    whatever signal, ends it with all that it started."""
    merged = ["/bin/sh", "-c", 'exec "$@" 2>&1', "sh", *argv]
    began_s = time.monotonic()
    with supervise(merged, log_path=Path(os.devnull), environment=environment, pass_stdout=True) as process:
        for line in process.lines(QUIET_S):
            if line is None:
                on_quiet(time.monotonic() - began_s)
            else:
                read(line)
        return process.wait(None)
