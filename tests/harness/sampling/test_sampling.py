"""The periodic thread, its record of itself, and the wait for the idle baseline."""

import signal
import threading
import time

import pytest
from reads import Reads
from waiting import wait_until

from serving_bench.harness.contracts import mean_power_w
from serving_bench.harness.sampling import sampling as sampling_module
from serving_bench.harness.sampling.sampling import Memory, Sampling, Use, within

MIB = 2**20


def test_rows_come_at_the_rate_asked_for() -> None:
    with Sampling(Reads(lambda: [time.monotonic_ns()]), hz=50) as sampling:
        wait_until(lambda: len(sampling.rows()) >= 26)
    rows = sampling.rows()[:26]
    # 25 intervals of 20 ms; never faster than asked, whatever the machine does.
    assert rows[25] - rows[0] >= 0.45e9
    timing = sampling.timing()
    assert timing["samples"] == len(sampling.rows())
    assert timing["interval_max_s"]
    assert timing["interval_p99_s"]
    assert timing["interval_max_s"] >= timing["interval_p99_s"] >= 0.015
    assert 0 < timing["cpu_s"] < 1


def test_the_newest_rows_are_had_without_the_others() -> None:
    numbers = iter(range(10))
    sampling = Sampling(Reads(lambda: [next(numbers), next(numbers)]))
    assert sampling.last() == []
    for _ in range(3):
        sampling.mark()
    assert (sampling.last(), sampling.last(3), sampling.last(99)) == ([5], [3, 4, 5], list(range(6)))


def test_no_rows_are_added_after_the_block() -> None:
    with Sampling(Reads(lambda: [1]), hz=100) as sampling:
        wait_until(sampling.rows)
    assert not [thread for thread in threading.enumerate() if thread.name == "sampler"]


def test_samples_that_were_due_during_a_slow_one_are_counted_and_not_made_up_for() -> None:
    slow = threading.Event()

    def read() -> list[int]:
        slow.wait(0.25)
        return [time.monotonic_ns()]

    with Sampling(Reads(read), hz=10) as sampling:
        wait_until(lambda: len(sampling.rows()) >= 3)
    first, second, third = sampling.rows()[:3]
    assert second - first >= 0.25e9
    assert third - second >= 0.25e9
    assert sampling.timing()["missed"] >= 4


def test_after_a_slow_sample_the_others_keep_their_distance() -> None:
    delays = iter([0.35])
    pause = threading.Event()

    def read() -> list[int]:
        pause.wait(next(delays, 0.0))
        return [time.monotonic_ns()]

    with Sampling(Reads(read), hz=10) as sampling:
        wait_until(lambda: len(sampling.rows()) >= 4)
    _, second, third, fourth = sampling.rows()[:4]
    # Made up for, the three that were missed would come at once.
    assert fourth - second >= 0.12e9
    assert third > second


def test_an_error_is_kept_and_sampling_goes_on() -> None:
    calls = iter(range(1000))

    def read() -> list[int]:
        number = next(calls)
        if number in (1, 2):
            raise ValueError(f"no {number}")
        return [number]

    with Sampling(Reads(read), hz=100) as sampling:
        assert sampling.error is None or "no 1" in sampling.error
        wait_until(lambda: len(sampling.rows()) >= 3)
    assert sampling.rows()[:3] == [0, 3, 4]
    assert sampling.error == "2 samples could not be read; the first: ValueError: no 1"


def test_a_mark_adds_a_sample_of_its_own() -> None:
    with Sampling(Reads(lambda: ["plain"], lambda: ["thorough"]), hz=100) as sampling:
        sampling.mark()
    assert sampling.rows().count("thorough") == 1


def test_the_thread_takes_no_signals() -> None:
    masks: list[set[int]] = []
    with Sampling(
        Reads(lambda: masks.append(set(signal.pthread_sigmask(signal.SIG_BLOCK, ()))) or [0]), hz=100
    ):
        wait_until(lambda: masks)
    assert {signal.SIGINT, signal.SIGTERM} <= masks[0]


def test_what_marks_cost_is_counted_with_the_samplers_own() -> None:
    def burn() -> list[int]:
        begun_s = time.thread_time()
        while time.thread_time() - begun_s < 0.1:
            pass
        return [0]

    with Sampling(Reads(lambda: [1], burn), hz=1) as sampling:
        before_s = sampling.timing()["cpu_s"]
        sampling.mark()
        sampling.mark()
    assert 0.2 <= sampling.timing()["cpu_s"] - before_s < 0.4


def test_each_sampler_counts_its_own_thread_only() -> None:
    def burn() -> list[int]:
        begun_s = time.thread_time()
        while time.thread_time() - begun_s < 0.02:
            pass
        return [0]

    with Sampling(Reads(burn), hz=20) as busy, Sampling(Reads(lambda: [0]), hz=20) as quiet:
        wait_until(lambda: len(busy.rows()) >= 10)
    assert busy.timing()["cpu_s"] >= 0.2
    assert quiet.timing()["cpu_s"] < 0.05


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling_module, "ANSWER_LIMIT_S", 0.1)


