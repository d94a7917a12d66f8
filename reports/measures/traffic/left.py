"""Users who go away before an answer ends: how many, who was answered in time, and what came for nobody.

No other value counts requests of users who would leave, since those that are answered in time are the quick
ones.
"""

from reports.data import Cell, Run
from reports.measures.metrics import Value
from reports.measures.traffic.rates import ended_per_s


def left_values(run: Run, cell: Cell) -> dict[str, Value]:
    """Return what became of a cell's requests whose users go away, and what all were answered per second."""
    own = run.requests_with(cell.number, "chunks")
    answered = ended_per_s(cell, own)
    own = own[own["in_window"].fillna(False).astype(bool)]
    chunks = own.groupby("outcome")["chunks"].sum()
    wasted, used = int(chunks.get("left", 0)), int(chunks.get("ok", 0))
    left, n = int((own["outcome"] == "left").sum()), len(own)
    impatient = own[~own["stays"].astype(bool)]
    in_time = int((impatient["outcome"] == "ok").sum())
    return {
        "left_share": Value(left / n if n else None, n),
        "in_time_share": Value(in_time / len(impatient) if len(impatient) else None, len(impatient)),
        "wasted_share": Value(wasted / (wasted + used) if wasted + used else None, n),
        "answered_per_s": answered,
    }
