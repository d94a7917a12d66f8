"""Measure how far a load process can trust its readings: clocks, its loop's lag, its collector's pauses."""

import gc
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import ceil, log2
from operator import sub
from typing import Any, Protocol

import gevent

FIRST_PAIRS = 1000
REFRESH_PAIRS = 100
# A stamp that looks older than this is checked against a new reading of both clocks before it is believed.
SUSPICIOUS_LAG_NS = 200_000_000
BINS_PER_OCTAVE = 8
TIMER_NS = 10_000_000
# A user notices such a pause. The kernel stamps what arrives meanwhile, but nothing is sent.
STALL_NS = 50_000_000
SAMPLED = 16


class Clocks(Protocol):
    """The system's clocks, as Python's module `time` has them."""

    def monotonic_ns(self) -> int: ...
    def time_ns(self) -> int: ...


class ClockMap:
    """The offset from CLOCK_REALTIME (the kernel's stamps) to CLOCK_MONOTONIC (all instants of bench).

    It changes only when somebody sets the time of day. `uncertainty_ns` is the worst of all offsets so far.
    """

    def __init__(self, clocks: Clocks = time) -> None:
        self._clocks = clocks
        self._offset_ns, self._offset_uncertainty_ns = self._best_pair(FIRST_PAIRS)
        self.uncertainty_ns = self._offset_uncertainty_ns
        self._former: list[tuple[int, int]] = []  # offsets before a step, and when each was found outdated

    def refresh(self) -> None:
        """Read both clocks again to find a step. Takes about 50 us."""
        offset_ns, uncertainty_ns = self._best_pair(REFRESH_PAIRS)
        is_step = abs(offset_ns - self._offset_ns) > uncertainty_ns + self._offset_uncertainty_ns
        if is_step:
            self._former.append((self._clocks.monotonic_ns(), self._offset_ns))
            self.uncertainty_ns = max(self.uncertainty_ns, uncertainty_ns)
        if is_step or uncertainty_ns < self._offset_uncertainty_ns:
            self._offset_ns, self._offset_uncertainty_ns = offset_ns, uncertainty_ns

    def to_monotonic_ns(self, realtime_ns: int, read_ns: int) -> int:
        """Return the instant of a stamp that was read at `read_ns`, never later than that."""
        instant_ns = self._likeliest_ns(realtime_ns, read_ns)
        if not -self.uncertainty_ns <= read_ns - instant_ns <= SUSPICIOUS_LAG_NS:
            self.refresh()
            instant_ns = self._likeliest_ns(realtime_ns, read_ns)
        return min(instant_ns, read_ns)

    def all_to_monotonic_ns(
        self, realtimes_ns: Sequence[int], read_ns: Sequence[int]
    ) -> tuple[list[int], list[int]]:
        """Return the instants of many stamps, and how long after each it was read.

        Costs a tenth of calling to_monotonic_ns for each.
        """
        offset_ns = self._offset_ns
        instants = [realtime_ns + offset_ns for realtime_ns in realtimes_ns]
        lags = list(map(sub, read_ns, instants))
        was_outdated = self._former and lags and read_ns[0] <= self._former[-1][0]
        if was_outdated or min(lags, default=0) < 0 or max(lags, default=0) > SUSPICIOUS_LAG_NS:
            instants = list(map(self.to_monotonic_ns, realtimes_ns, read_ns))
            lags = list(map(sub, read_ns, instants))
        return instants, lags

    def _likeliest_ns(self, realtime_ns: int, read_ns: int) -> int:
        """Return the instant by the offset that was valid then; the newest if several are possible."""
        newest_ns = realtime_ns + self._offset_ns
        for outdated_ns, offset_ns in reversed(self._former):
            if read_ns > outdated_ns:
                break
            instant_ns = realtime_ns + offset_ns
            is_too_new = newest_ns > read_ns + self.uncertainty_ns
            if is_too_new or newest_ns < instant_ns <= read_ns + self.uncertainty_ns:
                newest_ns = instant_ns
        return newest_ns

    def _best_pair(self, pairs: int) -> tuple[int, int]:
        """Return the offset by the quickest of some readings of both clocks, and its uncertainty."""
        best_ns, offset_ns = 1 << 62, 0
        monotonic_ns, time_ns = self._clocks.monotonic_ns, self._clocks.time_ns
        for _ in range(pairs):
            before_ns = monotonic_ns()
            realtime_ns = time_ns()
            took_ns = monotonic_ns() - before_ns
            if took_ns < best_ns:
                best_ns, offset_ns = took_ns, before_ns + took_ns // 2 - realtime_ns
        return offset_ns, best_ns // 2 + 1


