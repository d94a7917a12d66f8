"""Several requests of one user at once, by the reference server's own record and by what it was sent."""

import signal
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

from load_process import LIMIT_S, WORKER, bodies_of, id_in, job_of, played, rows_of, working
from reference_serving import serving as reference
from timeline_server import CHUNKED, Link, Server, answer, chunk, event, serving
from waiting import wait_until

from serving_bench.harness.contracts import Load, LoadJob, RequestRow
from serving_bench.harness.load.records import append_lost
from serving_bench.harness.selftest.sends import ARRIVAL, END, read_sends

ONE_USER = Load(concurrency=1, warmup_s=0.0, duration_s=None, conversations=1)
BUSY = b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"


def test_they_are_sent_at_the_same_instant_and_the_next_turn_waits_for_the_last(tmp_path: Path) -> None:
    options = {"steps": 4, "parallel": 5, "think_time_s": 0.02, "output_tokens": 8}
    with reference("--ttft-s=0.5", "--itl-s=0.01", f"--sends={tmp_path}") as running:
        job = job_of(
            Server(running.port),
            tmp_path,
            ONE_USER,
            engine="reference",
            scenario="agent_loop",
            scenario_options=options,
        )
        rows, summary, _ = played(job, program=WORKER)
        ended = {row.request_id for row in rows}
        wait_until(
            lambda: ended <= {s.request_id for s in read_sends(tmp_path / "sends.bin") if s.chunk == END}
        )
    assert (summary.users, summary.conversations_begun, summary.requests) == (1, 1, 8)
    assert {row.outcome for row in rows} == {"ok"}
    assert sorted((row.turn, row.part) for row in rows) == [
        (0, 0),
        *((1, part) for part in range(5)),
        (2, 0),
        (3, 0),
    ]
    assert {(row.user, row.conversation, row.turns) for row in rows} == {(0, 0, 4)}
    sends = read_sends(tmp_path / "sends.bin")
    begins, ends = ({s.request_id: s.sent_ns for s in sends if s.chunk == mark} for mark in (ARRIVAL, END))
    firsts = {send.request_id: send.sent_ns for send in sends if send.chunk == 0}
    by_turn = [[row for row in rows if row.turn == turn] for turn in range(4)]
    together = [row.request_id for row in by_turn[1]]
    # All of them reached the server before it answered any, which takes it 500 ms.
    assert max(begins[each] for each in together) < min(firsts[each] for each in together)
    for before, after in pairwise(by_turn):
        assert min(begins[row.request_id] for row in after) > max(ends[row.request_id] for row in before)
        # The think time counts from the last answer.
        assert {row.scheduled_ns - max(row.end_ns for row in before) for row in after} == {20_000_000}


def tiny(server: Server, folder: Path, **options: Any) -> LoadJob:
    return job_of(server, folder, ONE_USER, scenario_options={"width": 3, **options})


def by_part(*answers: bytes) -> Callable[[Link], None]:
    """Answer each request by its place among those that were sent with it."""

    def play(link: Link) -> None:
        while link.request() is not None:
            link.send(answers[int(id_in(link.requests[-1][0])[15:18])])

    return play


def parts_of(rows: list[RequestRow]) -> list[tuple[int, int, str]]:
    return sorted((row.turn, row.part, row.outcome) for row in rows)


def said(message: dict[str, str]) -> str:
    text = message["content"]
    return text.rpartition(" ")[0] if message["role"] == "user" else text


def test_each_stands_behind_the_history_and_adds_nothing_to_it(tmp_path: Path) -> None:
    with serving(by_part(*(answer(f"answer {part}") for part in range(3)))) as server:
        rows, _, _ = played(tiny(server, tmp_path))
    before = ["c0 t0", "answer 0"]
    assert sorted([said(message) for message in body["messages"]] for body in bodies_of(server)) == [
        ["c0 t0"],
        [*before, "c0 t1"],
        [*before, "c0 t1 p1"],
        [*before, "c0 t1 p2"],
        ["c0 t0 p1"],
        ["c0 t0 p2"],
    ]
    # Each on a connection of its own, which is kept.
    assert len(server.links) == 3
    assert parts_of(rows) == [(turn, part, "ok") for turn in range(2) for part in range(3)]
    assert len({row.request_id for row in rows}) == 6


def test_one_that_fails_is_recorded_and_the_conversation_goes_on(tmp_path: Path) -> None:
    with serving(by_part(answer("a"), BUSY, answer("c"))) as server:
        rows, _, _ = played(tiny(server, tmp_path))
    assert parts_of(rows) == [
        (turn, part, outcome) for turn in range(2) for part, outcome in enumerate(("ok", "http_error", "ok"))
    ]


def test_one_whose_answer_the_history_needs_ends_the_conversation_once_all_have_ended(tmp_path: Path) -> None:
    with serving(by_part(BUSY, answer("b"), answer("c"))) as server:
        rows, summary, _ = played(tiny(server, tmp_path))
    assert parts_of(rows) == [(0, 0, "http_error"), (0, 1, "ok"), (0, 2, "ok")]
    assert (summary.ended_by, summary.cut_turns) == ("conversations", 0)


def stalling(link: Link) -> None:
    link.request()
    link.send(CHUNKED + chunk(event(content="half")))
    link.request()


def test_a_user_may_leave_one_of_them(tmp_path: Path) -> None:
    def play(link: Link) -> None:
        while link.request() is not None:
            if b"-4002-" in link.requests[-1][0]:
                stalling(link)
                break
            link.send(answer("a"))

    with serving(play) as server:
        rows, _, _ = played(tiny(server, tmp_path, leave_after_s=0.1))
    assert parts_of(rows) == [
        (turn, part, outcome) for turn in range(2) for part, outcome in enumerate(("ok", "ok", "left"))
    ]
    assert [row.leave_after_s for row in rows if row.part == 2] == [0.1, 0.1]


def test_a_signal_ends_all_of_them_and_each_has_its_row(tmp_path: Path) -> None:
    with serving(stalling) as server:
        job = tiny(server, tmp_path)
        with working(job) as process:
            wait_until(lambda: len(bodies_of(server)) == 3)
            process.send_signal(signal.SIGTERM)
            _, logged = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 0, logged
    assert parts_of(rows_of(job)) == [(0, part, "cancelled") for part in range(3)]


def test_each_is_lost_with_its_process(tmp_path: Path) -> None:
    with serving(stalling) as server:
        job = tiny(server, tmp_path)
        with working(job) as process:
            wait_until(lambda: len(bodies_of(server)) == 3)
            process.kill()
            process.communicate(timeout=LIMIT_S)
    assert append_lost(job) == 3
    assert parts_of(rows_of(job)) == [(0, part, "lost") for part in range(3)]
