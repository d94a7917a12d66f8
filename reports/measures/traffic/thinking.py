"""How long a model thinks before it answers."""

import numpy as np

from harness.contracts import timing
from reports.data import Cell, Run, floats
from reports.measures.metrics import Value, is_supported


def thinking_values(run: Run, cell: Cell) -> dict[str, Value]:
    """Return when the answer of a cell's requests began, and the share of their chunks before it."""
    own = run.ok_requests_with(cell.number, "first_answer_ns", "reasoning_chunks", "chunks")
    # Older runs have neither. No reasoning is written as none.
    own = own[own[["first_answer_ns", "reasoning_chunks"]].notna().any(axis=1)]
    seconds = (floats(own["first_answer_ns"]) - floats(own[timing.origin_of(cell.load)])) / 1e9
    # One that ended while it was still thinking is later than any that was answered.
    seconds[np.isnan(seconds)] = np.inf
    median = float(np.median(seconds)) if is_supported(50, len(own)) else np.inf
    chunks, thought = int(own["chunks"].sum()), int(own["reasoning_chunks"].sum())
    return {
        "first_answer_s": Value(median if np.isfinite(median) else None, len(own)),
        "thinking_share": Value(thought / chunks if chunks else None, len(own)),
    }
