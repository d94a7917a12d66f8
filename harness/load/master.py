"""The load process of several workers: `python -m harness.load.master JOB.json`.

For whoever starts it, it is a load process like worker.py: progress on stdout, rows and summary in the job's
files, SIGINT and SIGTERM end it with what there is. It plays nothing itself: it starts load.workers worker
processes, or with load.bind awaits those that people start, lets them begin at one instant, puts what they
say onto its own clock, and notices who is lost.
"""

from __future__ import annotations

import importlib.metadata
import logging
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from harness.contracts import LoadJob, LoadSummary
from harness.errors import LoadError
from harness.load import signals
from harness.load.address import Address, parse_address
from harness.load.messages import FROM_WORKER
from harness.load.process import carry_out, prepare_locust, say, write_whole
from harness.load.worker import read_job

# How long a worker process may take to exit when it has been let go.
_LEAVE_S = 5.0
_LOOPBACK = "127.0.0.1"
_log = logging.getLogger(__name__)


@contextmanager
def _children(job: LoadJob, address: Address) -> Iterator[dict[int, subprocess.Popen[bytes]]]:
    """The worker processes by number; none with load.bind. What is left of them at the end is killed."""
    count = 0 if job.load.bind else job.load.workers
    command = [sys.executable, "-P", "-m", "harness.load.remote", str(address)]
    command += ["--api-key-env", job.api_key_env, "--parent", str(os.getpid())]
    children: dict[int, subprocess.Popen[bytes]] = {}
    try:
        for number in range(count):
            children[number] = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=2)
        yield children
        _join(children.values())
    finally:
        for child in children.values():
            if child.poll() is None:
                child.kill()
                child.wait()


def _join(children: Iterable[subprocess.Popen[bytes]]) -> None:
    deadline_s = time.monotonic() + _LEAVE_S
    for child in children:
        try:
            child.wait(max(0.0, deadline_s - time.monotonic()))
        except subprocess.TimeoutExpired:
            _log.error("a load worker, process %d, did not end", child.pid)


def _own_address(job: LoadJob) -> Address:
    """Where to listen, as a number: ZeroMQ resolves no names there. Raises LoadError."""
    if job.load.bind is None:
        with socket.create_server((_LOOPBACK, 0)) as listener:
            return Address(_LOOPBACK, listener.getsockname()[1])
    wanted = parse_address("load.bind", job.load.bind)
    try:
        found = socket.getaddrinfo(wanted.host, wanted.port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise LoadError(f"load.bind={job.load.bind}: {error.strerror}") from error
    return Address(str(found[0][4][0]), wanted.port)


def run_crew(job: LoadJob, progress_fd: int) -> LoadSummary:
    """Have a job played by its workers, blocking until all have ended, and write rows and summary."""
    address = _own_address(job)
    with (
        open(job.rows_path, "ab", buffering=0) as rows,
        open(job.begun_path, "ab", buffering=0) as begun,
        # They import while this process does.
        _children(job, address) as children,
    ):
        from harness.load import runners
        from harness.load.chief import Chief
        from harness.load.crew import Crew
        from harness.load.traffic import Outlet

        try:
            runner = runners.make_master(address.host, address.port)
        except OSError as error:
            raise LoadError(f"load.bind={job.load.bind or address}: {error}") from error

        def send(node: str, message: Any) -> None:
            runners.send(runner, message, node)

        numbers = None if job.load.bind else {child.pid: number for number, child in children.items()}
        version = importlib.metadata.version("serving-bench")
        crew = Crew(job.load.workers, version, send, Outlet(begun.write, rows.write), numbers)
        chief = Chief(job, crew, send, lambda progress: say(progress_fd, progress), children)
        runners.hear(runner, FROM_WORKER, crew.hear)
        runner.environment.events.heartbeat_sent.add_listener(
            lambda client_id, **_: crew.heartbeat(client_id)
        )
        try:
            with signals.interrupts(chief.interrupt):
                summary = chief.lead()
        finally:
            chief.dismiss()
            runner.close()
    write_whole(Path(job.summary_path), msgspec.json.encode(summary))
    return summary


def main(argv: list[str]) -> int:
    """Run the job in the file argv[1]; the exit code."""

    def lead(progress_fd: int) -> None:
        prepare_locust()
        job, _, _ = read_job(Path(argv[1]))
        run_crew(job, progress_fd)

    return carry_out(lead)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
