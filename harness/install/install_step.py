"""Runs one command of an install: few of its lines for people, all of them in a log, and a sign of life.

Knows neither uv nor a compiler.
"""

import os
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from harness.errors import MissingError
from harness.processes.supervise import supervise

OnLine = Callable[[str], None]

TAIL_LINES = 15
# A command that prints nothing (a compiler, a large download) is said to be alive this often.
QUIET_S = 15.0
_NO_LOG = Path(os.devnull)


def run_step(
    argv: Sequence[str],
    doing: str,
    failure: str,
    on_line: OnLine,
    *,
    log: Path = _NO_LOG,
    environment: Mapping[str, str] | None = None,
    shows: Callable[[str], bool] = lambda line: True,
    advice: Sequence[str] = (),
) -> None:
    """Run a command to its end. `on_line` gets the lines that `shows` picks, `log` gets all.

    `doing` and `failure` are for people; `environment` is added to ours. Raises MissingError with `failure`,
    the command's last lines and `advice` if it fails. An exception in `on_line`, or the end of bench by
    whatever signal, ends the command with all that it started.
    """
    tail: deque[str] = deque(maxlen=TAIL_LINES)

    def read(line: str) -> None:
        kept.write(line + "\n")
        tail.append(line.rstrip())
        if shows(line):
            on_line(line.strip())

    def say_alive(elapsed_s: float) -> None:
        on_line(f"{doing} ({elapsed_s // 60:.0f} min {elapsed_s % 60:.0f} s so far)")

    with log.open("a", encoding="utf-8") as kept:
        code = run_supervised(argv, environment or {}, read, say_alive)
    if code != 0:
        where = "" if log == _NO_LOG else f"; all of it: {log}"
        head = f"{failure} (exit code {code}); the end of its output{where}:"
        raise MissingError("\n".join([head, *tail, *advice]))


def run_supervised(
    argv: Sequence[str], environment: Mapping[str, str], read: OnLine, on_quiet: Callable[[float], None]
) -> int | None:
    """Run a command to its end and return its exit code.

    `read` gets each line of its output, `on_quiet` the seconds so far whenever it says nothing for QUIET_S.
    An exception in these, or the end of bench by whatever signal, ends it with all that it started.
    """
    merged = ["/bin/sh", "-c", 'exec "$@" 2>&1', "sh", *argv]
    began_s = time.monotonic()
    with supervise(merged, log_path=_NO_LOG, environment=environment, pass_stdout=True) as process:
        for line in process.lines(QUIET_S):
            if line is None:
                on_quiet(time.monotonic() - began_s)
            else:
                read(line)
        return process.wait(None)
