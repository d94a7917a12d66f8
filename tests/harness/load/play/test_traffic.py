"""What the users of a load process share: who plays what, when the window ends, when too much failed."""

import time
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import gevent
import msgspec
import pytest
from load_process import job_of
from timeline_server import Server
from tiny_load import SCENARIO as TINY
from tiny_load import TinyEngine

from serving_bench.harness.contracts import BegunRow, Load, Outcome, RequestRow
from serving_bench.harness.load.play.traffic import Traffic
from serving_bench.harness.load.play.window import Board, Window, shared_board

S = 1_000_000_000
ROW = RequestRow(
    request_id="1", user=0, conversation=0, turn=0, outcome="ok", error=None, http_status=200,
    scheduled_ns=1, sent_ns=2, first_content_ns=3, last_content_ns=4, end_ns=5, chunk_ns=(3, 4),
    input_tokens=1, output_tokens=2, cached_tokens=None, token_source="server", max_tokens=2,
    finish_reason="stop", output_text="x",
)  # fmt: skip


def traffic(
    load: Load,
    worker: int = 0,
    begun: BytesIO | None = None,
    rows: BytesIO | None = None,
    on: Board | None = None,
    **of_job: object,
) -> Traffic:
    job = job_of(Server(1), Path(), load, **of_job)
    made = Traffic(
        job,
        TINY,
        TinyEngine(),  # type: ignore[arg-type]
        begun=begun or BytesIO(),
        rows=rows or BytesIO(),
        board=on,
        worker=worker,
    )
    made.start(time.monotonic_ns())
    return made


def taken(made: Traffic) -> list[tuple[int, str]]:
    """Number and first words of every conversation that there is."""
    found = []
    while begun := made.next_conversation():
        assert begun.conversation
        found.append((begun.number, begun.conversation.turns[0].messages[0].content.rpartition(" ")[0]))
    return found


def test_workers_of_a_closed_loop_share_out_the_conversations() -> None:
    load = Load(concurrency=2, workers=2, warmup_s=0.0, duration_s=None, conversations=5)
    assert taken(traffic(load, 0)) == [(0, "c0 t0"), (2, "c2 t0"), (4, "c4 t0")]
    assert taken(traffic(load, 1)) == [(1, "c1 t0"), (3, "c3 t0")]


def test_users_of_several_workers_have_numbers_and_instants_of_their_own() -> None:
    load = Load(concurrency=4, workers=2, ramp_up_s=8.0)
    made = traffic(load, 1)
    started_ns = made.window.cell_start_ns
    assert started_ns is not None
    users = [made.admit(gevent.getcurrent()) for _ in range(2)]
    assert [number for number, _ in users] == [1, 3]
    assert [(begins_ns - started_ns) / S for _, begins_ns in users] == [2, 6]


def test_the_window_ends_once_and_what_follows_does_not_change_why() -> None:
    made = traffic(Load(1, warmup_s=1.0, duration_s=5.0, ramp_down_s=2.0))
    made.end_window("duration", made.window.start_ns + 5 * S)
    assert not made.closed.is_set()
    assert made.wait_until(time.monotonic_ns())
    made.interrupt()
    assert (made.window.ended_by, made.window.end_ns) == ("duration", made.window.start_ns + 5 * S)
    assert not made.wait_until(time.monotonic_ns() + 60 * S)


def test_a_window_that_ends_in_the_warm_up_is_empty() -> None:
    made = traffic(Load(1, warmup_s=60.0))
    made.close("interrupted")
    assert made.window.end_ns == made.window.start_ns


def test_closing_ends_every_wait() -> None:
    made = traffic(Load(1))
    waits = [gevent.spawn(made.wait_until, time.monotonic_ns() + n * 60 * S) for n in range(1, 4)]
    gevent.sleep(0)
    made.close("conversations")
    gevent.joinall(waits, timeout=5)
    assert [wait.value for wait in waits] == [False] * 3


def talking(load: Load, conversations: int) -> Traffic:
    """A traffic in whose window this number of conversations have begun."""
    made = traffic(load)
    assert all(made.next_conversation() for _ in range(conversations))
    return made


def sent(made: Traffic, count: int) -> None:
    """Record this number of requests as sent now and ended."""
    for _ in range(count):
        made.record(replace(ROW, sent_ns=time.monotonic_ns()))


def test_a_window_whose_conversations_run_out_at_once_goes_on_until_enough_is_measured() -> None:
    made = talking(Load(concurrency=3, warmup_s=0.0, duration_s=None, conversations=2), 2)
    assert made.next_conversation() is None
    assert (made.window.ended_by, made.closed.is_set()) == (None, False)
    sent(made, 12)
    assert made.window.ended_by is None
    sent(made, 1)
    assert (made.window.ended_by, made.closed.is_set()) == ("conversations", False)


def test_conversations_that_began_are_finished_before_all_is_closed() -> None:
    made = talking(Load(concurrency=3, warmup_s=0.0, duration_s=None, conversations=2, min_requests=1), 2)
    sent(made, 1)
    assert made.next_conversation() is None
    assert made.window.ended_by == "conversations"
    made.conversation_ends(turns_left=0)
    assert not made.closed.is_set()
    made.conversation_ends(turns_left=0)
    assert made.closed.is_set()
    assert (made.cut_conversations, made.cut_turns) == (0, 0)


