"""What the depth of a prompt costs: medians by depth, and the part of TTFT that grows with its square."""

from typing import cast

import numpy as np
import pandas as pd

from reports.data import Cell, Run, floats, once
from reports.measures.metrics import Value
from reports.measures.traffic.rates import rate_values

# A parabola goes through three points whatever they are.
DEPTHS_NEEDED = 4


@once
def by_number(run: Run, cell: Cell) -> dict[int, dict[str, Value]]:
    """Return the medians of a cell's ok requests by the scenario's `group`: of ttft_s, tpot_s, and input
    tokens that no cache had. However few they are: what shows them has their number beside them."""
    own = run.ok_requests_with(cell.number, "group")
    own = own.assign(read_tokens=own["input_tokens"] - own["cached_tokens"].fillna(0)).dropna(subset="group")
    return {
        int(cast(int, number)): {name: _median(rows[name]) for name in ("ttft_s", "tpot_s", "read_tokens")}
        for number, rows in own.groupby("group")
    }


def _median(values: "pd.Series[float]") -> Value:
    known = floats(values.dropna())
    return Value(float(np.median(known)) if len(known) else None, len(known))


def depth_values(run: Run, cell: Cell) -> dict[str, Value]:
    """Return the rates of a cell and the quadratic part of its TTFT."""
    found = by_number(run, cell).values()
    pairs = [(each["read_tokens"].value, each["ttft_s"].value) for each in found]
    known = [(tokens, seconds) for tokens, seconds in pairs if tokens and seconds]
    share = quadratic_share(*np.array(known).T) if len(known) >= DEPTHS_NEEDED else None
    n = sum(each["ttft_s"].n for each in found)
    return {**rate_values(run, cell), "quadratic_share": Value(share, n)}


def quadratic_share(tokens: np.ndarray, seconds: np.ndarray) -> float:
    """Return c n^2 / (a + b n + c n^2) at the deepest n, by least squares of relative errors: a depth counts
    as much as any other, however long it takes."""
    terms = np.vander(tokens / tokens.max(), 3, increasing=True)
    fitted, *_ = np.linalg.lstsq(terms / seconds[:, None], np.ones(len(seconds)))
    return float(fitted[2] / fitted.sum())
