"""Plays one cell's load and records it: `python -m serving_bench.harness.load.worker JOB.json`.

With `--worker K --board FILE` it plays its share, and begins at the instant that its parent writes on the
board. It writes a JSON line to stdout when it is ready, then one a second with its progress; everything else
goes to stderr. SIGINT and SIGTERM end it at once: it writes what it has so far, and its exit code is 0.
"""

import argparse
import io
import logging
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from serving_bench.harness.contracts import LoadJob, masked_known
from serving_bench.harness.errors import BenchError, LoadError
from serving_bench.harness.load.limits import raise_file_limit
from serving_bench.harness.load.play.window import Board, shared_board
from serving_bench.harness.load.pulse import Progress
from serving_bench.harness.load.records import of_worker
from serving_bench.harness.whole_files import write_whole

if TYPE_CHECKING:
    from serving_bench.harness.load.play.traffic import Traffic

ENDING = (signal.SIGINT, signal.SIGTERM)
# How often to look whether the parent has written the start. It is written some time ahead.
_LOOK_S = 0.005


def main(argv: list[str]) -> int:
    """Play the job in the file argv[1]. Returns the exit code; a BenchError is one line on stderr."""
    # Signals stay pending until `_interrupts`, so that none is missed during the imports.
    signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
    progress_fd = _take_stdout()
    raise_file_limit()
    # Our client is gevent's by construction; patching the standard library would only cost time.
    os.environ["LOCUST_SKIP_MONKEY_PATCH"] = "1"
    parser = argparse.ArgumentParser(prog="python -m serving_bench.harness.load.worker")
    parser.add_argument("job", type=Path)
    parser.add_argument("--worker", type=int, default=0)
    parser.add_argument("--board", type=Path)
    options = parser.parse_args(argv[1:])
    try:
        job = msgspec.json.decode(options.job.read_bytes(), type=LoadJob)
        run_job(job, options.worker, options.board, progress_fd)
    except BenchError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


def run_job(job: LoadJob, worker: int, board_path: Path | None, progress_fd: int) -> None:
    """Play a worker's share of a job, block until its last request has ended, and write rows and summary."""
    # These imports take most of the start-up, and signals must be blocked before them.
    import gevent
    from locust.env import Environment

    from serving_bench.engines import ENGINES
    from serving_bench.harness.load.answer import APIS
    from serving_bench.harness.load.client.http import endpoint
    from serving_bench.harness.load.client.receive import Receiver
    from serving_bench.harness.load.play.play import play, report
    from serving_bench.harness.load.play.traffic import Traffic
    from serving_bench.harness.load.play.users import user_class
    from serving_bench.scenarios import SCENARIOS

    if job.scenario not in SCENARIOS or job.engine not in ENGINES:
        raise LoadError(f"no scenario {job.scenario} or no engine {job.engine} in this version")
    if (origin := SCENARIOS.origins.get(job.scenario)) != job.scenario_origin:
        raise LoadError(f"scenario {job.scenario} was {job.scenario_origin}, and is {origin} now")
    api = APIS[ENGINES[job.engine].api]
    key = os.environ.get(job.api_key_env)
    sys.stdout = sys.stderr = _Log(key)
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(name)s: %(message)s")
    target = endpoint(job.base_url, key, api, job.model)
    board = shared_board(board_path) if board_path else Board()
    with (
        open(of_worker(job.rows_path, worker), "ab", buffering=0) as rows,
        open(of_worker(job.begun_path, worker), "ab", buffering=0) as begun,
        Receiver() as receiver,
    ):
        traffic = Traffic(
            job,
            SCENARIOS[job.scenario],
            ENGINES[job.engine],
            begun=begun,
            rows=rows,
            board=board,
            worker=worker,
        )
        with _interrupts(traffic):
            runner = Environment(user_classes=[user_class(traffic, target, receiver)]).create_local_runner()
            with suppress(OSError):  # if nobody listens, the first pulse of the load finds out
                report(Progress(), progress_fd)
            while board_path and not board.start_ns and not traffic.closed.is_set():
                gevent.sleep(_LOOK_S)
            summary = play(traffic, receiver, runner, progress_fd, board.start_ns or None)
    write_whole(of_worker(job.summary_path, worker), msgspec.json.encode(summary))


class _Log(io.TextIOWrapper):
    """stderr without the key, which an error's text may repeat."""

    def __init__(self, key: str | None) -> None:
        super().__init__(sys.stderr.buffer, "utf-8", "backslashreplace", line_buffering=True)
        self._key = key

    def write(self, text: str) -> int:
        super().write(masked_known(text, [self._key]))
        return len(text)


def _take_stdout() -> int:
    """Return stdout's descriptor. From now on a print in a scenario or a library goes to stderr."""
    sys.stdout.flush()
    descriptor = os.dup(1)
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    return descriptor


@contextmanager
def _interrupts(traffic: "Traffic") -> Iterator[None]:
    """Let the signals of ENDING interrupt the traffic during the block."""
    import gevent

    handlers = [gevent.signal_handler(number, traffic.interrupt) for number in ENDING]
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
        for handler in handlers:
            handler.cancel()
        for number in ENDING:  # blocking is not enough: threads made meanwhile do not block them
            signal.signal(number, signal.SIG_IGN)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
