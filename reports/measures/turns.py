"""Values by turn of the conversation, of each start. Turns count from 0, as stored."""

import numpy as np

from reports.data.cells import Group
from reports.data.chunks import quantile
from reports.data.run import Run, once
from reports.data.tables import floats
from reports.measures.metrics import Value, is_supported, mean_value, value_of_start
from reports.measures.values import gap_counts_of, share_of_tokens

_MEDIANS = ("ttft_s", "tpot_s", "e2e_s")


def turn_values(run: Run, group: Group, name: str) -> dict[int, dict[int, Value]]:
    """Return a value by its name by the turn, and the repeat of each of the group's starts that count: the
    median of a latency (`ttft_s.p50` ...), the mean of `input_tokens`, or `cached_share`."""
    by_start = {
        cells[0].planned.repeat: [_by_turn(run, cell.number) for cell in cells]
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


@once
def _by_turn(run: Run, number: int) -> dict[int, dict[str, Value]]:
    """Return a cell's values by turn and name, over its ok requests in the window."""
    columns = [*_MEDIANS, "input_tokens", "cached_tokens"]
    ok = run.ok_requests(number, "turn", *columns)
    turn = ok["turn"].to_numpy(dtype=np.int64)
    order = np.argsort(turn, kind="stable")
    begins = np.flatnonzero(np.diff(turn[order], prepend=-1))
    parts = {name: np.split(floats(ok[name])[order], begins[1:]) for name in columns}
    found: dict[int, dict[str, Value]] = {}
    for place, begin in enumerate(begins):
        own = {name: each[place] for name, each in parts.items()}
        values = {f"{name}.p50": _median(own[name]) for name in _MEDIANS}
        values["input_tokens"] = mean_value(own["input_tokens"])
        values["cached_share"] = share_of_tokens(own["cached_tokens"], own["input_tokens"])
        found[int(turn[order[begin]])] = values
    gaps = gap_counts_of(run, number)
    for each in np.flatnonzero(gaps.requests).tolist():
        counts, requests = gaps.of_turn(each), int(gaps.requests[each])
        n = int(counts.sum())
        median = quantile(counts, 0.5) if is_supported(50, n, requests) else None
        found.setdefault(each, {})["itl_s.p50"] = Value(median, n, requests)
    return found


def _median(values: np.ndarray) -> Value:
    known = values[~np.isnan(values)]
    return Value(float(np.median(known)) if is_supported(50, len(known)) else None, len(known))
