"""How much KV cache the requests of a start needed at once, and how many users its pool holds.

A request holds its prompt from the moment it was sent, and its answer token by token, evenly from the first
content chunk to the last, until its end. A prefix that requests share counts for each of them. Of cells that
count only. Knows no sample of memory.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from harness.store.store import StartRecord
from reports.data.cells import Cell, grouped
from reports.data.run import Run
from reports.measures.metrics import is_supported

# A request's instants and tokens that have to be known.
_COLUMNS = ["sent_ns", "first_content_ns", "last_content_ns", "end_ns", "input_tokens", "output_tokens"]


@dataclass(frozen=True)
class KvPool:
    """A start's KV cache by its server's word. `reckoned_per_token_bytes`: from the model's shape, of one
    more token where no layer has a full window. `is_reckoned`: the server said tokens only, and the bytes are
    those times that."""

    size_bytes: int | None
    tokens: int | None
    reckoned_per_token_bytes: int | None
    is_reckoned: bool = False

    @property
    def per_token_bytes(self) -> float | None:
        """Bytes / tokens of the pool as it is."""
        return self.size_bytes / self.tokens if self.size_bytes and self.tokens else None

    def needed_bytes(self, tokens: float | None) -> float | None:
        """Return tokens times what the model's shape gives, which is more than the pool's average where
        layers have windows: they are not full yet. The pool is the most that can be needed."""
        each = self.reckoned_per_token_bytes or self.per_token_bytes
        if tokens is None or each is None or self.size_bytes is None:
            return None
        return min(tokens * each, self.size_bytes)


@dataclass(frozen=True)
class Conversations:
    """Tokens of a scenario's conversations at their longest: the 95th percentile, or the largest where `n`
    supports none. All deployments were given the same."""

    tokens: float
    n: int
    is_largest: bool


@dataclass(frozen=True)
class KvNeed:
    """What requests needed. `peak_tokens`: the most of the requests in flight together in any window, and
    `peak_load` its load. `needed_bytes`: what these take, at most the pool. `used_share`: the most of the
    pool in use in a window, by the server's metrics. `conversations`: of several scenarios the longest."""

    pool: KvPool
    peak_tokens: float | None
    peak_load: str | None
    needed_bytes: float | None
    used_share: float | None
    conversations: Conversations | None

    @property
    def users(self) -> int | None:
        """How many such conversations the pool holds."""
        if self.pool.tokens is None or self.conversations is None:
            return None
        return int(self.pool.tokens // self.conversations.tokens)


def kv_need(run: Run, record: StartRecord, longest_of: Mapping[str, Conversations]) -> KvNeed:
    """Return what a start's requests needed; fields are None where the server or the requests do not tell."""
    pool = pool_of(record)
    cells = [cell for cell in run.planned_cells if cell.counts and run.start_of(cell) is record]
    tokens, load = max(
        ((peak, cell.load_label) for cell in cells if (peak := _peak_in_window(run, cell)) is not None),
        key=lambda pair: pair[0],
        default=(None, None),
    )
    windows = [run.window_samples(run.server, cell) for cell in cells]
    shares = [each["kv_cache_usage_share"].astype(float).max() for each in windows if len(each)]
    known = [found for cell in cells if (found := longest_of.get(cell.planned.scenario.label))]
    return KvNeed(
        pool=pool,
        peak_tokens=tokens,
        peak_load=load,
        needed_bytes=pool.needed_bytes(tokens),
        used_share=max((float(share) for share in shares if not np.isnan(share)), default=None),
        conversations=max(known, key=lambda found: found.tokens, default=None),
    )


def conversations_of(run: Run) -> dict[str, Conversations]:
    """Return the longest conversations by the scenario's label, over the cells that count."""
    counted = (cell for cell in run.planned_cells if cell.counts)
    found = {
        label: longest([run.cell_requests(cell.number) for cell in cells])
        for label, cells in grouped(counted, lambda cell: cell.planned.scenario.label).items()
    }
    return {label: each for label, each in found.items() if each}


def longest(requests: Sequence[pd.DataFrame]) -> Conversations | None:
    """Return the tokens of the longest turn of each conversation in these cells' requests."""
    lengths: list[float] = []
    for frame in requests:
        known = frame[["conversation", *_COLUMNS]].dropna()
        tokens = (known["input_tokens"] + known["output_tokens"]).astype(float)
        lengths += tokens.groupby(known["conversation"]).max().tolist()
    if not lengths:
        return None
    is_largest = not is_supported(95, len(lengths))
    return Conversations(float(np.percentile(lengths, 100 if is_largest else 95)), len(lengths), is_largest)


def pool_of(record: StartRecord) -> KvPool:
    """Return the pool as the server says: its bytes, else its tokens times the model's bytes per token."""
    said = record.memory_said.get("kv_cache", _whole(record.resolved.get("kv_cache_bytes")))
    tokens = _whole(record.resolved.get("kv_cache_tokens"))
    per_token = record.memory_expected.get("kv_bytes_per_token") or None
    if said is None and tokens is not None and per_token is not None:
        return KvPool(tokens * per_token, tokens, per_token, is_reckoned=True)
    return KvPool(said, tokens, per_token)


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def _peak_in_window(run: Run, cell: Cell) -> float | None:
    known = run.cell_requests(cell.number)[_COLUMNS].dropna()
    if cell.summary is None or cell.window_s is None or not len(known):
        return None
    return peak_tokens(known, cell.summary.window_start_ns, cell.summary.window_end_ns)


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
    held = np.maximum(after - jump, after)
    return float(held[(at_s >= 0.0) & (at_s <= edges[1])].max())
