"""Values by turn of the conversation: each start's, and how the last turn compares with the first.

Turns count from 0, as stored. Draws nothing; reads no list of chunks.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from reports.data.cells import Group
from reports.data.chunks import GapCounts, quantile
from reports.data.run import Run, once
from reports.data.tables import floats
from reports.measures.metrics import Value, is_supported, mean_value, value_of_start
from reports.measures.values import gap_counts_of, share_of_tokens, values_of
from reports.stats.family import STARTS_NEEDED, log_margin
from reports.stats.intervals import CONFIDENCE, may_be_logged, of_pairs

# By the turn, and the repeat of the start.
TurnValues = dict[int, dict[int, Value]]
_MEDIANS = ("ttft_s", "tpot_s", "e2e_s")
_TOKENS = ("input_tokens", "cached_tokens")
Change = Literal["rises", "falls", "flat", "unclear"]


@once
def turn_values_of(run: Run) -> dict[int, dict[int, dict[str, Value]]]:
    """Return each completed cell's values by its number, the turn (from 0) and the name."""
    return {number: values_by_turn(run, number) for number in values_of(run)}


def values_by_turn(run: Run, number: int) -> dict[int, dict[str, Value]]:
    """A cell's values of each turn by name: the median of each latency (`ttft_s.p50` ...), the mean of
    `input_tokens`, and `cached_share`; of its ok requests in the window."""
    columns = ["turn", *_MEDIANS, *_TOKENS]
    ok = run.ok_requests(number, *columns)
    turn = ok["turn"].to_numpy(dtype=np.int64)
    order = np.argsort(turn, kind="stable")
    begins = np.flatnonzero(np.diff(turn[order], prepend=-1))
    parts = {name: np.split(floats(ok[name])[order], begins[1:]) for name in columns[1:]}
    found = {}
    for place, begin in enumerate(begins):
        own = {name: each[place] for name, each in parts.items()}
        values = {f"{name}.p50": _median(own[name]) for name in _MEDIANS}
        values["input_tokens"] = mean_value(own["input_tokens"])
        values["cached_share"] = share_of_tokens(own["cached_tokens"], own["input_tokens"])
        found[int(turn[order[begin]])] = values
    gaps = gap_counts_of(run, number)
    for each in range(gaps.turns):
        if gaps.requests[each]:
            found.setdefault(each, {})["itl_s.p50"] = _median_gap(gaps, each)
    return dict(sorted(found.items()))


def _median(values: np.ndarray) -> Value:
    known = values[~np.isnan(values)]
    return Value(float(np.median(known)) if is_supported(50, len(known)) else None, len(known))


def _median_gap(counts: GapCounts, turn: int) -> Value:
    own, requests = counts.of_turn(turn), int(counts.requests[turn])
    n = int(own.sum())
    return Value(quantile(own, 0.5) if is_supported(50, n, requests) else None, n, requests)


def turn_values(run: Run, group: Group, name: str) -> TurnValues:
    """A value by its name of each turn, of each of the group's starts that count."""
    by_start = {
        cells[0].planned.repeat: [turn_values_of(run)[cell.number] for cell in cells]
        for cells in group.counted_by_start
    }
    turns = sorted({turn for found in by_start.values() for each in found for turn in each})
    return {
        turn: {
            repeat: value_of_start([each.get(turn, {}).get(name, Value(None, 0)) for each in found])
            for repeat, found in by_start.items()
        }
        for turn in turns
    }


# --- last turn against the first -------------------------------------------------------------------


@dataclass(frozen=True)
class Growth:
    """The last turn's value over the first one's of the same start: `change` by the whole interval, beyond
    the margin on one side, within it, or neither. `interval`: low and high end of the ratio."""

    change: Change
    ratio: float
    interval: tuple[float, float]
    k: int


def growth(
    first: Sequence[Value], last: Sequence[Value], margin_share: float, confidence: float = CONFIDENCE
) -> Growth | None:
    """From each start's values of the two turns, in order; None for fewer starts with both than a verdict
    needs, or where a value has no logarithm."""
    pairs = [(a.value, b.value) for a, b in zip(first, last, strict=True) if a.value and b.value]
    if len(pairs) < max(STARTS_NEEDED, len(first)):
        return None
    begin, end = ([pair[at] for pair in pairs] for at in (0, 1))
    if not may_be_logged([*begin, *end]):
        return None
    estimate = of_pairs(end, begin, is_log=True)
    interval = estimate.interval(confidence)
    return Growth(_change(interval, margin_share), estimate.shown, interval, estimate.k)


def _change(interval: tuple[float, float], margin_share: float) -> Change:
    low, high = (float(np.log(end)) if end > 0 else -np.inf for end in interval)
    margin = log_margin(margin_share)
    if low > margin:
        return "rises"
    if high < -margin:
        return "falls"
    return "flat" if low >= -margin and high <= margin else "unclear"
