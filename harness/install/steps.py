"""Run one command of an install, and report its progress."""

import os
import re
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from serving_bench.harness.contracts import OnLine, secret_names
from serving_bench.harness.errors import MissingError, why_not_fetched
from serving_bench.harness.processes.supervise import supervised

# How often a command that prints nothing (a compiler, a large download) is reported as alive.
QUIET_S = 15.0
# Names of variables that say where packages come from, perhaps with a password.
_OF_INSTALLERS = re.compile(r"^(PIP|UV)_|_PROXY$", re.IGNORECASE)


def run_step(
    argv: Sequence[str],
    doing: str,
    failure: str,
    on_line: OnLine,
    *,
    log: Path = Path(os.devnull),
    environment: Mapping[str, str] | None = None,
    shows: Callable[[str], bool] = lambda line: True,
    advice: Sequence[str] = (),
) -> None:
    """Run one command of an install. `on_line` gets the lines that `shows` accepts, `log` gets all.

    Raises MissingError with `failure`, the command's last lines and `advice` if it fails. See run_supervised.
    """
    tail: deque[str] = deque(maxlen=15)

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
        where = "" if log == Path(os.devnull) else f"; the whole output: {log}"
        if (why := why_not_fetched("\n".join(tail))) and not advice:
            raise MissingError(f"{failure}: {why}{where}")
        head = f"{failure} (exit code {code}); the end of its output{where}:"
        raise MissingError(head, tail, advice)


def run_supervised(
    argv: Sequence[str], environment: Mapping[str, str], read: OnLine, on_quiet: Callable[[float], None]
) -> int | None:
    """Run a command to its end and return its exit code.

    Calls `on_quiet` with the seconds so far whenever the command prints nothing for QUIET_S. The command ends
    when bench does, and when `read` or `on_quiet` raises. Only secrets that installers need are passed on.
    """
    withheld = [name for name in secret_names(os.environ) if not _OF_INSTALLERS.search(name)]
    merged = ["/bin/sh", "-c", 'exec "$@" 2>&1', "sh", *argv]
    began_s = time.monotonic()
    with supervised(
        merged,
        log_path=Path(os.devnull),
        environment=environment,
        without=withheld,
        pass_stdout=True,
    ) as process:
        for line in process.lines(QUIET_S):
            if line is None:
                on_quiet(time.monotonic() - began_s)
            else:
                read(line)
        return process.wait()
