"""Let greenlets wait for an instant, and in an open loop for the next conversation."""

import ctypes
import os
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from heapq import heappop, heappush
from itertools import chain, count, takewhile
from typing import Any

from gevent import get_hub
from gevent.event import Event
from gevent.hub import Waiter

from serving_bench.harness.load.play.arrivals import Beginning
from serving_bench.harness.load.play.window import Window

_CLOCK_MONOTONIC = 1
_TFD_TIMER_ABSTIME = 1
_S = 1_000_000_000


class Alarm:
    """One timer that all waiting greenlets of a process share; the first wait makes it.

    Linux's timerfd wakes within about 0.1 ms. gevent's own timers wait in whole milliseconds.
    """

    def __init__(self, has_timerfd: bool = sys.platform == "linux") -> None:
        self._has_timerfd = has_timerfd
        self._libc = ctypes.CDLL(None)
        self._fd = -1
        self._watcher: Any = None
        self._waits: list[tuple[int, int, Waiter]] = []  # a heap
        self._order = count()

    def wait(self, due_ns: int) -> None:
        """Wait in this greenlet until the instant, or until `wake_all`."""
        if due_ns <= time.monotonic_ns():
            return
        waiter = Waiter()
        entry = (due_ns, next(self._order), waiter)
        heappush(self._waits, entry)
        if self._waits[0] is entry:
            self._set(due_ns)
        waiter.get()

    def wait_unless(self, closed: Event, due_ns: int) -> bool:
        """Wait until the instant. Return False if the traffic was `closed` before it."""
        if not closed.is_set():
            self.wait(due_ns)
        return not closed.is_set()

    def wake_all(self) -> None:
        """End every wait now, in the order of their instants."""
        woken, self._waits = sorted(self._waits), []
        for _, _, waiter in woken:
            get_hub().loop.run_callback(waiter.switch, None)

    def close(self) -> None:
        """Free the timer. Only `wake_all` can then end the waits that are left."""
        if self._watcher:
            self._watcher.stop()
            self._watcher.close()
            self._watcher = None
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _set(self, due_ns: int) -> None:
        loop = get_hub().loop
        if not self._has_timerfd:
            self.close()
            self._watcher = loop.timer(max(0.0, (due_ns - time.monotonic_ns()) / _S))
            self._watcher.start(self._ring, update=True)
            return
        if self._watcher is None:
            self._fd = self._libc.timerfd_create(_CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
            self._watcher = loop.io(self._fd, 1)
            self._watcher.start(self._ring)
        # struct itimerspec: seconds and nanoseconds of the interval, then of the value
        value = (ctypes.c_long * 4)(0, 0, *divmod(due_ns, _S))
        self._libc.timerfd_settime(self._fd, _TFD_TIMER_ABSTIME, value, None)

    def _ring(self) -> None:
        """Wake the greenlets that are due, in the hub. One that was killed meanwhile is not woken."""
        if self._fd >= 0:
            # If it was set again after the loop saw it ring, it has nothing to read.
            with suppress(BlockingIOError):
                os.read(self._fd, 8)
        while self._waits and self._waits[0][0] <= time.monotonic_ns():
            heappop(self._waits)[2].switch(None)
        if self._waits:
            self._set(self._waits[0][0])


class OpenLoop:
    """Hands each beginning to a user at its instant.

    One user at a time watches for the next beginning; then it wakes an idle user to watch, and plays. If that
    leaves nobody idle, `wanted` is set. Beginnings that become due while nobody watches are late, but none is
    left out.
    """

    def __init__(self, alarm: Alarm, window: Window, closed: Event) -> None:
        self.beginnings: Iterator[Beginning] = iter(())
        self.wanted = Event()
        self.most_users = 0  # in use at once
        self._alarm, self._window, self._closed = alarm, window, closed
        self._idle: list[Waiter] = []
        self._is_watched = False

    def take(self, users: int) -> Beginning | None:
        """Wait until the next beginning is due, for one of `users`; None once the traffic is closed."""
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
        """Wait until a beginning is due and return that instant; None once the traffic is closed."""
        assert begun.at is not None
        due_ns = self._window.due_ns(begun.at)
        while self._alarm.wait_unless(self._closed, due_ns):
            # The window may have ended meanwhile. The ramp-down then delays what was due after its end.
            if (later_ns := self._window.due_ns(begun.at)) <= due_ns:
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
        due = takewhile(lambda begun: self._window.due_ns(begun.at or 0.0) < until_ns, self.beginnings)
        return sum(begun.conversation is not None for begun in due)

    def release(self) -> None:
        idle, self._idle = self._idle, []
        for waiter in idle:
            get_hub().loop.run_callback(waiter.switch, None)
        self.wanted.set()
