"""One summary of several workers, worked out by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.contracts import LoadSummary, WorkerSummary
from harness.load.merge import merged

A = WorkerSummary(
    number=0, host="a", pid=1, requests=10, stamp_source="kernel", clock_uncertainty_ns=40,
    stamp_lag_s=(0.001, 0.002, 0.9), loop_lag_s=(0.001, 0.003, 0.004), cpu_s=1.5, gc_pause_s=0.25,
)  # fmt: skip
B = replace(
    A, number=1, host="b", pid=2, requests=20, clock_uncertainty_ns=70, stamp_lag_s=(0.0, 0.005, 0.006),
    loop_lag_s=(0.002, 0.002, 0.1), cpu_s=2.0, gc_pause_s=0.5, offset_ns=5, offset_uncertainty_ns=3,
)  # fmt: skip


def summary(worker: WorkerSummary, **changes: object) -> LoadSummary:
    fields: dict[str, object] = {
        "started_ns": 100, "window_start_ns": 200, "window_end_ns": 900, "ended_ns": 950,
        "ended_by": "duration", "users": 4, "conversations_begun": 7, "requests": worker.requests,
        "stamp_source": worker.stamp_source, "clock_uncertainty_ns": worker.clock_uncertainty_ns,
        "stamp_lag_s": worker.stamp_lag_s, "loop_lag_s": worker.loop_lag_s, "cpu_s": worker.cpu_s,
        "gc_pause_s": worker.gc_pause_s, "workers": (worker,),
    }  # fmt: skip
    return LoadSummary(**(fields | changes))  # type: ignore[arg-type]


def test_counts_are_sums_and_lags_the_worst_workers() -> None:
    whole = merged([summary(A), summary(B, ended_ns=970, users=3)], [B, A])
    assert (whole.started_ns, whole.window_start_ns, whole.window_end_ns, whole.ended_ns) == (
        100,
        200,
        900,
        970,
    )
    assert (whole.users, whole.conversations_begun, whole.requests) == (7, 14, 30)
    assert (whole.stamp_source, whole.clock_uncertainty_ns) == ("kernel", 70)
    assert whole.stamp_lag_s == B.stamp_lag_s  # by p99
    assert whole.loop_lag_s == A.loop_lag_s
    assert (whole.cpu_s, whole.gc_pause_s) == (3.5, 0.75)
    assert whole.workers == (A, B)


def test_what_each_worker_left_out_is_left_out_of_the_whole() -> None:
    assert merged([summary(A, left_out=3), summary(B, left_out=4)], [A, B]).left_out == 7


def test_one_worker_without_kernel_stamps_makes_the_cell_so() -> None:
    plain = replace(B, stamp_source="read", clock_uncertainty_ns=None, stamp_lag_s=None)
    whole = merged([summary(A), summary(plain)], [A, plain])
    assert (whole.stamp_source, whole.clock_uncertainty_ns, whole.stamp_lag_s) == ("read", None, None)


def test_a_lost_worker_counts_with_what_it_had_said() -> None:
    lost = replace(B, stamp_lag_s=None, loop_lag_s=None, lost_ns=500)
    whole = merged([summary(A)], [A, lost])
    assert (whole.requests, whole.cpu_s, whole.loop_lag_s) == (30, 3.5, A.loop_lag_s)
    assert whole.workers[1].lost_ns == 500


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        (("duration", 900), ("conversations", 700), ("conversations", 700)),
        (("conversations", 600), ("conversations", 700), ("conversations", 600)),
        (("duration", 900), ("duration", 901), ("duration", 900)),
        (("failures", 410), ("failures", 405), ("failures", 405)),
        (("interrupted", 300), ("duration", 900), ("interrupted", 300)),
        # A stop is the reason even where another was done before it.
        (("conversations", 300), ("failures", 405), ("failures", 300)),
        (("interrupted", 300), ("failures", 405), ("failures", 300)),
    ],
)
def test_the_window_is_that_in_which_all_of_the_load_was_there(
    a: tuple[str, int], b: tuple[str, int], expected: tuple[str, int]
) -> None:
    parts = [summary(w, ended_by=said, window_end_ns=end) for w, (said, end) in ((A, a), (B, b))]
    whole = merged(parts, [A, B])
    assert (whole.ended_by, whole.window_end_ns) == expected
