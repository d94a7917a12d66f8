"""Requests whose user goes away before they end, and what is generated for nobody."""

from reports.data import Cell, Run
from reports.measures.metrics import Value


def left_values(run: Run, cell: Cell) -> dict[str, Value]:
    """Return the shares of a cell's requests that were left, and of content chunks that came for them."""
    own = run.requests_with(cell.number, "chunks")
    own = own[own["in_window"].fillna(False).astype(bool)]
    chunks = own.groupby("outcome")["chunks"].sum()
    wasted, used = int(chunks.get("left", 0)), int(chunks.get("ok", 0))
    left, n = int((own["outcome"] == "left").sum()), len(own)
    return {
        "left_share": Value(left / n if n else None, n),
        "wasted_share": Value(wasted / (wasted + used) if wasted + used else None, n),
    }