class LagHistogram:
    """A histogram of durations in bins whose edges are 9 % apart. Its memory does not grow."""

    def __init__(self) -> None:
        self._counts = Counter[int]()
        self._max_ns = 0
        self._skip = 0

    def add(self, lag_ns: int) -> None:
        lag_ns = max(lag_ns, 0)
        self._counts[int(log2(lag_ns + 1) * BINS_PER_OCTAVE)] += 1
        self._max_ns = max(self._max_ns, lag_ns)

    def sample(self, lags_ns: Sequence[int]) -> None:
        """Count one in SAMPLED of all lags, across calls. The maximum is over all of them."""
        for lag_ns in lags_ns[self._skip :: SAMPLED]:
            self.add(lag_ns)
        self._skip = (self._skip - len(lags_ns)) % SAMPLED
        self._max_ns = max(self._max_ns, max(lags_ns, default=0))

    def summary_s(self) -> tuple[float, float, float] | None:
        """Return median and p99, both up to 9 % too high, and the exact maximum. None if it is empty."""
        if not self._counts:
            return None
        return self._percentile_ns(0.5) / 1e9, self._percentile_ns(0.99) / 1e9, self._max_ns / 1e9

    def _percentile_ns(self, share: float) -> float:
        left = ceil(share * self._counts.total())
        for number in sorted(self._counts):
            left -= self._counts[number]
            if left <= 0:
                break
        return min(2 ** ((number + 1) / BINS_PER_OCTAVE) - 1, self._max_ns)


class LoopLag(LagHistogram):
    """How late a timer of the loop was, and each span in which it was late by STALL_NS or more."""

    def __init__(self, since_ns: int) -> None:
        super().__init__()
        self._due_ns = since_ns + TIMER_NS
        self._stalls: list[tuple[int, int]] = []

    def tick(self, now_ns: int) -> None:
        """Count how late a tick is that was due TIMER_NS after the one before it."""
        self.add(now_ns - self._due_ns)
        if now_ns - self._due_ns >= STALL_NS:
            self._stalls.append((self._due_ns, now_ns))
        self._due_ns = now_ns + TIMER_NS

    def stalled_s(self, begin_ns: int, end_ns: int) -> float:
        """Return for how long of a window the loop stood still."""
        inside = (min(end_ns, until) - max(begin_ns, since) for since, until in self._stalls)
        return sum(each for each in inside if each > 0) / 1e9


@contextmanager
def loop_lag(since_ns: int) -> Iterator[LoopLag]:
    """Measure how late a 10 ms timer of gevent's loop is in the block; about 1 ms is libev's floor.

    If the block begins after `since_ns`, the time between counts as well.
    """
    histogram = LoopLag(min(since_ns, time.monotonic_ns()))

    def watch() -> None:
        while True:
            gevent.sleep(TIMER_NS / 1e9)
            histogram.tick(time.monotonic_ns())

    timer = gevent.spawn(watch)
    try:
        yield histogram
    finally:
        timer.kill()
        histogram.tick(time.monotonic_ns())


@contextmanager
def gc_pauses() -> Iterator[list[float]]:
    """Collect the garbage collector's pauses, in seconds, while the block runs."""
    pauses_s: list[float] = []
    began_ns = 0

    def notice(phase: str, _info: dict[str, Any]) -> None:
        nonlocal began_ns
        if phase == "start":
            began_ns = time.monotonic_ns()
        else:
            pauses_s.append((time.monotonic_ns() - began_ns) / 1e9)

    gc.callbacks.append(notice)
    try:
        yield pauses_s
    finally:
        gc.callbacks.remove(notice)