def test_what_is_not_finished_within_the_grace_is_cut_and_counted() -> None:
    load = Load(1, warmup_s=0.0, duration_s=None, conversations=2, min_requests=1, grace_s=0.05)
    made = talking(load, 2)
    sent(made, 1)
    assert made.next_conversation() is None
    assert made.closed.wait(timeout=5)
    for turns_left in (3, 0):
        made.conversation_ends(turns_left)
    assert (made.cut_conversations, made.cut_turns) == (1, 3)


def test_a_load_that_is_interrupted_before_it_begins_has_an_empty_window() -> None:
    made = traffic(Load(1, warmup_s=5.0))
    made.window = Window(made.job.load, 0, made.board)
    made.window.end("interrupted", 1)
    made.window.begin(time.monotonic_ns())
    assert made.window.end_ns == made.window.start_ns


def test_what_a_duration_ends_is_not_said_to_be_cut() -> None:
    made = talking(Load(1, warmup_s=0.0, duration_s=0.1), 1)
    made.close("duration")
    made.conversation_ends(turns_left=3)
    assert (made.cut_conversations, made.cut_turns) == (0, 0)


def test_a_window_with_too_few_requests_goes_on_by_whole_steps() -> None:
    made = traffic(Load(1, warmup_s=0.0, duration_s=1.0, steps=3, min_requests=2))
    sent(made, 1)
    made.record(replace(ROW, sent_ns=time.monotonic_ns(), outcome="cancelled"))  # our own doing
    made.record(replace(ROW, sent_ns=made.window.start_ns - 1))  # of the warm-up
    assert [made.goes_on_after(step) for step in (1, 2, 3)] == [True, True, False]
    sent(made, 1)
    assert not made.goes_on_after(1)


def test_a_window_in_which_no_request_has_ended_goes_on_for_longer() -> None:
    made = traffic(Load(1, warmup_s=0.0, duration_s=1.0, steps=2, min_requests=2), steps_to_first=9)
    assert [made.goes_on_after(step) for step in (2, 8, 9)] == [True, True, False]
    sent(made, 1)
    assert [made.goes_on_after(step) for step in (1, 2, 8)] == [True, False, False]


def test_a_window_whose_requests_all_fail_goes_on_no_longer_than_without_a_budget() -> None:
    made = traffic(Load(1, warmup_s=0.0, duration_s=1.0, steps=9, min_requests=3))
    made.record(replace(ROW, sent_ns=time.monotonic_ns(), outcome="timeout"))
    assert [made.goes_on_after(step) for step in (3, 4)] == [True, False]
    sent(made, 1)
    assert [made.goes_on_after(step) for step in (4, 8, 9)] == [True, True, False]


def test_the_first_worker_decides_for_all_whether_the_window_goes_on(tmp_path: Path) -> None:
    load = Load(concurrency=2, warmup_s=0.0, duration_s=1.0, min_requests=3, workers=2)
    first, second = (traffic(load, worker, on=shared_board(tmp_path / "board")) for worker in (0, 1))
    sent(first, 1)
    sent(second, 1)
    waiting = gevent.spawn(second.goes_on_after, 1)
    gevent.sleep(0.01)
    assert not waiting.ready()
    assert first.goes_on_after(1)
    assert waiting.get(timeout=5)
    sent(second, 1)  # three of both
    assert not first.goes_on_after(2)
    waiting = gevent.spawn(second.goes_on_after, 2)
    gevent.sleep(0.01)
    assert not waiting.ready()
    first.end_window("duration", time.monotonic_ns())
    assert waiting.get(timeout=5) is False


def recorded(share: float | None, *outcomes: Outcome) -> Traffic:
    made = traffic(Load(1, max_failed_share=share))
    for outcome in outcomes:
        made.record(replace(ROW, outcome=outcome))
    return made


def test_requests_are_counted_by_how_they_ended_and_the_good_ones_told_of() -> None:
    made = recorded(None, "ok", "timeout", "http_error", "timeout", "cancelled")
    assert (made.ok, made.failed) == (1, 4)
    assert made.failures == {"timeout": 2, "http_error": 1, "cancelled": 1}
    assert made.recent.stretch(0, 10).requests == 1


@pytest.mark.parametrize(
    ("share", "outcomes", "ended_by"),
    [
        (0.1, ["timeout"] * 19, None),  # too few to judge
        (0.1, ["timeout"] * 20, "failures"),
        (0.1, ["ok"] * 18 + ["timeout"] * 2, None),  # no more than the share
        (0.1, ["ok"] * 17 + ["timeout"] * 3, "failures"),
        (None, ["timeout"] * 100, None),
        (0.0, ["ok"] * 19 + ["reset"], "failures"),
        (0.1, ["cancelled"] * 100, None),  # bench's own doing
        (0.1, ["ok"] * 1000 + ["timeout"] * 11, "failures"),  # the last 100 count
        (0.1, ["ok"] * 1000 + ["timeout"] * 10, None),
    ],
)
def test_more_failures_among_the_last_requests_than_their_share_end_it(
    share: float | None, outcomes: list[Outcome], ended_by: str | None
) -> None:
    assert recorded(share, *outcomes).window.ended_by == ended_by


def test_a_request_is_written_as_it_begins_and_as_it_ends() -> None:
    begun, ended = BytesIO(), BytesIO()
    made = traffic(Load(1), begun=begun, rows=ended)
    row = BegunRow("001-c0-t0", 0, 0, 0, 0, 7, 4)
    made.begin(row)
    assert [msgspec.json.decode(line, type=BegunRow) for line in begun.getvalue().splitlines()] == [row]
    assert ended.getvalue() == b""
    made.record(ROW)
    assert [msgspec.json.decode(line, type=RequestRow) for line in ended.getvalue().splitlines()] == [ROW]
