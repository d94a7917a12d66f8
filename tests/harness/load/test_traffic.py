"""What the users of a load process share: who plays what, when the window ends, when too much failed."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import gevent
import msgspec
import pytest
from load_process import job_of
from timeline_server import Server
from tiny_load import TinyEngine, TinyScenario

from harness.contracts import BegunRow, Load, Outcome, RequestRow
from harness.load.play.traffic import Outlet, Traffic

S = 1_000_000_000
ROW = RequestRow(
    request_id="1", user=0, conversation=0, turn=0, outcome="ok", error=None, http_status=200,
    scheduled_ns=1, sent_ns=2, first_content_ns=3, last_content_ns=4, end_ns=5, chunk_ns=(3, 4),
    input_tokens=1, output_tokens=2, cached_tokens=None, token_source="server", max_tokens=2,
    finish_reason="stop", output_text="x",
)  # fmt: skip


def traffic(load: Load, worker: int = 0, outlet: Outlet | None = None) -> Traffic:
    job = job_of(Server(1), Path(), load)
    outlet = outlet or Outlet(lambda line: None, lambda line: None)
    made = Traffic(job, TinyScenario(), TinyEngine(), outlet, worker=worker)  # type: ignore[arg-type]
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
    assert made.started_ns is not None
    users = [made.admit(gevent.getcurrent()) for _ in range(2)]
    assert [number for number, _, _ in users] == [1, 3]
    assert [(begins_ns - made.started_ns) / S for _, begins_ns, _ in users] == [2, 6]


def test_the_window_ends_once_and_what_follows_does_not_change_why() -> None:
    made = traffic(Load(warmup_s=1.0, duration_s=5.0, ramp_down_s=2.0))
    made.end_window("duration", made.window_start_ns + 5 * S)
    assert not made.closed.is_set()
    assert made.wait_until(time.monotonic_ns())
    made.interrupt()
    assert (made.ended_by, made.window_end_ns) == ("duration", made.window_start_ns + 5 * S)
    assert not made.wait_until(time.monotonic_ns() + 60 * S)


def test_a_window_that_ends_in_the_warm_up_is_empty() -> None:
    made = traffic(Load(warmup_s=60.0))
    made.close("interrupted")
    assert made.window_end_ns == made.window_start_ns


def test_closing_ends_every_wait() -> None:
    made = traffic(Load())
    waits = [gevent.spawn(made.wait_until, time.monotonic_ns() + n * 60 * S) for n in range(1, 4)]
    gevent.sleep(0)
    made.close("conversations")
    gevent.joinall(waits, timeout=5)
    assert [wait.value for wait in waits] == [False] * 3


def recorded(share: float | None, *outcomes: Outcome) -> Traffic:
    made = traffic(Load(max_failed_share=share))
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
    assert recorded(share, *outcomes).ended_by == ended_by


def test_a_request_is_written_as_it_begins_and_as_it_ends() -> None:
    begun: list[bytes] = []
    ended: list[bytes] = []
    made = traffic(Load(), outlet=Outlet(begun.append, ended.append))
    row = BegunRow("001-c0-t0", 0, 0, 0, 0, 7, 4)
    made.begin(row)
    assert [msgspec.json.decode(line, type=BegunRow) for line in begun] == [row]
    assert ended == []
    made.record(ROW)
    assert [msgspec.json.decode(line, type=RequestRow) for line in ended] == [ROW]
