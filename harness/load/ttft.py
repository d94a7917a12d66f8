"""A request's time to first token, and how many of them a percentile needs. Pure."""

from __future__ import annotations

from harness.contracts import RequestRow

# As many as a report's median needs: reports.metrics.needed(50).
LEAST_FOR_MEDIAN = 11
# Of a p95 that is shown while a load runs, where one request in twenty stands for it: a glance, no result. A
# report's needs 130.
LEAST_FOR_LIVE_P95 = 20


def ttft_ns(row: RequestRow, *, is_closed: bool) -> int | None:
    """From the sending in a closed loop, else from the schedule; None where it was not sent or no content
    came."""
    origin_ns = row.sent_ns if is_closed else row.scheduled_ns
    if origin_ns is None or row.first_content_ns is None:
        return None
    return row.first_content_ns - origin_ns
