"""Run one command of an install, and report its progress."""

import os
import re
import time
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path

from serving_bench.harness.contracts import ProgressLines, secret_names
from serving_bench.harness.errors import MissingError, why_not_fetched
from serving_bench.harness.processes.supervise import supervised

# How often a command that prints nothing (a compiler, a large download) is reported as alive.
QUIET_S = 15.0
_TAIL_LINES = 15
# Names of variables that say where packages come from, perhaps with a password.
_OF_INSTALLERS = re.compile(r"^(PIP|UV)_|_PROXY$", re.IGNORECASE)


def run_step(
    argv: Sequence[str],
    doing: str,
    failure: str,
    progress: ProgressLines,
    *,
    log: Path = Path(os.devnull),
    environment: Mapping[str, str] | None = None,
    shown: str = "",
    advice: Sequence[str] = (),
) -> None:
    """Run one command of an install, as run_supervised.

    Raises MissingError with `failure`, the command's last lines and `advice` if it fails.
    """
    code, tail = run_supervised(argv, environment or {}, doing, progress, shown, log)
    if code != 0:
        where = "" if log == Path(os.devnull) else f"; the whole output: {log}"
        if (why := why_not_fetched("\n".join(tail))) and not advice:
            raise MissingError(f"{failure}: {why}{where}")
        head = f"{failure} (exit code {code}); the end of its output{where}:"
        raise MissingError(head, tail, advice)


def run_supervised(
    argv: Sequence[str],
    environment: Mapping[str, str],
    doing: str,
    progress: ProgressLines,
    shown: str = "",
    log: Path = Path(os.devnull),
) -> tuple[int | None, Sequence[str]]:
    """Run a command to its end, and return its exit code and last lines.

    `progress` gets the lines that begin with `shown` (a regular expression), and `doing` whenever the command
    prints nothing for QUIET_S; `log` gets all lines. The command ends when bench does, and when `progress`
    raises. Only secrets that installers need are passed on.
    """
    withheld = [name for name in secret_names(os.environ) if not _OF_INSTALLERS.search(name)]
    merged = ["/bin/sh", "-c", 'exec "$@" 2>&1', "sh", *argv]
    began_s, tail = time.monotonic(), deque[str](maxlen=_TAIL_LINES)
    with (
        log.open("a", encoding="utf-8") as kept,
        supervised(
            merged,
            log_path=Path(os.devnull),
            environment=environment,
            without=withheld,
            pass_stdout=True,
        ) as process,
    ):
        for line in process.lines(QUIET_S):
            if line is None:
                elapsed_s = time.monotonic() - began_s
                progress.line(f"{doing} ({elapsed_s // 60:.0f} min {elapsed_s % 60:.0f} s so far)")
                continue
            kept.write(line + "\n")
            tail.append(line.rstrip())
            if re.match(shown, line):
                progress.line(line.strip())
        return process.wait(), tail
