"""Keeps a load process ready for the runs of another machine: one after the other, each for one cell.

Imports neither locust nor gevent: they live in that process (harness/load/remote.py).
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from harness.load.address import Address
from harness.load.messages import NEVER_NEEDED, NOT_NEEDED
from harness.supervise import supervise

# Before the next try where the last one was in vain.
_PAUSE_S = 1.0
_GRACE_S = 10.0


def stand_by(address: Address, key_env: str, *, once: bool, tell: Callable[[str], None]) -> int:
    """Play cells for the masters that come at an address, for ever unless `once`; the exit code.

    `tell` gets a line for each thing that a person wants to know. Returns 2 where the master refuses this
    version of bench for good. An exception, such as an interrupt, ends the load process as a signal does.
    """
    tell = _without_repeats(tell)
    with tempfile.TemporaryDirectory(prefix="bench-worker-") as directory:
        while True:
            code = _serve(address, key_env, Path(directory) / "load.log", tell)
            if code == NEVER_NEEDED:
                return 2
            if once and code != NOT_NEEDED:
                return code
            if code:
                time.sleep(_PAUSE_S)


def _serve(address: Address, key_env: str, log_path: Path, tell: Callable[[str], None]) -> int:
    """Run one load process to its end; its exit code, 1 where a signal ended it."""
    log_path.unlink(missing_ok=True)
    command = [sys.executable, "-P", "-m", "harness.load.remote", str(address), "--api-key-env", key_env]
    has_spoken = False
    with supervise(command, log_path=log_path, grace_s=_GRACE_S, pass_stdout=True) as process:
        for line in process.lines():
            if line:
                has_spoken = True
                tell(line)
        code = process.wait(_GRACE_S)
    if code and not has_spoken:
        tell(f"the load process ended with code {code}: {_last_line(log_path)}")
    return 1 if code is None or code < 0 else code


def _last_line(path: Path) -> str:
    lines = path.read_text(errors="replace").splitlines()
    return lines[-1][:300] if lines else "it wrote no log"


def _without_repeats(tell: Callable[[str], None]) -> Callable[[str], None]:
    last = ""

    def tell_new(line: str) -> None:
        nonlocal last
        if line != last:
            last = line
            tell(line)

    return tell_new
