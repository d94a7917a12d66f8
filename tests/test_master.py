"""Several worker processes on one machine: what they share, and what is known when one is gone."""

from __future__ import annotations

import json
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import pytest
from load_process import (
    LIMIT_S,
    MASTER,
    MS,
    USAGE,
    answering,
    half,
    holds_signals,
    id_in,
    ids_of,
    played,
    rows_of,
    shared_job,
    summary_of,
    workers_of,
    working,
)
from timeline_server import Link, answer, serving, wait_until_ns
from waiting import is_running, wait_until

from harness.contracts import BegunRow, Load, LoadJob
from harness.errors import LoadError
from harness.load.chief import Chief
from harness.load.crew import Crew, worker_summary
from harness.load.messages import SILENT_S, Begun, Done, Failed, Hello, Refused, Rows
from harness.load.pulse import Progress
from harness.load.traffic import Outlet


def test_all_workers_rows_come_back_whole(tmp_path: Path) -> None:
    load = Load(concurrency=4, workers=2, warmup_s=0.2, duration_s=1.5)
    with serving(answering(answer("Hel", "lo", **USAGE), delay_ns=5 * MS)) as server:
        rows, summary, said = played(shared_job(server, tmp_path, load), program=MASTER)
    assert sorted(row.request_id for row in rows) == sorted(ids_of(server))
    assert len({row.request_id for row in rows}) == len(rows) == summary.requests > 20
    assert {row.outcome for row in rows} == {"ok"}
    per_worker = Counter(row.worker for row in rows)
    assert [(w.number, w.requests, w.lost_ns) for w in summary.workers] == [
        (0, per_worker[0], None),
        (1, per_worker[1], None),
    ]
    assert {(w.offset_ns, w.offset_uncertainty_ns) for w in summary.workers} == {(0, 0)}
    assert len({w.pid for w in summary.workers}) == 2
    assert {row.user for row in rows if row.worker == 0}.isdisjoint(r.user for r in rows if r.worker == 1)
    assert (summary.ended_by, summary.users) == ("duration", 4)
    assert summary.window_end_ns - summary.started_ns == 1700 * MS
    progress = [json.loads(line) for line in said.splitlines()]
    assert progress[-1]["requests"] > 0
    recent = progress[-1]["recent"]
    assert recent["requests"] == progress[-1]["requests"], "of both workers"
    assert recent["tokens_per_s"] == pytest.approx(2 * recent["requests"] / recent["length_s"], rel=0.2)
    assert 0.005 <= recent["ttft_p50_s"] <= recent["ttft_p95_s"] < 5
    begun = [
        msgspec.json.decode(line, type=BegunRow)
        for line in (tmp_path / "begun.jsonl").read_bytes().splitlines()
    ]
    assert sorted(row.request_id for row in begun) == sorted(row.request_id for row in rows)


@pytest.mark.alone
def test_workers_begin_at_one_instant(tmp_path: Path) -> None:
    load = Load(concurrency=2, workers=2, warmup_s=0.0, duration_s=0.5)
    with serving(answering(answer("a", **USAGE))) as server:
        rows, summary, _ = played(shared_job(server, tmp_path, load), program=MASTER)
    firsts = [min(row.scheduled_ns for row in rows if row.worker == number) for number in (0, 1)]
    assert min(firsts) == summary.started_ns == summary.window_start_ns
    assert all(first - summary.started_ns < 20 * MS for first in firsts)


def test_a_killed_worker_is_lost_with_what_it_had_begun(tmp_path: Path) -> None:
    load = Load(concurrency=4, workers=2, warmup_s=0.0, duration_s=1.5, timeout_s=2.0)
    with serving(half) as server:
        job = shared_job(server, tmp_path, load)
        with working(job, MASTER) as process:
            wait_until(lambda: len(ids_of(server)) == 8, LIMIT_S)
            # The master has heard that the second requests began.
            wait_until(lambda: len(Path(job.begun_path).read_bytes().splitlines()) == 8, LIMIT_S)
            wait_until(lambda: len(rows_of(job)) == 4, LIMIT_S)
            victim = workers_of(process.pid)[0]
            victim.kill()
            victim.wait(LIMIT_S)
            gone_ns = time.monotonic_ns()
            _, logged = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 0, logged
    rows, summary = rows_of(job), summary_of(job)
    (gone,) = [w for w in summary.workers if w.lost_ns is not None]
    (other,) = [w for w in summary.workers if w.lost_ns is None]
    assert gone.pid == victim.pid
    assert gone.lost_ns is not None
    # What it had sent may be heard after its death; it is not heard of for long.
    last_ns = max(row.scheduled_ns for row in rows if row.worker == gone.number)
    assert last_ns < gone.lost_ns < gone_ns + 5000 * MS
    lost = [row for row in rows if row.worker == gone.number and row.outcome == "lost"]
    assert [(row.error, row.end_ns) for row in lost] == [
        (f"load worker {gone.number} was lost", gone.lost_ns)
    ] * 2
    assert sorted(row.outcome for row in rows if row.worker == other.number) == [
        "ok",
        "ok",
        "timeout",
        "timeout",
    ]
    assert sorted(row.request_id for row in rows) == sorted(ids_of(server))
    assert (gone.requests, other.requests, summary.requests) == (4, 4, 8)
    assert summary.ended_by == "duration"
    assert f"load worker {gone.number} ({gone.host}) is lost: ended with code -9" in logged


