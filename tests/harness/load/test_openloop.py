"""What is planned for each worker, and how users take turns."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from random import Random

import gevent
import pytest
from gevent.event import Event

from harness.contracts import Conversation, Load
from harness.errors import UserError
from harness.load.play.arrivals import schedule
from harness.load.play.openloop import Beginning, OpenLoop, planned

POISSON = Load(concurrency=None, rate_per_s=100, warmup_s=1.0, duration_s=None)
TRACE = Load(concurrency=None, arrival="trace", warmup_s=0.0, duration_s=None)
START_NS = 5_000_000_000
S = 1e9


def talks(arrivals: list[float] | None = None) -> Iterator[Conversation]:
    if arrivals is not None:
        return (Conversation((), at_s) for at_s in arrivals)
    return iter(lambda: Conversation(()), None)


def offsets(beginnings: list[Beginning]) -> list[float]:
    return [(begun.due_ns - START_NS) / S for begun in beginnings if begun.due_ns is not None]


def test_the_instants_are_those_of_the_seeded_schedule() -> None:
    found = list(islice(planned(POISSON, 7, talks(), START_NS, 0), 20))
    assert [begun.number for begun in found] == list(range(20))
    expected = list(islice(schedule(POISSON, Random("7 arrivals")), 20))
    assert offsets(found) == pytest.approx(expected, abs=1e-8)


@pytest.mark.parametrize("conversations", [None, 31])
def test_two_workers_together_play_what_one_would(conversations: int | None) -> None:
    one = replace(POISSON, conversations=conversations)
    two = replace(one, workers=2)

    def instants(load: Load, count: int, worker: int) -> dict[int, int | None]:
        plan = islice(planned(load, 7, talks(), START_NS, worker), count)
        return {begun.number: begun.due_ns for begun in plan if begun.conversation}

    first, second = (instants(two, 100, worker) for worker in (0, 1))
    assert first | second == instants(one, 200, 0)
    assert {number % 2 for number in first} == {0}


def test_conversations_are_counted_from_the_windows_start() -> None:
    load = replace(POISSON, conversations=10)
    *played, end = planned(load, 7, talks(), START_NS, 0)
    times_s = offsets(played)
    assert sum(at_s >= load.warmup_s for at_s in times_s) == 10
    assert sum(at_s < load.warmup_s for at_s in times_s) > 50
    assert end.conversation is None
    # The window ends when the next one would have begun.
    next_s = list(islice(schedule(load, Random("7 arrivals")), len(played) + 1))[-1]
    assert offsets([end]) == pytest.approx([next_s], abs=1e-8)


def test_a_trace_begins_at_its_own_instants_sped_up_and_ends_a_gap_later() -> None:
    load = replace(TRACE, speedup=2.0)
    *played, end = planned(load, 7, talks([0.0, 1.0, 1.0, 4.0, 8.0]), START_NS, 0)
    assert offsets(played) == [0.0, 0.5, 0.5, 2.0, 4.0]
    assert end.conversation is None
    assert offsets([end]) == [5.0]


def test_the_last_row_of_a_trace_has_a_moment_to_be_sent() -> None:
    assert offsets(list(planned(TRACE, 7, talks([0.0]), START_NS, 0))) == [0.0, 0.1]


@pytest.mark.parametrize("workers", [1, 2])
def test_where_a_duration_ends_the_arrivals_nothing_but_it_ends_the_window(workers: int) -> None:
    load = replace(POISSON, rate_per_s=0.5, warmup_s=2.0, duration_s=60.0, workers=workers)
    for seed in range(400):
        for worker in range(workers):
            assert all(begun.conversation for begun in planned(load, seed, talks(), START_NS, worker))


def test_an_open_loop_that_runs_out_of_conversations_ends_when_the_next_would_have_begun() -> None:
    load = replace(POISSON, duration_s=60.0)
    *played, end = planned(load, 7, talks([0.0] * 5), START_NS, 0)
    assert len(played) == 5
    assert (end.number, end.conversation) == (5, None)
    due_s = list(islice(schedule(load, Random("7 arrivals")), 6))
    assert offsets([*played, end]) == pytest.approx(due_s, abs=1e-8)


def test_a_scenario_without_instants_is_no_trace() -> None:
    with pytest.raises(UserError, match="no arrival times"):
        next(planned(TRACE, 7, talks(), START_NS, 0))


def test_where_no_more_are_due_the_user_on_watch_waits_for_the_traffic_to_be_closed() -> None:
    closed = Event()
    loop = OpenLoop(lambda due_ns: True, closed)
    users = [gevent.spawn(loop.take, 2) for _ in range(2)]
    gevent.sleep(0)
    gevent.sleep(0)
    assert not any(user.ready() for user in users)
    closed.set()
    loop.release()
    gevent.joinall(users, timeout=5)
    assert [user.ready() and user.value for user in users] == [None, None]


def test_one_user_keeps_watch_the_others_are_idle_and_all_go_at_the_end() -> None:
    closed, due, taken = Event(), Event(), []

    def wait_until(due_ns: int) -> bool:
        due.wait()
        return not closed.is_set()

    loop = OpenLoop(wait_until, closed)
    loop.beginnings = iter([Beginning(number, Conversation(()), number) for number in range(2)])

    def user(name: str) -> None:
        while begun := loop.take(3):
            taken.append((name, begun.number))
            gevent.sleep(0)
            break
        else:
            taken.append((name, None))

    users = [gevent.spawn(user, name) for name in "abc"]
    gevent.sleep(0)
    assert taken == []
    due.set()
    gevent.joinall(users[:1] + users[2:], timeout=5)
    # The first kept watch; then the one that had become idle last; the third is still idle, or on watch.
    assert taken[:2] == [("a", 0), ("c", 1)]
    closed.set()
    loop.release()
    gevent.joinall(users, timeout=5)
    assert taken[2:] == [("b", None)]
    assert loop.most_users == 2
    assert loop.wanted.is_set()
