"""Many requests at once: how long all of a batch take, and how long a server needs after a burst."""

import numpy as np

from reports.data import Cell, Run, floats
from reports.measures.metrics import LOST_SHARE, NOT_FAILED, Value
from reports.measures.traffic.rates import rate

_QUIET, _BURST = 0, 1  # groups of scenarios/burst.py


def batch_values(run: Run, cell: Cell) -> dict[str, Value]:
    """Return what a batch took, and its tokens per second; unknown where too many failed."""
    own = run.cell_requests(cell.number)
    if too_many_failed(run, cell):
        return dict.fromkeys(("makespan_s", "batch_tokens_per_s"), Value(None, len(own)))
    ok = own[own["outcome"] == "ok"]
    seconds = float(own["end_ns"].max() - own["sent_ns"].min()) / 1e9 if own["sent_ns"].notna().any() else 0.0
    tokens = floats(ok["input_tokens"]).sum() + floats(ok["output_tokens"]).sum()
    return {
        "makespan_s": Value(seconds or None, len(own)),
        "batch_tokens_per_s": rate(tokens, seconds, len(ok))
        if not np.isnan(tokens)
        else Value(None, len(ok)),
    }


def burst_values(run: Run, cell: Cell) -> dict[str, Value]:
    """Return how long after a burst there were no more requests in flight than before it at most; unknown
    where too many failed."""
    own = run.requests_with(cell.number, "group").dropna(subset=["sent_ns", "group"])
    group, sent_ns, end_ns = (floats(own[name]) for name in ("group", "sent_ns", "end_ns"))
    quiet, burst = group == _QUIET, group == _BURST
    if not quiet.any() or not burst.any() or too_many_failed(run, cell):
        return {"recovery_s": Value(None, 0)}
    begin_ns, last_ns = floats(own["scheduled_ns"])[burst].min(), sent_ns.max()
    before = _in_flight(sent_ns[quiet], end_ns[quiet], sent_ns[quiet]).max()
    looks_ns = np.sort(end_ns[(end_ns > sent_ns[burst].max()) & (end_ns <= last_ns)])
    calm_ns = looks_ns[_in_flight(sent_ns, end_ns, looks_ns) <= before]
    seconds = (calm_ns[0] - begin_ns) / 1e9 if len(calm_ns) else None
    return {"recovery_s": Value(seconds, int(burst.sum()))}


def too_many_failed(run: Run, cell: Cell) -> bool:
    """Return whether more than LOST_SHARE of a cell's requests failed, so that it did less than was asked."""
    failed = ~run.cell_requests(cell.number)["outcome"].isin(NOT_FAILED)
    return bool(failed.mean() > LOST_SHARE)


def _in_flight(sent_ns: np.ndarray, end_ns: np.ndarray, at_ns: np.ndarray) -> np.ndarray:
    """Return how many requests were in flight at these instants, those that end just then left out."""
    begun = np.searchsorted(np.sort(sent_ns), at_ns, side="right")
    return np.asarray(begun - np.searchsorted(np.sort(end_ns), at_ns, side="right"))
