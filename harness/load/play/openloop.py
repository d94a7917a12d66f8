"""Open loops: conversations begin at their instants, whether or not the server keeps up.

Under gevent; knows no socket, no request and no Locust.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain, takewhile
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
    """A conversation to play; `due_ns` is None where it is due as soon as its user is free. Without a
    conversation it is the end of all."""

    number: int
    conversation: Conversation | None
    due_ns: int | None


def planned(
    load: Load, seed: int, conversations: Iterator[Conversation], started_ns: int, worker: int
) -> Iterator[Beginning]:
    """A worker's share of a cell's beginnings, in order, then the end where the conversations run out, by
    load.conversations or by themselves.

    load.conversations counts those that are due in the window, over all workers. Where load.duration ends
    the arrivals no end comes: the window is as long as that, however long ago the last arrival was.
    """
    window_start_s = arrivals.phases(load).window_start_s
    counted = 0
    for number, (due_s, conversation) in enumerate(_timed(load, seed, conversations)):
        due_ns = started_ns + int(due_s * 1e9)
        if load.conversations is not None and due_s >= window_start_s:
            if counted == load.conversations:
                conversation = None
            counted += 1
        if conversation is None:
            yield Beginning(number, None, due_ns)
            return
        if number % load.workers == worker:
            yield Beginning(number, conversation, due_ns)


def _timed(
    load: Load, seed: int, conversations: Iterator[Conversation]
) -> Iterator[tuple[float, Conversation | None]]:
    """All conversations of a cell with their instants, in seconds from its start. Where they run out, None
    with the instant at which the next one would have begun."""
    if load.kind == "trace":
        yield from _traced(load, conversations)
        return
    # Drawn apart from the conversations, so that each is what it is without the other.
    for due_s in arrivals.schedule(load, Random(f"{seed} arrivals")):
        yield due_s, next(conversations, None)


def _traced(load: Load, conversations: Iterator[Conversation]) -> Iterator[tuple[float, Conversation | None]]:
    """The conversations of a trace at their own instants; what would have come next is a mean gap later."""
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

    def __init__(self, wait_until: Callable[[int], bool], closed: Event) -> None:
        self.beginnings: Iterator[Beginning] = iter(())
        self.wanted = Event()
        self.most_users = 0  # in use at once
        self._wait_until = wait_until
        self._closed = closed
        self._idle: list[Waiter] = []
        self._is_watched = False

    def take(self, users: int) -> Beginning | None:
        """Block the calling user until the next beginning is due; None once the traffic is closed.

        `users`: how many there are by now.
        """
        if self._is_watched:
            waiter = Waiter()
            self._idle.append(waiter)
            waiter.get()
        self._is_watched = True
        if self._closed.is_set():
            return None
        begun = next(self.beginnings, None)
        if begun is None:  # the duration ends it, not the last arrival
            self._closed.wait()
            return None
        if begun.due_ns is None:
            return None
        if not self._wait_until(begun.due_ns):
            self.beginnings = chain([begun], self.beginnings)
            return None
        if begun.conversation:
            self.most_users = max(self.most_users, users - len(self._idle))
            self._change_watch()
        return begun

    def _change_watch(self) -> None:
        self._is_watched = bool(self._idle)
        if self._idle:
            # The last one to become idle, whose connection is the least likely to be closed.
            get_hub().loop.run_callback(self._idle.pop().switch, None)
        if not self._idle:
            self.wanted.set()

    def left_out(self, until_ns: int) -> int:
        """How many of a closed traffic's conversations were due before an instant, and never began."""
        due = takewhile(lambda begun: begun.due_ns is not None and begun.due_ns < until_ns, self.beginnings)
        return sum(begun.conversation is not None for begun in due)

    def release(self) -> None:
        """Let all idle users go: the traffic is closed."""
        idle, self._idle = self._idle, []
        for waiter in idle:
            get_hub().loop.run_callback(waiter.switch, None)
        self.wanted.set()
