"""How late the load process itself is: bounded histograms, a timer that watches the loop, gc pauses.

It knows no request. It says how far the client's own readings can be trusted.
"""

import gc
import time
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import ceil, log2
from typing import Any

import gevent

BINS_PER_OCTAVE = 8
TIMER_S = 0.01
SAMPLED = 16


class LagHistogram:
    """Durations in bins whose edges are 9 % apart. Its memory does not grow."""

    def __init__(self) -> None:
        self._counts = array("q", bytes(8 * 64 * BINS_PER_OCTAVE))
        self._max_ns = 0
        self._skip = 0
        self._count = 0

    def add(self, lag_ns: int) -> None:
        lag_ns = max(lag_ns, 0)
        self._counts[int(log2(lag_ns + 1) * BINS_PER_OCTAVE)] += 1
        self._count += 1
        self._max_ns = max(self._max_ns, lag_ns)

    def sample(self, lags_ns: Sequence[int]) -> None:
        """Count one in SAMPLED, from a place that moves on. The maximum is that of all."""
        for lag_ns in lags_ns[self._skip :: SAMPLED]:
            self.add(lag_ns)
        self._skip = (self._skip - len(lags_ns)) % SAMPLED
        self._max_ns = max(self._max_ns, max(lags_ns, default=0))

    def summary_s(self) -> tuple[float, float, float] | None:
        """Return the median, the p99 and the maximum. None if it is empty.

        The maximum is exact. The others are upper edges of their bins, at most 9 % high.
        """
        if not self._count:
            return None
        return (self._percentile_ns(0.5) / 1e9, self._percentile_ns(0.99) / 1e9, self._max_ns / 1e9)

    def _percentile_ns(self, share: float) -> float:
        wanted, seen = ceil(share * self._count), 0
        for number, count in enumerate(self._counts):
            seen += count
            if seen >= wanted:
                return min(2 ** ((number + 1) / BINS_PER_OCTAVE) - 1, self._max_ns)
        return self._max_ns


@contextmanager
def loop_lag() -> Iterator[LagHistogram]:
    """Measure how late a 10 ms timer of gevent's loop is while the block runs.

    libev rounds a wait up to whole milliseconds, so about 1 ms is the floor on an idle machine.
    """
    histogram = LagHistogram()

    def watch() -> None:
        while True:
            due_ns = time.monotonic_ns() + int(TIMER_S * 1e9)
            gevent.sleep(TIMER_S)
            histogram.add(time.monotonic_ns() - due_ns)

    timer = gevent.spawn(watch)
    try:
        yield histogram
    finally:
        timer.kill()


class GcPauses:
    """The sum of the garbage collector's pauses so far, in seconds."""

    def __init__(self) -> None:
        self.total_s = 0.0
        self._began_ns = 0

    def notice(self, phase: str, _info: dict[str, Any]) -> None:
        """Note a pause's begin or end, as a callback of gc.callbacks."""
        if phase == "start":
            self._began_ns = time.monotonic_ns()
        else:
            self.total_s += (time.monotonic_ns() - self._began_ns) / 1e9


@contextmanager
def gc_pauses() -> Iterator[GcPauses]:
    """Add up the collector's pauses while the block runs."""
    pauses = GcPauses()
    gc.callbacks.append(pauses.notice)
    try:
        yield pauses
    finally:
        gc.callbacks.remove(pauses.notice)
