"""What a load says of itself while it runs: its last requests, and all load processes together."""

import pytest
from load_process import row

from serving_bench.harness.contracts import Load
from serving_bench.harness.contracts.timing import LEAST_FOR_LIVE_P95, LEAST_FOR_MEDIAN
from serving_bench.harness.load.pulse import (
    ENOUGH,
    KEPT,
    LONGEST_S,
    Progress,
    Recent,
    Stretch,
    glance,
    together,
)

S, MS = 1_000_000_000, 1_000_000
CLOSED = Load(concurrency=1)


def recent(ends_s: list[float], load: Load = CLOSED, **changes: object) -> Recent:
    made = Recent(load)
    for end_s in ends_s:
        made.add(row(end_ns=round(end_s * S), **changes))
    return made


def counted(found: Stretch) -> tuple[int, float]:
    return found.requests, pytest.approx(found.length_s)


def test_many_requests_are_told_over_the_last_ten_seconds() -> None:
    ends_s = [second / 2 for second in range(1, 101)]  # two in a second, for 50 s
    assert counted(recent(ends_s).stretch(0, 50 * S)) == (20, 10.0)


def test_few_requests_are_told_over_as_long_as_it_takes_to_have_some() -> None:
    ends_s = [float(second) for second in range(1, 51)]  # one in a second
    found = recent(ends_s).stretch(0, 50 * S)
    # The one that ended first of ENOUGH began the stretch: its tokens came before.
    assert counted(found) == (ENOUGH - 1, ENOUGH - 1)


def test_the_stretch_is_no_longer_than_a_minute() -> None:
    ends_s = [10.0 * second for second in range(1, 51)]
    assert counted(recent(ends_s).stretch(0, 500 * S)) == (6, LONGEST_S)  # the end at 440 s is out


def test_the_stretch_does_not_begin_before_the_load() -> None:
    assert counted(recent([101.0, 102.0]).stretch(100 * S, 104 * S)) == (2, 4.0)


def test_where_more_ended_than_are_kept_the_stretch_is_as_long_as_those() -> None:
    ends_s = [each / 1000 for each in range(1, 5001)]  # a thousand in a second
    assert counted(recent(ends_s).stretch(0, 5 * S)) == (KEPT - 1, (KEPT - 1) / 1000)


def test_before_anything_has_ended_there_is_no_value() -> None:
    found = glance([recent([]).stretch(0, 3 * S)])
    assert (found.requests, found.tokens_per_s, found.chunks_per_s) == (0, None, None)
    assert (found.ttft_p50_s, found.ttft_p95_s) == (None, None)


def test_tokens_chunks_and_times_to_first_token_are_those_of_the_requests() -> None:
    made = recent([1.0, 2.0], sent_ns=0, first_content_ns=30 * MS, output_tokens=7)
    made.add(row(end_ns=4 * S, sent_ns=0, first_content_ns=90 * MS, output_tokens=1))
    found = glance([made.stretch(0, 5 * S)])
    assert (found.length_s, found.requests) == (5.0, 3)
    assert (found.tokens_per_s, found.chunks_per_s) == (15 / 5, 9 / 5)
    assert (found.ttft_n, found.ttft_p50_s, found.ttft_p95_s) == (3, None, None)


def test_a_server_that_tells_no_tokens_leaves_chunks_alone() -> None:
    found = glance([recent([1.0], output_tokens=None).stretch(0, 2 * S)])
    assert (found.tokens_per_s, found.chunks_per_s) == (None, 1.5)


def test_an_open_loop_counts_from_when_a_request_was_due() -> None:
    times = {"scheduled_ns": 0, "sent_ns": 20 * MS, "first_content_ns": 50 * MS}
    for load, ttft_us in ((CLOSED, 30_000), (Load(concurrency=None, rate_per_s=1.0), 50_000)):
        assert recent([1.0], load, **times).stretch(0, S).ttft_us == (ttft_us,)


def test_an_answer_without_content_has_no_time_to_first_token() -> None:
    assert recent([1.0], first_content_ns=None, chunk_ns=()).stretch(0, S).ttft_us == ()


def test_load_processes_add_their_rates_and_pool_their_times() -> None:
    one = Stretch(length_s=10.0, requests=10, tokens=100, chunks=50, ttft_us=(10_000, 30_000) * 5)
    other = Stretch(length_s=5.0, requests=1, tokens=10, chunks=5, ttft_us=(20_000,))
    found = glance([one, other, Stretch()])
    assert (found.length_s, found.requests, found.ttft_n) == (10.0, 11, 11)
    assert (found.tokens_per_s, found.chunks_per_s, found.ttft_p50_s) == (12.0, 6.0, 0.020)


@pytest.mark.parametrize(
    ("n", "p50_s", "p95_s"),
    [
        (LEAST_FOR_MEDIAN - 1, None, None),
        (LEAST_FOR_MEDIAN, 0.006, None),
        (LEAST_FOR_LIVE_P95 - 1, 0.010, None),
        (LEAST_FOR_LIVE_P95, 0.0105, 0.01905),  # 1 + 0.95 * 19 = 19.05
    ],
)
def test_a_percentile_is_told_of_enough_requests_alone(n: int, p50_s: float, p95_s: float) -> None:
    found = glance([Stretch(length_s=1.0, requests=n, ttft_us=tuple(range(1000, 1000 * n + 1, 1000)))])
    assert (found.ttft_n, found.ttft_p50_s, found.ttft_p95_s) == (
        n, p50_s and pytest.approx(p50_s), p95_s and pytest.approx(p95_s)
    )  # fmt: skip


def test_a_slow_load_has_as_many_requests_as_its_p95_needs() -> None:
    ends_s = [2.0 * each for each in range(1, 101)]  # one in two seconds
    assert glance([recent(ends_s, sent_ns=0, first_content_ns=MS).stretch(0, 200 * S)]).ttft_p95_s == 0.001


def test_all_load_processes_together_are_as_far_as_the_last_and_as_late_as_the_worst() -> None:
    first = Progress(5.0, 10, 3, 4, "window", {"timeout": 2, "reset": 1}, None, 0.001, Stretch())
    second = Progress(4.0, 20, 1, 5, "warmup", {"timeout": 1}, None, 0.004, Stretch())
    ended = Progress(2.0, 7, 1, 9, "warmup", {"reset": 1}, None, 0.9, Stretch(1.0, 1, 1, 1, (1,)))
    found = together([first, second], [ended])
    assert (found.t_s, found.phase, found.requests, found.failed) == (5.0, "warmup", 37, 5)
    assert found.failures == {"timeout": 3, "reset": 2}
    assert found.in_flight == 9, "of those that run"
    assert found.loop_lag_s == 0.004
    assert found.recent
    assert found.recent.requests == 0
