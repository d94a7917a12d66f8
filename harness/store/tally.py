"""Count a cell's requests while their rows pass: what the cell is judged by, and two figures for a person.

The figures' definitions are those of harness/contracts/timing.py, and a test holds them equal to the
report's: statistics belong to the reports, whose libraries are not to be loaded between two cells. Pure.
"""

from __future__ import annotations

from array import array
from collections import Counter
from dataclasses import dataclass, field
from heapq import heappop, heappush

from harness.contracts import LAST_REQUESTS, LoadSummary, RequestRow
from harness.contracts.timing import (
    LEAST_FOR_MEDIAN,
    Origin,
    chunks_within,
    percentile,
    tokens_within,
    ttft_ns,
)

# Different messages that are counted; with more (a port in each, say) the first ones stand for all.
_MESSAGES = 1000


@dataclass(frozen=True)
class Result:
    """What a completed cell came to, in two figures.

    `tokens_per_s`: output tokens that arrived per second of the window, None if the server told too few
    counts. `ttft_p50_s`: the median of the window's `ttft_n` ok requests, None if they are too few for one.
    """

    tokens_per_s: float | None = None
    ttft_p50_s: float | None = None
    ttft_n: int = 0


@dataclass
class Tally:
    """A cell's requests, counted: all, those sent in the window, those of them that failed, and all ok ones.

    Without a `summary` there is no window. Latencies count from `origin`. `messages` and `window_messages`
    count `outcome: error` of the failed ones. `last_ended` are the LAST_REQUESTS requests that ended last
    before the window's end, without cancelled ones: when, and whether it failed.
    """

    summary: LoadSummary | None = None
    origin: Origin = "sent_ns"
    requests: int = 0
    sent: int = 0
    failed: int = 0
    ok: int = 0
    messages: Counter[str] = field(default_factory=Counter)
    window_messages: Counter[str] = field(default_factory=Counter)
    last_ended: list[tuple[int, bool]] = field(default_factory=list)  # a heap
    _tokens: float | None = 0.0  # that arrived in the window; None once they are not known of one
    _ttft_ns: array[int] = field(default_factory=lambda: array("q"))

    def add(self, row: RequestRow, *, is_inside: bool) -> None:
        """Count a request. `is_inside`: it was sent in the window."""
        begin_ns, end_ns = self._window_ns()
        is_ok = row.outcome == "ok"
        self.requests += 1
        self.sent += is_inside
        self.ok += is_ok
        self.failed += is_inside and not is_ok
        if row.outcome != "cancelled" and (not end_ns or row.end_ns <= end_ns):
            heappush(self.last_ended, (row.end_ns, not is_ok))
            if len(self.last_ended) > LAST_REQUESTS:
                heappop(self.last_ended)
        if not is_ok:
            message = f"{row.outcome}: {row.error}"
            for counted in [self.messages, self.window_messages][: 1 + is_inside]:
                if message in counted or len(counted) < _MESSAGES:
                    counted[message] += 1
        elif is_inside and (ttft := ttft_ns(row, self.origin)) is not None:
            self._ttft_ns.append(ttft)
        inside = chunks_within(row.chunk_ns, begin_ns, end_ns)
        if inside and row.output_tokens is None and is_ok:
            self._tokens = None
        elif inside and row.output_tokens is not None and self._tokens is not None:
            self._tokens += tokens_within(row.output_tokens, inside, len(row.chunk_ns))

    @property
    def result(self) -> Result:
        """The figures of the rows so far."""
        begin_ns, end_ns = self._window_ns()
        window_s, n = (end_ns - begin_ns) / 1e9, len(self._ttft_ns)
        return Result(
            tokens_per_s=self._tokens / window_s if self._tokens is not None and window_s > 0 else None,
            ttft_p50_s=percentile(sorted(self._ttft_ns), 0.5) / 1e9 if n >= LEAST_FOR_MEDIAN else None,
            ttft_n=n,
        )

    def _window_ns(self) -> tuple[int, int]:
        return (self.summary.window_start_ns, self.summary.window_end_ns) if self.summary else (0, 0)
