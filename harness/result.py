"""What a completed cell came to, in two figures for the terminal, counted while its rows pass. Pure.

By the report's definitions (reports/tables.py, reports/metrics.py), which a test holds equal: statistics
belong to the reports, whose libraries are not to be loaded between two cells.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from harness.contracts import LoadSummary, RequestRow

# As many as a median needs: reports.metrics.needed(50).
LEAST_FOR_MEDIAN = 11


@dataclass(frozen=True)
class Result:
    """Output tokens that arrived per second of the window, None where the server told too few counts; the
    median time to first token of the window's `ttft_n` ok requests, None where they are too few for one."""

    tokens_per_s: float | None = None
    ttft_p50_s: float | None = None
    ttft_n: int = 0


class Counting:
    """Counts a cell's rows; `is_closed`: of a closed loop, whose latencies count from the sending."""

    def __init__(self, summary: LoadSummary | None, *, is_closed: bool) -> None:
        self._begin_ns = summary.window_start_ns if summary else 0
        self._end_ns = summary.window_end_ns if summary else 0
        self._is_closed = is_closed
        self._tokens = 0.0
        self._is_counted = True
        self._ttft_ns = array("q")

    def add(self, row: RequestRow, output_tokens: int | None, *, is_inside: bool) -> None:
        """A request and its output tokens, whoever counted them."""
        if row.outcome == "ok" and is_inside:
            self._add_ttft(row)
        # Its tokens are spread evenly over its chunks.
        inside = bisect_left(row.chunk_ns, self._end_ns) - bisect_left(row.chunk_ns, self._begin_ns)
        if inside and output_tokens is not None:
            self._tokens += output_tokens * inside / len(row.chunk_ns)
        elif inside and row.outcome == "ok":
            self._is_counted = False

    def _add_ttft(self, row: RequestRow) -> None:
        origin_ns = row.sent_ns if self._is_closed else row.scheduled_ns
        if origin_ns is not None and row.first_content_ns is not None:
            self._ttft_ns.append(row.first_content_ns - origin_ns)

    def result(self) -> Result:
        """Of the rows so far."""
        window_s = (self._end_ns - self._begin_ns) / 1e9
        has_rate = self._is_counted and window_s > 0
        return Result(
            self._tokens / window_s if has_rate else None, _median_s(self._ttft_ns), len(self._ttft_ns)
        )


def _median_s(values_ns: Sequence[int]) -> float | None:
    return median(values_ns) / 1e9 if len(values_ns) >= LEAST_FOR_MEDIAN else None
