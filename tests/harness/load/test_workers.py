"""Several load processes: what they share, and what is kept when one of them is gone."""

import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import msgspec
import psutil
import pytest
from load_process import LIMIT_S, MS, USAGE, answering, half, id_in, ids_of, rows_of, shared_job
from timeline_server import Link, answer, serving, wait_until_ns
from waiting import is_running, wait_until

from serving_bench.harness.contracts import BegunRow, Load, LoadJob, LoadSummary
from serving_bench.harness.errors import LoadError, ServerError
from serving_bench.harness.load.processes import running_load
from serving_bench.harness.load.pulse import Progress
from serving_bench.harness.load.records import of_worker, read_summary


def play(
    job: LoadJob,
    check: Callable[[], None] = lambda: None,
    hear: Callable[[Progress], None] = lambda progress: None,
) -> LoadSummary:
    with running_load(job, Path(job.directory, "running")) as pulses:
        for pulse in pulses:
            check()
            if pulse:
                hear(pulse)
    summary = read_summary(job)
    assert summary
    return summary


def workers() -> list[psutil.Process]:
    """The load processes that this test started, in the order of their numbers."""
    found = []
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            if "serving_bench.harness.load.worker" in (line := child.cmdline())[1:4]:
                found.append((line[line.index("--worker") + 1], child))
    return [child for _, child in sorted(found, key=lambda pair: pair[0])]


def test_all_workers_rows_come_back_whole(tmp_path: Path) -> None:
    load = Load(concurrency=4, workers=2, warmup_s=0.2, duration_s=1.5)
    heard: list[Progress] = []
    with serving(answering(answer("Hel", "lo", **USAGE), delay_ns=5 * MS)) as server:
        job = shared_job(server, tmp_path, load)
        summary = play(job, hear=heard.append)
    rows = rows_of(job)
    assert sorted(row.request_id for row in rows) == sorted(ids_of(server))
    assert len({row.request_id for row in rows}) == len(rows) == summary.requests > 20
    assert {row.outcome for row in rows} == {"ok"}
    per_worker = Counter(row.worker for row in rows)
    assert [(w.number, w.requests) for w in summary.workers] == [(0, per_worker[0]), (1, per_worker[1])]
    assert len({w.pid for w in summary.workers}) == 2
    assert {row.user for row in rows if row.worker == 0}.isdisjoint(r.user for r in rows if r.worker == 1)
    assert (summary.ended_by, summary.users) == ("duration", 4)
    assert summary.window_end_ns - summary.started_ns == 1700 * MS
    assert heard[-1].requests > 0
    assert heard[-1].recent
    assert heard[-1].recent.requests == heard[-1].requests, "of both workers"
    begun = [msgspec.json.decode(line, type=BegunRow) for line in job.begun_path.read_bytes().splitlines()]
    assert sorted(row.request_id for row in begun) == sorted(row.request_id for row in rows)


@pytest.mark.alone
def test_workers_begin_at_one_instant(tmp_path: Path) -> None:
    load = Load(concurrency=2, workers=2, warmup_s=0.0, duration_s=0.5)
    with serving(answering(answer("a", **USAGE))) as server:
        job = shared_job(server, tmp_path, load)
        summary = play(job)
    rows = rows_of(job)
    firsts = [min(row.scheduled_ns for row in rows if row.worker == number) for number in (0, 1)]
    assert min(firsts) == summary.started_ns == summary.window_start_ns
    assert all(first - summary.started_ns < 20 * MS for first in firsts)


def test_a_killed_worker_ends_all_and_fails_the_load(tmp_path: Path) -> None:
    load = Load(concurrency=4, workers=2, warmup_s=0.0, duration_s=60.0)
    with serving(half) as server:
        job = shared_job(server, tmp_path, load)

        def kill_the_second_once_all_have_begun() -> None:
            if len(ids_of(server)) == 8:
                workers()[-1].kill()

        with pytest.raises(LoadError, match=r"^load worker 1 ended with code -9; the end of .*/load\.log: "):
            play(job, kill_the_second_once_all_have_begun)
        rows = rows_of(job)
        assert sorted(row.request_id for row in rows) == sorted(ids_of(server))
    ended = Counter((row.worker, row.outcome) for row in rows)
    assert ended == {(0, "ok"): 2, (0, "cancelled"): 2, (1, "ok"): 2, (1, "lost"): 2}
    assert {row.error for row in rows if row.outcome == "lost"} == {"load worker 1 was lost"}
    assert read_summary(job) is None


