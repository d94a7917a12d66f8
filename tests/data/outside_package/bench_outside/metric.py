"""The share of a request's time in which its answer came."""

from serving_bench.reports.data import Cell, Run
from serving_bench.reports.measures.metric import Metric, Value


def _answering_share(run: Run, cell: Cell) -> Value:
    ttft_s, e2e_s = (run.ok_values(cell.number, name) for name in ("ttft_s", "e2e_s"))
    shares = 1 - ttft_s / e2e_s
    return Value(float(shares.mean()) if len(shares) else None, len(shares))


METRIC = Metric(
    "answering_share",
    "time spent answering",
    "1 - TTFT / E2E, the mean over the window's ok requests",
    "client's stamps in requests.parquet",
    unit="share",
    shown_unit="%",
    better="-",
    shown_scale=100.0,
    is_additive=True,
    words=("more", "less"),
    value=_answering_share,
)
