"""How fast a request is read and how fast it is answered, apart: llama-bench's pp and tg."""

import pandas as pd

from reports.data import Cell, Run, floats
from reports.measures.metrics import Value

COLUMNS = ("input_tokens", "cached_tokens", "output_tokens", "first_content_ns", "last_content_ns")


def rate_values(run: Run, cell: Cell) -> dict[str, Value]:
    """Return both rates of a cell. Tokens that a server does not say were cached count as read."""
    ok = run.ok_requests(cell.number, "ttft_s", *COLUMNS)
    # An answer that came at once took no time that is known.
    is_timed = (ok["output_tokens"] > 1) & (ok["last_content_ns"] > ok["first_content_ns"])
    several = ok[is_timed.fillna(False).astype(bool)]
    begun = ok[ok["ttft_s"].notna() & ok["input_tokens"].notna()]
    read = floats(begun["input_tokens"]) - floats(begun["cached_tokens"].fillna(0))
    made = floats(several["output_tokens"]) - 1
    made_s = (floats(several["last_content_ns"]) - floats(several["first_content_ns"])) / 1e9
    return {
        "prefill_tokens_per_s": rate(read.sum(), begun["ttft_s"].sum(), len(begun)),
        "decode_tokens_per_s": rate(made.sum(), made_s.sum(), len(several)),
    }


def rate(count: float, seconds: float, n: int) -> Value:
    """Return a count per second over n requests; None in no time."""
    return Value(float(count / seconds) if seconds > 0 else None, n)


def ended_per_s(cell: Cell, own: pd.DataFrame) -> Value:
    """Return how many of these requests per second ended in a cell's window and are ok, whether their user
    stays or not."""
    if cell.window_ns is None or cell.window_s is None:
        return Value(None, 0)
    begin_ns, end_ns = cell.window_ns
    inside = (own["outcome"] == "ok") & own["end_ns"].between(begin_ns, end_ns, inclusive="left")
    return Value(int(inside.sum()) / cell.window_s, int(inside.sum()))
