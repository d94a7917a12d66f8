"""Open loops: conversations begin at their instants, whether or not the server keeps up.

Under gevent; knows no socket, no request and no Locust.
"""

from collections.abc import Callable, Iterator
from itertools import chain, takewhile
from math import inf
from random import Random
from typing import NamedTuple

from gevent import get_hub
from gevent.event import Event
from gevent.hub import Waiter

from harness.contracts import Conversation, Load
from harness.errors import UserError
from harness.load.play import arrivals

# A trace that has ended: the window goes on for the mean gap of its arrivals, but for so long at least, so
# that the last of them is in it.
LAST_GAP_S = 0.1


class Beginning(NamedTuple):
    """A conversation to play, or without one the end of all.

    `at`: of an open loop the point of its arrival, of a trace the seconds from the cell's start. `due_ns` is
    the instant that follows from it. Both are None in a closed loop, where it is due once its user is free.
    """

    number: int
    conversation: Conversation | None
    at: float | None = None
    due_ns: int | None = None


def planned(load: Load, seed: int, conversations: Iterator[Conversation], worker: int) -> Iterator[Beginning]:
    """Yield a worker's share of a cell's beginnings in order, then the end if the conversations run out, by
    load.conversations or by themselves.

    load.conversations counts those that are due in the window, over all workers.
    """
    window_start_s = arrivals.phases(load).window_start_s
    counted = 0
    for number, (at, conversation) in enumerate(_placed(load, seed, conversations)):
        if load.conversations is not None and due_s(load, at) >= window_start_s:
            if counted == load.conversations:
                conversation = None
            counted += 1
        if conversation is None:
            yield Beginning(number, None, at)
            return
        if number % load.workers == worker:
            yield Beginning(number, conversation, at)


def due_s(load: Load, at: float, window_end_s: float = inf) -> float:
    """Return the seconds from the cell's start that a beginning's `at` stands for."""
    return at if load.kind == "trace" else arrivals.instant_s(load, at, window_end_s)


def _placed(
    load: Load, seed: int, conversations: Iterator[Conversation]
) -> Iterator[tuple[float, Conversation | None]]:
    """Yield all conversations with their places in time, then None with the place of the next one."""
    if load.kind == "trace":
        yield from _traced(load, conversations)
        return
    # Drawn apart from the conversations, so that each is what it is without the other.
    for point in arrivals.points(load, Random(f"{seed} arrivals")):
        yield point, next(conversations, None)


def _traced(load: Load, conversations: Iterator[Conversation]) -> Iterator[tuple[float, Conversation | None]]:
    """Yield the conversations of a trace at their own instants. The next would have come a mean gap later."""
    last_s, gaps = 0.0, 0
    for place, conversation in enumerate(conversations):
        if conversation.arrival_s is None:
            raise UserError("load.arrival=trace: the scenario has no arrival times; use scenario=trace")
        last_s, gaps = conversation.arrival_s / load.speedup, place
        yield last_s, conversation
    yield last_s + max(LAST_GAP_S, last_s / gaps if gaps else 0.0), None


class OpenLoop:
    """Hands each beginning to a user at its instant.

    One user at a time is on watch: it has the next beginning, made in advance, and waits for its instant.
    Then it wakes an idle user to keep watch and goes to play. Where nobody is idle, `wanted` is set, and the
    next user to ask keeps watch: beginnings that became due meanwhile are late, none is left out.
    """

    def __init__(
        self, wait_until: Callable[[int], bool], due_ns: Callable[[float], int], closed: Event
    ) -> None:
        self.beginnings: Iterator[Beginning] = iter(())
        self.wanted = Event()
        self.most_users = 0  # in use at once
        self._wait_until = wait_until
        self._due_ns = due_ns
        self._closed = closed
        self._idle: list[Waiter] = []
        self._is_watched = False

    def take(self, users: int) -> Beginning | None:
        """Block the calling user until the next beginning is due. Returns None once the traffic is closed.

        `users`: how many there are by now.
        """
        if self._is_watched:
            waiter = Waiter()
            self._idle.append(waiter)
            waiter.get()
        self._is_watched = True
        if self._closed.is_set():
            return None
        begun = next(self.beginnings)
        due_ns = self._awaited_ns(begun)
        if due_ns is None:
            self.beginnings = chain([begun], self.beginnings)
            return None
        if begun.conversation:
            self.most_users = max(self.most_users, users - len(self._idle))
            self._change_watch()
        return begun._replace(due_ns=due_ns)

    def _awaited_ns(self, begun: Beginning) -> int | None:
        """Block until a beginning is due and return that instant. Returns None once the traffic is closed."""
        assert begun.at is not None
        due_ns = self._due_ns(begun.at)
        while self._wait_until(due_ns):
            # The window may have ended meanwhile: a ramp-down moves to later what was due behind it.
            if (later_ns := self._due_ns(begun.at)) <= due_ns:
                return due_ns
            due_ns = later_ns
        return None

    def _change_watch(self) -> None:
        self._is_watched = bool(self._idle)
        if self._idle:
            # The last one to become idle, whose connection is the least likely to be closed.
            get_hub().loop.run_callback(self._idle.pop().switch, None)
        if not self._idle:
            self.wanted.set()

    def left_out(self, until_ns: int) -> int:
        """Return how many conversations of a closed traffic were due before an instant and never began."""
        due = takewhile(
            lambda begun: begun.at is not None and self._due_ns(begun.at) < until_ns, self.beginnings
        )
        return sum(begun.conversation is not None for begun in due)

    def release(self) -> None:
        """Let all idle users go: the traffic is closed."""
        idle, self._idle = self._idle, []
        for waiter in idle:
            get_hub().loop.run_callback(waiter.switch, None)
        self.wanted.set()
