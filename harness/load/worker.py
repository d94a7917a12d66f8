"""A load process: `python -m harness.load.worker JOB.json` plays one cell's load and records it.

With `--worker K --board FILE` it is one of several: it plays its share, and begins at the instant that its
parent writes on the board once all are ready. (An instant on the command line would have to be guessed: on a
busy machine the imports take from half a second to many.) It says on stdout when it is ready, and then once a
second how far it is, one JSON line of a Pulse each. All other words go to stderr. Rows and summary go to the
files that the job names. SIGINT and SIGTERM end it at once, with what there is and exit code 0. It must not
know the server's process or the plan.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from harness.contracts import Engine, LoadJob, LoadSummary, Scenario
from harness.errors import LoadError
from harness.load.board import Board
from harness.load.process import carry_out, interrupts, say
from harness.load.pulse import Pulse
from harness.load.records import of_worker
from harness.whole_files import write_whole

if TYPE_CHECKING:
    from harness.load.play.traffic import Traffic

# How often to look whether the parent has written the start. It is written some time ahead.
_LOOK_S = 0.005


def run_job(job: LoadJob, worker: int, board_path: Path | None, progress_fd: int) -> LoadSummary:
    """Play a worker's share of a job, block until its last request has ended, and write rows and summary.

    A request of the window may run to its own timeout. Progress goes to the descriptor `progress_fd`.
    Raises what the scenario raises, UserError among it; the rows so far are written then too.
    """
    # These take most of the start, in which signals must already be held.
    from harness.load.client.http import endpoint
    from harness.load.client.receive import Receiver
    from harness.load.play.play import local_runner, play
    from harness.load.play.traffic import Outlet, Traffic

    scenario, engine = parts_of(job)
    target = endpoint(job.base_url, os.environ.get(job.api_key_env))
    with (
        open(of_worker(job.rows_path, worker), "ab", buffering=0) as rows,
        open(of_worker(job.begun_path, worker), "ab", buffering=0) as begun,
        Board(board_path) as board,
        Receiver() as receiver,
    ):
        traffic = Traffic(job, scenario, engine, Outlet(begun.write, rows.write), board, worker)
        with interrupts(traffic.interrupt):
            runner = local_runner(traffic, target, receiver)
            with suppress(OSError):  # if nobody listens, the first pulse of the load finds out
                say(progress_fd, Pulse())
            start_ns = _awaited_start(traffic, board) if board_path else None
            summary = play(traffic, receiver, runner, lambda pulse: say(progress_fd, pulse), start_ns)
    write_whole(of_worker(job.summary_path, worker), msgspec.json.encode(summary))
    return summary


def _awaited_start(traffic: Traffic, board: Board) -> int:
    """Block until the parent has written the start instant, or a signal ended the load before it."""
    import gevent

    while board.start_ns is None and not traffic.closed.is_set():
        gevent.sleep(_LOOK_S)
    return board.start_ns or time.monotonic_ns()


def parts_of(job: LoadJob) -> tuple[Scenario, Engine]:
    """Return a job's scenario and engine. Raises LoadError if this version has none of that name."""
    from engines import ENGINES
    from scenarios import SCENARIOS

    if job.scenario not in SCENARIOS or job.engine not in ENGINES:
        raise LoadError(f"no scenario {job.scenario} or no engine {job.engine} in this version")
    return SCENARIOS[job.scenario], ENGINES[job.engine]


def main(argv: list[str]) -> int:
    """Play the job in the file argv[1]. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m harness.load.worker")
    parser.add_argument("job", type=Path)
    parser.add_argument("--worker", type=int, default=0)
    parser.add_argument("--board", type=Path)

    def work(progress_fd: int) -> None:
        options = parser.parse_args(argv[1:])
        job = msgspec.json.decode(options.job.read_bytes(), type=LoadJob)
        run_job(job, options.worker, options.board, progress_fd)

    return carry_out(work)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
