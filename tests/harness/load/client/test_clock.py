import gc
import threading
import time

import gevent
import pytest

from serving_bench.harness.load.client.clock import ClockMap, LagHistogram, LoopLag, gc_pauses, loop_lag

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

    def time_ns(self) -> int:
        return self.monotonic_ns() + self.apart_ns


def test_a_stamp_is_mapped_within_the_stated_uncertainty() -> None:
    clocks = Clocks(apart_ns=1_700_000_000 * SECOND_NS)
    clock = ClockMap(clocks)
    at_ns = clocks.now_ns
    mapped_ns = clock.to_monotonic_ns(at_ns + clocks.apart_ns, at_ns + 10_000)
    assert abs(mapped_ns - at_ns) <= clock.uncertainty_ns
    assert clock.uncertainty_ns <= 1006  # half of the shortest pair, 1000 + 1000 or 1000 + 10


def test_the_real_clocks_agree_within_a_few_microseconds() -> None:
    clock = ClockMap()
    before_ns = time.monotonic_ns()
    realtime_ns = time.time_ns()
    after_ns = time.monotonic_ns()
    assert before_ns - clock.uncertainty_ns <= clock.to_monotonic_ns(realtime_ns, after_ns) <= after_ns
    assert clock.uncertainty_ns < 100_000


def test_a_step_of_the_time_of_day_is_followed() -> None:
    for step_ns in (3600 * SECOND_NS, -3600 * SECOND_NS):
        clocks = Clocks(apart_ns=10 * SECOND_NS)
        clock = ClockMap(clocks)
        clocks.apart_ns += step_ns
        at_ns = clocks.now_ns
        mapped_ns = clock.to_monotonic_ns(at_ns + clocks.apart_ns, at_ns + 10_000)
        assert abs(mapped_ns - at_ns) <= clock.uncertainty_ns


def test_many_stamps_are_mapped_as_each_by_itself() -> None:
    clocks = Clocks(apart_ns=1_700_000_000 * SECOND_NS)
    clock = ClockMap(clocks)
    at_ns = [clocks.now_ns + number * 1_000_000 for number in range(5)]
    read_ns = [at + 30_000 for at in at_ns]
    stamps = [at + clocks.apart_ns for at in at_ns]
    instants, lags = clock.all_to_monotonic_ns(stamps, read_ns)
    assert instants == [
        clock.to_monotonic_ns(at + clocks.apart_ns, read) for at, read in zip(at_ns, read_ns, strict=True)
    ]
    assert max(abs(instant - at) for instant, at in zip(instants, at_ns, strict=True)) <= clock.uncertainty_ns
    assert lags == [read - instant for read, instant in zip(read_ns, instants, strict=True)]
    assert clock.all_to_monotonic_ns([], []) == ([], [])


@pytest.mark.parametrize("step_ns", [3600 * SECOND_NS, -3600 * SECOND_NS, 50_000_000, -50_000_000])
@pytest.mark.parametrize("is_noticed", [False, True])
def test_stamps_on_both_sides_of_a_step_are_mapped_by_the_offset_of_their_time(
    step_ns: int, is_noticed: bool
) -> None:
    clocks = Clocks(apart_ns=10 * SECOND_NS)
    clock = ClockMap(clocks)
    before_ns = [clocks.now_ns + 1_000, clocks.now_ns + 2_000]
    stamps = [at + clocks.apart_ns for at in before_ns]
    clocks.apart_ns += step_ns
    clocks.now_ns += 100_000_000
    if is_noticed or abs(step_ns) < SECOND_NS:  # a small one shows only when the clocks are read again
        clock.refresh()
    after_ns = [clocks.now_ns + 1_000]
    stamps += [at + clocks.apart_ns for at in after_ns]
    all_ns = before_ns + after_ns
    instants, _ = clock.all_to_monotonic_ns(stamps, [at + 500 for at in all_ns])
    assert [abs(a - b) <= clock.uncertainty_ns + 500 for a, b in zip(instants, all_ns, strict=True)] == [
        True
    ] * 3


