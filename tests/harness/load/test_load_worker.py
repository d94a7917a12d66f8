import json
import os
import resource
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest
from echoes import ECHOES, KEY
from load_process import (
    LIMIT_S,
    MS,
    REAL,
    ROOT,
    TINY,
    USAGE,
    WORKER,
    answering,
    at_work,
    bodies_of,
    holds_signals,
    job_of,
    measured,
    played,
    rows_of,
    summary_of,
)  # fmt: skip
from timeline_server import CHUNKED, Link, answer, chunk, event, serving, steps, wait_until_ns
from waiting import wait_until

from serving_bench.harness.contracts import Load, RequestRow, secrets_in
from serving_bench.harness.load.client.receive import has_kernel_stamps
from serving_bench.harness.load.play.play import drain_limit_s
from serving_bench.harness.load.play.window import shared_board
from serving_bench.harness.load.worker import _Log
from serving_bench.harness.store.request_table import write_table
from serving_bench.harness.store.store import read_requests


def test_a_conversation_grows_by_the_models_answers(tmp_path: Path) -> None:
    play, load = answering(answer("Hel", "lo", **USAGE)), Load(concurrency=1, warmup_s=0.0, conversations=2)
    rows, summary, server = measured(play, tmp_path, load, engine_options={"min_tokens": 3})
    first, second, third, _ = bodies_of(server)
    user = first["messages"][0]["content"]
    assert user.startswith("c0 t0 ")
    assert first == {
        "model": "some-model",
        "messages": [{"role": "user", "content": user}],
        "max_tokens": 4,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
        "ignore_eos": True,
        "min_tokens": 3,
    }
    told = [(message["role"], message["content"][:5]) for message in second["messages"]]
    assert told == [("user", "c0 t0"), ("assistant", "Hello"), ("user", "c0 t1")]
    assert second["max_tokens"] == 5
    assert [message["content"][:5] for message in third["messages"]] == ["c1 t0"]
    turns = [(conversation, turn) for conversation in range(2) for turn in range(2)]
    ids = [f"00000007-{turn:04d}-4000-8000-{conversation:012d}" for conversation, turn in turns]
    assert [row.request_id for row in rows] == ids
    heads = [head for link in server.links for head, _ in link.requests]
    assert [f"X-Request-Id: {row.request_id}".encode() in head for row, head in zip(rows, heads, strict=True)]
    assert len(server.links) == 1
    assert (summary.ended_by, summary.conversations_begun, summary.requests) == ("conversations", 2, 4)


def test_a_row_holds_what_happened(tmp_path: Path) -> None:
    sends: list[int] = []

    def play(link: Link) -> None:
        while link.request() is not None:
            link.send(CHUNKED)
            began_ns = time.monotonic_ns()
            for number in range(3):
                wait_until_ns(began_ns + number * 30 * MS)
                sends.append(link.send(chunk(event(content="x"))))
            link.send(answer("y", **USAGE)[len(CHUNKED) :])

    load = Load(1, warmup_s=0.0, conversations=1)
    (row,), summary, _ = measured(play, tmp_path, load, scenario_options={"turns": 1})
    assert (row.outcome, row.error, row.http_status, row.finish_reason) == ("ok", None, 200, "stop")
    assert (row.user, row.conversation, row.turn, row.max_tokens) == (0, 0, 0, 4)
    counts = (row.input_tokens, row.output_tokens, row.cached_tokens, row.token_source)
    assert counts == (9, 2, None, "server")
    assert (row.output_text, row.raw_response) == ("xxxy", None)
    assert row.sent_ns is not None
    assert summary.started_ns <= row.scheduled_ns <= row.sent_ns < sends[0]
    assert len(row.chunk_ns) == 4
    assert (row.first_content_ns, row.last_content_ns) == (row.chunk_ns[0], row.chunk_ns[-1])
    late_ms = [(arrival - sent) / MS for arrival, sent in zip(row.chunk_ns, sends, strict=False)]
    assert min(late_ms) >= 0
    assert sorted(late_ms)[1] < 5
    assert row.chunk_ns[-1] <= row.end_ns <= summary.ended_ns


