"""How long a model thinks before it answers."""

import numpy as np

from harness.contracts import timing
from reports.data import Cell, Run, floats
from reports.measures.metrics import Value, is_supported


def thinking_values(run: Run, cell: Cell) -> dict[str, Value]:
    """Return when the answer of a cell's requests began, and the share of their chunks before it."""
    own = run.ok_requests_with(cell.number, "first_answer_ns", "reasoning_chunks", "chunks")
    seconds = (floats(own["first_answer_ns"]) - floats(own[timing.origin_of(cell.load)])) / 1e9
    known = seconds[~np.isnan(seconds)]
    median = float(np.median(known)) if is_supported(50, len(known)) else None
    chunks, thought = int(own["chunks"].sum()), int(own["reasoning_chunks"].sum())
    return {
        "first_answer_s": Value(median, len(known)),
        "thinking_share": Value(thought / chunks if chunks else None, len(own)),
    }
