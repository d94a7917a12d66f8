"""Put together the files that a cell's load processes leave: rows, begun rows, logs, summaries."""

import logging
import shutil
from collections.abc import Iterable, Iterator, Sequence
from mmap import mmap
from pathlib import Path
from typing import TypeVar

import msgspec

from serving_bench.harness.contracts import (
    BegunRow,
    EndedBy,
    LoadJob,
    LoadSummary,
    RequestRow,
    without_answer,
)

Line = TypeVar("Line")
Lag = tuple[float, float, float]
_COUNTS = ("users", "conversations_begun", "requests", "left_out", "cut_conversations", "cut_turns")


def of_worker(path: Path, worker: int) -> Path:
    """Return the path of one worker's own file. The first worker's has the name that the job gives."""
    return path if worker == 0 else path.with_name(f"{path.name}.{worker}")


def gather(job: LoadJob, log_path: Path) -> None:
    """Append the other workers' rows, begun rows and logs to the first's, and remove their files.

    Raises OSError.
    """
    rows_paths = (job.rows_path, job.begun_path)
    for path in (*rows_paths, log_path):
        for part in (of_worker(path, number) for number in range(job.load.workers)):
            if path in rows_paths:
                _remove_cut_line(part)
            if part != path and part.is_file():
                with open(path, "ab") as whole, open(part, "rb") as read:
                    shutil.copyfileobj(read, whole, 1 << 20)
                part.unlink()


def discard(job: LoadJob) -> None:
    summaries = [of_worker(job.summary_path, number) for number in range(job.load.workers)]
    for path in (job.rows_path, job.begun_path, *summaries):
        path.unlink(missing_ok=True)


def read_summary(job: LoadJob) -> LoadSummary | None:
    """Return the summary of all workers together; None unless each of them wrote a whole one."""
    summaries = [read_whole(of_worker(job.summary_path, number)) for number in range(job.load.workers)]
    present = [summary for summary in summaries if summary]
    return merged(present) if len(present) == len(summaries) else None


def read_whole(path: Path) -> LoadSummary | None:
    """Return one worker's summary; None if it did not write a whole one."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=LoadSummary)
    except (FileNotFoundError, ValueError, RecursionError):
        return None


def merged(summaries: Sequence[LoadSummary]) -> LoadSummary:
    """Return the summary of all workers. The window ends with the first worker's that ends: from then on a
    part of the load is missing."""
    is_kernel = all(summary.stamp_source == "kernel" for summary in summaries)
    uncertainty_ns = max(summary.clock_uncertainty_ns or 0 for summary in summaries)
    return LoadSummary(
        started_ns=min(summary.started_ns for summary in summaries),
        window_start_ns=min(summary.window_start_ns for summary in summaries),
        window_end_ns=min(summary.window_end_ns for summary in summaries),
        ended_ns=max(summary.ended_ns for summary in summaries),
        ended_by=_ended_by(summaries),
        stamp_source="kernel" if is_kernel else "read",
        clock_uncertainty_ns=uncertainty_ns if is_kernel else None,
        stamp_lag_s=_worst(summary.stamp_lag_s for summary in summaries) if is_kernel else None,
        loop_lag_s=_worst(summary.loop_lag_s for summary in summaries),
        workers=tuple(worker for summary in summaries for worker in summary.workers),
        cpu_s=sum(summary.cpu_s or 0.0 for summary in summaries),
        stalled_s=max(summary.stalled_s for summary in summaries),
        gc_pause_s=sum(summary.gc_pause_s or 0.0 for summary in summaries),
        **{name: sum(getattr(summary, name) for summary in summaries) for name in _COUNTS},
    )


def _ended_by(summaries: Sequence[LoadSummary]) -> EndedBy:
    endings = {summary.ended_by for summary in summaries}
    stops: tuple[EndedBy, ...] = ("failures", "interrupted")
    first = min(summaries, key=lambda summary: summary.window_end_ns).ended_by
    return next((stop for stop in stops if stop in endings), first)


def _worst(lags: Iterable[Lag | None]) -> Lag | None:
    # By the p99.
    return max((lag for lag in lags if lag is not None), key=lambda lag: lag[1], default=None)


class _Ended(msgspec.Struct):
    """The part of a RequestRow that says that a request has ended. The rest of the line is skipped."""

    request_id: str
    end_ns: int


def append_lost(job: LoadJob) -> int:
    """Add a `lost` row to job.rows_path for each request that began and has no row. Returns how many.

    Call it after `gather`, when the load processes are gone. The lost requests end at the last instant in
    either file. A second call adds nothing. Raises OSError.
    """
    running: dict[str, BegunRow] = {}
    heard_ns = 0
    for begun in _read(job.begun_path, BegunRow):
        heard_ns = max(heard_ns, begun.scheduled_ns)
        running[begun.request_id] = begun
    for ended in _read(job.rows_path, _Ended):
        heard_ns = max(heard_ns, ended.end_ns)
        running.pop(ended.request_id, None)
    if running:
        with open(job.rows_path, "ab") as file:
            file.writelines(msgspec.json.encode(_lost(row, heard_ns)) + b"\n" for row in running.values())
    return len(running)


def _lost(begun: BegunRow, end_ns: int) -> RequestRow:
    error, end_ns = f"load worker {begun.worker} was lost", max(end_ns, begun.scheduled_ns)
    return without_answer(begun, "lost", error, end_ns)


def _read(path: Path, kind: type[Line]) -> Iterator[Line]:
    if not path.is_file():
        return
    damaged = 0
    with open(path, "rb") as file:
        for line in file:
            try:
                yield msgspec.json.decode(line, type=kind)
            except (ValueError, RecursionError):
                damaged += 1
    if damaged:
        logging.getLogger(__name__).warning("%s: damaged lines that were skipped: %d", path, damaged)


def _remove_cut_line(path: Path) -> None:
    if path.is_file() and path.stat().st_size:
        with open(path, "r+b") as file:
            with mmap(file.fileno(), 0) as whole:
                end = whole.rfind(b"\n") + 1
            file.truncate(end)