def test_a_stamp_is_never_later_than_its_reading() -> None:
    clocks = Clocks(apart_ns=0)
    clock = ClockMap(clocks)
    assert clock.to_monotonic_ns(clocks.now_ns + SECOND_NS, clocks.now_ns) <= clocks.now_ns


def test_a_stamp_that_was_really_read_late_keeps_its_time() -> None:
    clocks = Clocks(apart_ns=0)
    clock = ClockMap(clocks)
    at_ns = clocks.now_ns
    clocks.now_ns += 2 * SECOND_NS
    assert abs(clock.to_monotonic_ns(at_ns, clocks.now_ns) - at_ns) <= clock.uncertainty_ns


def test_an_empty_histogram_has_no_summary() -> None:
    assert LagHistogram().summary_s() is None


def test_percentiles_are_at_most_nine_percent_high_and_the_maximum_is_exact() -> None:
    histogram = LagHistogram()
    for number in range(1, 1001):
        histogram.add(number * 1000)
    median_s, p99_s, max_s = histogram.summary_s() or (0, 0, 0)
    assert 500e-6 <= median_s <= 500e-6 * 1.095
    assert 990e-6 <= p99_s <= 1000e-6
    assert max_s == 1000e-6


def test_equal_values_are_reported_as_they_are() -> None:
    histogram = LagHistogram()
    for _ in range(5):
        histogram.add(0)
    assert histogram.summary_s() == (0.0, 0.0, 0.0)


def test_values_of_any_size_fit() -> None:
    histogram = LagHistogram()
    histogram.add(-5)
    histogram.add(10**15)
    assert (histogram.summary_s() or (0, 0, 0))[2] == pytest.approx(1e6)


def test_a_sample_of_many_has_their_percentiles_and_exact_maximum() -> None:
    histogram = LagHistogram()
    lags = [1000] * 990 + [50_000] * 9 + [777_777]
    for start in range(0, len(lags), 10):
        histogram.sample(lags[start : start + 10])
    median_s, _, max_s = histogram.summary_s() or (0, 0, 0)
    assert 1e-6 <= median_s <= 1.1e-6
    assert max_s == 777_777e-9


def test_even_a_few_values_are_sampled() -> None:
    histogram = LagHistogram()
    histogram.sample([])
    histogram.sample([3000])
    assert histogram.summary_s() == (3e-6, 3e-6, 3e-6)


def test_a_blocked_loop_shows_as_lag() -> None:
    with loop_lag(time.monotonic_ns()) as lag:
        gevent.sleep(0.03)
        threading.Event().wait(0.15)  # blocks the hub: nothing yields to it
        gevent.sleep(0.03)
    median_s, _, max_s = lag.summary_s() or (0, 0, 0)
    assert 0.1 < max_s < 1.0
    assert median_s < 0.1


def test_what_passed_before_the_first_tick_and_after_the_last_counts() -> None:
    now_ns = time.monotonic_ns()
    with loop_lag(now_ns - 3 * SECOND_NS) as late:
        pass  # no tick came: the loop never ran
    assert 2.9 < (late.summary_s() or (0, 0, 0))[2] < 20
    assert late.stalled_s(now_ns - 4 * SECOND_NS, now_ns) == pytest.approx(2.99)
    with loop_lag(now_ns + 3600 * SECOND_NS) as early:
        gevent.sleep(0.03)
    assert (early.summary_s() or (9, 9, 9))[0] < 1


def test_no_time_lies_between_two_ticks_uncounted() -> None:
    lag = LoopLag(since_ns=0)
    for now_ms in (10, 20, 25, 3030, 3045):  # due at 10, 20, 30, 35, 3040
        lag.tick(now_ms * 1_000_000)
    assert lag.stalled_s(0, 9 * SECOND_NS) == 2.995
    assert (lag.summary_s() or (0, 0, 0))[2] == 2.995


def test_collections_are_timed() -> None:
    with gc_pauses() as pauses:
        gc.collect()
    first_s = sum(pauses)
    gc.collect()
    assert 0 < first_s < 5
    assert sum(pauses) == first_s
