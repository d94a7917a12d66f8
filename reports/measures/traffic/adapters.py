"""Requests for LoRA adapters: which one a part of them is for, and how often another one follows."""

from harness.contracts import Adapter
from reports.data import Cell, Group, Run, floats, sent_in_window
from reports.measures.metrics import Value


def adapter_values(run: Run, cell: Cell) -> dict[str, Value]:
    """Return the share of a cell's requests that were sent next after one for another adapter."""
    own = sent_in_window(run.requests_with(cell.number, "group").dropna(subset=["sent_ns", "group"]))
    asked = floats(own.sort_values("sent_ns")["group"])
    n = max(len(asked) - 1, 0)
    return {"swap_share": Value(float((asked[1:] != asked[:-1]).mean()) if n else None, n)}


def adapters_of(group: Group) -> tuple[Adapter, ...]:
    """Return the adapters of a group's scenario; a request's `group` is a place in them."""
    records = (cell.record for cell in group.counted)
    return next((record.adapters for record in records if record), ())
