"""Start the load processes of one cell, read their progress, and end all if one of them ends badly."""

import logging
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import msgspec

from serving_bench.harness.contracts import LoadJob, LoadSummary
from serving_bench.harness.errors import LoadError
from serving_bench.harness.load import records
from serving_bench.harness.load.play.arrivals import longest_s
from serving_bench.harness.load.play.window import Board, shared_board
from serving_bench.harness.load.pulse import Progress, together
from serving_bench.harness.processes.supervise import Supervised, supervised

# For start, decoding and writing, beyond all phases and the drain of running requests.
_SLACK_S = 150.0
# A load process speaks once a second. A large scenario may take a while to be read first.
_SILENT_S = 120.0
# TERM makes a load process write what it has; that takes a moment with many users.
_GRACE_S = 10.0
# How long to wait for a line of each load process, one after the other.
_ROUND_S = 1.0
# From writing the start's instant to that instant: the workers look for it often, but making users takes a
# while (4,000: 0.2 s).
_LEAD_S, _LEAD_PER_USER_S = 0.05, 1e-4


@contextmanager
def running_load(job: LoadJob, state_dir: Path) -> Iterator[Iterator[Progress | None]]:
    """Play one cell's load while the block iterates over what this gives, to its end.

    About once a second that is the progress, or None if some load process has nothing new to say. Then the
    rows and the summary are where the job says. Raises LoadError if there is no summary. Whatever ends the
    block, the rows so far are on disk, and requests that a dead load process had begun are `lost`.
    """
    log_path = Path(job.directory, "load.log")
    try:
        with ExitStack() as stack:
            board_path = Path(job.directory, "load.board")
            board = shared_board(board_path)
            stack.callback(board_path.unlink)
            yield _follow(_started(job, state_dir, log_path, stack), job, board)
        records.gather(job, log_path)
    except BaseException:
        try:
            records.gather(job, log_path)
            if records.read_summary(job) is None:
                records.append_lost(job)
        except OSError as error:  # must not hide the first error
            logging.getLogger(__name__).error(
                "%s: which requests were lost could not be written: %s", job.rows_path, error
            )
        raise


class _Worker:
    """One load process as its parent sees it. `pulse` is None until it is ready, `summary` until it ends."""

    def __init__(self, job: LoadJob, number: int, process: Supervised, log_path: Path) -> None:
        self.process = process
        self.pulse: Progress | None = None
        self.has_news = False
        self.summary: LoadSummary | None = None
        self._name = "the load process" if job.load.workers == 1 else f"load worker {number}"
        self._summary_path = records.of_worker(job.summary_path, number)
        self._own_log_path, self._log_path = records.of_worker(log_path, number), log_path
        self._heard_s = time.monotonic()
        self._lines = process.lines(timeout_s=_ROUND_S / job.load.workers)

    def hear(self) -> None:
        """Wait a moment for its next line or its end. Raises LoadError if it ended badly, or was silent."""
        line = next(self._lines, "")
        if line:
            self._heard_s, self.has_news = time.monotonic(), True
            try:
                self.pulse = msgspec.json.decode(line, type=Progress)
            except (ValueError, RecursionError) as error:
                what = f"{self._name} said {line[:100]!r}, not its progress"
                raise LoadError(f"{what}; see {self._log_path}") from error
        elif line == "":
            code = self.process.wait(_GRACE_S)
            self.summary = records.read_whole(self._summary_path)
            if code != 0 or self.summary is None:
                lines = self._own_log_path.read_text(errors="replace").splitlines()
                end = lines[-1][:300] if lines else "(empty)"
                raise LoadError(f"{self._name} ended with code {code}; the end of {self._log_path}: {end}")
        elif time.monotonic() - self._heard_s > _SILENT_S:
            raise LoadError(f"{self._name} said nothing for {_SILENT_S:.0f} s; see {self._log_path}")


def _started(job: LoadJob, state_dir: Path, log_path: Path, stack: ExitStack) -> list[_Worker]:
    job_path = Path(job.directory, "job.json")
    job_path.write_bytes(msgspec.json.encode(job))
    # -P: a user's folder with the name of one of our packages must not be imported instead.
    command = [sys.executable, "-P", "-m", "serving_bench.harness.load.worker", str(job_path)]
    workers: list[_Worker] = []
    for number in range(job.load.workers):
        running = supervised(
            [*command, "--board", str(job_path.with_name("load.board")), "--worker", str(number)],
            label=f"load of cell {job.cell}",
            state_dir=state_dir,
            log_path=records.of_worker(log_path, number),
            grace_s=_GRACE_S,
            pass_stdout=True,
        )
        try:
            process = stack.enter_context(running)
        except OSError as error:
            raise LoadError(f"the load process cannot be started: {error}") from error
        workers.append(_Worker(job, number, process, log_path))
    stack.callback(_end, workers)
    return workers


def _end(workers: Sequence[_Worker]) -> None:
    for worker in workers:
        if worker.process.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(worker.process.pid, signal.SIGTERM)


def _follow(workers: Sequence[_Worker], job: LoadJob, board: Board) -> Iterator[Progress | None]:
    limit_s = longest_s(job.load, job.steps_to_first) + job.load.timeout_s + _SLACK_S
    began_s = time.monotonic()
    while running := [worker for worker in workers if worker.summary is None]:
        for worker in running:
            worker.hear()
            if worker.summary and worker.summary.ended_by == "interrupted":
                _end(workers)  # somebody sent it a signal: the other workers are not the whole load
        has_news = all(worker.has_news for worker in running)
        yield _progress(workers) if has_news and board.start_ns else None
        if has_news:
            if not board.start_ns:
                users = (job.load.concurrency or 0) / len(workers)
                board.start_ns = time.monotonic_ns() + int((_LEAD_S + users * _LEAD_PER_USER_S) * 1e9)
            for worker in workers:
                worker.has_news = False
        if time.monotonic() - began_s > limit_s:
            raise LoadError(f"the load did not end within {limit_s:.0f} s; see its log, load.log")


def _progress(workers: Sequence[_Worker]) -> Progress:
    pulses = [(worker.pulse, worker.summary is None) for worker in workers if worker.pulse]
    running = [pulse for pulse, is_running in pulses if is_running]
    return together(running, [pulse for pulse, is_running in pulses if not is_running])
