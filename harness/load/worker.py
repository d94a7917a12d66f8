"""The load process: `python -m harness.load.worker JOB.json` plays one cell's load and records it.

Rows and summary go to the files that the job names, one JSON line of progress per second to stdout, and
nothing else; what Locust, scenarios and we have to say goes to stderr. SIGINT and SIGTERM end it at once,
with what there is, and exit code 0. Knows no server process and no plan.
"""

from __future__ import annotations

import gc
import logging
import os
import resource
import select
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gevent
import msgspec
import orjson

from harness.contracts import Engine, Load, LoadJob, LoadSummary, Scenario
from harness.errors import BenchError, LoadError
from harness.load.client import Endpoint, endpoint
from harness.load.lag import GcPauses, LagHistogram, gc_pauses, loop_lag
from harness.load.receive import Receiver
from harness.load.traffic import Traffic

# How long a user may take to write its row and end, once its request has.
LAST_ROW_S = 5.0


def run_job(job: LoadJob, scenario: Scenario, engine: Engine, progress_fd: int) -> LoadSummary:
    """Play a job's load, blocking until its last request has ended, and write its rows and summary.

    A request of the window may run to its own timeout. Progress goes to the descriptor `progress_fd`.
    Raises what the scenario raises, UserError among it; the rows so far are written then too.
    """
    target = endpoint(job.base_url, os.environ.get(job.api_key_env))
    with open(job.rows_path, "ab", buffering=0) as rows, Receiver() as receiver:
        traffic = Traffic(job, scenario, engine, rows.write)
        with interrupts(traffic):
            runner = _runner(traffic, target, receiver)
            gc.collect()
            gc.freeze()
            with gc_pauses() as pauses, loop_lag() as lag:
                started_ns = _play(traffic, runner, receiver, progress_fd)
            summary = _summary(traffic, receiver, lag, pauses, started_ns)
    if traffic.failure:
        raise traffic.failure
    _write_whole(Path(job.summary_path), msgspec.json.encode(summary))
    return summary


@contextmanager
def interrupts(traffic: Traffic) -> Iterator[None]:
    """SIGINT and SIGTERM interrupt the traffic while the block runs."""
    handlers = [
        gevent.signal_handler(number, traffic.interrupt) for number in (signal.SIGINT, signal.SIGTERM)
    ]
    try:
        yield
    finally:
        for handler in handlers:
            handler.cancel()


def _play(traffic: Traffic, runner: Any, receiver: Receiver, progress_fd: int) -> int:
    """Run Locust's users over warm-up, window and drain; the instant at which they started."""
    load = traffic.job.load
    started_ns = time.monotonic_ns()
    traffic.window_start_ns = started_ns + int(load.warmup_s * 1e9)
    runner.start(load.concurrency, spawn_rate=load.concurrency)
    progress = gevent.spawn(_report_progress, traffic, receiver, started_ns, progress_fd)
    try:
        traffic.wait_until(started_ns + int((load.warmup_s + load.duration_s) * 1e9))
        traffic.close("duration")
        gevent.joinall(traffic.users, timeout=drain_limit_s(load))
        traffic.cancel()
        gevent.joinall(traffic.users, timeout=LAST_ROW_S)
    finally:
        progress.kill()
        runner.quit()
    return started_ns


def drain_limit_s(load: Load) -> float:
    """Seconds after the window within which each request has ended by itself, by its timeout if need be.

    Ending it earlier would make a slow answer look like a failure of the server's.
    """
    return load.timeout_s + LAST_ROW_S


def _runner(traffic: Traffic, target: Endpoint, receiver: Receiver) -> Any:
    # Our client is gevent's by construction; patching the standard library would only cost time.
    os.environ["LOCUST_SKIP_MONKEY_PATCH"] = "1"
    from locust.env import Environment

    from harness.load.users import user_class

    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(name)s: %(message)s")
    environment = Environment(user_classes=[user_class(traffic, target, receiver)])
    return environment.create_local_runner()


