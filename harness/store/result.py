"""What a completed cell came to, in two figures for the terminal, counted while its rows pass. Pure.

The definitions are those of harness/contracts/timing.py, and a test holds the figures equal to the report's.
Statistics belong to the reports, whose libraries are not to be loaded between two cells.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from dataclasses import dataclass

from harness.contracts import LoadSummary, RequestRow
from harness.contracts.timing import LEAST_FOR_MEDIAN, Origin, chunks_within, tokens_within, ttft_ns


@dataclass(frozen=True)
class Result:
    """Output tokens that arrived per second of the window, None where the server told too few counts; the
    median time to first token of the window's `ttft_n` ok requests, None where they are too few for one."""

    tokens_per_s: float | None = None
    ttft_p50_s: float | None = None
    ttft_n: int = 0


class Counting:
    """Counts a cell's rows, whose latencies count from `origin`."""

    def __init__(self, summary: LoadSummary | None, origin: Origin) -> None:
        self._begin_ns = summary.window_start_ns if summary else 0
        self._end_ns = summary.window_end_ns if summary else 0
        self._origin = origin
        self._tokens = 0.0
        self._is_counted = True
        self._ttft_ns = array("q")

    def add(self, row: RequestRow, output_tokens: int | None, *, is_inside: bool) -> None:
        """A request and its output tokens, whoever counted them."""
        if row.outcome == "ok" and is_inside and (ttft := ttft_ns(row, self._origin)) is not None:
            self._ttft_ns.append(ttft)
        inside = chunks_within(row.chunk_ns, self._begin_ns, self._end_ns)
        if inside and output_tokens is not None:
            self._tokens += tokens_within(output_tokens, inside, len(row.chunk_ns))
        elif inside and row.outcome == "ok":
            self._is_counted = False

    def result(self, median: Callable[[array[int]], float]) -> Result:
        """Of the rows so far. `median` is the caller's, whose library may take it without an object for each
        number."""
        window_s = (self._end_ns - self._begin_ns) / 1e9
        has_rate = self._is_counted and window_s > 0
        n = len(self._ttft_ns)
        return Result(
            tokens_per_s=self._tokens / window_s if has_rate else None,
            ttft_p50_s=median(self._ttft_ns) / 1e9 if n >= LEAST_FOR_MEDIAN else None,
            ttft_n=n,
        )