def test_losing_all_workers_fails_the_load(tmp_path: Path) -> None:
    load = Load(concurrency=2, workers=2, warmup_s=0.0, duration_s=60.0)
    with serving(half) as server:
        job = shared_job(server, tmp_path, load)
        with working(job, MASTER) as process:
            wait_until(lambda: len(rows_of(job)) == 2 if Path(job.rows_path).exists() else False, LIMIT_S)
            for worker in workers_of(process.pid):
                worker.kill()
            _, logged = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 1
    assert logged.splitlines()[-1] == "all 2 load workers were lost"
    assert sorted(row.outcome for row in rows_of(job)) == ["lost", "lost", "ok", "ok"]


def test_workers_die_with_a_master_that_is_killed(tmp_path: Path) -> None:
    load = Load(concurrency=2, workers=2, warmup_s=0.0, duration_s=60.0)
    with serving(half) as server:
        job = shared_job(server, tmp_path, load)
        with working(job, MASTER) as process:
            wait_until(lambda: len(ids_of(server)) == 4, LIMIT_S)
            pids = [worker.pid for worker in workers_of(process.pid)]
            process.kill()
            wait_until(lambda: not any(is_running(pid) for pid in pids), LIMIT_S)
    assert len(pids) == 2


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_all_workers_with_what_there_is(tmp_path: Path, number: int) -> None:
    load = Load(concurrency=4, workers=2, warmup_s=0.0, duration_s=60.0)
    with serving(half) as server:
        job = shared_job(server, tmp_path, load)
        with working(job, MASTER) as process:
            wait_until(lambda: len(ids_of(server)) == 8, LIMIT_S)
            process.send_signal(number)
            began_s = time.monotonic()
            _, logged = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 0, logged
    assert time.monotonic() - began_s < 15  # of 60
    assert Counter(row.outcome for row in rows_of(job)) == {"ok": 4, "cancelled": 4}
    summary = summary_of(job)
    assert (summary.ended_by, summary.requests) == ("interrupted", 8)
    assert all(worker.lost_ns is None for worker in summary.workers)


def test_a_signal_before_the_start_ends_it_cleanly(tmp_path: Path) -> None:
    load = Load(concurrency=2, workers=2, warmup_s=0.0, duration_s=60.0)
    with serving(half) as server:
        job = shared_job(server, tmp_path, load)
        with working(job, MASTER) as process:
            wait_until(lambda: holds_signals(process.pid), LIMIT_S)
            process.send_signal(signal.SIGTERM)
            _, logged = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 130
    assert logged.splitlines()[-1] == "interrupted before the load began"
    assert ids_of(server) == []


def test_a_mistake_in_the_scenario_is_the_last_line(tmp_path: Path) -> None:
    load = Load(concurrency=2, workers=2, warmup_s=0.0, duration_s=60.0)
    options = {"path": str(tmp_path / "nowhere.jsonl")}
    with serving(half) as server:
        job = shared_job(server, tmp_path, load, scenario="file", scenario_options=options)
        with working(job, MASTER) as process:
            _, logged = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 2
    assert logged.splitlines()[-1].startswith(f"scenario.path={options['path']}: ")
    assert not Path(job.summary_path).exists()


