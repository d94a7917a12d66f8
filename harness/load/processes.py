"""Starts the load process of one cell and hears of its progress.

Imports neither locust nor gevent: they live in that process, harness/load/worker.py, or where several
workers share the load harness/load/master.py.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import msgspec

from harness.contracts import Load, LoadJob, LoadSummary
from harness.errors import LoadError
from harness.load.arrivals import phases
from harness.load.lost import append_lost
from harness.load.pulse import Progress
from harness.running import supervised

# Beyond all phases and the drain of running requests: start, workers that are awaited, decode and write.
_SLACK_S = 150.0
# It speaks once a second; a large scenario may take a while to be read first.
_SILENT_S = 120.0
# TERM makes the load process write what it has; that takes a moment with many users.
_GRACE_S = 10.0
_log = logging.getLogger(__name__)


def run_load(
    job: LoadJob,
    directory: Path,
    state_dir: Path,
    on_progress: Callable[[Progress], None],
    check: Callable[[], None],
) -> LoadSummary:
    """Play one cell's load, blocking until it has ended; its rows are in job.rows_path.

    `check` runs about once a second and may raise to end the load early (the server died). Raises LoadError
    where the load process gives no summary. Whatever is raised, the rows so far are on disk, and those that
    the load process took with it are there as `lost`, if the disk takes them.
    """
    try:
        return _run(job, directory, state_dir, on_progress, check)
    except BaseException:
        _keep_lost(job)
        raise


def _keep_lost(job: LoadJob) -> None:
    """Add what was lost, where there is no summary; a failure of that is told, and hides no other."""
    try:
        if read_summary(job) is None:
            append_lost(job)
    except OSError as error:
        _log.error("%s: which requests were lost could not be written: %s", job.rows_path, error)


def _run(
    job: LoadJob,
    directory: Path,
    state_dir: Path,
    on_progress: Callable[[Progress], None],
    check: Callable[[], None],
) -> LoadSummary:
    job_path = directory / "job.json"
    job_path.write_bytes(msgspec.json.encode(job))
    log_path = directory / "load.log"
    limit_s = phases(job.load).end_s + job.load.timeout_s + _SLACK_S
    began_s = heard_s = time.monotonic()
    with ExitStack() as stack:
        running = supervised(
            # -P: a folder of the user's that is called as one of ours must not be imported instead.
            [sys.executable, "-P", "-m", _program(job.load), str(job_path)],
            label=f"load of cell {job.cell}",
            state_dir=state_dir,
            log_path=log_path,
            grace_s=_GRACE_S,
            pass_stdout=True,
        )
        try:
            process = stack.enter_context(running)
        except OSError as error:
            raise LoadError(f"the load process cannot be started: {error}") from error
        for line in process.lines(timeout_s=1.0):
            now_s = time.monotonic()
            if line:
                heard_s = now_s
                on_progress(_progress(line, log_path))
            check()
            if now_s - began_s > limit_s:
                raise LoadError(f"the load process did not end within {limit_s:.0f} s; see {log_path}")
            if now_s - heard_s > _SILENT_S:
                raise LoadError(f"the load process said nothing for {_SILENT_S:.0f} s; see {log_path}")
        code = process.wait(_GRACE_S)
    return _summary(job, code, log_path)


def _program(load: Load) -> str:
    is_shared = load.workers > 1 or load.bind is not None
    return "harness.load.master" if is_shared else "harness.load.worker"


def _progress(line: str, log_path: Path) -> Progress:
    try:
        return msgspec.json.decode(line, type=Progress)
    except msgspec.MsgspecError as error:
        raise LoadError(f"the load process said {line[:100]!r}, not its progress; see {log_path}") from error


def _summary(job: LoadJob, code: int | None, log_path: Path) -> LoadSummary:
    summary = read_summary(job)
    if code != 0 or summary is None:
        lines = log_path.read_text(errors="replace").splitlines()
        last = lines[-1][:300] if lines else "(empty)"
        raise LoadError(f"the load process ended with code {code}; the end of {log_path}: {last}")
    return summary


def read_summary(job: LoadJob) -> LoadSummary | None:
    """The summary of a load that was ended early; None where it did not come to write a whole one."""
    try:
        return msgspec.json.decode(Path(job.summary_path).read_bytes(), type=LoadSummary)
    except (FileNotFoundError, msgspec.MsgspecError):
        return None
