"""How much KV cache the requests of a start needed at once, and how many users its pool holds.

A request holds its prompt from the moment it was sent, and its answer token by token, evenly from the first
content chunk to the last, until its end. A prefix that requests share counts for each of them. Of cells that
count only. Knows no sample of memory.
"""

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from reports.data import Cell, Run, StartRecord, once

# A request's instants and tokens that have to be known.
_COLUMNS = ["sent_ns", "first_content_ns", "last_content_ns", "end_ns", "input_tokens", "output_tokens"]


@dataclass(frozen=True)
class KvCache:
    """A start's KV cache; None is what nothing tells. The pool by its server's word: its size, which is
    computed where the server said only its tokens, and those. What requests needed of it: the most tokens in
    flight together in any window, and the bytes that these take. `users`: how many of the run's long
    conversations (95th percentile) the pool holds."""

    size_bytes: float | None
    tokens: int | None
    is_computed: bool = False
    peak_tokens: float | None = None
    needed_bytes: float | None = None
    users: int | None = None


def kv_cache_of(run: Run, record: StartRecord) -> KvCache:
    """Return a start's pool, and what its requests needed.

    A token needs what the model's shape gives, which is more than the pool's average where layers have
    windows: they are not full yet. The pool is the most that can be needed.
    """
    pool, long_tokens = pool_of(record), long_conversation(run)
    peaks = [_peak_in_window(run, cell) for cell in run.counted_on(record)]
    peak = max((each for each in peaks if each is not None), default=None)
    needed, per_token = None, record.memory_expected.get("kv_bytes_per_token")
    if peak is not None and pool.size_bytes is not None and (per_token or pool.tokens):
        needed = min(peak * (per_token or pool.size_bytes / (pool.tokens or 1)), pool.size_bytes)
    users = int(pool.tokens // long_tokens) if pool.tokens and long_tokens else None
    return replace(pool, peak_tokens=peak, needed_bytes=needed, users=users)


@once
def long_conversation(run: Run) -> float | None:
    """Return the 95th percentile of conversations' tokens at their longest turn, over the cells that count:
    all deployments were given the same."""
    counted = [cell.number for cell in run.planned_cells if cell.counts]
    columns = ["cell", "conversation", "input_tokens", "output_tokens"]
    rows = run.requests.loc[run.requests["cell"].isin(counted), columns]
    tokens = (rows["input_tokens"] + rows["output_tokens"]).groupby([rows["cell"], rows["conversation"]])
    longest = tokens.max().dropna().astype(float)
    return float(longest.quantile(0.95, interpolation="higher")) if len(longest) else None


def pool_of(record: StartRecord) -> KvCache:
    """Return the pool as the server says: its bytes, else its tokens times the model's bytes per token."""
    said = record.memory_said.get("kv_cache", _whole(record.resolved.get("kv_cache_bytes")))
    tokens, per_token = _whole(record.resolved.get("kv_cache_tokens")), "kv_bytes_per_token"
    if said is None and tokens is not None and record.memory_expected.get(per_token):
        return KvCache(tokens * record.memory_expected[per_token], tokens, is_computed=True)
    return KvCache(said, tokens)


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def _peak_in_window(run: Run, cell: Cell) -> float | None:
    known = run.cell_requests(cell.number)[_COLUMNS].dropna()
    return peak_tokens(known, *cell.window_ns) if cell.window_ns and len(known) else None


def peak_tokens(requests: pd.DataFrame, begin_ns: int, end_ns: int) -> float:
    """Return the most tokens that requests held at once, from begin_ns to end_ns."""
    sent, first, last, end, prompt, answer = (requests[name].to_numpy(dtype=float) for name in _COLUMNS)
    # Seconds from the beginning: nanoseconds since boot would leave a float no digits for the slope.
    sent, first, last, end = ((at - begin_ns) / 1e9 for at in (sent, first, last, end))
    duration_s = np.maximum(last - first, 0.0)
    is_spread = duration_s > 0
    zero = np.zeros_like(answer)
    slope = np.divide(answer, duration_s, out=zero.copy(), where=is_spread)
    edges = np.array([0.0, (end_ns - begin_ns) / 1e9])
    # What begins at an instant comes before what ends at it: the sort is stable.
    at_s = np.concatenate([sent, first, last, edges, end])
    jump = np.concatenate([prompt, np.where(is_spread, 0.0, answer), zero, [0.0, 0.0], -(prompt + answer)])
    bend = np.concatenate([zero, slope, -slope, [0.0, 0.0], zero])
    order = np.argsort(at_s, kind="stable")
    at_s, jump, bend = at_s[order], jump[order], bend[order]
    grown = np.cumsum(np.cumsum(bend) * np.diff(at_s, append=at_s[-1]))
    after = np.cumsum(jump) + np.concatenate([[0.0], grown[:-1]])
    return float(np.maximum(after - jump, after)[(at_s >= 0.0) & (at_s <= edges[1])].max())
