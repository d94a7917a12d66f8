"""Define latencies, token rates and how many requests a percentile needs, once for the whole project."""

import functools
import itertools
from bisect import bisect_left
from collections.abc import Sequence
from typing import Literal

from serving_bench.harness.contracts.plans import Load
from serving_bench.harness.contracts.records import RequestRow

# The field of a RequestRow, and the column of its table, that latencies count from.
Origin = Literal["sent_ns", "scheduled_ns"]
# Requests that the p95 shown while a load runs needs: one in twenty lies above it. It is not a result.
LEAST_FOR_LIVE_P95 = 20


def origin_of(load: Load) -> Origin:
    """Return what latencies count from. With a schedule, a late send is waiting (coordinated omission)."""
    return "sent_ns" if load.kind == "closed" else "scheduled_ns"


def ttft_ns(row: RequestRow, origin: Origin) -> int | None:
    """Return the time from a request's origin to its first chunk with content. None if one is missing."""
    begin_ns = row.sent_ns if origin == "sent_ns" else row.scheduled_ns
    if begin_ns is None or row.first_content_ns is None:
        return None
    return row.first_content_ns - begin_ns


def chunks_within(chunk_ns: Sequence[int], begin_ns: int, end_ns: int) -> int:
    """Return how many of a request's content chunks arrived from begin_ns up to, not at, end_ns."""
    return bisect_left(chunk_ns, end_ns) - bisect_left(chunk_ns, begin_ns)


def tokens_within(output_tokens: int, inside: int, chunks: int) -> float:
    """Return the output tokens that arrived with `inside` of the chunks, if spread evenly over all."""
    return output_tokens * inside / chunks


def percentile(ordered: Sequence[float], share: float) -> float:
    """Return a percentile of ascending values by the linear rule, the default of numpy and pyarrow."""
    at = share * (len(ordered) - 1)
    below = int(at)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (at - below) * (ordered[above] - ordered[below])


@functools.cache
def needed(level: int) -> int:
    """Return the observations that a percentile needs: 11 (p50), 64 (p90), 130 (p95), 662 (p99).

    With that many, the second greatest lies above the percentile in 99 % of samples. This is MLPerf's
    early-stopping estimate with one observation beyond it: mlcommons/inference, loadgen/early_stopping.cc
    (confidence 0.99, tolerance 0, t = 1).
    """
    below, beyond = level / 100, 1 - level / 100
    at_most_one = (below**n + n * beyond * below ** (n - 1) for n in itertools.count(2))
    return next(n for n, share in enumerate(at_most_one, 2) if share <= 1 - 0.99)


LEAST_FOR_MEDIAN = needed(50)
