"""Wake greenlets at instants, within some 0.1 ms. gevent's own timers wait in whole milliseconds.

It knows no request.
"""

import ctypes
import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from heapq import heappop, heappush
from itertools import count
from typing import Any, Protocol

from gevent import get_hub
from gevent.hub import Waiter

_CLOCK_MONOTONIC = 1
_TFD_TIMER_ABSTIME = 1
_S = 1_000_000_000


class Timer(Protocol):
    """Calls back in gevent's hub once an instant has come, or a little earlier."""

    def set(self, due_ns: int) -> None: ...
    def close(self) -> None: ...


class _ItimerSpec(ctypes.Structure):
    """struct itimerspec of timerfd_settime(2): seconds and nanoseconds of the interval, then of the value."""

    _fields_ = (
        ("interval_s", ctypes.c_long),
        ("interval_ns", ctypes.c_long),
        ("value_s", ctypes.c_long),
        ("value_ns", ctypes.c_long),
    )


class KernelTimer:
    """A timerfd of Linux, watched by gevent's loop. Raises OSError if the kernel gives none."""

    def __init__(self, callback: Callable[[], None]) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self._set_time = libc.timerfd_settime
        self._fd = libc.timerfd_create(_CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")
        self._spec = _ItimerSpec()
        self._watcher = get_hub().loop.io(self._fd, 1)
        self._callback = callback
        self._watcher.start(self._ring)

    def set(self, due_ns: int) -> None:
        self._spec.value_s, self._spec.value_ns = divmod(due_ns, _S)
        self._set_time(self._fd, _TFD_TIMER_ABSTIME, ctypes.byref(self._spec), None)

    def _ring(self) -> None:
        # If it was set again after the loop saw it ring, it has nothing to read.
        with suppress(BlockingIOError):
            os.read(self._fd, 8)
        self._callback()

    def close(self) -> None:
        self._watcher.stop()
        self._watcher.close()
        os.close(self._fd)


class LoopTimer:
    """A timer of gevent's loop: up to 1 ms late, more on a loop that is busy."""

    def __init__(self, callback: Callable[[], None]) -> None:
        self._callback = callback
        self._timer: Any = None

    def set(self, due_ns: int) -> None:
        self.close()
        self._timer = get_hub().loop.timer(max(0.0, (due_ns - time.monotonic_ns()) / _S))
        self._timer.start(self._callback, update=True)

    def close(self) -> None:
        if self._timer:
            self._timer.stop()
            self._timer.close()
            self._timer = None


def best_timer(callback: Callable[[], None]) -> Timer:
    return KernelTimer(callback) if sys.platform.startswith("linux") else LoopTimer(callback)


class Alarm:
    """One timer that all waiting greenlets of a process share. It is opened by the first wait."""

    def __init__(self, timer: Callable[[Callable[[], None]], Timer] = best_timer) -> None:
        self._make_timer = timer
        self._timer: Timer | None = None
        self._waits: list[tuple[int, int, Waiter]] = []  # a heap
        self._order = count()

    def wait(self, due_ns: int) -> None:
        """Block this greenlet until the instant, or until `wake_all`."""
        if due_ns <= time.monotonic_ns():
            return
        waiter = Waiter()
        entry = (due_ns, next(self._order), waiter)
        heappush(self._waits, entry)
        if self._waits[0] is entry:
            self._set(due_ns)
        waiter.get()

    def wake_all(self) -> None:
        """Let every wait end now, in the order of their instants."""
        woken, self._waits = sorted(self._waits), []
        for _, _, waiter in woken:
            get_hub().loop.run_callback(waiter.switch, None)

    def close(self) -> None:
        """Free the timer. What waits then waits for `wake_all`."""
        if self._timer:
            self._timer.close()
            self._timer = None

    def _set(self, due_ns: int) -> None:
        if self._timer is None:
            self._timer = self._make_timer(self._ring)
        self._timer.set(due_ns)

    def _ring(self) -> None:
        """Wake what is due, in the hub. The waiter of a greenlet that was killed meanwhile wakes nobody."""
        while self._waits and self._waits[0][0] <= time.monotonic_ns():
            heappop(self._waits)[2].switch(None)
        if self._waits:
            self._set(self._waits[0][0])