@pytest.mark.usefixtures("soon")
def test_a_sample_that_hangs_holds_nobody_up() -> None:
    release = threading.Event()
    begun_s = time.monotonic()
    with Sampling(Reads(lambda: [release.wait(30)]), hz=50) as sampling:
        sampling.mark()
        sampling.mark()
    took_s = time.monotonic() - begun_s
    release.set()
    assert took_s < 2
    first = "a sample at a mark: no answer within 0.1 s"  # later marks take none
    assert sampling.error == f"2 samples could not be read; the first: {first}"


@pytest.mark.usefixtures("soon")
def test_marks_take_samples_again_once_a_late_one_has_returned() -> None:
    release, returned = threading.Event(), threading.Event()

    def late_once() -> list[str]:
        if returned.is_set():
            return ["marked"]
        release.wait(30)
        returned.set()
        return ["late"]

    with Sampling(Reads(lambda: ["plain"], late_once), hz=100) as sampling:
        sampling.mark()
        sampling.mark()
        assert sampling.error == f"1 samples could not be read; the first: a sample at a mark: {NO_ANSWER}"
        release.set()
        wait_until(lambda: "late" in sampling.rows() and not bounded_threads())
        sampling.mark()
    assert sampling.rows().count("marked") == 1
    assert sampling.rows().count("late") == 1


NO_ANSWER = "no answer within 0.1 s"


def bounded_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "bounded"]


def test_a_bounded_answer_is_the_answer_or_what_was_raised() -> None:
    assert within(10, lambda: 7) == 7
    with pytest.raises(ValueError, match="no"):
        within(10, lambda: int("no"))


def test_an_answer_that_does_not_come_is_a_timeout() -> None:
    release = threading.Event()
    with pytest.raises(TimeoutError, match=r"no answer within 0\.05 s"):
        within(0.05, lambda: release.wait(30))
    release.set()


def memory(*used_bytes: int | None) -> Memory:
    """A memory in which each look finds the next of these numbers in use, and at last always the same one."""
    left = list(used_bytes)
    return Memory("host", lambda: [Use(left.pop(0) if len(left) > 1 else left[0])])


def test_the_baseline_is_the_median() -> None:
    assert memory(5, 100, 6, 4, 7).measure(0.05).used_bytes == 6


def test_the_baseline_of_what_cannot_be_read_is_none() -> None:
    assert memory(5, None, 6).measure(0.03).used_bytes is None


def counted(*pairs: tuple[float, float | None]) -> list[tuple[int, float | None]]:
    return [(int(at_s * 1e9), energy_j) for at_s, energy_j in pairs]


def test_mean_power_runs_from_a_counters_first_step_to_its_last() -> None:
    """70 W, seen every 50 ms, by a counter that steps every 100 ms: 7 J a step, of 0.1 to 0.3 s."""
    seen = counted((0.0, 100), (0.05, 100), (0.1, 107), (0.15, 107), (0.2, 114), (0.25, 114), (0.3, 121))
    assert mean_power_w(seen) == pytest.approx(70)
    # From end to end it would be 21 J in 0.35 s: 60 W.
    assert mean_power_w([*seen, (350_000_000, 121.0)]) == pytest.approx(70)


def test_mean_power_is_none_where_a_counter_made_fewer_than_two_steps_fell_or_was_not_known() -> None:
    assert mean_power_w(counted((0, 1), (1, 1), (2, 2))) is None
    assert mean_power_w(counted((0, 1), (1, None), (2, 2), (3, 3))) is None
    assert mean_power_w([]) is None
    # The counter began again at 0. Two neighbours that are out of order do not mean that.
    assert mean_power_w(counted((0, 5), (1, 6), (2, 1), (3, 2))) is None
    assert mean_power_w(counted((0, 1), (1, 3), (2, 2), (3, 4))) is not None


def test_the_return_to_the_baseline_is_waited_for() -> None:
    assert memory(300 * MIB, 250 * MIB, 227 * MIB).wait(100 * MIB, 10) == (True, 227 * MIB)


def test_below_the_baseline_is_a_return() -> None:
    assert memory(50).wait(100, 0) == (True, 50)


def test_two_per_cent_of_a_large_baseline_are_a_return() -> None:
    assert memory(102 << 30).wait(100 << 30, 0)[0]
    assert not memory(103 << 30).wait(100 << 30, 0)[0]


def test_memory_that_stays_is_reported_with_its_size() -> None:
    begun_s = time.monotonic()
    assert memory(300 * MIB).wait(100 * MIB, 0.15) == (False, 300 * MIB)
    assert time.monotonic() - begun_s >= 0.15


def test_memory_that_cannot_be_read_is_not_waited_for() -> None:
    begun_s = time.monotonic()
    assert memory(None).wait(100, 60) == (False, None)
    assert time.monotonic() - begun_s < 5