def _report_progress(traffic: Traffic, receiver: Receiver, started_ns: int, progress_fd: int) -> None:
    window_ns = started_ns + int(traffic.job.load.warmup_s * 1e9)
    while True:
        gevent.sleep(1)
        receiver.clock.refresh()
        now_ns = time.monotonic_ns()
        phase = "drain" if traffic.closed.is_set() else "window" if now_ns >= window_ns else "warmup"
        line = {
            "t_s": round((now_ns - started_ns) / 1e9, 1),
            "requests": traffic.ok,
            "failed": traffic.failed,
            "in_flight": traffic.in_flight,
            "phase": phase,
        }
        try:
            _write_unless_full(progress_fd, orjson.dumps(line) + b"\n")
        except OSError:
            # Nobody reads any more: who started this process is gone.
            traffic.interrupt()
            return


def _write_unless_full(descriptor: int, line: bytes) -> None:
    """Drop the line rather than hold up every stream while nobody reads."""
    if select.select([], [descriptor], [], 0)[1]:
        os.write(descriptor, line)


def _summary(
    traffic: Traffic, receiver: Receiver, lag: LagHistogram, pauses: GcPauses, started_ns: int
) -> LoadSummary:
    load = traffic.job.load
    window_start_ns = started_ns + int(load.warmup_s * 1e9)
    window_end_ns = window_start_ns + int(load.duration_s * 1e9)
    if traffic.ended_by != "duration" and traffic.closed_ns is not None:
        # Ended within the warm-up, the window is empty, not negative.
        window_end_ns = max(traffic.closed_ns, window_start_ns)
    is_kernel = receiver.stamp_source == "kernel"
    return LoadSummary(
        started_ns=started_ns,
        window_start_ns=window_start_ns,
        window_end_ns=window_end_ns,
        ended_ns=time.monotonic_ns(),
        ended_by=traffic.ended_by or "interrupted",
        users=load.concurrency,
        conversations_begun=traffic.conversations_begun,
        requests=traffic.ok + traffic.failed,
        stamp_source=receiver.stamp_source,
        clock_uncertainty_ns=receiver.clock.uncertainty_ns if is_kernel else None,
        stamp_lag_s=receiver.lag.summary_s() if is_kernel else None,
        loop_lag_s=lag.summary_s(),
        cpu_s=time.process_time(),
        gc_pause_s=pauses.total_s,
    )


def _write_whole(path: Path, data: bytes) -> None:
    """Write a file that is either complete or absent."""
    partial = path.with_name(path.name + ".partial")
    with open(partial, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def _raise_file_limit() -> None:
    """Each user has a socket: take as many descriptors as the system gives."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError) as error:  # macOS refuses an unlimited one
        logging.getLogger(__name__).info("file descriptors stay as they are: %s", error)


def take_stdout() -> int:
    """A descriptor of this process's stdout; from now on, whoever else prints writes to stderr."""
    # Our reader takes each line for JSON, and a print in a scenario or a library must not end the cell.
    # Not undone at the end: what is printed on the way out must not come between either.
    sys.stdout.flush()
    descriptor = os.dup(1)
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    return descriptor


def main(argv: list[str]) -> int:
    """Run the job in the file argv[1]; the exit code. A BenchError is one line on stderr. Takes stdout."""
    progress_fd = take_stdout()
    from engines import ENGINES
    from scenarios import SCENARIOS

    _raise_file_limit()
    try:
        job = msgspec.json.decode(Path(argv[1]).read_bytes(), type=LoadJob)
        if job.scenario not in SCENARIOS or job.engine not in ENGINES:
            raise LoadError(f"no scenario {job.scenario} or no engine {job.engine} in this version")
        run_job(job, SCENARIOS[job.scenario], ENGINES[job.engine], progress_fd)
    except BenchError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
