"""What is planned for each worker, and how users take turns."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from random import Random

import gevent
import pytest
from gevent.event import Event

from serving_bench.harness.contracts import Conversation, Load
from serving_bench.harness.errors import UserError
from serving_bench.harness.load.play.arrivals import Beginning, due_s, instant_s, planned, points
from serving_bench.harness.load.play.waits import OpenLoop

POISSON = Load(concurrency=None, rate_per_s=100, warmup_s=1.0, duration_s=None)
TRACE = Load(concurrency=None, arrival="trace", warmup_s=0.0, duration_s=None)


def talks(arrivals: list[float] | None = None) -> Iterator[Conversation]:
    if arrivals is not None:
        return (Conversation((), at_s) for at_s in arrivals)
    return iter(lambda: Conversation(()), None)


def offsets(load: Load, beginnings: list[Beginning]) -> list[float]:
    return [due_s(load, begun.at) for begun in beginnings if begun.at is not None]


def schedule(load: Load, count: int) -> list[float]:
    return [instant_s(load, point) for point in islice(points(load, Random("7 arrivals")), count)]


def test_the_instants_are_those_of_the_seeded_schedule() -> None:
    found = list(islice(planned(POISSON, 7, talks(), 0), 20))
    assert [begun.number for begun in found] == list(range(20))
    assert offsets(POISSON, found) == schedule(POISSON, 20)


@pytest.mark.parametrize("conversations", [None, 31])
def test_two_workers_together_play_what_one_would(conversations: int | None) -> None:
    one = replace(POISSON, conversations=conversations)
    two = replace(one, workers=2)

    def instants(load: Load, count: int, worker: int) -> dict[int, float | None]:
        plan = islice(planned(load, 7, talks(), worker), count)
        return {begun.number: begun.at for begun in plan if begun.conversation}

    first, second = (instants(two, 100, worker) for worker in (0, 1))
    assert first | second == instants(one, 200, 0)
    assert {number % 2 for number in first} == {0}


def test_conversations_are_counted_from_the_windows_start() -> None:
    load = replace(POISSON, conversations=10)
    *played, end = planned(load, 7, talks(), 0)
    times_s = offsets(load, played)
    assert sum(at_s >= load.warmup_s for at_s in times_s) == 10
    assert sum(at_s < load.warmup_s for at_s in times_s) > 50
    assert end.conversation is None
    # The window ends when the next one would have begun.
    assert offsets(load, [end]) == schedule(load, len(played) + 1)[-1:]


def test_a_trace_begins_at_its_own_instants_sped_up_and_ends_a_gap_later() -> None:
    load = replace(TRACE, speedup=2.0)
    *played, end = planned(load, 7, talks([0.0, 1.0, 1.0, 4.0, 8.0]), 0)
    assert offsets(load, played) == [0.0, 0.5, 0.5, 2.0, 4.0]
    assert end.conversation is None
    assert offsets(load, [end]) == [5.0]


def test_the_last_row_of_a_trace_has_a_moment_to_be_sent() -> None:
    assert offsets(TRACE, list(planned(TRACE, 7, talks([0.0]), 0))) == [0.0, 0.1]


def test_an_open_loop_that_runs_out_of_conversations_ends_when_the_next_would_have_begun() -> None:
    load = replace(POISSON, duration_s=60.0)
    *played, end = planned(load, 7, talks([0.0] * 5), 0)
    assert len(played) == 5
    assert (end.number, end.conversation) == (5, None)
    assert offsets(load, [*played, end]) == schedule(load, 6)


def test_a_scenario_without_instants_is_no_trace() -> None:
    with pytest.raises(UserError, match="no arrival times"):
        next(planned(TRACE, 7, talks(), 0))


def test_the_end_of_the_window_moves_what_was_due_behind_it() -> None:
    waited: list[int] = []

    class Moves:
        def wait_unless(self, closed: Event, due_ns: int) -> bool:
            waited.append(due_ns)
            return True

        def due_ns(self, at: float) -> int:
            return 15 if waited else 10

    moves = Moves()
    loop = OpenLoop(moves, moves, Event())  # type: ignore[arg-type]
    loop.beginnings = iter([Beginning(0, Conversation(()), 7.0)])
    begun = loop.take(1)
    assert begun
    assert (begun.due_ns, waited) == (15, [10, 15])


def test_one_user_keeps_watch_the_others_are_idle_and_all_go_at_the_end() -> None:
    closed, due, taken = Event(), Event(), []

    class Waits:
        def wait_unless(self, closed: Event, due_ns: int) -> bool:
            (due if due_ns < 2 else closed).wait()
            return not closed.is_set()

        def due_ns(self, at: float) -> int:
            return int(at)

    loop = OpenLoop(Waits(), Waits(), closed)  # type: ignore[arg-type]
    loop.beginnings = iter([Beginning(number, Conversation(()), number) for number in range(3)])

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
