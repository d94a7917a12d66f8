"""Waiting on conditions in tests, with a deadline."""

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

Value = TypeVar("Value")


def patient(limit_s: float) -> float:
    """Return a limit that holds on a quiet machine, lengthened by the processes per processor now."""
    return limit_s * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


def wait_until(condition: Callable[[], Value], limit_s: float = 10.0) -> Value:
    """Return the first true value of `condition()`. Fail the test after `patient(limit_s)` seconds."""
    began_s = time.monotonic()
    never = threading.Event()
    while not (value := condition()):
        assert time.monotonic() - began_s < patient(limit_s), f"not within {limit_s:g} s"
        never.wait(0.02)
    return value


def number_in(path: Path) -> int:
    """Return the whole number that another process writes to path, followed by a newline."""
    return int(wait_until(lambda: path.exists() and path.read_text().endswith("\n") and path.read_text()))


def is_running(pid: int) -> bool:
    """Return whether a process runs; a zombie does not."""
    try:
        os.kill(pid, 0)
        status = Path(f"/proc/{pid}/stat")
        return not status.exists() or status.read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (ProcessLookupError, FileNotFoundError):
        return False