def test_scripted_answers_go_back_instead_of_the_models(tmp_path: Path) -> None:
    play, load = answering(answer("Hello")), Load(1, warmup_s=0.0, conversations=1)
    rows, _, server = measured(play, tmp_path, load, scenario_options={"history": "scripted"})
    assert bodies_of(server)[1]["messages"][1] == {"role": "assistant", "content": "scripted 0"}
    assert rows[0].output_text == "Hello"


def test_conversations_are_the_same_whoever_plays_them(tmp_path: Path) -> None:
    said = []
    for number, users in enumerate((1, 3)):
        folder = tmp_path / str(number)
        folder.mkdir()
        load = Load(concurrency=users, warmup_s=0.0, conversations=6)
        rows, _, server = measured(answering(answer("x")), folder, load)
        said.append({body["messages"][0]["content"] for body in bodies_of(server)})
        assert {row.user for row in rows} <= set(range(users))
        assert {row.conversation for row in rows} == set(range(6))
    assert said[0] == said[1]


def test_the_window_lies_between_warm_up_and_duration(tmp_path: Path) -> None:
    load = Load(concurrency=2, warmup_s=0.5, duration_s=1.25)
    with serving(answering(answer("a", **USAGE), delay_ns=50 * MS)) as server:
        job = job_of(server, tmp_path, load, scenario_options={"turns": 3, "think_time_s": 0.05})
        rows, summary, said = played(job)
    assert summary.window_start_ns - summary.started_ns == 500 * MS
    assert summary.window_end_ns - summary.window_start_ns == 1250 * MS
    assert (summary.ended_by, summary.users, summary.requests) == ("duration", 2, len(rows))
    sends = [row.sent_ns or 0 for row in rows]
    assert min(sends) < summary.window_start_ns
    assert max(sends) < summary.window_end_ns + 50 * MS
    assert {row.outcome for row in rows} == {"ok"}
    # The second user begins half of the warm-up later.
    begins = [min(row.scheduled_ns for row in rows if row.user == user) for user in range(2)]
    assert begins[1] - begins[0] == 250 * MS
    ready, *progress = [json.loads(line) for line in said.splitlines()]
    assert ready["phase"] == "ready"
    # After a second, 0.75 s before the window's end; another one only where it took long to come to its end.
    assert progress[0]["phase"] == "window"
    assert {line["phase"] for line in progress[1:]} <= {"window", "drain"}
    assert 0 < progress[0]["requests"] <= len(rows)
    assert (progress[0]["failed"], 0 <= progress[0]["in_flight"] <= 2) == (0, True)
    assert progress[0]["failures"] == {}
    recent = progress[0]["stretch"]
    assert (recent["requests"], recent["length_s"]) == (progress[0]["requests"], pytest.approx(1.0, abs=0.5))
    assert (recent["tokens"], recent["chunks"]) == (2 * recent["requests"], recent["requests"])
    assert len(recent["ttft_us"]) == recent["requests"]
    assert min(recent["ttft_us"]) >= 50_000
    assert max(recent["ttft_us"]) < 5_000_000
    assert progress[0]["loop_lag_s"] > 0


def test_a_turn_is_due_its_think_time_after_the_end_of_the_one_before(tmp_path: Path) -> None:
    load = Load(1, warmup_s=0.0, conversations=2)
    options = {"turns": 2, "think_time_s": 0.1}
    rows, summary, _ = measured(answering(answer("a")), tmp_path, load, scenario_options=options)
    # Not before the first turn of all: nothing came before it.
    assert rows[0].scheduled_ns - summary.started_ns < 50 * MS
    for before, after in pairwise(rows):
        assert after.scheduled_ns - before.end_ns == 100 * MS
        assert after.sent_ns is not None
        assert after.sent_ns >= after.scheduled_ns


