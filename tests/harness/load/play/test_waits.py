"""Waits of greenlets end at their instants, in order, and not before."""

import sys
import time
from collections.abc import Callable, Iterator

import gevent
import pytest

from serving_bench.harness.load.play.waits import Alarm

MS = 1_000_000


@pytest.fixture(params=[True, False] if sys.platform == "linux" else [False])
def alarm(request: pytest.FixtureRequest) -> Iterator[Alarm]:
    made = Alarm(request.param)
    yield made
    made.close()


def waiting(alarm: Alarm, due_ns: int, then: Callable[[int], object]) -> gevent.Greenlet:
    def wait() -> None:
        alarm.wait(due_ns)
        then(time.monotonic_ns())

    return gevent.spawn(wait)


def test_waits_end_in_the_order_of_their_instants_and_none_too_early(alarm: Alarm) -> None:
    began_ns = time.monotonic_ns()
    dues = [began_ns + n * MS for n in (130, 90, 110, 90, 150)]
    ended: list[tuple[int, int]] = []
    greenlets = [waiting(alarm, due, lambda now, due=due: ended.append((due, now))) for due in dues]
    gevent.sleep(0)  # all wait, the latest of them first
    waited = [due for due in dues if due > time.monotonic_ns()]
    gevent.joinall(greenlets, timeout=5)
    assert len(ended) == len(dues)
    assert all(now >= due for due, now in ended)
    # One that was past before it could wait, on a machine that stood still, ends when it is asked for.
    assert [due for due, _ in ended if due in waited] == sorted(waited)


def test_an_earlier_instant_that_comes_later_is_not_kept_waiting(alarm: Alarm) -> None:
    began_ns = time.monotonic_ns()
    ended: list[str] = []
    late = waiting(alarm, began_ns + 60_000 * MS, lambda now: ended.append("late"))
    gevent.sleep(0)
    gevent.joinall([waiting(alarm, began_ns + 20 * MS, lambda now: ended.append("early"))], timeout=5)
    assert ended == ["early"]
    alarm.wake_all()
    late.join(5)
    assert ended == ["early", "late"]


def test_an_instant_of_the_past_does_not_wait(alarm: Alarm) -> None:
    others: list[int] = []
    gevent.spawn(others.append, 1)
    alarm.wait(time.monotonic_ns() - 1)
    assert others == []  # whoever waits lets the other greenlets run


def test_a_killed_wait_leaves_the_others(alarm: Alarm) -> None:
    ended: list[int] = []
    due_ns = time.monotonic_ns() + 30 * MS
    killed, other = (waiting(alarm, due_ns, ended.append) for _ in range(2))
    gevent.sleep(0)
    killed.kill()
    other.join(5)
    assert len(ended) == 1


def test_a_wait_may_follow_a_wait(alarm: Alarm) -> None:
    began_ns = time.monotonic_ns()

    def wait() -> None:
        for number in range(1, 4):
            alarm.wait(began_ns + number * 10 * MS)
            assert time.monotonic_ns() >= began_ns + number * 10 * MS

    greenlet = gevent.spawn(wait)
    greenlet.join(5)
    assert greenlet.successful()
