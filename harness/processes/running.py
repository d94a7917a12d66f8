"""Keep records of what bench has running, and end what a killed run left.

One JSON file per supervised process lies in a state directory that all runs share. Knows no engine.
"""

import os
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import msgspec

from harness.processes import watchdog
from harness.processes.supervise import Supervised, supervise
from harness.whole_files import write_whole


@dataclass(frozen=True)
class Record:
    """Who runs what. A pid names a process only together with its start time and the boot."""

    label: str
    boot_id: str
    owner: tuple[int, float]  # bench itself: while it lives, nobody else ends its processes
    watchdog: tuple[int, float]
    process: tuple[int, float]
    mark: str
    grace_s: float


@contextmanager
def supervised(
    argv: Sequence[str],
    *,
    label: str,
    state_dir: Path,
    log_path: Path,
    environment: Mapping[str, str] | None = None,
    without: Sequence[str] = (),
    grace_s: float = 10.0,
    pass_stdout: bool = False,
) -> Iterator[Supervised]:
    """Run argv while the block runs, as supervise does. A record is in state_dir until all of it is gone."""
    process = supervise(
        argv,
        log_path=log_path,
        environment=environment,
        without=without,
        grace_s=grace_s,
        pass_stdout=pass_stdout,
    )
    path = state_dir / f"{process.mark}.json"
    try:
        with process:
            path.parent.mkdir(parents=True, exist_ok=True)
            record = Record(
                label=label,
                boot_id=watchdog.boot_id(),
                owner=_identity(os.getpid()),
                watchdog=_identity(process.watchdog_pid),
                process=(process.pid, process.start_time_s),
                mark=process.mark,
                grace_s=process.grace_s,
            )
            # No process outlives the boot. Until this is written, a kill -9 of both leaves no trace of it.
            write_whole(path, msgspec.json.encode(record), lasts=False)
            yield process
    finally:
        if process.ended:
            path.unlink(missing_ok=True)


def reap(state_dir: Path) -> list[str]:
    """End what earlier runs left in spite of all, and return a sentence for each.

    Leaves alone what belongs to a bench that still runs, and any process that has the pid of one that ended.
    Blocks for up to the grace period of each.
    """
    said = []
    for path in sorted(state_dir.glob("*.json")):
        record = _read(path)
        if record and record.boot_id == watchdog.boot_id():
            if _is_alive(record.owner):
                continue
            if ended := _end(record):
                said.append(f"ended what a killed run had left: {record.label}, pid {', '.join(ended)}")
        path.unlink(missing_ok=True)
    return said


def _end(record: Record) -> list[str]:
    """End the record's processes, and return their pids."""
    find = partial(watchdog.left_of, *record.process, record.mark)
    left = [str(process.pid) for process in find()]
    if _is_alive(record.watchdog):
        with suppress(ProcessLookupError):
            os.kill(record.watchdog[0], signal.SIGTERM)
        deadline = time.monotonic() + record.grace_s + watchdog.KILL_LIMIT_S
        while _is_alive(record.watchdog) and time.monotonic() < deadline:
            time.sleep(0.05)
    watchdog.end(find, record.grace_s, time.sleep)
    return left


def _identity(pid: int) -> tuple[int, float]:
    return pid, watchdog.start_time_s(pid) or 0.0


def _is_alive(identity: tuple[int, float]) -> bool:
    return watchdog.start_time_s(identity[0]) == identity[1]


def _read(path: Path) -> Record | None:
    """Read a record, or return None if it cannot be read: another run may have reaped it."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Record)
    except (OSError, msgspec.MsgspecError):
        return None