def children_cpu_s() -> float:
    """Of all that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def test_the_client_reports_its_own_lag(tmp_path: Path) -> None:
    before_s = children_cpu_s()
    play = answering(answer("a"), delay_ns=20 * MS)
    _, summary, _ = measured(play, tmp_path, Load(1, warmup_s=0.0, duration_s=0.3))
    assert summary.stamp_source == ("kernel" if has_kernel_stamps() else "read")
    if has_kernel_stamps():
        assert summary.stamp_lag_s is not None
        assert 0 < summary.stamp_lag_s[0] <= summary.stamp_lag_s[1] <= summary.stamp_lag_s[2] < 5
        assert 0 < (summary.clock_uncertainty_ns or 0) < MS
    assert summary.loop_lag_s is not None
    assert 0 < summary.loop_lag_s[0] < 0.1
    # Of the load alone: starting and importing took most of the process's time, on a busy machine too.
    assert 0 < summary.cpu_s < (children_cpu_s() - before_s) / 2
    assert 0 <= summary.gc_pause_s < 1


def test_a_failed_turn_ends_its_conversation(tmp_path: Path) -> None:
    error = b'{"error": {"message": "no slot for sk-secret-77"}}'
    failing = b"HTTP/1.1 503 Busy\r\nContent-Length: %d\r\n\r\n%b" % (len(error), error)
    play, load = answering(answer("sk-secret-77"), failing), Load(1, warmup_s=0.0, conversations=2)
    turns = {"turns": 3}
    with at_work(play, tmp_path, load, key="sk-secret-77", scenario_options=turns) as (server, job, process):
        said, logged = process.communicate(timeout=LIMIT_S)
    rows = rows_of(job)
    outcomes = [(0, 0, "ok"), (0, 1, "http_error"), (1, 0, "ok"), (1, 1, "http_error")]
    assert [(row.conversation, row.turn, row.outcome) for row in rows] == outcomes
    assert rows[1].error == "HTTP 503: no slot for ***"
    assert rows[1].http_status == 503
    assert rows[1].raw_response is not None
    assert rows[1].raw_response.startswith("HTTP/1.1 503 Busy")
    assert rows[1].raw_response.endswith('{"error": {"message": "no slot for ***"}}')
    # After a failure the user waits, so that a dead server makes no busy loop.
    assert rows[2].scheduled_ns - rows[1].end_ns == 200 * MS
    # The server saw the key; nothing that was written has it.
    assert b"Authorization: Bearer sk-secret-77" in server.links[0].requests[0][0]
    written = [path.read_text() for path in tmp_path.iterdir()]
    assert not any("sk-secret-77" in text for text in [*written, said, logged])


def test_users_of_a_dead_server_back_off(tmp_path: Path) -> None:
    with serving(Link.request) as server:
        pass
    job = job_of(server, tmp_path, Load(concurrency=2, warmup_s=0.0, duration_s=1.9, steps=1))
    rows, summary, _ = played(job)
    assert {row.outcome for row in rows} == {"connect_error"}
    assert {row.sent_ns for row in rows} == {None}
    # Each user: at once, after 0.2 s, after 0.4 s more, after 0.8 s more.
    assert [sum(row.user == user for row in rows) for user in range(2)] == [4, 4]
    assert summary.ended_by == "duration"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_at_once_with_what_there_is(tmp_path: Path, number: signal.Signals) -> None:
    half = CHUNKED + chunk(event(content="half"))
    play = steps(Link.request, answer("first"), Link.request, half, Link.request)
    load = Load(concurrency=2, warmup_s=0.0, duration_s=60.0)
    with at_work(play, tmp_path, load) as (server, job, process):
        wait_until(lambda: len(bodies_of(server)) == 4)
        process.send_signal(number)
        began = time.monotonic()
        process.communicate(timeout=LIMIT_S)
        took_s = time.monotonic() - began
    rows, summary = rows_of(job), summary_of(job)
    assert process.returncode == 0
    assert took_s < 5
    assert sorted(row.outcome for row in rows) == ["cancelled", "cancelled", "ok", "ok"]
    assert (summary.ended_by, summary.requests) == ("interrupted", 4)
    assert summary.window_end_ns - summary.started_ns < 20_000 * MS


def test_an_absurd_count_costs_its_request_alone(tmp_path: Path) -> None:
    counts = iter([2**31, 2**53 - 1, 7, 8])

    def play(link: Link) -> None:
        for count in counts:
            link.request()
            link.send(answer("a", usage={"prompt_tokens": 5, "completion_tokens": count}))

    rows, summary, _ = measured(play, tmp_path, Load(1, warmup_s=0.0, conversations=2))
    Path(tmp_path / "rows.jsonl").write_bytes(b"".join(msgspec.json.encode(row) + b"\n" for row in rows))
    tally = write_table(tmp_path / "rows.jsonl", tmp_path / "requests.parquet", summary)
    kept = read_requests(tmp_path, ["outcome", "output_tokens", "error"]).to_pylist()
    assert (tally.ok, tally.failed) == (4, 0)
    assert [row["output_tokens"] for row in kept] == [None, None, 7, 8]
    assert kept[0]["error"] == "missing: absurd value (completion_tokens=2147483648)"
    assert [row["error"] for row in kept[2:]] == [None, None]


def test_whatever_a_decoder_raises_costs_its_request_alone(tmp_path: Path) -> None:
    too_few = {"usage": {"prompt_tokens": 9, "completion_tokens": 13}}
    answers = [answer("a", **USAGE), answer("raise " + KEY), answer("b", **too_few), answer("c", **USAGE)]
    load = Load(concurrency=1, warmup_s=0.0, conversations=8)
    changes = {"engine": "raising", "scenario_options": {"turns": 1}}
    rows, summary, _ = measured(answering(*answers), tmp_path, load, key=KEY, **changes)
    assert [row.outcome for row in rows] == ["ok", "protocol_error", "protocol_error", "ok"] * 2
    assert (summary.ended_by, summary.requests) == ("conversations", 8)
    first, second = rows[1], rows[2]
    assert first.error is not None
    assert first.error.startswith("KeyError: ")
    assert KEY not in first.error
    assert "ValueError: zip() argument 2 is shorter" in str(second.error)
    assert first.sent_ns is not None
    assert first.scheduled_ns <= first.sent_ns <= first.end_ns


def test_a_load_process_that_stood_still_says_for_how_long(tmp_path: Path) -> None:
    play, load = answering(answer("a"), delay_ns=20 * MS), Load(1, warmup_s=0.0, duration_s=4.0)
    with at_work(play, tmp_path, load) as (server, job, process):
        wait_until(lambda: bodies_of(server))
        process.send_signal(signal.SIGSTOP)
        stopped_s = time.monotonic()
        time.sleep(1.0)
        stood_s = time.monotonic() - stopped_s
        process.send_signal(signal.SIGCONT)
        process.communicate(timeout=LIMIT_S)
    summary = summary_of(job)
    window_s = (summary.window_end_ns - summary.window_start_ns) / 1e9
    assert 0.9 * stood_s < summary.stalled_s <= window_s


def test_a_load_process_that_stood_still_as_its_load_began_says_so(tmp_path: Path) -> None:
    board_path = tmp_path / "load.board"
    board = shared_board(board_path)
    with serving(answering(answer("a"))) as server:
        job = job_of(server, tmp_path, Load(1, warmup_s=0.0, duration_s=3.2, steps=1))
        # It sees the start 3 s late, as one does that was stopped in between.
        board.start_ns = time.monotonic_ns() - 3_000 * MS
        played(job, program=(TINY[0], "--board", str(board_path)))
    summary = summary_of(job)
    assert summary.started_ns == board.start_ns
    assert summary.stalled_s > 2.9
    assert (summary.loop_lag_s or (0, 0, 0))[2] > 2.9


STALLING = steps(Link.request, CHUNKED + chunk(event(content="half")), Link.request)


def test_a_request_of_the_window_may_run_to_its_own_limit(tmp_path: Path) -> None:
    load = Load(1, warmup_s=0.0, duration_s=0.2, steps=1, timeout_s=0.6)
    (row,), summary, _ = measured(STALLING, tmp_path, load)
    assert (row.outcome, row.output_text) == ("timeout", "half")
    assert summary.ended_by == "duration"
    assert row.raw_response is not None
    assert row.raw_response.startswith("HTTP/1.1 200 OK")


@pytest.mark.parametrize("timeout_s", [0.1, 120.0, 3600.0])
def test_the_drain_leaves_every_request_its_own_limit(timeout_s: float) -> None:
    # A request sent as the window ends comes to its limit so long after it, and must still write its row.
    assert timeout_s < drain_limit_s(Load(1, timeout_s=timeout_s)) < timeout_s + 30


def test_a_signal_in_the_drain_cancels_the_requests_but_did_not_end_the_window(tmp_path: Path) -> None:
    load = Load(concurrency=2, warmup_s=0.0, duration_s=0.2, steps=1, timeout_s=20.0)
    with at_work(STALLING, tmp_path, load) as (_, job, process):
        assert process.stdout
        next(line for line in process.stdout if json.loads(line)["phase"] == "drain")
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=LIMIT_S)
    rows, summary = rows_of(job), summary_of(job)
    assert process.returncode == 0
    assert [(row.outcome, row.output_text) for row in rows] == [("cancelled", "half")] * 2
    assert summary.ended_by == "duration"
    assert summary.window_end_ns - summary.started_ns == 200 * MS


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_before_the_load_begins_is_not_missed(tmp_path: Path, number: int) -> None:
    load = Load(1, warmup_s=0.0, duration_s=60.0)
    with at_work(answering(answer("a")), tmp_path, load) as (server, job, process):
        wait_until(lambda: holds_signals(process.pid))
        process.send_signal(number)
        _, logged = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 0, logged
    assert summary_of(job).ended_by == "interrupted"
    assert {row.outcome for row in rows_of(job)} <= {"cancelled"}
    assert bodies_of(server) == []


def test_what_a_scenario_prints_does_not_come_between_the_progress(tmp_path: Path) -> None:
    play, load = answering(answer("a"), delay_ns=20 * MS), Load(1, warmup_s=0.0, duration_s=1.5)
    with at_work(play, tmp_path, load, scenario_options={"prints": "stray words"}) as (_, job, process):
        said, logged = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 0
    progress = [json.loads(line) for line in said.splitlines()]
    assert progress[1]["requests"] > 0
    assert logged.splitlines().count("stray words") == 2 * summary_of(job).conversations_begun


def test_a_scenario_that_ends_ends_the_window(tmp_path: Path) -> None:
    load, options = Load(1, warmup_s=0.0), {"conversations": 3}
    rows, summary, _ = measured(answering(answer("a")), tmp_path, load, scenario_options=options)
    assert len(rows) == 6
    assert summary.ended_by == "conversations"
    assert rows[-1].end_ns <= summary.window_end_ns <= summary.ended_ns


def test_conversations_count_from_the_end_of_the_warm_up(tmp_path: Path) -> None:
    load = Load(1, warmup_s=0.5, conversations=2)
    rows, summary, _ = measured(answering(answer("a")), tmp_path, load)
    first = {row.conversation: row for row in reversed(rows)}
    due = sum(row.scheduled_ns >= summary.window_start_ns for row in first.values())
    sent = sum((row.sent_ns or 0) >= summary.window_start_ns for row in first.values())
    assert summary.ended_by == "conversations"
    # A conversation begins between the two instants, and the warm-up may end between them too.
    assert due <= 2 <= sent <= due + 1
    assert len(first) > 2


# Each answer takes 0.7 s, or 20 ms.
SLOW, QUICK = (answering(answer("a", **USAGE), delay_ns=ms * MS) for ms in (700, 20))


def test_a_window_in_which_no_request_began_goes_on_until_some_have(tmp_path: Path) -> None:
    load = Load(concurrency=1, warmup_s=0.1, duration_s=0.2, steps=20, min_requests=2)
    rows, summary, _ = measured(SLOW, tmp_path, load, scenario_options={"turns": 1})
    # The first is of the warm-up; the window ends with the step in which the second one after it has ended.
    assert len(rows) >= 3
    length_ms = (summary.window_end_ns - summary.window_start_ns) // MS
    assert length_ms % 200 == 0
    assert length_ms <= 4000
    second_ns = [row.end_ns for row in rows if (row.sent_ns or 0) >= summary.window_start_ns][1]
    assert second_ns - summary.window_start_ns > 1400 * MS, "two answers of 0.7 s"
    assert summary.window_end_ns - 300 * MS < second_ns <= summary.window_end_ns
    assert summary.ended_by == "duration"


def test_a_window_goes_on_for_no_more_than_its_steps(tmp_path: Path) -> None:
    load = Load(concurrency=1, warmup_s=0.1, duration_s=0.2, steps=2)
    _, summary, _ = measured(SLOW, tmp_path, load, scenario_options={"turns": 1})
    assert summary.window_end_ns - summary.window_start_ns == 400 * MS


def test_one_conversation_for_several_users_is_measured_whole(tmp_path: Path) -> None:
    load = Load(concurrency=2, warmup_s=0.0, conversations=1, duration_s=None)
    rows, summary, _ = measured(QUICK, tmp_path, load, scenario_options={"turns": 3})
    assert [row.turn for row in rows] == [0, 1, 2]
    assert all(summary.window_start_ns <= (row.sent_ns or 0) < summary.window_end_ns for row in rows)


def test_conversations_that_began_are_finished_though_no_others_are_left(tmp_path: Path) -> None:
    load = Load(concurrency=2, warmup_s=0.0, conversations=3, duration_s=None, min_requests=1, grace_s=20.0)
    play = answering(answer("a", **USAGE), delay_ns=50 * MS)
    rows, summary, _ = measured(play, tmp_path, load, scenario_options={"turns": 4})
    assert len(rows) == 12
    assert {row.outcome for row in rows} == {"ok"}
    assert (summary.cut_conversations, summary.cut_turns) == (0, 0)
    assert max(row.sent_ns or 0 for row in rows) > summary.window_end_ns


def test_what_is_cut_by_the_end_of_the_grace_is_told(tmp_path: Path) -> None:
    load = Load(concurrency=2, warmup_s=0.0, conversations=3, duration_s=None, min_requests=1, grace_s=0.0)
    play = answering(answer("a", **USAGE), delay_ns=50 * MS)
    rows, summary, _ = measured(play, tmp_path, load, scenario_options={"turns": 4})
    assert summary.cut_conversations == 1
    assert summary.cut_turns == 12 - len(rows) > 0


def test_an_end_within_the_warm_up_leaves_an_empty_window(tmp_path: Path) -> None:
    load, options = Load(1, warmup_s=5.0), {"conversations": 1}
    _, summary, _ = measured(answering(answer("a")), tmp_path, load, scenario_options=options)
    assert summary.window_start_ns == summary.window_end_ns
    assert summary.ended_ns < summary.window_start_ns


def test_a_mistake_in_the_scenario_fails_the_process(tmp_path: Path) -> None:
    options = {"mistake": "scenario.path=x: no such file"}
    with at_work(answering(answer("a")), tmp_path, Load(1), scenario_options=options) as (_, job, process):
        _, logged = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 2
    assert logged.splitlines()[-1] == "scenario.path=x: no such file"
    assert not job.summary_path.exists()


def test_nobody_reading_its_progress_ends_it(tmp_path: Path) -> None:
    load = Load(1, warmup_s=0.0, duration_s=60.0)
    with at_work(answering(answer("a"), delay_ns=20 * MS), tmp_path, load) as (_, job, process):
        assert process.stdout
        process.stdout.close()
        process.wait(timeout=LIMIT_S)
    assert process.returncode == 0
    assert summary_of(job).ended_by == "interrupted"


def test_the_worker_plays_the_scenarios_and_engines_that_there_are(tmp_path: Path) -> None:
    began_ns = time.monotonic_ns()
    play, load = answering(answer("a", **USAGE)), Load(1, warmup_s=0.0, conversations=1)
    rows, summary, _ = measured(play, tmp_path, load, program=WORKER, **REAL)
    assert [row.outcome for row in rows] == ["ok", "ok"]
    assert summary.requests == 2
    # Locust's imports for the most part: 0.2 to 0.35 s on a quiet machine.
    imports_ns = -time.monotonic_ns()
    subprocess.run([sys.executable, "-c", "import locust"], check=True)
    imports_ns += time.monotonic_ns()
    assert (rows[0].sent_ns or 0) - began_ns < 10 * imports_ns


def test_an_engine_that_there_is_not_is_one_line(tmp_path: Path) -> None:
    with at_work(answering(answer("a")), tmp_path, Load(1), WORKER) as (*_, process):
        _, logged = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 1
    assert logged == "no scenario tiny or no engine tiny in this version\n"


def test_a_log_has_no_key_whatever_an_error_says(capfd: pytest.CaptureFixture[str]) -> None:
    log = _Log(KEY)
    for echo in ECHOES.values():
        print("failed:", echo(KEY), file=log)
    log.detach()
    said = capfd.readouterr().err
    assert said.count("failed: ") == len(ECHOES)
    assert not [*secrets_in(said.encode(), {"KEY": KEY})]


def test_locust_runs_the_same_users_by_itself(tmp_path: Path) -> None:
    rows_path = tmp_path / "rows.jsonl"
    with serving(QUICK) as server:
        words = [
            "-f", "harness/load/locustfile.py", "--host", f"http://127.0.0.1:{server.port}", "--headless",
            "-u", "2", "-r", "2", "-t", "60s", "--model", "m", "--rows", str(rows_path),
            "--scenario-options", '{"think_time_s": 0}',
        ]  # fmt: skip
        with subprocess.Popen(
            [sys.executable, "-m", "locust", *words], cwd=ROOT, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, env={**os.environ, "OPENAI_API_KEY": "sk-secret-78"}, text=True,
        ) as process:  # fmt: skip
            wait_until(lambda: sum(len(link.requests) > 2 for link in server.links) == 2, LIMIT_S)
            process.terminate()
            said, logged = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 0, logged
    assert "/v1/chat/completions" in said + logged
    rows = [msgspec.json.decode(line, type=RequestRow) for line in rows_path.read_bytes().splitlines()]
    assert len(rows) > 2
    assert {row.outcome for row in rows} <= {"ok", "cancelled"}
    assert {row.user for row in rows} == {0, 1}
    assert bodies_of(server)[0]["model"] == "m"
    assert b"Authorization: Bearer sk-secret-78" in server.links[0].requests[0][0]
    assert "sk-secret-78" not in said + logged + rows_path.read_text()


def test_a_batch_begins_at_once_and_its_window_lasts_until_its_last_answer(tmp_path: Path) -> None:
    load = Load(None, arrival="batch", conversations=5, warmup_s=0.0, duration_s=None, min_requests=1)
    play = answering(answer("one", **USAGE), delay_ns=100 * MS)
    rows, summary, _ = measured(play, tmp_path, load)
    first_turns = [row for row in rows if row.turn == 0]
    assert [row.scheduled_ns - summary.window_start_ns for row in first_turns] == [0] * 5
    assert len(rows) == 10
    assert summary.window_end_ns >= max(row.end_ns for row in rows)
    said = (summary.ended_by, summary.conversations_begun, summary.cut_conversations)
    assert said == ("conversations", 5, 0)