def test_too_many_failures_of_one_worker_end_the_load_of_all(tmp_path: Path) -> None:
    load = Load(concurrency=20, workers=2, warmup_s=0.0, duration_s=60.0, max_failed_share=0.5)

    def fail_for_the_second(link: Link) -> None:
        """Worker 1 plays the conversations of odd numbers."""
        while link.request() is not None:
            wait_until_ns(time.monotonic_ns() + 20 * MS)
            is_odd = int(id_in(link.requests[-1][0]).split("-")[-1]) % 2
            link.send(b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n" if is_odd else answer("a", **USAGE))

    with serving(fail_for_the_second) as server:
        rows, summary, _ = played(shared_job(server, tmp_path, load), program=MASTER)
    assert {row.worker for row in rows if row.outcome == "http_error"} == {1}
    assert {row.outcome for row in rows if row.worker == 0} == {"ok"}
    assert summary.ended_by == "failures"
    assert summary.window_end_ns < summary.started_ns + 55_000 * MS


def test_nobody_listening_ends_it(tmp_path: Path) -> None:
    load = Load(concurrency=2, workers=2, warmup_s=0.0, duration_s=60.0)
    with serving(answering(answer("a", **USAGE), delay_ns=20 * MS)) as server:
        job = shared_job(server, tmp_path, load)
        with working(job, MASTER) as process:
            assert process.stdout
            next(line for line in process.stdout if json.loads(line)["phase"] == "window")
            process.stdout.close()
            process.wait(timeout=LIMIT_S)
    assert process.returncode == 0
    assert summary_of(job).ended_by == "interrupted"


# --- what the master knows, without processes ----------------------------------------------------

HELLO = Hello("1", "far", 7, "boot")


def crew_of(wanted: int = 2) -> tuple[Crew, list[tuple[str, Any]], list[bytes]]:
    sent: list[tuple[str, Any]] = []
    rows: list[bytes] = []
    outlet = Outlet(lambda line: None, rows.append)
    return Crew(wanted, "1", lambda node, message: sent.append((node, message)), outlet), sent, rows


def begun_line(number: int) -> bytes:
    return json.dumps(
        {"request_id": f"c{number}", "worker": 0, "user": 0, "conversation": number, "turn": 0,
         "scheduled_ns": 5, "max_tokens": 1}
    ).encode() + b"\n"  # fmt: skip


def test_a_silent_worker_is_lost_until_it_is_heard_of_again() -> None:
    crew, _, _ = crew_of()
    crew.hear("a", HELLO)
    member = crew.members["a"]
    member.heard_ns -= int((SILENT_S + 1) * 1e9)
    assert member.is_lost
    crew.heartbeat("a")
    assert not member.is_lost


def test_rows_that_did_not_arrive_make_their_worker_a_lost_one() -> None:
    crew, _, rows = crew_of()
    crew.hear("a", HELLO)
    crew.hear("a", Begun(begun_line(0) + begun_line(1)))
    crew.hear("a", Done(b"{}", begun=2, rows=2))
    member = crew.members["a"]
    assert member.is_lost
    crew.write_lost()
    assert [json.loads(row)["outcome"] for row in rows] == ["lost", "lost"]
    assert (worker_summary(member).requests, worker_summary(member).lost_ns) == (2, member.heard_ns)


def test_lines_that_are_no_rows_are_refused_whole() -> None:
    crew, _, rows = crew_of()
    crew.hear("a", HELLO)
    with pytest.raises(ValueError, match="request_id"):
        crew.hear("a", Rows(b'{"some":"thing"}\n'))
    assert rows == []


def test_one_worker_more_than_wanted_is_sent_away_for_now() -> None:
    crew, sent, _ = crew_of(wanted=1)
    crew.hear("a", HELLO)
    crew.hear("b", HELLO)
    assert list(crew.members) == ["a"]
    assert sent == [("b", Refused("the run has all its load workers (1)", is_final=False))]


def test_a_worker_that_leaves_before_the_start_makes_room_for_another() -> None:
    crew, _, _ = crew_of()
    crew.hear("a", HELLO)
    crew.hear("b", HELLO)
    crew.hear("a", Failed("it was interrupted before the load began", 130))
    crew.drop_gone()
    crew.hear("c", HELLO)
    assert {node: member.number for node, member in crew.members.items()} == {"b": 1, "c": 0}


def test_who_is_missing_is_said_with_what_to_start() -> None:
    crew, _, _ = crew_of()
    crew.hear("a", HELLO)
    crew.hear("b", Hello("2", "old", 8, "boot"))
    load = Load(workers=2, bind="0.0.0.0:6000")
    job = LoadJob("1", "", "", "", "", {}, "matched", "", {}, load, 1, "", "", "")
    heard: list[Progress] = []
    chief = Chief(job, crew, lambda node, message: None, heard.append, {}, connect_limit_s=1.2)
    with pytest.raises(LoadError) as caught:
        chief.gather()
    assert str(caught.value) == (
        "1 of 2 load workers connected within 1 s (old has bench 2, the run has 1; install the same); "
        "start the others with `bench worker --master HOST:6000` (HOST: this machine)"
    )
    assert heard[0].phase == "waiting for workers, 1 of 2 are there"
