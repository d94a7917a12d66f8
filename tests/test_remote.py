"""Workers that people start, on this machine as if on others: clocks, versions, keys, noise on the port."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
import zmq
from load_process import (
    LIMIT_S,
    MASTER,
    MS,
    REAL,
    ROOT,
    USAGE,
    answering,
    half,
    id_in,
    ids_of,
    job_of,
    rows_of,
    summary_of,
    working,
)
from timeline_server import Link, Server, answer, serving
from waiting import is_running, wait_until

from harness.contracts import Load, LoadJob, LoadSummary, RequestRow
from harness.server import free_port

MASTER_OF_TINY = (str(ROOT / "tests" / "tiny_master.py"),)
OTHER = str(ROOT / "tests" / "tiny_remote.py")
BENCH = [sys.executable, "-P", "-m", "harness", "worker"]
ANOTHER_BOOT = {"TINY_BOOT_ID": "another"}


@contextmanager
def started(*command: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, "TEST_KEY": "", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@contextmanager
def other_worker(
    bind: str, before: tuple[str, ...] = (), **environment: str
) -> Iterator[subprocess.Popen[str]]:
    command = (*before, sys.executable, OTHER, bind, "--api-key-env", "TEST_KEY")
    with started(*command, **environment) as process:
        yield process


def free_address() -> str:
    return f"127.0.0.1:{free_port('127.0.0.1')}"


def bound_job(server: Server, folder: Path, bind: str, **changes: Any) -> LoadJob:
    fields = {"concurrency": 2, "workers": 1, "warmup_s": 0.0, "duration_s": 0.5} | changes.pop("load", {})
    return job_of(server, folder, Load(bind=bind, **fields), **changes)


def with_workers(
    job: LoadJob, *environments: dict[str, str], before: tuple[str, ...] = ()
) -> tuple[list[RequestRow], LoadSummary]:
    """Play a job with other machines' workers to its good end; `before`: of the first one's command."""
    assert job.load.bind
    with ExitStack() as stack:
        master = stack.enter_context(working(job, MASTER_OF_TINY))
        workers = [
            stack.enter_context(other_worker(job.load.bind, () if number else before, **each))
            for number, each in enumerate(environments)
        ]
        _, logged = master.communicate(timeout=LIMIT_S)
        assert master.returncode == 0, logged
        for worker in workers:
            _, logged = worker.communicate(timeout=LIMIT_S)
            assert worker.returncode == 0, logged
    return rows_of(job), summary_of(job)


def arrivals_into(arrived: dict[str, int]) -> Any:
    """A server that notes on our clock when it got each request."""

    def play(link: Link) -> None:
        while link.request() is not None:
            now_ns = time.monotonic_ns()
            arrived[id_in(link.requests[-1][0])] = now_ns
            link.send(answer("Hel", "lo", **USAGE))

    return play


def shifted(shift_s: int) -> tuple[str, ...]:
    """The start of a command whose CLOCK_MONOTONIC is another: Linux time namespaces."""
    return ("unshare", "--user", "--map-root-user", "--time", "--monotonic", str(shift_s), "--fork",
            "--kill-child")  # fmt: skip


def can_shift() -> bool:
    if not shutil.which("unshare"):
        return False
    return subprocess.run([*shifted(5), "true"], check=False, capture_output=True).returncode == 0


@pytest.mark.skipif(not can_shift(), reason="needs time namespaces: unshare --time")
@pytest.mark.parametrize(("shift_s", "other"), [(3600, {}), (-5, ANOTHER_BOOT)])
def test_a_worker_with_another_clock_is_mapped_onto_ours(
    tmp_path: Path, shift_s: int, other: dict[str, str]
) -> None:
    arrived: dict[str, int] = {}
    shift_ns = shift_s * 1_000_000_000
    began_ns = time.monotonic_ns()
    with serving(arrivals_into(arrived)) as server:
        job = bound_job(server, tmp_path, free_address(), load={"workers": 2})
        rows, summary = with_workers(job, other, {}, before=shifted(shift_s))
    ended_ns = time.monotonic_ns()
    here, there = sorted(summary.workers, key=lambda worker: abs(worker.offset_ns))
    assert (here.offset_ns, here.offset_uncertainty_ns) == (0, 0)
    assert abs(there.offset_ns + shift_ns) <= there.offset_uncertainty_ns < 100 * MS
    assert there.offset_uncertainty_ns > 0
    assert sorted(row.request_id for row in rows) == sorted(arrived)
    mapped = [row for row in rows if row.worker == there.number]
    assert len(mapped) > 2
    for row in mapped:
        assert row.sent_ns is not None
        assert row.first_content_ns is not None
        assert row.sent_ns <= arrived[row.request_id] + there.offset_uncertainty_ns
        assert arrived[row.request_id] <= row.first_content_ns + there.offset_uncertainty_ns
        assert row.scheduled_ns <= row.sent_ns <= row.first_content_ns <= row.end_ns
    for instant_ns in (summary.started_ns, summary.window_start_ns, summary.window_end_ns, summary.ended_ns):
        assert began_ns < instant_ns < ended_ns
    assert summary.window_end_ns - summary.started_ns == 500 * MS
    firsts = [min(row.scheduled_ns for row in rows if row.worker == number) for number in (0, 1)]
    assert abs(firsts[0] - firsts[1]) < 20 * MS


def test_a_clock_that_is_the_same_is_found_to_be_so_by_measuring(tmp_path: Path) -> None:
    with serving(answering(answer("a", **USAGE), delay_ns=5 * MS)) as server:
        _, summary = with_workers(bound_job(server, tmp_path, free_address()), ANOTHER_BOOT)
    (worker,) = summary.workers
    assert abs(worker.offset_ns) <= worker.offset_uncertainty_ns
    assert worker.offset_uncertainty_ns > 0


def test_the_worker_reads_the_key_from_its_own_environment(tmp_path: Path) -> None:
    with serving(answering(answer("a", **USAGE), delay_ns=5 * MS)) as server:
        job = bound_job(server, tmp_path, free_address())
        with_workers(job, {"TEST_KEY": "sk-secret-51"})
        heads = [head for link in server.links for head, _ in link.requests]
    assert all(b"Authorization: Bearer sk-secret-51" in head for head in heads)
    assert not [path for path in tmp_path.rglob("*") if b"sk-secret" in path.read_bytes()]


def test_no_master_can_ask_for_another_variable_than_the_user_named(tmp_path: Path) -> None:
    bind = free_address()
    with serving(answering(answer("a", **USAGE))) as server:
        job = bound_job(server, tmp_path, bind, api_key_env="HOME")
        with working(job, MASTER_OF_TINY) as master, other_worker(bind) as worker:
            _, logged = master.communicate(timeout=LIMIT_S)
            told, _ = worker.communicate(timeout=LIMIT_S)
    assert (master.returncode, worker.returncode) == (2, 2)
    line = "the run reads its API key from HOME, this worker from TEST_KEY; start it with --api-key-env HOME"
    assert line in told.splitlines()
    assert logged.splitlines()[-1].endswith(line)
    assert server.links == []


def test_a_worker_that_may_not_open_its_share_of_connections_says_so_before_the_load(tmp_path: Path) -> None:
    bind = free_address()
    few = ("sh", "-c", 'ulimit -n 90; exec "$@"', "sh")
    with serving(answering(answer("a", **USAGE))) as server:
        job = bound_job(server, tmp_path, bind, load={"concurrency": 100})
        with working(job, MASTER_OF_TINY) as master, other_worker(bind, few) as worker:
            _, logged = master.communicate(timeout=LIMIT_S)
            told, _ = worker.communicate(timeout=LIMIT_S)
    assert (master.returncode, worker.returncode) == (2, 2)
    line = next(line for line in told.splitlines() if "open files" in line)
    assert line.startswith(
        "load.concurrency=100: one process needs 164 open files, and this system allows 90"
    )
    assert "load.concurrency=26 or less" in line
    assert logged.splitlines()[-1].endswith(line)
    assert server.links == []


def test_another_version_of_bench_is_refused_on_both_sides(tmp_path: Path) -> None:
    bind = free_address()
    with serving(answering(answer("a", **USAGE), delay_ns=5 * MS)) as server:
        job = bound_job(server, tmp_path, bind)
        with working(job, MASTER_OF_TINY) as master:
            with other_worker(bind, TINY_VERSION="0.0.7") as old:
                told, _ = old.communicate(timeout=LIMIT_S)
            with other_worker(bind):
                _, logged = master.communicate(timeout=LIMIT_S)
    assert old.returncode == 4
    assert "has bench 0.0.7, the run has" in told
    assert "a worker is refused" in logged
    assert master.returncode == 0
    assert summary_of(job).requests > 0


def test_noise_on_the_port_is_a_line_in_the_log(tmp_path: Path) -> None:
    bind = free_address()
    context = zmq.Context()
    noise = context.socket(zmq.DEALER)
    noise.setsockopt(zmq.IDENTITY, b"stranger")
    noise.connect(f"tcp://{bind}")
    try:
        with serving(answering(answer("a", **USAGE), delay_ns=5 * MS)) as server:
            job = bound_job(server, tmp_path, bind)
            with working(job, MASTER_OF_TINY) as master:
                for message in (b"", b"\xc1\xff", b"\x93\xa9heartbeat\xc0\xa1x", b"\x01", b"\x91\x90"):
                    noise.send(message)
                noise.send_multipart([b"a", b"b", b"c"])
                noise.send(b"\x93\xabbench_hello\x81\xa7version\x05\xa1x")  # a hello whose version is 5
                with other_worker(bind):
                    _, logged = master.communicate(timeout=LIMIT_S)
    finally:
        noise.close(linger=0)
        context.term()
    assert master.returncode == 0, logged
    assert summary_of(job).requests == len(rows_of(job)) > 0
    assert logged.count("a message that is none of ours is left out") >= 4
    assert "a message of x is left out: Hello" in logged


def test_the_others_go_on_where_a_worker_is_interrupted(tmp_path: Path) -> None:
    bind = free_address()
    load = {"workers": 2, "duration_s": 3.0, "timeout_s": 1.0}
    with serving(half) as server:
        job = bound_job(server, tmp_path, bind, load=load)
        with working(job, MASTER_OF_TINY) as master, other_worker(bind) as one, other_worker(bind) as two:
            wait_until(lambda: len(ids_of(server)) == 4, LIMIT_S)
            one.send_signal(signal.SIGINT)
            _, logged = master.communicate(timeout=LIMIT_S)
            codes = [process.wait(LIMIT_S) for process in (one, two)]
    assert master.returncode == 0, logged
    assert codes == [130, 0]
    summary = summary_of(job)
    assert summary.ended_by == "duration"
    (left,) = [worker for worker in summary.workers if worker.lost_ns is not None]
    rows = rows_of(job)
    assert sorted(row.outcome for row in rows if row.worker == left.number) == ["cancelled", "ok"]
    sent = [row.sent_ns for row in rows if row.worker != left.number and row.sent_ns]
    assert max(sent) > left.lost_ns


def has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


@pytest.mark.skipif(not has_ipv6(), reason="needs ::1")
def test_an_ipv6_address_works_too(tmp_path: Path) -> None:
    bind = f"[::1]:{free_port('127.0.0.1')}"
    with serving(answering(answer("a", **USAGE), delay_ns=5 * MS)) as server:
        rows, _ = with_workers(bound_job(server, tmp_path, bind), {})
    assert {row.outcome for row in rows} == {"ok"}


def test_a_master_that_gives_up_waiting_lets_its_workers_go_at_once(tmp_path: Path) -> None:
    bind = free_address()
    with serving(half) as server:
        job = bound_job(server, tmp_path, bind, load={"workers": 2})
        with working(job, MASTER_OF_TINY) as master, other_worker(bind) as worker:
            assert master.stdout
            next(line for line in master.stdout if "1 of 2 are there" in line)
            master.send_signal(signal.SIGTERM)
            _, logged = master.communicate(timeout=LIMIT_S)
            began_s = time.monotonic()
            worker.wait(timeout=LIMIT_S)
    assert (master.returncode, worker.returncode) == (130, 3)
    assert logged.splitlines()[-1] == "interrupted before the load began"
    assert time.monotonic() - began_s < 8  # it would notice by itself after 10 s


def test_a_port_that_is_taken_is_one_line(tmp_path: Path) -> None:
    with serving(half) as server:
        taken = f"127.0.0.1:{server.port}"
        with working(bound_job(server, tmp_path, taken), MASTER_OF_TINY) as master:
            _, logged = master.communicate(timeout=LIMIT_S)
    assert master.returncode == 1
    assert logged.splitlines()[-1].startswith(f"load.bind={taken}: Address already in use")


# --- bench worker --------------------------------------------------------------------------------


def test_bench_worker_plays_cell_after_cell_until_interrupted(tmp_path: Path) -> None:
    bind = free_address()
    with (
        started(*BENCH, "--master", bind, "--api-key-env", "TEST_KEY") as bench,
        serving(answering(answer("a", **USAGE), delay_ns=5 * MS)) as server,
    ):
        for name in ("one", "two"):
            (tmp_path / name).mkdir()
            job = bound_job(server, tmp_path / name, bind, cell=name, **REAL)
            with working(job, MASTER) as master:
                _, logged = master.communicate(timeout=LIMIT_S)
            assert master.returncode == 0, logged
            assert summary_of(job).requests == len(rows_of(job)) > 2
        bench.send_signal(signal.SIGINT)
        told, errors = bench.communicate(timeout=LIMIT_S)
    assert bench.returncode == 130
    assert errors.splitlines() == ["interrupted"]
    lines = told.splitlines()
    assert lines.index("cell one: load worker 1 of 1, 2 users") < lines.index(
        "cell two: load worker 1 of 1, 2 users"
    )


def test_bench_worker_once_ends_after_a_cell_that_failed_here(tmp_path: Path) -> None:
    bind = free_address()
    path = str(tmp_path / "nowhere.jsonl")
    with serving(half) as server:
        changes: dict[str, Any] = REAL | {"scenario": "file", "scenario_options": {"path": path}}
        job = bound_job(server, tmp_path, bind, **changes)
        command = (*BENCH, "--once", "--master", bind, "--api-key-env", "TEST_KEY")
        with working(job, MASTER) as master, started(*command) as bench:
            _, logged = master.communicate(timeout=LIMIT_S)
            told, _ = bench.communicate(timeout=LIMIT_S)
    assert (master.returncode, bench.returncode) == (2, 2)
    assert f"scenario.path={path}: " in told.splitlines()[-1]
    assert f": scenario.path={path}: " in logged.splitlines()[-1]


def test_bench_worker_leaves_no_process_when_it_is_killed() -> None:
    bind = free_address()
    with started(*BENCH, "--master", bind) as bench:
        assert bench.stdout
        assert bench.stdout.readline() == f"waiting for a run at {bind}\n"
        children = psutil.Process(bench.pid).children(recursive=True)
        assert any("harness.load.remote" in child.cmdline() for child in children)
        bench.kill()
        wait_until(lambda: not any(is_running(child.pid) for child in children), LIMIT_S)
