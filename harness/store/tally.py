"""Count a cell's requests while their rows pass: what the cell is judged by, and two figures for a person.

The figures' definitions are those of harness/contracts/timing.py, and a test holds them equal to the
report's: statistics belong to the reports, whose libraries are not to be loaded between two cells. Pure."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from heapq import heappop, heappush

from harness.contracts import LAST_REQUESTS, LoadSummary, RequestRow
from harness.contracts.timing import LEAST_FOR_MEDIAN, Origin, chunks_within, tokens_within, ttft_ns

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


@dataclass(frozen=True)
class Tally:
    """A cell's requests, counted: all, those sent in the window, those of them that failed, and all ok ones.

    `messages` and `window_messages` count `outcome: error` of the failed ones. `last` and `last_failed`: of
    the LAST_REQUESTS requests that ended last before the window's end, how many there are, and how many
    failed; cancelled requests are not among them.
    """

    requests: int
    sent: int
    failed: int
    messages: Mapping[str, int]
    window_messages: Mapping[str, int]
    last: int
    last_failed: int
    ok: int
    result: Result = field(default_factory=Result)


class Counting:
    """Counts a cell's rows, whose latencies count from `origin`."""

    def __init__(self, summary: LoadSummary | None, origin: Origin) -> None:
        self._begin_ns = summary.window_start_ns if summary else 0
        self._end_ns = summary.window_end_ns if summary else 0
        self._origin = origin
        self._requests = self._sent = self._failed = self._ok = 0
        self._last: list[tuple[int, bool]] = []  # a heap: end, and whether it failed
        self._messages: Counter[str] = Counter()
        self._window_messages: Counter[str] = Counter()
        self._tokens = 0.0
        self._is_counted = True
        self._ttft_ns = array("q")

    def add(self, row: RequestRow, output_tokens: int | None, *, is_inside: bool) -> None:
        """Count a request and its output tokens, whoever counted those. `is_inside`: sent in the window."""
        is_ok = row.outcome == "ok"
        self._requests += 1
        self._sent += is_inside
        self._ok += is_ok
        self._failed += is_inside and not is_ok
        if row.outcome != "cancelled" and (not self._end_ns or row.end_ns <= self._end_ns):
            heappush(self._last, (row.end_ns, not is_ok))
            if len(self._last) > LAST_REQUESTS:
                heappop(self._last)
        if not is_ok:
            message = f"{row.outcome}: {row.error}"
            for counted in [self._messages, self._window_messages][: 1 + is_inside]:
                if message in counted or len(counted) < _MESSAGES:
                    counted[message] += 1
        elif is_inside and (ttft := ttft_ns(row, self._origin)) is not None:
            self._ttft_ns.append(ttft)
        inside = chunks_within(row.chunk_ns, self._begin_ns, self._end_ns)
        if inside and output_tokens is not None:
            self._tokens += tokens_within(output_tokens, inside, len(row.chunk_ns))
        elif inside and is_ok:
            self._is_counted = False

    def tally(self, median: Callable[[array[int]], float]) -> Tally:
        """Return all counts of the rows so far, with the figures.

        `median` is the caller's, whose library may take it without an object for each number.
        """
        window_s = (self._end_ns - self._begin_ns) / 1e9
        has_rate = self._is_counted and window_s > 0
        n = len(self._ttft_ns)
        return Tally(
            requests=self._requests,
            sent=self._sent,
            failed=self._failed,
            messages=self._messages,
            window_messages=self._window_messages,
            last=len(self._last),
            last_failed=sum(has_failed for _, has_failed in self._last),
            ok=self._ok,
            result=Result(
                tokens_per_s=self._tokens / window_s if has_rate else None,
                ttft_p50_s=median(self._ttft_ns) / 1e9 if n >= LEAST_FOR_MEDIAN else None,
                ttft_n=n,
            ),
        )
