from __future__ import annotations

import time

from harness.load.clock import ClockMap

SECOND_NS = 1_000_000_000


class Clocks:
    """Two clocks `apart_ns` apart; reading either takes 10 ns, now and then 1000."""

    def __init__(self, apart_ns: int) -> None:
        self.now_ns = 5 * SECOND_NS
        self.apart_ns = apart_ns
        self.readings = 0

    def monotonic_ns(self) -> int:
        self.readings += 1
        self.now_ns += 1000 if self.readings % 7 else 10
        return self.now_ns

    def realtime_ns(self) -> int:
        return self.monotonic_ns() + self.apart_ns


def test_a_stamp_is_mapped_within_the_stated_uncertainty() -> None:
    clocks = Clocks(apart_ns=1_700_000_000 * SECOND_NS)
    clock = ClockMap(clocks.monotonic_ns, clocks.realtime_ns)
    at_ns = clocks.now_ns
    mapped_ns = clock.to_monotonic_ns(at_ns + clocks.apart_ns, at_ns + 10_000)
    assert abs(mapped_ns - at_ns) <= clock.uncertainty_ns
    assert clock.uncertainty_ns <= 1006  # half of the shortest pair, 1000 + 1000 or 1000 + 10


def test_the_real_clocks_agree_within_a_few_microseconds() -> None:
    clock = ClockMap()
    before_ns = time.monotonic_ns()
    realtime_ns = time.time_ns()
    after_ns = time.monotonic_ns()
    mapped_ns = clock.to_monotonic_ns(realtime_ns, after_ns)
    assert before_ns - clock.uncertainty_ns <= mapped_ns <= after_ns
    assert clock.uncertainty_ns < 100_000


def test_a_step_of_the_time_of_day_is_followed() -> None:
    for step_ns in (3600 * SECOND_NS, -3600 * SECOND_NS):
        clocks = Clocks(apart_ns=10 * SECOND_NS)
        clock = ClockMap(clocks.monotonic_ns, clocks.realtime_ns)
        clocks.apart_ns += step_ns
        at_ns = clocks.now_ns
        mapped_ns = clock.to_monotonic_ns(at_ns + clocks.apart_ns, at_ns + 10_000)
        assert abs(mapped_ns - at_ns) <= clock.uncertainty_ns


def test_a_stamp_is_never_later_than_its_reading() -> None:
    clocks = Clocks(apart_ns=0)
    clock = ClockMap(clocks.monotonic_ns, clocks.realtime_ns)
    assert clock.to_monotonic_ns(clocks.now_ns + SECOND_NS, clocks.now_ns) <= clocks.now_ns


def test_a_stamp_that_was_really_read_late_keeps_its_time() -> None:
    clocks = Clocks(apart_ns=0)
    clock = ClockMap(clocks.monotonic_ns, clocks.realtime_ns)
    at_ns = clocks.now_ns
    clocks.now_ns += 2 * SECOND_NS
    assert abs(clock.to_monotonic_ns(at_ns, clocks.now_ns) - at_ns) <= clock.uncertainty_ns