def test_a_check_that_raises_ends_all_with_what_there_is(tmp_path: Path) -> None:
    load = Load(concurrency=4, workers=2, warmup_s=0.0, duration_s=60.0)
    with serving(half) as server:
        job = shared_job(server, tmp_path, load)

        def check() -> None:
            if len(ids_of(server)) == 8:
                raise ServerError("the server died")

        with pytest.raises(ServerError, match="the server died"):
            play(job, check)
    assert Counter(row.outcome for row in rows_of(job)) == {"ok": 4, "cancelled": 4}
    summary = read_summary(job)
    assert summary
    assert (summary.ended_by, summary.requests) == ("interrupted", 8)


def test_a_worker_that_a_signal_ends_ends_the_others(tmp_path: Path) -> None:
    load = Load(concurrency=4, workers=2, warmup_s=0.0, duration_s=60.0)
    with serving(half) as server:
        job = shared_job(server, tmp_path, load)
        began_s = time.monotonic()

        def end_the_first() -> None:
            if len(ids_of(server)) == 8 and len(running := workers()) == 2:
                running[0].terminate()

        summary = play(job, end_the_first)
    assert summary.ended_by == "interrupted"
    assert time.monotonic() - began_s < 50  # of 60


def test_workers_end_with_a_bench_that_is_killed(tmp_path: Path) -> None:
    load = Load(concurrency=2, workers=2, warmup_s=0.0, duration_s=60.0)
    with serving(half) as server:
        job = shared_job(server, tmp_path, load)
        pid = os.fork()
        if pid == 0:
            play(job)
            os._exit(0)
        try:
            wait_until(lambda: len(ids_of(server)) == 4, LIMIT_S)
            found = [child.pid for child in workers()]
        finally:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        wait_until(lambda: not any(is_running(each) for each in found), LIMIT_S)
    assert len(found) == 2


def test_a_mistake_in_the_scenario_is_the_reason(tmp_path: Path) -> None:
    load = Load(concurrency=2, workers=2, warmup_s=0.0, duration_s=60.0)
    options = {"path": str(tmp_path / "nowhere.jsonl")}
    with serving(half) as server:
        job = shared_job(server, tmp_path, load, scenario="file", scenario_options=options)
        with pytest.raises(LoadError) as caught:
            play(job)
    assert f"load.log: scenario.path={options['path']}: " in str(caught.value)
    assert "\n" not in str(caught.value)
    assert ids_of(server) == []


def test_too_many_failures_of_one_worker_end_the_load_of_all(tmp_path: Path) -> None:
    load = Load(concurrency=20, workers=2, warmup_s=0.0, duration_s=60.0, max_failed_share=0.5)

    def fail_for_the_second(link: Link) -> None:
        """Worker 1 plays the conversations of odd numbers."""
        while link.request() is not None:
            wait_until_ns(time.monotonic_ns() + 20 * MS)
            is_odd = int(id_in(link.requests[-1][0]).split("-")[-1]) % 2
            link.send(b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n" if is_odd else answer("a", **USAGE))

    with serving(fail_for_the_second) as server:
        job = shared_job(server, tmp_path, load)
        summary = play(job)
    rows = rows_of(job)
    assert {row.worker for row in rows if row.outcome == "http_error"} == {1}
    assert {row.outcome for row in rows if row.worker == 0} == {"ok"}
    assert summary.ended_by == "failures"
    assert summary.window_end_ns < summary.started_ns + 55_000 * MS


def test_only_what_a_cell_keeps_is_left(tmp_path: Path) -> None:
    load = Load(concurrency=2, workers=2, warmup_s=0.0, duration_s=0.5)
    with serving(answering(answer("a", **USAGE), delay_ns=5 * MS)) as server:
        job = shared_job(server, tmp_path, load)
        play(job)
    left = {path.name for path in tmp_path.iterdir() if path.is_file()}
    assert left == {"job.json", "load.log", "rows.jsonl", "begun.jsonl", "summary.json", "summary.json.1"}
    assert of_worker(job.summary_path, 1).is_file()
